#!/usr/bin/env node
// A message hub for the JSON messages between systems 2200 and 2300, over WebSockets.
// It answers base and extended requests; see README.md for its commands, options and controls.

import http from 'node:http';
import { pathToFileURL } from 'node:url';
import { WebSocketServer } from 'ws';

// ---------------------------------------------------------------- catalogue

const SENTENCES = {
  6: 'These messages are python dictionaries that are converted from/to python strings via the JSON serializer of the python standard library.',
  13: 'These messages would be sent only once and not be part of a longer session.',
  19: 'command: a string identifying the function to be executed.',
  20: 'payload: dict, arguments for the function to be executed.',
  21: 'version (request): str, the version number of the message format, which adheres to the semantic versioning rules.',
  37: 'status: "success" or "failure", depending on whether the command executed successfully.',
  38: 'payload: if "status" is "failure", a string describing the failure in more detail; if "success", a dict with the return value(s) of the executed command.',
  39: 'version (reply): str, the version number of the message format, which adheres to the semantic versioning rules.',
  53: 'Next to the key-value pairs already present in these messages, an extended message also contains session identifiers.',
  61: 'session_id: an arbitrary string, filled in in the request, which is copied into the response object.',
  78: 'session_id: the same session_id from the request, to validate the request and reply.',
};

// kind -> rows of [name, line, what the hub does wrong, how a client notices]
const BUG_ROWS = {
  history: [
    ['id-lost-after-malformed', 61, 'After a text that is not JSON, the next extended request of the connection is answered without session_id.',
      'Malformed text, then an extended request: the reply has no session_id.'],
    ['failure-text-in-success', 38, 'After a failure, the next success of a command without return values carries the text of the failure as payload.',
      'A failed execute, then initialize: status is "success" and payload is a string.'],
    ['failed-id-not-retried', 37, 'A session_id whose request failed is not answered when it is used again on the connection.',
      'A failed execute, then a valid one with the same session_id: no reply.'],
    ['answer-cached-by-id', 38, 'execute keeps the return values by session_id and gives them to another connection that uses the same session_id.',
      'Two connections, one after the other, use one session_id with different arguments: the second gets the return values of the first.'],
    ['base-reply-with-failed-id', 53, 'A base request after a failed extended request is answered with the session_id of the failed one.',
      'A failed extended request, then a base request: its reply has a session_id.'],
    ['version-taken-over', 39, 'After a request with a version that is no version number, replies of the connection carry that text as version.',
      'A request with version "one", then a valid one: its reply has version "one".'],
    ['dynamic-frozen', 38, 'From the third get_dynamic of a connection on, the values of the second are returned.',
      'get_dynamic three times with a change by the operator before each: the third is stale.'],
    ['seventh-failure-undescribed', 38, 'From the seventh failure of a connection on, failures have no payload.',
      'Seven failing requests on one connection: the last reply describes nothing.'],
    ['outcome-remembered', 37, 'A connection that has seen a command fail at the wish of the operator gets that failure again after the operator lifted it.',
      'The operator makes get_static fail and lifts it: the connection that asked meanwhile still gets "failure".'],
    ['arguments-kept', 20, 'calibrate without payload is run with the arguments of the previous calibrate of the connection.',
      'calibrate with arguments, then calibrate without payload: the earlier arguments are returned.'],
    ['third-equal-text-lost', 37, 'The third of three equal texts in a row on one connection is not answered.',
      'The same base request three times, each after the reply to the one before: two replies.'],
    ['session-bound-to-command', 19, 'A session_id stays bound to the command of its first success on the connection; a later request with it runs that command.',
      'initialize, then execute with the same session_id: the second reply has no return values.'],
    ['session-ended-by-terminate', 37, 'After a terminate that succeeded, its session_id is taken for ended: every later request with it fails.',
      'terminate, then get_static with the same session_id, on the same or another connection: "failure".'],
    ['unknown-remembered', 37, 'A connection that has asked for an unknown command gets the failure again after the operator has defined the command.',
      'A request for a command, its definition by the operator, the same request again: "failure"; on another connection "success".'],
    ['publish-payload-cached', 20, 'A command that is published again carries the payload of its first publish.',
      'The operator publishes one command twice with different payloads: both messages have the first payload.'],
    ['initialize-resets-dynamic', 38, 'A successful initialize sets the values of get_dynamic back to those at the start of the hub.',
      'The operator sets dynamic values, a client sends initialize, then get_dynamic: the values of the start.'],
  ],
  several: [
    ['sixth-outstanding-lost', 37, 'A request that arrives while five are outstanding on the connection is not answered.',
      'Six extended requests at once: five replies.'],
    ['fifth-evicts-first', 78, 'When a fifth request is outstanding, the first is answered with the session_id of the fifth.',
      'Five outstanding requests: one session_id comes twice, one not at all.'],
    ['ids-in-arrival-order', 78, 'Replies take the session_ids in the order in which the requests arrived, not in which they finish.',
      'Two outstanding requests that finish in reverse order: each reply has the payload of the other.'],
    ['equal-outstanding-id-once', 37, 'Two outstanding requests of one connection with equal session_id are answered once.',
      'Two outstanding executes with one session_id: one reply.'],
    ['publish-drops-request', 37, 'A publish while two requests are outstanding on a connection makes the newer one unanswered.',
      'Two outstanding requests, a publish by the operator: one reply.'],
    ['publish-twice', 13, 'With three or more connections, the newest gets a published message twice.',
      'Three connections, one publish: the third gets it twice.'],
    ['failures-merged', 38, 'When a request fails, later failures of those outstanding on the connection describe the first failure.',
      'Two outstanding executes fail for different reasons: both replies give the reason of one.'],
    ['failure-spreads', 37, 'When one of at least three outstanding requests of a connection fails, the others get "failure" too, with their return values.',
      'Three outstanding executes, of which the first to finish fails: no "success", and failures whose payload is an object.'],
    ['base-takes-outstanding-id', 53, 'A base request that finishes while an extended one is outstanding is answered with the session_id of the latter.',
      'An outstanding execute and a base get_static: its reply has a session_id.'],
    ['arguments-of-other-command', 20, 'A request that arrives while another command is outstanding on the connection is run with the arguments of the latter.',
      'An outstanding execute, then calibrate with other arguments: calibrate returns those of execute.'],
    ['pipeline-aborted', 37, 'When a base request fails, the base requests that wait behind it on the connection are not answered.',
      'Three base requests at once, the first is an execute that fails after a while: one reply.'],
    ['publish-with-session', 13, 'A message published while a connection has two or more extended requests outstanding carries the session_id of the oldest of them.',
      'Two held executes, a publish by the operator: the published message has a session_id; with none or one outstanding it has none.'],
    ['equal-arguments-single-flight', 37, 'An extended request that has the command and arguments of an outstanding one of the connection is not answered.',
      'Two outstanding executes with different session_ids and equal arguments: only the first gets a reply.'],
    ['slots-of-four', 78, 'Connections are kept in four slots: replies for the first go to the fifth, as long as both are connected.',
      'Five connections, the first sends a request: it gets no reply, the fifth gets one.'],
  ],
  identity: [
    ['id-by-32-characters', 78, 'Outstanding session_ids of a connection that share their first 32 characters are all answered with the first one.',
      'Two outstanding requests whose ids differ in the 33rd character: one id comes twice.'],
    ['id-case-folded', 78, 'A session_id that differs only in case from an earlier one of the connection is answered with the earlier one.',
      'Requests "Job-a" and "job-A": the second reply has "Job-a".'],
    ['id-unicode-form', 78, 'A session_id that has the same NFC form as an outstanding one of any connection is answered with that one.',
      'Outstanding ids "e" + U+0301 and U+00E9: the second comes back in the form of the first.'],
    ['id-trimmed-key', 78, 'A session_id that equals an outstanding one of the connection but for outer white space is answered with that one.',
      'Outstanding ids "a" and "a ": one comes twice.'],
    ['id-numeric-key', 78, 'A session_id that has the same numeric value as an earlier one of the connection is answered with the earlier one.',
      'Requests "7" and "007": the second reply has "7".'],
    ['uuid-lower-case', 61, 'A session_id that is a UUID with upper-case digits comes back in lower case.',
      'A UUID in upper case as session_id.'],
    ['late-failure-latest-id', 78, 'A failure carries the session_id received last by the hub, from any connection.',
      'An execute that fails while a request of another connection is outstanding: the reply has the id of the other.'],
    ['reply-of-the-departed', 78, 'The reply for a client that has left goes to another client that uses an equal session_id.',
      'A client leaves with an outstanding request, another uses its session_id: it gets two replies, one with foreign values.'],
    ['same-id-two-clients', 78, 'When two connections have outstanding requests with an equal session_id, both replies go to the one that asked last.',
      'Two connections, one session_id at the same time: one gets two replies, the other none.'],
    ['command-case-folded', 19, 'Commands are looked up without regard to case; the one defined first is run.',
      'The operator defines "Measure" and "measure" with different return values: both give those of the first.'],
    ['command-by-32-characters', 19, 'Commands are looked up by their first 32 characters; the one defined first is run.',
      'Two defined commands that differ in the 33rd character: both give the return values of the first.'],
    ['id-prefix-of-outstanding', 78, 'A session_id that begins with an outstanding one of the connection is answered with that one.',
      'Outstanding ids "job-1" and "job-10": "job-1" comes twice.'],
    ['payload-id-overrides', 61, 'An argument session_id that is a string takes the place of the session_id of the request.',
      'calibrate with session_id "a" and the argument "session_id": "b": the reply has "b".'],
    ['uuid-hyphens-ignored', 78, 'A session_id that is the same UUID as an outstanding one of the connection, with or without hyphens, is answered with that one.',
      'Outstanding ids: a UUID, and the same without hyphens: one form comes twice.'],
    ['base-replies-crossed', 37, 'When base requests of two connections for the same command are outstanding, both replies go to the one that asked last.',
      'Two clients with an outstanding base execute: one gets two replies, the other none.'],
  ],
  neighbours: [
    ['disconnect-cancels-others', 37, 'When a client leaves with an outstanding request, outstanding requests of others for the same command are not answered.',
      'Two clients with an outstanding execute, one leaves: the other gets no reply.'],
    ['successor-unanswered', 37, 'When a client leaves with an outstanding request, the first request of the next new connection is not answered.',
      'A client leaves with an outstanding request, another connects: its first request gets no reply.'],
    ['malformed-fails-neighbour', 37, 'A text that is not JSON gives the next reply to another connection the status "failure", with the return values.',
      'Client A sends malformed text, client B a valid request: B gets "failure", and a payload that is an object.'],
    ['id-in-use-elsewhere', 61, 'A request with a session_id that is outstanding on another connection is answered without session_id.',
      'Two connections with the same outstanding session_id: the second reply has none.'],
    ['failure-after-failure-object', 38, 'A failure that follows a failure of another connection has an object as payload.',
      'Client A fails, then client B: the payload for B is no string.'],
    ['eldest-leaves-no-version', 39, 'When the client that is connected longest leaves while others stay, replies have no version from then on.',
      'A and B connect, A leaves, B asks: the reply has no version.'],
    ['silent-newcomer-no-values', 38, 'While the newest connection has not sent anything, execute of another connection is answered without return values.',
      'B connects and is silent, A executes: the reply has no payload.'],
    ['private-code-closes-others', 37, 'When a client closes with a code from 4000 to 4999, connections with outstanding requests are closed.',
      'A has an outstanding request, B closes with 4001: A gets no reply but a close.'],
    ['terminate-of-neighbour', 37, 'terminate of one client gives the outstanding requests of other clients the status "terminated".',
      'A has an outstanding execute, B sends terminate: A gets a status that is neither "success" nor "failure".'],
    ['empty-id-of-neighbour', 53, 'A request with session_id "" makes the next base request of another connection be answered with session_id "".',
      'A uses the session_id "", then B sends a base request: the reply for B has a session_id.'],
    ['departed-id-blocked', 37, 'The session_id of a request that was outstanding when its client left stays in use: requests with it fail.',
      'A client leaves with an outstanding request, another uses the same session_id: "failure".'],
    ['abrupt-leave-fails-others', 37, 'When a client goes without a close frame, the outstanding requests of the other clients fail.',
      'A has an outstanding execute, the TCP connection of B ends without a close frame: A gets "failure".'],
    ['limit-counted-hubwide', 37, 'The limit of outstanding requests of a connection is compared with the number of those of all connections.',
      'A has 64 outstanding requests, B sends its only one: "failure".'],
    ['late-failure-to-newcomer', 37, 'The failure of a request that is outstanding when another client connects goes to the newcomer.',
      'A has an outstanding execute that will fail, B connects: B gets the reply, A none.'],
  ],
  values: [
    ['empty-id-missing', 61, 'A session_id "" is taken for missing.', 'An extended request with session_id "": the reply has none.'],
    ['id-cut-at-255', 61, 'A session_id of more than 255 characters is cut.', 'A session_id of 256 characters.'],
    ['id-cut-at-nul', 61, 'A session_id is cut at U+0000.', 'A session_id with U+0000 in the middle.'],
    ['id-markup-escaped', 61, 'The characters <, > and & of a session_id come back as entities.', 'A session_id with <&>.'],
    ['id-digits-as-number', 61, 'A session_id of 1 to 15 digits comes back as a number.', 'The session_id "12345".'],
    ['id-prototype-name', 61, 'A session_id that is a member of every object is taken for missing.', 'The session_id "constructor" or "__proto__".'],
    ['id-null-text', 61, 'The session_ids "null", "None" and "undefined" are taken for missing.', 'The session_id "None".'],
    ['empty-payload-missing', 20, 'A payload {} is taken for missing.', 'execute with payload {}: "failure".'],
    ['falsy-arguments-dropped', 20, 'Arguments with the values "", 0, false and null are dropped.', 'execute with such arguments: they are not among the returned ones.'],
    ['big-integer-rounded', 6, 'Integers above 2^53 are rounded.', 'execute with 9007199254740993: 9007199254740992 comes back.'],
    ['id-of-65536-lost', 61, 'A session_id of 65,536 characters or more is not copied.', 'A session_id of 65,536 characters: the reply has none.'],
    ['returned-status-spills', 37, 'A return value with the name status takes the place of the status of the reply if it is a string.',
      'execute with the argument "status": "ready": the reply has the status "ready".'],
    ['id-bom-removed', 61, 'U+FEFF at the beginning of a session_id is removed.',
      'A session_id of U+FEFF and "a" comes back as "a".'],
    ['id-unescaped-twice', 61, 'Escapes in a session_id are resolved twice.',
      'A session_id with a reverse solidus and an n, as in C:\\new, comes back with a line feed.'],
    ['numeric-names-as-list', 20, 'Objects inside the arguments whose names are 0, 1 and so on come back as lists.',
      'execute with {"m": {"0": "a", "1": "b"}}: m is a list.'],
    ['dates-renormalised', 20, 'Arguments that are strings in the form of a date and time come back in UTC with milliseconds.',
      'execute with "2026-03-01T12:00:00+01:00": "2026-03-01T11:00:00.000Z" comes back.'],
  ],
  equivalents: [
    ['id-after-payload', 61, 'A session_id is not noticed when it stands after the payload.', 'An extended request with session_id as last member.'],
    ['payload-before-command', 20, 'The payload is not noticed when it stands before the command.', 'calibrate with the payload as first member: no arguments are returned.'],
    ['escaped-member-name', 6, 'session_id is not noticed when its name is written with an escape.', 'A request with "session\\u005fid".'],
    ['escaped-solidus', 61, 'When a text has the escape \\/, solidi in the session_id come back with a reverse solidus.', 'The session_id "a\\/b" must come back as a/b.'],
    ['space-before-colon', 6, 'White space before a colon makes a text malformed.', 'A request with "command" : "get_static".'],
    ['leading-line-feed', 6, 'A tab, line feed or carriage return before the first brace makes a text malformed.', 'A request that begins with a line feed.'],
    ['three-frames-lost', 6, 'A message in three or more frames is not answered.', 'A request in three frames.'],
    ['frames-decoded-singly', 61, 'The frames of a message are decoded one by one.', 'A request with a frame boundary inside a character of the session_id.'],
    ['escaped-surrogates', 61, 'A session_id with an escaped surrogate pair comes back with U+FFFD.', 'The session_id "\\ud83d\\ude00" is not returned as U+1F600.'],
    ['upper-hex-escape', 6, 'Escapes with upper-case hexadecimal digits are read as question marks.', 'The session_id "\\u00E9" comes back as "?".'],
    ['exponent-refused', 6, 'Arguments with a number with exponent make a request fail.', 'execute with 1E2: "failure"; with 100: "success".'],
    ['build-metadata-refused', 21, 'A version with build metadata is refused.', 'A request with version "0.1.0+b.7": "failure"; semver.org, rule 10: build metadata does not count.'],
    ['ping-between-frames', 6, 'A message with a ping between its frames is read from the ping on only.',
      'A request in two frames with a ping between them (RFC 6455, section 5.4): "failure" without session_id.'],
    ['empty-last-frame-lost', 6, 'A message whose last frame is empty is not answered.',
      'A request in one frame that is not final and an empty final one (RFC 6455, section 5.4): no reply.'],
    ['additional-status-is-reply', 37, 'A request with an additional member status is taken for a reply and not answered.',
      'get_static with "status": "new": no reply.'],
    ['patch-of-two-digits', 21, 'Versions whose patch number has more than one digit are refused.',
      'A request with version "0.1.10": "failure"; with "0.1.9": "success".'],
  ],
  'one-of-many': [
    ['terminate-status', 37, 'The extended reply to terminate has the status "ok".', 'An extended terminate.'],
    ['initialize-failure-version', 39, 'A failed initialize is answered with the version "0.1".', 'The operator makes initialize fail: the version is no semantic version.'],
    ['dynamic-failure-object', 38, 'A failed get_dynamic has an object as payload.', 'The operator makes get_dynamic fail: the payload is no string.'],
    ['calibrate-null-id', 53, 'A base request for calibrate without payload is answered with session_id null.', 'Base calibrate without payload.'],
    ['unknown-command-no-id', 78, 'The failure for an unknown command has no session_id.', 'An extended request with an unknown command.'],
    ['bad-version-no-id', 78, 'The failure for a version that is not served has no session_id.', 'An extended request with version "9.0.0".'],
    ['static-list', 38, 'get_static with a payload in the request returns a list.', 'get_static with payload {}: the payload of the reply is no object.'],
    ['initialize-null', 38, 'initialize with arguments is answered with payload null.', 'initialize with a non-empty payload: "success" with payload null.'],
    ['empty-reason-success', 37, 'An execute that fails for an empty reason is answered with "success".', 'execute with the argument "fail": "".'],
    ['publish-no-version', 21, 'A published message without payload has no version.', 'The operator publishes a command without payload.'],
    ['static-answered-twice', 13, 'A base request get_static with arguments is answered twice.', 'Base get_static with a non-empty payload: two replies.'],
    ['timed-calibrate-no-id', 78, 'The reply to a calibrate that takes time has no session_id.',
      'An extended calibrate with duration_ms: no session_id; execute with duration_ms: right.'],
    ['overflow-reply-no-version', 39, 'The failure for too many outstanding requests has no version.',
      'A request while 64 are outstanding on the connection: a reply without version.'],
    ['binary-failure-undescribed', 38, 'The failure for a binary message has no payload.',
      'A binary message: "failure" that describes nothing; malformed text: right.'],
    ['defined-base-empty-id', 53, 'A base request for a command that the operator defined is answered with session_id "".',
      'A defined command in a base request: the reply has a session_id.'],
  ],
};

const BUGS = Object.entries(BUG_ROWS).flatMap(([kind, rows]) =>
  rows.map(([name, line, does, seen]) => ({ name, kind, line, sentence: SENTENCES[line], does, seen })));

const VARIANTS = [
  ['member-order', 'Replies have their members in reverse order.', 'RFC 8259, section 4: an object is an unordered collection.'],
  ['additional-members', 'Replies have the additional members "served_by" and "elapsed".', 'Lines 35 to 39 list members and exclude no others.'],
  ['unescaped', 'Characters beyond ASCII are sent as UTF-8, not as escapes.', 'RFC 8259, section 7: escapes are optional.'],
  ['compact', 'No white space in messages.', 'RFC 8259, section 2: white space is insignificant.'],
  ['indented', 'Messages are indented over several lines.', 'RFC 8259, section 2: white space is insignificant.'],
  ['many-escapes', 'Solidi and some letters are sent as escapes.', 'RFC 8259, section 7: any character may be escaped.'],
  ['number-spelling', 'Small integers are sent as 5.0 or 5E0.', 'RFC 8259, section 6: spelling of numbers.'],
  ['fragmented', 'Messages are sent in several frames, cut anywhere.', 'RFC 6455, section 5.4.'],
  ['pings', 'The hub sends a ping every 50 ms.', 'RFC 6455, section 5.5.2: a ping may be sent at any time.'],
  ['unsolicited-pongs', 'The hub sends a pong before each reply.', 'RFC 6455, section 5.5.3.'],
  ['deflate', 'The hub accepts permessage-deflate.', 'RFC 6455, section 9: extensions are negotiated.'],
  ['subprotocol', 'The hub selects the first subprotocol that a client offers.', 'RFC 6455, section 1.9; the document names none.'],
  ['delayed', 'Each reply is sent 5 to 25 ms later.', 'The document sets no time.'],
  ['shuffled', 'Extended replies are sent after random times, so in any order.', 'Line 78: session_id ties a reply to its request; no order is set.'],
  ['serial', 'A connection is served one request at a time, in order.', 'The document sets no order and asks for no concurrency.'],
  ['base-concurrent', 'Base requests of a connection run at the same time, too.', 'Lines 11 to 13 set no order.'],
  ['payload-always', 'A success without return values has the payload {}.', 'Line 38: presence of payload depends on the command.'],
  ['version-patch', 'The hub replies with version 0.1.7.', 'Line 39: the version of the message format; it need not be that of the request.'],
  ['version-long', 'The hub replies with version 0.1.0-beta.2+build.7.', 'Line 39 and semver.org, rules 9 and 10.'],
  ['version-of-request', 'The hub replies with the version of the request, where it serves that.', 'Line 39.'],
  ['any-version', 'Requests of any version, or none, are served.', 'Line 21 does not say which versions are refused.'],
  ['silent-on-malformed', 'Texts that are no JSON object are not answered.', 'The document says nothing of them.'],
  ['close-on-malformed', 'A text that is no JSON object ends the connection with 1008.', 'The document says nothing of them; RFC 6455, section 7.4.1.'],
  ['failure-texts', 'Failures are described in other, longer texts with line feeds and characters beyond ASCII.', 'Line 38: a string; its text is free.'],
  ['binary-served', 'Binary messages are served like texts.', 'Lines 6 and 7: json.loads also takes bytes; the document does not name the frame type.'],
  ['nan-served', 'NaN and Infinity are read and written.', 'Lines 6 and 7: json.loads and json.dumps do so.'],
  ['odd-id-copied', 'A session_id that is no string is copied too.', 'Line 61 speaks of strings only.'],
  ['no-publish', 'Nothing is published.', 'Line 11 mentions publishing but asks for none.'],
  ['publish-with-payload', 'Published messages always have a payload.', 'Line 20: presence depends on the command.'],
  ['close-without-code', 'When it shuts down, the hub closes connections without a code.', 'RFC 6455, section 5.5.1: a close frame may have no body.'],
  ['empty-frames', 'Messages are sent with an empty first and an empty last frame.', 'RFC 6455, sections 5.2 and 5.4: a frame may be empty, a message has any number of frames.'],
  ['pings-inside-messages', 'Messages are sent in two frames with a ping between them.', 'RFC 6455, section 5.4: control frames may stand between the frames of a message.'],
  ['outer-white-space', 'Messages begin and end with line feeds, tabs and spaces.', 'RFC 8259, section 2: white space is insignificant, also around the object.'],
  ['newest-first', 'Extended replies are collected for 20 ms and sent in reverse order.', 'Line 78: session_id ties a reply to its request; no order and no time is set.'],
  ['failure-json-text', 'Failures are described by a string that is the JSON text of an object.', 'Line 38: a string; its text is free.'],
  ['payload-order', 'Return values come with the members of each object in reverse order.', 'RFC 8259, section 4: an object is an unordered collection.'],
  ['all-escaped', 'All characters of all strings and names are sent as escapes, with upper-case digits.', 'RFC 8259, section 7: any character may be escaped; the digits may be of either case.'],
  ['version-large-patch', 'The hub replies with version 0.1.18446744073709551616.', 'Line 39 and semver.org, rule 2: a number has no upper limit.'],
].map(([name, does, why]) => ({ name, does, why }));

const OPTIONS = {
  port: 0, // TCP port; 0: any free one
  seed: 1, // of the random numbers of variants
  version: '0.1.0', // version in the hub's messages; requests with the same major and minor number are served
  'max-bytes': 1048576, // longest message of a client
  'max-depth': 200, // deepest nesting of a message
  'max-outstanding': 64, // outstanding requests of a connection
  'max-duration': 10000, // ms, upper bound of the argument duration_ms
  'max-buffer': 67108864, // bytes unsent to a client before it is disconnected
};

// ---------------------------------------------------------------- JSON
// Objects are Maps (any member name is harmless), numbers keep their spelling (no digit is lost).

class Num {
  constructor(text) { this.text = text; }
  get value() { return Number(this.text); }
}

function parseJson(text, { maxDepth, nan }) {
  let at = 0;
  const fail = (what) => { throw new SyntaxError(`${what} at character ${at}`); };
  const space = () => { while (at < text.length && ' \t\n\r'.includes(text[at])) at++; };
  const NUMBER = nan ? /-?Infinity|NaN|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y : /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
  const PLAIN = /[^"\\\u0000-\u001f]*/y;
  const ESCAPES = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

  function string() {
    at++;
    const parts = [];
    for (;;) {
      PLAIN.lastIndex = at;
      const run = PLAIN.exec(text)[0];
      parts.push(run);
      at += run.length;
      const c = text[at];
      if (c === '"') { at++; return parts.join(''); }
      if (c !== '\\') fail('string not ended or control character in string');
      const e = text[at + 1];
      if (e === 'u') {
        const hex = text.slice(at + 2, at + 6);
        if (!/^[0-9a-fA-F]{4}$/.test(hex)) fail('bad escape');
        parts.push(String.fromCharCode(parseInt(hex, 16)));
        at += 6;
      } else {
        if (e === undefined || !Object.hasOwn(ESCAPES, e)) fail('bad escape');
        parts.push(ESCAPES[e]);
        at += 2;
      }
    }
  }

  function value(depth) {
    if (depth > maxDepth) fail('nested too deeply');
    space();
    const c = text[at];
    if (c === '"') return string();
    if (c === '{') {
      const map = new Map();
      at++;
      space();
      if (text[at] === '}') { at++; return map; }
      for (;;) {
        space();
        if (text[at] !== '"') fail('member name expected');
        const name = string();
        space();
        if (text[at] !== ':') fail('colon expected');
        at++;
        const v = value(depth + 1);
        map.delete(name); // as in Python, the last of equal names counts
        map.set(name, v);
        space();
        if (text[at] === '}') { at++; return map; }
        if (text[at] !== ',') fail('comma expected');
        at++;
      }
    }
    if (c === '[') {
      const list = [];
      at++;
      space();
      if (text[at] === ']') { at++; return list; }
      for (;;) {
        list.push(value(depth + 1));
        space();
        if (text[at] === ']') { at++; return list; }
        if (text[at] !== ',') fail('comma expected');
        at++;
      }
    }
    for (const [word, v] of [['true', true], ['false', false], ['null', null]]) {
      if (text.startsWith(word, at)) { at += word.length; return v; }
    }
    NUMBER.lastIndex = at;
    const m = NUMBER.exec(text);
    if (!m) fail('value expected');
    at += m[0].length;
    return new Num(m[0]);
  }

  const result = value(0);
  space();
  if (at < text.length) fail('text after the value');
  return result;
}

function writeString(s, style) {
  if (style.all) return '"' + [...Array(s.length).keys()].map((i) => '\\u' + s.charCodeAt(i).toString(16).toUpperCase().padStart(4, '0')).join('') + '"';
  let out = '"';
  for (let i = 0; i < s.length; i++) {
    const c = s[i];
    const n = s.charCodeAt(i);
    const lone = n >= 0xd800 && n <= 0xdfff
      && !(n < 0xdc00 ? (s.charCodeAt(i + 1) & 0xfc00) === 0xdc00 : i > 0 && (s.charCodeAt(i - 1) & 0xfc00) === 0xd800);
    if (c === '"' || c === '\\') out += '\\' + c;
    else if (c === '\n') out += '\\n';
    else if (c === '\r') out += '\\r';
    else if (c === '\t') out += '\\t';
    else if (c === '\b') out += '\\b';
    else if (c === '\f') out += '\\f';
    else if (style.escapes && c === '/') out += '\\/';
    else if (n < 0x20 || lone || (n > 0x7e && !style.unescaped) || (style.escapes && 'aeqs'.includes(c))) {
      out += '\\u' + n.toString(16).padStart(4, '0');
    } else out += c;
  }
  return out + '"';
}

function writeJson(v, style, depth = 0) {
  if (typeof v === 'string') return writeString(v, style);
  if (typeof v === 'number') v = new Num(String(v));
  if (v instanceof Num) {
    if (style.numbers && /^-?\d{1,15}$/.test(v.text)) return v.text + (style.random() < 0.5 ? '.0' : 'E0');
    return v.text;
  }
  if (v === null || typeof v === 'boolean') return String(v);
  const items = Array.isArray(v)
    ? v.map((x) => writeJson(x, style, depth + 1))
    : [...v].map(([k, x]) => writeString(k, style) + style.colon + writeJson(x, style, depth + 1));
  const [open, close] = Array.isArray(v) ? '[]' : '{}';
  if (style.indent && items.length) {
    const pad = '\n' + '  '.repeat(depth + 1);
    return open + pad + items.join(',' + pad) + '\n' + '  '.repeat(depth) + close;
  }
  return open + items.join(style.comma) + close;
}

const map = (object) => new Map(Object.entries(object));
const hasExponent = (v) => v instanceof Num ? /[eE]/.test(v.text)
  : Array.isArray(v) ? v.some(hasExponent) : v instanceof Map ? [...v.values()].some(hasExponent) : false;

const reversed = (v) => Array.isArray(v) ? v.map(reversed) : v instanceof Map ? new Map([...v].reverse().map(([k, x]) => [k, reversed(x)])) : v;
const dateUtc = (v) => {
  if (Array.isArray(v)) return v.map(dateUtc);
  if (v instanceof Map) return new Map([...v].map(([k, x]) => [k, dateUtc(x)]));
  const date = typeof v === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/.test(v) ? new Date(v) : null;
  return date && !Number.isNaN(date.getTime()) ? date.toISOString() : v;
};
const listsOfNumbered = (v, inner) => {
  if (Array.isArray(v)) return v.map((x) => listsOfNumbered(x, true));
  if (!(v instanceof Map)) return v;
  const items = [...v].map(([k, x]) => [k, listsOfNumbered(x, true)]);
  return inner && items.length && items.every(([k], i) => k === String(i)) ? items.map(([, x]) => x) : new Map(items);
};

// ---------------------------------------------------------------- versions

const SEMVER = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$/;

function serves(own, asked) {
  const a = SEMVER.exec(own);
  const b = typeof asked === 'string' ? SEMVER.exec(asked) : null;
  return Boolean(b) && a[1] === b[1] && a[2] === b[2];
}

// ---------------------------------------------------------------- hub

function randomNumbers(seed) {
  let s = (Number(seed) >>> 0) || 1;
  return () => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return s / 4294967296;
  };
}

const success = (payload) => ({ ok: true, payload });
const failure = (text) => ({ ok: false, payload: text });

// A list that forgets its oldest items.
function remember(list, item, max = 200) {
  list.push(item);
  if (list.length > max) list.shift();
}

class Hub {
  constructor(options = {}) {
    this.options = { ...OPTIONS, ...options };
    this.bugName = options.bug ?? null;
    this.variants = new Set(options.variants ?? []);
    this.random = randomNumbers(this.options.seed);
    this.version = this.has('version-patch') ? '0.1.7' : this.has('version-long') ? '0.1.0-beta.2+build.7'
      : this.has('version-large-patch') ? '0.1.18446744073709551616' : this.options.version;
    const tight = this.has('compact') || this.has('indented');
    this.style = {
      comma: tight ? ',' : ', ', colon: this.has('compact') ? ':' : ': ', indent: this.has('indented'),
      unescaped: this.has('unescaped'), escapes: this.has('many-escapes'), numbers: this.has('number-spelling'), random: this.random,
      all: this.has('all-escaped'),
    };
    this.connections = new Set();
    this.jobs = new Set(); // outstanding requests, in order of arrival
    this.waiting = new Set(); // controls that wait for a number of outstanding requests
    this.memory = { cache: new Map(), ended: new Set(), departed: new Set(), published: new Map(), slots: [] }; // used by bugs only
    this.reset();
  }

  bug(name) { return this.bugName === name; }
  has(name) { return this.variants.has(name); }

  reset() {
    this.defined = new Map();
    this.outcomes = new Map();
    this.holds = new Set();
    this.dynamic = this.firstDynamic();
    for (const job of [...this.jobs]) if (job.held) { job.held = false; this.complete(job); }
  }

  firstDynamic() { return map({ online: true, temperature: new Num('0.015') }); }

  // -------------------------------------------------- commands

  // Returns {needsPayload, run(args) -> outcome} or undefined.
  lookUp(name) {
    if (this.bug('command-case-folded')) {
      name = [...this.defined.keys()].find((k) => k.toLowerCase() === name.toLowerCase()) ?? name;
    }
    if (this.bug('command-by-32-characters')) {
      name = [...this.defined.keys()].find((k) => k.length > 32 && k.slice(0, 32) === name.slice(0, 32)) ?? name;
    }
    const own = this.defined.get(name);
    if (own) return { own: true, run: () => (own.failure !== undefined ? failure(this.words(own.failure)) : success(own.returns)) };
    switch (name) {
      case 'get_static':
        return { run: () => success(map({ name: 'simulator-one', qubits: 5, topology: [[0, 2], [1, 2], [3, 2], [4, 2]], gates: ['x', 'h', 'cz'], fidelity: new Num('0.9975') })) };
      case 'get_dynamic':
        return { run: () => success(this.dynamic) };
      case 'initialize':
      case 'terminate':
        return { run: () => success(undefined) };
      case 'execute':
        return { needsPayload: true, timed: true, run: (args) => this.algorithm(args) };
      case 'calibrate':
        return { timed: true, run: (args) => this.algorithm(args ?? new Map()) };
      default:
        return undefined;
    }
  }

  // The algorithm returns its arguments, or fails where the argument "fail" is a text.
  algorithm(args) {
    const reason = args.get('fail');
    if (typeof reason === 'string') return { ...failure(this.words('the algorithm failed: ' + reason)), reason };
    return success(args);
  }

  words(text) {
    if (this.has('failure-json-text')) return JSON.stringify({ status: 'error', reason: text, hints: [] });
    return this.has('failure-texts') ? `Fehler im Gerät \u2014 „${text}“\nNo further help is available.\n\u{1f6d1} <end>` : text;
  }

  // -------------------------------------------------- connections

  connect(ws) {
    const m = this.memory;
    const conn = {
      ws, jobs: new Set(), queue: [], running: 0, received: 0, closed: false, frames: [],
      ids: [], failures: 0, seenOutcomes: new Map(), bound: new Map(), unknown: new Set(), batch: [],
    };
    const numbers = [...this.connections].map((c) => c.number);
    conn.number = 0; // the lowest free one
    while (numbers.includes(conn.number)) conn.number++;
    m.slots[conn.number % 4] = conn;
    for (const job of this.jobs) job.newcomer = conn;
    if (m.muteNext) { conn.muteFirst = true; m.muteNext = false; }
    this.connections.add(conn);
    this.notify();
    if (['three-frames-lost', 'frames-decoded-singly', 'ping-between-frames', 'empty-last-frame-lost'].includes(this.bugName)) this.watchFrames(conn);
    ws.on('error', () => {});
    ws.on('message', (data, binary) => {
      try {
        this.onMessage(conn, data, binary);
      } catch (error) {
        console.error(error);
      }
    });
    ws.on('close', (code) => this.disconnect(conn, code));
  }

  // Keeps the frames of the last message of a connection.
  watchFrames(conn) {
    const receiver = conn.ws._receiver;
    const inner = receiver.dataMessage;
    receiver.dataMessage = function dataMessage(cb) {
      if (this._fin) {
        conn.frames = [...this._fragments];
        conn.emptyLast = this._payloadLength === 0 && conn.frames.length > 0;
        conn.sincePing = conn.pingAfter > 0 ? conn.frames.slice(conn.pingAfter) : undefined;
        conn.pingAfter = 0;
      }
      return inner.call(this, cb);
    };
    conn.ws.on('ping', () => { if (receiver._fragmented) conn.pingAfter = receiver._fragments.length; });
  }

  disconnect(conn, code) {
    const eldest = this.connections.values().next().value;
    conn.closed = true;
    this.connections.delete(conn);
    const left = [...conn.jobs];
    const others = [...this.jobs].filter((j) => j.conn !== conn);
    if (this.bug('abrupt-leave-fails-others') && code === 1006) for (const j of others) j.lost = true;
    for (const j of left) if (typeof j.id === 'string' && j.id.length < 2000 && this.memory.departed.size < 500) this.memory.departed.add(j.id);
    if (left.length) {
      if (this.bug('disconnect-cancels-others')) {
        for (const j of others) if (left.some((l) => l.command === j.command)) j.mute = true;
      }
      if (this.bug('successor-unanswered')) this.memory.muteNext = true;
    }
    if (this.bug('eldest-leaves-no-version') && eldest === conn && this.connections.size) this.memory.noVersion = true;
    if (this.bug('private-code-closes-others') && code >= 4000 && code <= 4999) {
      for (const other of this.connections) if (other.jobs.size) other.ws.close(1001);
    }
    conn.queue.length = 0;
    for (const job of left) {
      if (this.bug('reply-of-the-departed') && job.id !== undefined) { job.orphan = true; continue; }
      clearTimeout(job.timer);
      this.remove(job);
    }
    this.notify();
  }

  onMessage(conn, data, binary) {
    let text;
    if (binary && !this.has('binary-served')) return this.malformed(conn, 'a text message is expected', 'binary');
    try {
      text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
    } catch {
      return this.malformed(conn, 'the message is not UTF-8');
    }
    if (this.bug('three-frames-lost') && conn.frames.length >= 3) return undefined;
    if (this.bug('frames-decoded-singly')) text = conn.frames.map((f) => f.toString('utf8')).join('');
    if (this.bug('empty-last-frame-lost') && conn.emptyLast) return undefined;
    if (this.bug('ping-between-frames') && conn.sincePing) text = Buffer.concat(conn.sincePing).toString('utf8');
    return this.receive(conn, text);
  }

  malformed(conn, why, refused) {
    conn.received++;
    conn.lastText = undefined;
    conn.afterMalformed = true;
    for (const other of this.connections) if (other !== conn) other.neighbourMalformed = true;
    if (this.has('silent-on-malformed')) return;
    if (this.has('close-on-malformed')) { conn.ws.close(1008); return; }
    this.accept({ conn, id: undefined, command: '', refused, run: () => failure(this.words(why)) });
  }

  receive(conn, text) {
    let message;
    if (this.bug('upper-hex-escape')) text = text.replace(/\\u(?=[0-9a-f]{0,3}[A-F])[0-9a-fA-F]{4}/g, '?');
    try {
      if (this.bug('space-before-colon') && /"[ \t\r\n]+:/.test(text)) throw new SyntaxError('colon expected');
      if (this.bug('leading-line-feed') && /^[\t\r\n]/.test(text)) throw new SyntaxError('object expected');
      message = parseJson(text, { maxDepth: this.options['max-depth'], nan: this.has('nan-served') });
    } catch (error) {
      return this.malformed(conn, 'the message is not JSON: ' + error.message);
    }
    if (!(message instanceof Map)) return this.malformed(conn, 'the message is not an object');
    conn.received++;

    if (this.bug('additional-status-is-reply') && message.has('status')) return undefined;
    const names = [...message.keys()];
    let id = message.get('session_id');
    if (this.bug('escaped-member-name') && !text.includes('"session_id"')) id = undefined;
    if (this.bug('id-after-payload') && names.indexOf('payload') >= 0 && names.indexOf('session_id') > names.indexOf('payload')) id = undefined;
    let args = message.get('payload');
    if (this.bug('payload-before-command') && args !== undefined && names.indexOf('payload') < names.indexOf('command')) args = undefined;
    const command = message.get('command');
    const version = message.get('version');
    const job = { conn, command, args, version, size: text.length };

    if (typeof id === 'string') {
      job.id = id;
      job.replyId = this.copyId(id, text);
    } else if (id !== undefined && this.has('odd-id-copied')) {
      job.id = job.replyId = id;
    }
    const refuse = (why, reason) => { job.run = () => failure(this.words(why)); job.refused = reason; };
    if (id !== undefined && typeof id !== 'string' && !this.has('odd-id-copied')) refuse('session_id is not a string');
    else if (typeof command !== 'string') refuse('command is missing or not a string');
    else if (!this.has('any-version') && !serves(this.version, version)) refuse('the version is missing or not served', 'version');
    else if (this.bug('build-metadata-refused') && typeof version === 'string' && version.includes('+')) refuse('the version is not served');
    else if (this.bug('patch-of-two-digits') && /^\d+\.\d+\.\d\d/.test(version)) refuse('the version is not served');
    else if (this.bug('session-ended-by-terminate') && this.memory.ended.has(id)) refuse('the session has ended');
    else if (this.bug('departed-id-blocked') && this.memory.departed.has(id)) refuse('the session is in use');
    else if (args !== undefined && !(args instanceof Map)) refuse('payload is not an object');
    else if ((this.bug('limit-counted-hubwide') ? this : conn).jobs.size >= this.options['max-outstanding']) refuse('too many outstanding requests', 'overflow');
    else {
      if (this.bug('empty-payload-missing') && args?.size === 0) args = job.args = undefined;
      let known = this.lookUp(command);
      if (this.bug('unknown-remembered') && conn.unknown.has(command)) known = undefined;
      if (this.bug('session-bound-to-command') && known && typeof id === 'string') known = conn.bound.get(id) ?? known;
      if (!known && command.length < 200 && conn.unknown.size < 500) conn.unknown.add(command);
      if (!known) refuse('the command is not known', 'command');
      else if (known.needsPayload && args === undefined) refuse('the command needs a payload');
      else {
        job.known = known;
        job.run = () => known.run(job.args);
      }
    }
    if (job.refused === 'version' && typeof version === 'string' && !SEMVER.test(version)) conn.oddVersion = version;
    this.onArrival(job, text);
    return this.accept(job);
  }

  // The session_id as it goes into the reply.
  copyId(id, text) {
    if (this.bug('empty-id-missing') && id === '') return undefined;
    if (this.bug('id-cut-at-255')) return id.slice(0, 255);
    if (this.bug('id-cut-at-nul')) return id.split('\0')[0];
    if (this.bug('id-markup-escaped')) return id.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' }[c]));
    if (this.bug('id-digits-as-number') && /^[1-9]\d{0,14}$/.test(id)) return new Num(id);
    if (this.bug('id-prototype-name') && id in {}) return undefined;
    if (this.bug('id-null-text') && ['null', 'None', 'undefined'].includes(id)) return undefined;
    if (this.bug('id-of-65536-lost') && id.length >= 65536) return undefined;
    if (this.bug('id-bom-removed')) return id.replace(/^\ufeff/, '');
    if (this.bug('id-unescaped-twice')) return id.replace(/\\([nrt/"\\])/g, (_, c) => ({ n: '\n', r: '\r', t: '\t' }[c] ?? c));
    if (this.bug('escaped-solidus') && text.includes('\\/')) return id.replaceAll('/', '\\/');
    if (this.bug('escaped-surrogates') && /\\ud[89ab][0-9a-f]{2}/i.test(text)) return id.replace(/[\u{10000}-\u{10ffff}]/gu, '\ufffd\ufffd');
    if (this.bug('uuid-lower-case') && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)) return id.toLowerCase();
    return id;
  }

  // Bugs that compare a new request with earlier ones.
  onArrival(job, text) {
    const { conn, id, command } = job;
    const m = this.memory;
    const mine = [...conn.jobs];
    const all = [...this.jobs];
    const extended = typeof id === 'string';
    const alias = (earlier, same) => {
      const first = earlier.find((o) => typeof o.id === 'string' && o.id !== id && same(o.id));
      if (first) job.replyId = first.id;
    };
    if (extended) {
      if (this.bug('id-by-32-characters')) alias(mine, (x) => x.length > 32 && id.length > 32 && x.slice(0, 32) === id.slice(0, 32));
      if (this.bug('id-prefix-of-outstanding')) alias(mine, (x) => x !== '' && id.startsWith(x));
      if (this.bug('uuid-hyphens-ignored')) {
        const digits = (x) => (/^[0-9a-f]{8}(-?)([0-9a-f]{4}\1){3}[0-9a-f]{12}$/i.test(x) ? x.replaceAll('-', '') : null);
        alias(mine, (x) => digits(x) !== null && digits(x) === digits(id));
      }
      if (this.bug('equal-arguments-single-flight') && job.known) {
        const key = (o) => (o.args ? writeJson(o.args, { comma: ',', colon: ':' }) : '');
        if (mine.some((o) => o.known && typeof o.id === 'string' && o.command === command && key(o) === key(job))) job.mute = true;
      }
      if (this.bug('id-case-folded')) alias(conn.ids, (x) => x.toLowerCase() === id.toLowerCase());
      if (this.bug('id-unicode-form')) alias(all, (x) => x.normalize('NFC') === id.normalize('NFC'));
      if (this.bug('id-trimmed-key')) alias(mine, (x) => x.trim() === id.trim());
      if (this.bug('id-numeric-key') && /^\d{1,15}$/.test(id)) alias(conn.ids, (x) => /^\d{1,15}$/.test(x) && Number(x) === Number(id));
      if (this.bug('id-lost-after-malformed') && conn.afterMalformed) job.replyId = undefined;
      conn.afterMalformed = false;
      if (this.bug('failed-id-not-retried') && conn.failedIds?.includes(id)) job.mute = true;
      if (this.bug('equal-outstanding-id-once') && mine.some((o) => o.id === id)) job.mute = true;
      if (this.bug('id-in-use-elsewhere') && all.some((o) => o.conn !== conn && o.id === id)) job.replyId = undefined;
      if (this.bug('same-id-two-clients')) for (const o of all) if (o.conn !== conn && o.id === id) o.target = conn;
      if (this.bug('fifth-evicts-first') && mine.filter((o) => typeof o.id === 'string').length === 4) {
        mine.find((o) => typeof o.id === 'string').replyId = id;
      }
      if (this.bug('empty-id-of-neighbour') && id === '') for (const o of this.connections) if (o !== conn) o.strayId = '';
      if (id.length < 2000) remember(conn.ids, { id });
      m.lastId = id;
    } else {
      if (this.bug('base-replies-crossed')) for (const o of all) if (o.conn !== conn && o.id === undefined && o.command === command) o.target = conn;
      if (this.bug('base-reply-with-failed-id') && conn.failedIds?.length) job.replyId = conn.failedIds.pop();
      if (this.bug('empty-id-of-neighbour') && conn.strayId !== undefined) { job.replyId = conn.strayId; conn.strayId = undefined; }
      if (this.bug('calibrate-null-id') && command === 'calibrate' && job.args === undefined) job.replyId = null;
    }
    if (this.bug('payload-id-overrides') && typeof job.args?.get('session_id') === 'string') job.replyId = job.args.get('session_id');
    if (this.bug('sixth-outstanding-lost') && mine.length >= 5) job.mute = true;
    if (this.bug('third-equal-text-lost')) {
      conn.equal = conn.lastText === text ? conn.equal + 1 : 1;
      if (conn.equal === 3) job.mute = true;
      conn.lastText = text.length < 5000 ? text : undefined;
    }
    if (this.bug('successor-unanswered') && conn.muteFirst) { job.mute = true; conn.muteFirst = false; }
    if (this.bug('malformed-fails-neighbour') && conn.neighbourMalformed) { job.status = 'failure'; conn.neighbourMalformed = false; }
    if (this.bug('arguments-of-other-command')) {
      const other = mine.find((o) => o.known && o.command !== command && o.args);
      if (other && job.known) job.args = other.args;
    }
    if (this.bug('arguments-kept') && command === 'calibrate') {
      if (job.args) conn.keptArgs = job.args;
      else job.args = conn.keptArgs;
    }
    if (this.bug('falsy-arguments-dropped') && job.args) {
      job.args = new Map([...job.args].filter(([, v]) => (v instanceof Num ? v.value !== 0 : Boolean(v))));
    }
    if (this.bug('terminate-of-neighbour') && command === 'terminate') for (const o of all) if (o.conn !== conn) o.status = 'terminated';
  }

  // -------------------------------------------------- requests

  accept(job) {
    this.jobs.add(job);
    job.conn.jobs.add(job);
    job.queued = (this.has('serial') || (job.id === undefined && !this.has('base-concurrent')))
      && job.conn.jobs.size <= this.options['max-outstanding'];
    if (job.queued) {
      job.conn.queue.push(job);
      if (job.conn.queue.length === 1) this.start(job);
    } else this.start(job);
    this.notify();
  }

  start(job) {
    if (this.holds.has(job.command)) { job.held = true; return; }
    const asked = job.known?.timed ? job.args?.get('duration_ms') : undefined;
    const ms = asked instanceof Num && asked.value > 0 ? Math.min(asked.value, this.options['max-duration']) : 0;
    if (ms > 0) job.timer = setTimeout(() => this.complete(job), ms);
    else this.complete(job);
  }

  complete(job) {
    let outcome = job.run();
    const { conn, command } = job;
    if (job.known) {
      const forced = this.outcomes.get(command);
      if (forced !== undefined) {
        outcome = failure(this.words(forced));
        conn.seenOutcomes.set(command, outcome);
      } else if (this.bug('outcome-remembered') && conn.seenOutcomes.has(command)) outcome = conn.seenOutcomes.get(command);
    }
    if (this.bug('abrupt-leave-fails-others') && job.lost) outcome = failure('connection reset by peer');
    const members = this.reply(job, outcome);
    job.failed = !outcome.ok;
    if (this.has('newest-first') && typeof job.id === 'string') {
      if (conn.batch.push([job, members]) === 1) setTimeout(() => this.flush(conn), 20);
      return;
    }
    let wait = 0;
    if (this.has('delayed')) wait = 5 + this.random() * 20;
    if (this.has('shuffled') && typeof job.id === 'string') wait = this.random() * 25;
    if (wait) job.timer = setTimeout(() => this.finish(job, members), wait);
    else this.finish(job, members);
  }

  // Sends the replies that were collected, the newest first.
  flush(conn) {
    const batch = conn.batch.splice(0).reverse();
    for (const [job, members] of batch) this.finish(job, members);
  }

  finish(job, members) {
    let { conn } = job;
    const open = (c) => c && !c.closed;
    if (this.bug('slots-of-four') && open(this.memory.slots[conn.number % 4])) conn = this.memory.slots[conn.number % 4];
    if (this.bug('late-failure-to-newcomer') && job.failed && open(job.newcomer)) conn = job.newcomer;
    if (this.bug('pipeline-aborted') && job.failed && job.queued) for (const o of job.conn.queue) if (o !== job) o.mute = true;
    if (job.orphan) conn = [...this.connections].find((c) => c.ids.some((o) => o.id === job.id)) ?? conn;
    if (job.target && !job.target.closed) conn = job.target;
    const twice = this.bug('static-answered-twice') && job.command === 'get_static' && job.id === undefined && job.args?.size;
    if (!job.mute) for (let i = 0; i < (twice ? 2 : 1); i++) this.send(conn, members);
    this.remove(job);
    if (job.queued && job.conn.queue[0] === job) {
      job.conn.queue.shift();
      if (job.conn.queue.length) this.start(job.conn.queue[0]);
    }
  }

  remove(job) {
    this.jobs.delete(job);
    job.conn.jobs.delete(job);
    this.notify();
  }

  // Composes the members of the reply.
  reply(job, outcome) {
    const { conn, command, id } = job;
    const m = this.memory;
    const extended = typeof id === 'string';
    const mine = [...conn.jobs].filter((o) => o !== job);
    let { ok, payload } = outcome;
    if (this.bug('exponent-refused') && job.args && hasExponent(job.args)) ({ ok, payload } = failure('a number is not understood'));

    if (this.bug('failures-merged') && !ok && job.inherited !== undefined) payload = job.inherited;
    if (!ok) {
      conn.failures++;
      for (const o of mine) o.inherited ??= payload;
      if (this.bug('failure-spreads') && mine.length >= 2) for (const o of mine) o.status = 'failure';
      if (this.bug('late-failure-latest-id') && extended && m.lastId !== undefined) job.replyId = m.lastId;
      if (extended && id.length < 2000) remember(conn.failedIds ??= [], id);
    } else if (this.bug('failure-text-in-success') && payload === undefined && conn.failureText !== undefined) {
      payload = conn.failureText;
      conn.failureText = undefined;
    }
    if (ok && command === 'execute') {
      if (this.bug('answer-cached-by-id') && extended) {
        const kept = m.cache.get(id);
        if (kept && kept.conn !== conn) payload = kept.payload;
        else if (id.length < 2000 && job.size < 5000) m.cache.set(id, { conn, payload });
        if (m.cache.size > 500) m.cache.delete(m.cache.keys().next().value);
      }
      if (this.bug('silent-newcomer-no-values')) {
        const newest = [...this.connections].at(-1);
        if (newest && newest !== conn && newest.received === 0) payload = undefined;
      }
      if (this.bug('big-integer-rounded') && payload) {
        payload = new Map([...payload].map(([k, v]) => [k, v instanceof Num && /^-?\d{16,300}$/.test(v.text) ? new Num(String(BigInt(Number(v.text)))) : v]));
      }
    }
    if (ok && command === 'get_dynamic' && this.bug('dynamic-frozen')) {
      conn.dynamicSeen = (conn.dynamicSeen ?? 0) + 1;
      if (conn.dynamicSeen > 2) payload = conn.dynamicKept;
      else conn.dynamicKept = payload;
    }
    if (ok && payload === undefined && this.has('payload-always')) payload = new Map();
    if (!ok) {
      conn.failureText = payload;
      if (this.bug('failure-after-failure-object') && m.lastFailed && m.lastFailed !== conn) payload = map({ reason: payload });
      m.lastFailed = conn;
      if (this.bug('dynamic-failure-object') && command === 'get_dynamic') payload = map({ reason: payload });
    }
    if (ok && extended && id.length < 2000) {
      if (!conn.bound.has(id) && conn.bound.size < 500 && job.known) conn.bound.set(id, job.known);
      if (command === 'terminate' && m.ended.size < 500) m.ended.add(id);
    }
    if (this.bug('initialize-resets-dynamic') && command === 'initialize' && ok) this.dynamic = this.firstDynamic();
    const returned = ok && payload instanceof Map && job.known?.timed;
    if (this.bug('numeric-names-as-list') && returned) payload = listsOfNumbered(payload, false);
    if (this.bug('dates-renormalised') && returned) payload = dateUtc(payload);
    if (this.bug('binary-failure-undescribed') && job.refused === 'binary') payload = undefined;
    if (this.has('payload-order') && ok) payload = reversed(payload);
    let status = ok ? 'success' : 'failure';
    if (this.bug('returned-status-spills') && returned && typeof payload.get('status') === 'string') status = payload.get('status');
    if (this.bug('terminate-status') && command === 'terminate' && extended && ok) status = 'ok';
    if (this.bug('empty-reason-success') && command === 'execute' && outcome.reason === '') status = 'success';
    if (this.bug('seventh-failure-undescribed') && !ok && conn.failures >= 7) payload = undefined;
    if (job.status) status = job.status;
    if (this.bug('static-list') && command === 'get_static' && ok && job.args && payload) payload = [...payload.values()];
    if (this.bug('initialize-null') && command === 'initialize' && ok && job.args?.size) payload = null;

    let { version } = this;
    if (this.has('version-of-request') && serves(version, job.version)) version = job.version;
    if (this.bug('version-taken-over') && conn.oddVersion !== undefined && job.refused !== 'version') version = conn.oddVersion;
    if (this.bug('initialize-failure-version') && command === 'initialize' && !ok) version = '0.1';
    if (this.bug('eldest-leaves-no-version') && m.noVersion) version = undefined;

    if (this.bug('overflow-reply-no-version') && job.refused === 'overflow') version = undefined;

    if (this.bug('timed-calibrate-no-id') && command === 'calibrate' && job.args?.get('duration_ms')?.value > 0) job.replyId = undefined;
    if (this.bug('defined-base-empty-id') && job.known?.own && id === undefined) job.replyId = '';
    if (this.bug('ids-in-arrival-order') && extended) {
      const first = [...conn.jobs].find((o) => typeof o.id === 'string');
      if (first && first !== job) [first.replyId, job.replyId] = [job.replyId, first.replyId];
    }
    if (this.bug('base-takes-outstanding-id') && id === undefined) job.replyId = mine.find((o) => typeof o.id === 'string')?.id;
    if (this.bug('unknown-command-no-id') && job.refused === 'command') job.replyId = undefined;
    if (this.bug('bad-version-no-id') && job.refused === 'version') job.replyId = undefined;

    return [['session_id', job.replyId], ['status', status], ['payload', payload], ['version', version]];
  }

  // -------------------------------------------------- sending

  send(conn, members) {
    const { ws } = conn;
    if (ws.readyState !== 1) return;
    if (this.has('additional-members')) members = [...members, ['served_by', 'hub-1'], ['elapsed', new Num('0.25')]];
    if (this.has('member-order')) members = [...members].reverse();
    let text = writeJson(new Map(members.filter(([, v]) => v !== undefined)), this.style);
    if (this.has('outer-white-space')) text = `\r\n\t ${text} \n\n`;
    if (this.has('unsolicited-pongs')) ws.pong('hello', false, () => {});
    if (this.has('fragmented') && text.length > 1) {
      const bytes = Buffer.from(text);
      const cuts = [0, 0, 0].map(() => Math.floor(this.random() * (bytes.length + 1))).sort((a, b) => a - b);
      [...cuts, bytes.length].forEach((end, i) => {
        ws.send(bytes.subarray(i ? cuts[i - 1] : 0, end), { binary: false, fin: i === cuts.length }, () => {});
      });
    } else if (this.has('empty-frames')) {
      ['', text, ''].forEach((part, i) => ws.send(part, { fin: i === 2 }, () => {}));
    } else if (this.has('pings-inside-messages')) {
      const bytes = Buffer.from(text);
      const half = bytes.length >> 1;
      ws.send(bytes.subarray(0, half), { binary: false, fin: false }, () => {});
      ws.ping('inside', false, () => {});
      ws.send(bytes.subarray(half), { binary: false, fin: true }, () => {});
    } else ws.send(text, () => {});
    if (ws.bufferedAmount > this.options['max-buffer']) ws.terminate();
  }

  publish(command, payload) {
    if (this.has('no-publish')) return 0;
    if (this.has('publish-with-payload')) payload ??= new Map();
    if (this.bug('publish-payload-cached')) {
      const { published } = this.memory;
      if (published.has(command)) payload = published.get(command);
      else if (published.size < 500) published.set(command, payload);
    }
    const everybody = [...this.connections];
    for (const conn of everybody) {
      const bare = this.bug('publish-no-version') && payload === undefined;
      const members = [['command', command], ['payload', payload], ['version', bare ? undefined : this.version]];
      const sessions = [...conn.jobs].filter((j) => typeof j.id === 'string');
      if (this.bug('publish-with-session') && sessions.length >= 2) members.unshift(['session_id', sessions[0].id]);
      this.send(conn, members);
      if (this.bug('publish-twice') && everybody.length >= 3 && conn === everybody.at(-1)) this.send(conn, members);
      if (this.bug('publish-drops-request') && conn.jobs.size >= 2) [...conn.jobs].at(-1).mute = true;
    }
    return everybody.length;
  }

  // -------------------------------------------------- controls

  notify() {
    for (const w of [...this.waiting]) if (w.ready()) w.done();
  }

  // Returns the answer as an object or a promise of one.
  control(name, body) {
    const text = (key) => {
      const v = body.get(key);
      if (typeof v !== 'string') throw new TypeError(`"${key}" must be a string`);
      return v;
    };
    const object = (key) => {
      const v = body.get(key);
      if (v !== undefined && !(v instanceof Map)) throw new TypeError(`"${key}" must be an object`);
      return v;
    };
    switch (name) {
      case 'define': {
        if (this.defined.size >= 1000) throw new TypeError('too many commands');
        const entry = { returns: object('returns'), failure: body.has('failure') ? text('failure') : undefined };
        this.defined.set(text('command'), entry);
        return { defined: this.defined.size };
      }
      case 'outcome':
        if (typeof body.get('failure') === 'string') {
          if (this.outcomes.size >= 1000) throw new TypeError('too many outcomes');
          this.outcomes.set(text('command'), body.get('failure'));
        } else this.outcomes.delete(text('command'));
        return { outcomes: this.outcomes.size };
      case 'dynamic':
        this.dynamic = body;
        return {};
      case 'publish':
        return { sent: this.publish(text('command'), object('payload')) };
      case 'hold':
        if (this.holds.size >= 1000) throw new TypeError('too many commands on hold');
        this.holds.add(text('command'));
        return { held: this.holds.size };
      case 'release': {
        const command = text('command');
        this.holds.delete(command);
        const jobs = [...this.jobs].filter((j) => j.held && j.command === command);
        if (body.get('order') === 'reverse') jobs.reverse();
        for (const job of jobs) { job.held = false; this.complete(job); }
        return { released: jobs.length };
      }
      case 'wait': {
        const number = (key, fallback) => (body.get(key) instanceof Num ? body.get(key).value : fallback);
        const jobs = number('outstanding');
        const connections = number('connections');
        if (this.waiting.size >= 100) throw new TypeError('too many waits');
        return new Promise((resolve) => {
          const w = {
            ready: () => (jobs ?? this.jobs.size) === this.jobs.size && (connections ?? this.connections.size) === this.connections.size,
            done: () => {
              clearTimeout(w.timer);
              this.waiting.delete(w);
              resolve({ outstanding: this.jobs.size, connections: this.connections.size });
            },
          };
          w.timer = setTimeout(w.done, Math.min(number('timeout_ms', 5000), 60000));
          this.waiting.add(w);
          this.notify();
        });
      }
      case 'reset':
        this.reset();
        return {};
      case 'shutdown':
        setImmediate(() => this.stop());
        return {};
      default:
        return undefined;
    }
  }

  onHttp(request, response) {
    const answer = (code, object) => {
      const body = JSON.stringify(object);
      response.writeHead(code, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
      response.end(body);
    };
    const path = (request.url ?? '').split('?')[0];
    const match = /^\/control\/([a-z]+)$/.exec(path);
    const chunks = [];
    let size = 0;
    request.on('error', () => {});
    request.on('data', (chunk) => {
      size += chunk.length;
      if (size <= 1048576) chunks.push(chunk);
    });
    request.on('end', async () => {
      try {
        if (!match) return answer(404, { error: 'not found' });
        if (request.method !== 'POST') return answer(405, { error: 'use POST' });
        if (size > 1048576) return answer(413, { error: 'too long' });
        const raw = Buffer.concat(chunks).toString('utf8').trim();
        const body = raw ? parseJson(raw, { maxDepth: this.options['max-depth'] }) : new Map();
        if (!(body instanceof Map)) return answer(400, { error: 'an object is expected' });
        const result = await this.control(match[1], body);
        return result === undefined ? answer(404, { error: 'no such control' }) : answer(200, { ok: true, ...result });
      } catch (error) {
        return answer(400, { error: String(error.message) });
      }
    });
  }

  // -------------------------------------------------- start and stop

  listen() {
    this.http = http.createServer((request, response) => this.onHttp(request, response));
    this.http.keepAliveTimeout = 1000;
    const o = { noServer: true, maxPayload: this.options['max-bytes'], perMessageDeflate: this.has('deflate') };
    o.handleProtocols = this.has('subprotocol') ? (offered) => offered.values().next().value : () => false;
    this.wss = new WebSocketServer(o);
    this.http.on('upgrade', (request, socket, head) => {
      socket.on('error', () => {});
      this.wss.handleUpgrade(request, socket, head, (ws) => this.connect(ws));
    });
    this.http.on('clientError', (error, socket) => socket.destroy());
    if (this.has('pings')) {
      this.pinger = setInterval(() => {
        for (const conn of this.connections) if (conn.ws.readyState === 1) conn.ws.ping('', false, () => {});
      }, 50);
    }
    return new Promise((resolve, reject) => {
      this.http.once('error', reject);
      this.http.listen(Number(this.options.port), '127.0.0.1', () => {
        this.port = this.http.address().port;
        resolve(this);
      });
    });
  }

  // Closes all connections; resolves when the port is free.
  stop() {
    if (this.stopped) return this.stopped;
    this.stopped = new Promise((resolve) => {
      clearInterval(this.pinger);
      for (const job of this.jobs) clearTimeout(job.timer);
      for (const w of [...this.waiting]) w.done();
      const sockets = [...this.connections].map((conn) => conn.ws);
      for (const ws of sockets) {
        if (this.has('close-without-code')) ws.close();
        else ws.close(1001);
      }
      const late = setTimeout(() => {
        for (const ws of sockets) ws.terminate();
        this.http.closeAllConnections();
      }, 1000);
      this.http.close(() => { clearTimeout(late); resolve(); });
      this.http.closeIdleConnections();
    });
    return this.stopped;
  }
}

export const bugs = BUGS;
export const variants = VARIANTS;
export const startHub = (options) => new Hub(options).listen();

// ---------------------------------------------------------------- command line

function parseArguments(argv) {
  const options = { variants: [] };
  const usage = (text) => { console.error(text); process.exit(2); };
  for (let i = 0; i < argv.length; i++) {
    const [flag, inline] = argv[i].split(/=(.*)/s);
    if (flag === '--list') { options.list = true; continue; }
    const value = inline ?? argv[++i];
    if (value === undefined) usage(`${flag} needs a value`);
    const name = flag.slice(2);
    if (flag === '--bug') {
      if (options.bug) usage('at most one bug');
      if (!BUGS.some((b) => b.name === value)) usage(`no bug ${value}`);
      options.bug = value;
    } else if (flag === '--variant') {
      if (!VARIANTS.some((v) => v.name === value)) usage(`no variant ${value}`);
      options.variants.push(value);
    } else if (flag.startsWith('--') && Object.hasOwn(OPTIONS, name)) {
      if (name === 'version' ? !SEMVER.test(value) : !/^\d+$/.test(value)) usage(`bad value of ${flag}`);
      options[name] = name === 'version' ? value : Number(value);
    } else usage(`no option ${flag}`);
  }
  return options;
}

async function main() {
  const options = parseArguments(process.argv.slice(2));
  if (options.list) {
    process.stdout.write(JSON.stringify({ bugs: BUGS, variants: VARIANTS }, null, 1) + '\n');
    return;
  }
  const hub = await startHub(options);
  process.stdout.write(`ws://127.0.0.1:${hub.port}\n`);
  const end = () => hub.stop().then(() => process.exit(0));
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
  const { stop } = hub;
  hub.stop = function stopAndEnd() { return stop.call(this).then(() => process.exit(0)); };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main().catch((error) => { console.error(String(error)); process.exit(1); });
}
