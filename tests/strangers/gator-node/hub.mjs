#!/usr/bin/env node
// A hub for Gator's websocket messages: a tier that accepts children (tiers, wrappers, tasks) and upward links,
// distributes `stop` downwards and passes `log` upwards. Correct by default. One bug and any number of legal
// variants can be switched on; see --list and README.md.

import http from 'node:http';
import { createRequire } from 'node:module';

const { WebSocket, WebSocketServer } = createRequire(import.meta.url)('ws');

// ---------------------------------------------------------------------------------------------------------------
// Catalogue
// ---------------------------------------------------------------------------------------------------------------

const S = {
  websocket: [1, 'Gator uses websockets to communicate (RFC 6455, section 5.5.2: a Ping is answered by a Pong).'],
  heartbeat: [3, 'Data is aggregated during regular heartbeat intervals.'],
  down: [6, 'Communication is bi-directional, so messages can also travel down through the hierarchy to perform '
    + 'operations like stopping all jobs currently running.'],
  json: [12, 'All messages travelling over the websocket connections are encoded in JSON.'],
  posted: [33, 'If `posted` is set to `true` the host silently consumes the message and emits no response unless the '
    + 'message fails to be decoded.'],
  success: [41, 'A successful response carries the action of the request.'],
  reason: [57, 'A failure response carries a reason.'],
  id: [63, 'If `req_id` is provided in the request it is always copied into the response (`rsp_id`).'],
  several: [64, 'Multiple outstanding messages may be sent to the host before responses are emitted.'],
  record: [73, 'The `log` action allows messages to be recorded in the database or forwarded to the console.'],
  up: [74, '`log` propagates upwards through the wrapper and tier hierarchy.'],
  timestamp: [94, '`timestamp` is the time when the message was created (defaults to the current time).'],
  severity: [95, '`severity` must be one of DEBUG, INFO, WARNING, ERROR or CRITICAL (defaults to INFO).'],
  message: [96, '`message` is the message to log.'],
  stop: [105, '`stop` is distributed by tiers to all child tiers and wrappers.'],
  schedule: [106, '`stop` also stops any further tasks from being scheduled.'],
  payload: [118, '`stop` requires no payload to be provided.'],
  either: [118, '`stop` can be sent either posted or non-posted.'],
  answer: [119, 'For a non-posted `stop` a response is emitted once the stop has been forwarded on to all children (but '
    + 'jobs may still be in the process of being terminated).'],
};

const BUGS = [
  // name, kind, sentence, does, seen
  ['posted-answered-after-error', 'history', S.posted,
    'Once a connection has been sent an error response, its posted messages are answered.',
    'Send an unknown action, then a posted log with a req_id: a response with that id arrives.'],
  ['posted-sticks', 'history', S.posted,
    'A request without `posted` is treated as posted if the previous one on the connection was.',
    'After a posted log, a stop or log without `posted` is not answered.'],
  ['id-lost-after-malformed', 'history', S.id,
    'The first request after a text that is not JSON is answered without its id.',
    'Send malformed text, read the error, send a request with a req_id: rsp_id is absent.'],
  ['second-malformed-silent', 'history', S.posted,
    'Only the first message of a connection that fails to be decoded is answered.',
    'Send malformed text twice: one error arrives instead of two.'],
  ['late-child-skipped', 'history', S.stop,
    'The list of children is fixed at the first stop. Children that join later are never told of a stop.',
    'Stop, connect a new child, stop again: the new child receives nothing.'],
  ['second-stop-unanswered', 'history', S.answer,
    'The second non-posted stop of a connection is forwarded but not answered.',
    'Send stop twice: one response.'],
  ['severity-remembered', 'history', S.severity,
    'A log without severity takes the severity of the last log on the same connection instead of INFO.',
    'Log with ERROR, then log without severity: the second travels up as ERROR.'],
  ['timestamp-remembered', 'history', S.timestamp,
    'A log without timestamp takes the timestamp of the last log on the same connection that had one.',
    'Log with an old timestamp, then without: the second travels up with the old one.'],
  ['log-muted-after-refusal', 'history', S.up,
    'The first valid log after a refused log on the same connection is acknowledged but goes nowhere.',
    'Log with a wrong severity, then a right one: the latter is answered with success and does not travel up.'],
  ['answer-by-foreign-id', 'history', S.id,
    'Results are cached by action and req_id over all connections. A request whose pair was used on another connection '
    + 'gets the old result and is not carried out.',
    'A sends a valid log with id 5, B sends an invalid log with id 5: B is told success.'],
  ['scheduling-resumes', 'history', S.schedule,
    'A second stop switches scheduling on again.',
    'Stop twice, then let a job arrive (/control/job): it is scheduled.'],
  ['retry-gets-old-error', 'history', S.record,
    'A request that repeats action and id of a request that failed on the same connection gets the old error and is not '
    + 'carried out.',
    'Send a log with a wrong severity, then the corrected log under the same req_id: an error, and nothing is recorded.'],
  ['refusing-child-untold', 'history', S.stop,
    'A child that has answered a forwarded stop with an error is not told of later stops.',
    'A child answers a stop with result error, then another stop is sent: the child receives nothing.'],
  ['draft-kept-after-refusal', 'history', S.message,
    'The message of a refused log fills the gap in the next log of the connection that has no message.',
    'Log with a message and a wrong severity (refused), then log without a message: success instead of an error.'],
  ['up-dead-after-gap', 'history', S.up,
    'A log that comes in after the last upward link has left ends the sending for good. Upward links that join later '
    + 'receive no logs.',
    'A parent leaves, a child logs, a parent joins, the child logs again: the parent receives nothing.'],
  ['malformed-carries-last-id', 'history', S.id,
    'The error for a text that fails to be decoded carries the id of the request before it on the connection.',
    'Send a request with a req_id, read the response, send malformed text: a second response with that id.'],

  ['stop-five-children', 'several', S.stop,
    'A stop is forwarded to at most five children.',
    'Connect six children beside the sender and stop: the sixth receives nothing.'],
  ['stop-skips-after-leave', 'several', S.stop,
    'After a child has left, the youngest child is skipped by stops.',
    'Connect three children, let the first leave, stop: the third receives nothing.'],
  ['burst-sixth-unanswered', 'several', S.several,
    'Of the requests outstanding at one time on a connection the sixth is not answered.',
    'Send six requests at once: five responses.'],
  ['outstanding-ids-swapped', 'several', S.id,
    'The first two responses to requests outstanding together carry each other\'s ids.',
    'Send a valid and an invalid request at once: the error carries the id of the valid one.'],
  ['simultaneous-stops-one-answer', 'several', S.answer,
    'While a stop of one connection is in hand, a stop of another one is forwarded but not answered.',
    'Two connections send stop at the same time: one of them gets no response.'],
  ['burst-after-stop-dropped', 'several', S.several,
    'Requests that are already outstanding behind a stop on the same connection are dropped.',
    'Send stop and log at once: the log is neither answered nor passed on.'],
  ['two-errors-one-answer', 'several', S.several,
    'Of several requests outstanding together that fail for the same reason only the first is answered.',
    'Send two unknown actions at once: one error.'],
  ['equal-logs-merged', 'several', S.up,
    'Equal logs that are outstanding together on a connection are passed on once.',
    'Send the same log twice at once: one log travels up.'],
  ['fifth-evicts-first', 'several', S.id,
    'The hub keeps four ids of outstanding requests. With five or more the first loses its id.',
    'Send five requests at once: the response to the first has no rsp_id.'],
  ['burst-error-spreads', 'several', S.several,
    'After a failed request, the requests outstanding behind it on the connection fail with the same reason.',
    'Send an unknown action and a valid log at once: both get an error.'],
  ['anonymous-burst-one-answer', 'several', S.several,
    'Of the responses without an id that are due together on a connection only the last is sent.',
    'Send three logs without req_id at once: one response.'],
  ['batch-boundary-log-lost', 'several', S.up,
    'Of logs that are outstanding together the 17th, which finds the batch of 16 full, is acknowledged but lost.',
    'Send 20 logs at once: 19 travel up.'],
  ['stop-behind-request-not-forwarded', 'several', S.stop,
    'A stop that is outstanding behind another request of the same connection is answered but not distributed.',
    'Send log and stop at once: the other children receive nothing.'],
  ['three-unanswered-stops', 'several', S.stop,
    'A child that has left three forwarded stops unanswered is not told of further ones.',
    'A child does not answer. Send four stops: it receives three.'],

  ['long-ids-collide', 'identity', S.id,
    'Ids with the same first 32 characters are taken for the same id. Responses carry the one seen first.',
    'Use two ids of 40 characters that differ at the end, one after the other.'],
  ['ids-differ-in-case', 'identity', S.id,
    'Ids that differ only in case are taken for the same id. Responses carry the one seen first.',
    'Use "job-a" and then "JOB-A".'],
  ['ids-differ-in-form', 'identity', S.id,
    'Ids with the same Unicode normalisation form C are taken for the same id. Responses carry the one seen first.',
    'Use "\\u00e9" and then "e\\u0301".'],
  ['number-and-text-ids', 'identity', S.id,
    'A number and a string of the same digits are taken for the same id. Responses carry the one seen first.',
    'Use 23 and then "23".'],
  ['error-to-namesake', 'identity', S.id,
    'An error response goes to another open connection if that one\'s latest request had the same id.',
    'A sends a log with id 7, then B sends an unknown action with id 7: A receives B\'s error.'],
  ['stop-answer-to-latest', 'identity', S.answer,
    'While stops of several connections are in hand, all responses go to the connection that asked last.',
    'Two connections send stop at the same time: one receives both responses.'],
  ['action-of-last-in-burst', 'identity', S.success,
    'Responses to requests outstanding together all carry the action of the last one.',
    'Send log and stop at once: both responses say stop.'],
  ['child-answer-relayed', 'identity', S.id,
    'The response of a child to a forwarded stop is passed on to the sender of the stop, under the id of its request.',
    'Let a child answer the forwarded stop with an error: the sender gets a second response.'],
  ['log-cached-by-message', 'identity', S.timestamp,
    'Logs are cached by their text. An equal text travels up with timestamp and severity of the first.',
    'Two clients log the same text with different timestamps or severities.'],
  ['critical-log-sent-down', 'identity', S.up,
    'A log of severity CRITICAL is also sent down to the other children.',
    'One child logs CRITICAL: another child receives the log.'],
  ['posted-id-silences-namesake', 'identity', S.id,
    'The ids of posted requests are remembered. A non-posted request of the connection with such an id is not answered.',
    'Send a posted log with req_id "p", then a non-posted one with req_id "p": no response.'],
  ['hub-id-clash-swallowed', 'identity', S.id,
    'A request whose id equals that of a forwarded stop which its sender has not answered is taken for the answer and '
    + 'dropped.',
    'A child receives a stop with req_id N and sends a log with req_id N: no response.'],
  ['outstanding-prefix-id', 'identity', S.id,
    'Outstanding requests are found by the beginning of their id. If an earlier one is outstanding whose id is a prefix, '
    + 'the response carries that id.',
    'Send requests with the ids "job-1" and "job-10" at once: both responses carry "job-1".'],
  ['payload-id-wins', 'identity', S.id,
    'The payload is merged over the request: a member `req_id` in the payload replaces the id of the request.',
    'Send a log whose payload has an unknown member req_id: rsp_id is that of the payload.'],

  ['silent-child-blocks-stop', 'neighbours', S.answer,
    'The response to stop waits until every child has answered the forwarded stop.',
    'One child never answers: the sender of stop gets no response.'],
  ['departed-child-blocks-stop', 'neighbours', S.answer,
    'A child that leaves without having answered a stop is waited for by all later stops.',
    'A child receives a stop and closes without answering: the next stop is not answered.'],
  ['malformed-neighbour-mutes-logs', 'neighbours', S.up,
    'While a connection is open whose last message failed to be decoded, logs of the others do not travel up.',
    'A sends malformed text and stays. B\'s log is acknowledged but does not travel up.'],
  ['severity-of-neighbour', 'neighbours', S.severity,
    'A log without severity takes the severity of the last log of any other connection.',
    'A logs CRITICAL, B logs without severity: B\'s log travels up as CRITICAL.'],
  ['half-message-blocks', 'neighbours', S.several,
    'While one connection is in the middle of a fragmented message, requests of the others are not served.',
    'A sends a first frame without FIN. B\'s request is not answered until A completes the message.'],
  ['idle-three-starve', 'neighbours', S.id,
    'While three or more other connections have never sent a message, the first request of a connection is dropped.',
    'Connect three clients that stay silent, then a fourth: its first request is not answered.'],
  ['parent-leave-silences', 'neighbours', S.id,
    'After the last upward link has left, non-posted logs are not answered.',
    'Connect a parent, close it, send a non-posted log: no response.'],
  ['stop-mutes-other-logs', 'neighbours', S.up,
    'After a stop, logs of other connections than the one that asked for it do not travel up.',
    'A sends stop, then B logs: acknowledged, but not passed on.'],
  ['vanished-child-blocks-later', 'neighbours', S.stop,
    'A child whose connection ended without a Close frame stays in the list. Stops end at its place.',
    'The first child drops its connection, the second stays: a stop does not reach the second.'],
  ['invalid-utf8-neighbour', 'neighbours', S.id,
    'When a connection fails because of invalid UTF-8, the next message of every other connection is lost.',
    'A sends a text frame with bytes that are not UTF-8. The next request of B is not answered.'],
  ['same-id-outstanding', 'neighbours', S.id,
    'A request is not answered if another connection sent one with the same id within the last moments.',
    'Two connections send requests with the same id at the same time: one gets no response.'],
  ['stopper-leaves-resumes', 'neighbours', S.schedule,
    'When the connection that sent the last stop closes, jobs are scheduled again.',
    'A sends stop and closes, then a job arrives (/control/job): it is scheduled.'],
  ['parent-leave-drops-other-parent', 'neighbours', S.up,
    'When an upward link leaves, the youngest upward link is taken off the list instead.',
    'Connect two parents, let the first leave: logs do not reach the second.'],
  ['malformed-neighbour-drops-id', 'neighbours', S.id,
    'After a text that fails to be decoded, the next request of any other connection is answered without its id.',
    'A sends malformed text, B sends a request with a req_id: the response to B has no rsp_id.'],
  ['posted-of-neighbour', 'neighbours', S.posted,
    'A request without `posted` is treated as posted if the last request of the hub came from another connection and was '
    + 'posted.',
    'A sends a posted log, B sends a log without `posted`: B gets no response.'],
  ['leaver-logs-lost', 'neighbours', S.up,
    'Messages that a client sends directly before it closes are dropped.',
    'Send a posted log and close at once: the log does not travel up.'],

  ['falsy-id-missing', 'values', S.id,
    'The ids 0 and "" are taken for missing.',
    'Send a request with req_id 0: the response has no rsp_id.'],
  ['numeric-text-id', 'values', S.id,
    'An id that is a string of digits comes back as a number.',
    'Send req_id "42": rsp_id is 42.'],
  ['fraction-id-cut', 'values', S.id,
    'An id that is a fraction comes back as an integer.',
    'Send req_id 1.5: rsp_id is 1.'],
  ['id-cut-at-255', 'values', S.id,
    'Ids of 255 and more characters come back with 254.',
    'Send an id of 255 characters.'],
  ['prototype-id', 'values', S.id,
    'Ids that are names from an object\'s prototype are taken for missing.',
    'Send req_id "constructor": the response has no rsp_id.'],
  ['message-cut-64k', 'values', S.message,
    'Messages of 65,536 and more characters are cut to 65,535.',
    'Log a message of 65,536 characters and look at what travels up.'],
  ['markup-escaped', 'values', S.message,
    'The characters <, > and & are replaced with entities in what travels up.',
    'Log "a < b && c > d".'],
  ['nul-ends-message', 'values', S.message,
    'A message ends at U+0000.',
    'Log "a\\u0000b": "a" travels up.'],
  ['empty-message-missing', 'values', S.message,
    'An empty message is taken for a missing one.',
    'Log with message "": an error.'],
  ['zero-timestamp-missing', 'values', S.timestamp,
    'Timestamp 0 is taken for missing and replaced with the current time.',
    'Log with timestamp 0 and look at what travels up.'],
  ['timestamp-2038', 'values', S.timestamp,
    'Timestamps of 2^31 and more wrap to negative numbers.',
    'Log with timestamp 2147483648.'],
  ['structured-id-as-text', 'values', S.id,
    'An id that is an array or an object comes back as a string with its JSON text.',
    'Send req_id [1,"a"]: rsp_id is a string.'],
  ['kilobyte-multiple-unread', 'values', S.id,
    'A message whose length is a multiple of 1024 bytes is taken for unfinished and lost.',
    'Send a request of exactly 2048 bytes: no response.'],
  ['numeric-message-affinity', 'values', S.message,
    'A message of digits is stored as a number: it travels up as another type, without leading zeros.',
    'Log "007": the message that travels up is 7.'],
  ['large-timestamp-as-ms', 'values', S.timestamp,
    'Timestamps of 10^11 and more are taken for milliseconds and divided by 1000.',
    'Log with timestamp 253402300800 (the year 10000).'],

  ['id-after-payload-lost', 'equivalents', S.id,
    'An id that follows the payload in the request is not seen.',
    'Send the members in the order action, payload, req_id: the response has no rsp_id.'],
  ['posted-after-payload-ignored', 'equivalents', S.posted,
    '`posted` is not seen if it follows the payload in the request.',
    'Send a log with posted: true as its last member: it is answered.'],
  ['escaped-name-unknown', 'equivalents', S.json,
    'Member names written with \\u escapes are not recognised (RFC 8259, section 7).',
    'Send "\\u0061ction" for "action": an error.'],
  ['escaped-solidus-kept', 'equivalents', S.json,
    'The escape \\/ in a string is not decoded (RFC 8259, section 7).',
    'Log "a\\/b": the backslash travels up.'],
  ['surrogate-escapes-lost', 'equivalents', S.json,
    'A character written as an escaped surrogate pair becomes two U+FFFD (RFC 8259, section 7).',
    'Log "\\ud83d\\ude00" and look at what travels up.'],
  ['leading-newline-refused', 'equivalents', S.json,
    'Text that begins with a line feed is refused as malformed (RFC 8259, section 2).',
    'Send a line feed in front of a valid request: an error.'],
  ['fragments-answered-twice', 'equivalents', S.id,
    'A request that arrives in three or more frames is carried out and answered twice (RFC 6455, section 5.4).',
    'Send a request in three frames: two responses.'],
  ['empty-frame-loses-message', 'equivalents', S.id,
    'A fragmented message with an empty frame is lost (RFC 6455, section 5.4).',
    'Send a request in two frames, the last of them empty: no response.'],
  ['ping-inside-loses-message', 'equivalents', S.id,
    'A fragmented message with a ping between its frames is lost (RFC 6455, section 5.4).',
    'Send a first frame, a ping, a last frame: a pong, but no response.'],
  ['stop-needs-payload', 'equivalents', S.payload,
    'A stop without the member `payload` is refused. One with {} is served.',
    'Send {"action":"stop","req_id":1}: an error.'],
  ['exponent-timestamp-refused', 'equivalents', S.timestamp,
    'A timestamp written with an exponent is refused (RFC 8259, section 6).',
    'Log with timestamp 1.684696137e9: an error.'],
  ['split-character-lost', 'equivalents', S.message,
    'The frames of a message are decoded one by one: a character whose bytes lie in two frames becomes U+FFFD (RFC 6455, '
    + 'section 5.6).',
    'Send a log in two frames, cut within a character beyond ASCII.'],
  ['first-line-only', 'equivalents', S.json,
    'Only the first line of a text is decoded (RFC 8259, section 2: line feeds between tokens).',
    'Send a valid request that is indented over several lines: an error.'],
  ['spaced-colon-posted', 'equivalents', S.posted,
    '`posted` is not seen if there is white space before its colon, as in the examples of the document (line 23).',
    'Send a log with "posted" : true: it is answered.'],
  ['stop-without-posted-silent', 'equivalents', S.answer,
    'A stop without the member `posted` is treated as posted. One with `posted`: false is answered.',
    'Send {"action":"stop","req_id":1,"payload":{}}: forwarded, but no response.'],

  ['critical-becomes-error', 'one-of-many', S.severity,
    'CRITICAL travels up as ERROR. The others stay as they are.',
    'Log with CRITICAL and look at what travels up.'],
  ['debug-not-propagated', 'one-of-many', S.up,
    'Logs of severity DEBUG do not travel up.',
    'Log with DEBUG: acknowledged, nothing travels up.'],
  ['warn-accepted', 'one-of-many', S.severity,
    'WARN is accepted as a severity.',
    'Log with WARN: success instead of an error.'],
  ['posted-stop-answered', 'one-of-many', S.posted,
    'A posted stop is answered.',
    'Send stop with posted: true and a req_id: a response.'],
  ['posted-unknown-answered', 'one-of-many', S.posted,
    'A posted request of an unknown action is answered with an error.',
    'Send an unknown action with posted: true.'],
  ['malformed-posted-silent', 'one-of-many', S.posted,
    'Text that fails to be decoded is not answered if it contains "posted": true.',
    'Send a posted log cut off before its last brace: no error.'],
  ['parent-stop-not-forwarded', 'one-of-many', S.down,
    'A stop that comes from an upward link is answered but not distributed to the children.',
    'A parent sends stop: the children receive nothing.'],
  ['posted-stop-not-forwarded', 'one-of-many', S.either,
    'A posted stop is consumed but not distributed.',
    'Send stop with posted: true: the other children receive nothing.'],
  ['unknown-action-id-lost', 'one-of-many', S.id,
    'The error for an unknown action has no id. Other errors have one.',
    'Send an unknown action with a req_id: rsp_id is absent.'],
  ['missing-message-no-reason', 'one-of-many', S.reason,
    'The error for a log without message has no reason. Other errors have one.',
    'Send a log with an empty payload: `reason` is absent.'],
  ['array-unanswered', 'one-of-many', S.posted,
    'JSON text that is an array gets no response. Other messages that are no requests get an error.',
    'Send []: no response.'],
  ['posted-refused-log-answered', 'one-of-many', S.posted,
    'A posted log that is refused is answered with an error. Other posted requests are not answered.',
    'Send a posted log with a wrong severity: an error arrives.'],
  ['parent-log-unrecorded', 'one-of-many', S.record,
    'A log from an upward link is acknowledged but not recorded. Those of children are.',
    'A parent sends a log: it is not among the records (/control/records).'],
  ['empty-ping-unanswered', 'one-of-many', S.websocket,
    'A ping without application data is not answered. Others are.',
    'Send an empty ping: no pong.'],
  ['parent-errors-silent', 'one-of-many', S.id,
    'Errors are not sent to upward links. Successful responses are.',
    'A parent sends an unknown action with a req_id: no response.'],
].map(([name, kind, [line, sentence], does, seen]) => ({ name, kind, line, sentence, does, seen }));

const VARIANTS = [
  ['member-order', 'Outgoing objects have their members in reverse order.', 'RFC 8259, section 4: objects are unordered.'],
  ['extra-members', 'Responses carry the unknown members `host` and `elapsed`.',
    'Lines 39-58 show the formats and exclude no further members.'],
  ['action-in-error', 'Failure responses also carry the action and an empty payload.',
    'Lines 53-58 exclude no further members.'],
  ['escaped-text', 'Outgoing strings have "/" and all characters beyond ASCII escaped.',
    'RFC 8259, section 7: any character may be escaped.'],
  ['spaced', 'Outgoing JSON is indented and surrounded by white space.', 'RFC 8259, section 2: insignificant white space.'],
  ['number-spelling', 'Outgoing integers are written with the fraction .0.',
    'RFC 8259, section 6: 23 and 23.0 are spellings of one number. Line 63 asks for the identifier, not its spelling.'],
  ['fragmented', 'Outgoing messages are sent in several frames, some of them empty, cut anywhere.',
    'RFC 6455, section 5.4: a message may be sent in any number of fragments.'],
  ['pings', 'The hub pings every client several times a second.', 'RFC 6455, section 5.5.2: at any time after the handshake.'],
  ['unsolicited-pongs', 'The hub sends pongs that nobody asked for.', 'RFC 6455, section 5.5.3: a unidirectional heartbeat.'],
  ['slow', 'Everything the hub sends is 15 ms late.', 'The document names no time limit.'],
  ['reordered', 'Responses to requests outstanding together on a connection are sent in reverse order.',
    'Lines 63-65: identifiers, not order, tie responses to outstanding requests.'],
  ['null-rsp-id', 'Responses to requests without req_id, and to undecodable text, carry rsp_id null.',
    'Line 63 speaks only of requests with an identifier. Lines 42 and 56 show the member.'],
  ['ack-payload', 'Successful responses carry details in their payload.',
    'Lines 44-47: a payload with members. None are fixed for log and stop.'],
  ['stop-posted-down', 'Forwarded stops are posted and have no id.', 'Line 118: stop can be sent either posted or non-posted.'],
  ['stop-keeps-id', 'Forwarded stops carry the id of the stop they come from, if it had one.',
    'Line 63: ids belong to a connection. The document does not say how a hub chooses its own.'],
  ['stop-text-id', 'The ids of the hub\'s own requests are strings.', 'Line 63: no type is given for identifiers.'],
  ['stop-to-sender', 'A stop is forwarded to the child that sent it, too.',
    'Line 105: "all child tiers and wrappers". Whether the sender counts is left open.'],
  ['stop-for-latecomers', 'A child that joins after a stop is sent a stop at once.',
    'Line 105: all children, and line 8: stopping all jobs. The document does not say what a latecomer is told.'],
  ['log-up-unposted', 'Logs travel up non-posted, with an id.', 'Line 100: posted is recommended for log, not required.'],
  ['log-up-late', 'Logs travel up at a heartbeat of 40 ms.', 'Line 3: data is aggregated during regular heartbeat intervals.'],
  ['log-up-extra', 'Logs that travel up carry the unknown payload member `source`, and a payload member the client added.',
    'Lines 92-96 exclude no further fields.'],
  ['own-logs', 'The hub sends logs of its own up when children join and leave and when it stops.',
    'Line 69: tiers support log. The document does not say that only clients log.'],
  ['discovers-tree', 'Each child is sent a request of another action, `tree`, when it joins.',
    'Lines 6-8: messages can travel down for operations like discovering the active tree.'],
  ['fraction-timestamp', 'The default of `timestamp` is a fraction.', 'Line 94: Unix timestamp, current time. No precision given.'],
  ['other-reasons', 'The reasons in errors are long texts with line feeds and non-ASCII characters.',
    'Line 57: an explanation, free text.'],
  ['strict-posted', 'A request whose `posted` is neither true nor false is refused.',
    'Line 33 says what true does. Lines 23 and 81 show Booleans only. Either way there is a response.'],
  ['null-is-missing', 'In a log, null for severity or timestamp is taken for a missing field.',
    'Lines 92-96 do not speak of null.'],
  ['any-message', 'A log message that is not a string is accepted and passed on as it is.', 'Line 96 gives no type.'],
  ['duplicates-refused', 'Objects with two members of the same name are refused.',
    'RFC 8259, section 4: behaviour with such objects is unpredictable.'],
  ['ids-as-doubles', 'Numbers in ids go through IEEE 754 double precision.',
    'RFC 8259, section 6: an implementation may limit range and precision.'],
  ['binary-refused', 'A binary message is answered with an error.', 'RFC 8259 text is text. The document does not name binary messages.'],
  ['binary-closes', 'A binary message closes the connection with code 1003.',
    'RFC 6455, section 7.4.1: data of a type the endpoint cannot accept.'],
  ['deflate', 'permessage-deflate is accepted if the client offers it.', 'RFC 7692, and RFC 6455, section 9.1.'],
  ['bom-ignored', 'A byte order mark in front of a message is ignored.', 'RFC 8259, section 8.1: parsers may ignore it.'],
  ['close-without-code', 'At its end the hub closes connections without a code.', 'RFC 6455, section 5.5.1: the body is optional.'],
  ['close-private-code', 'At its end the hub closes connections with code 4000 and a reason.',
    'RFC 6455, section 7.4.2: codes 4000-4999 are for private use.'],
  ['errors-late', 'Failure responses are sent 10 ms late, so that successful ones overtake them.',
    'Lines 63-65: identifiers, not order, tie responses to outstanding requests. No time limit is named.'],
  ['forward-staggered', 'A stop is forwarded to one child after another, in random order, 5 ms apart. The response follows the last.',
    'Line 105 names no order or time; line 119: a response once the stop has been forwarded on to all children.'],
  ['stop-bare-down', 'Forwarded stops have no member `payload`.', 'Line 118: stop requires no payload to be provided.'],
  ['exponent-numbers', 'Outgoing integers are written with an exponent, 23 as 2.3e1.',
    'RFC 8259, section 6: 23 and 2.3e1 are spellings of one number. Line 63 asks for the identifier, not its spelling.'],
  ['heartbeat-up', 'Each upward link is sent a non-posted request of another action, `heartbeat`, every 50 ms.',
    'Lines 3-4: data is aggregated during regular heartbeat intervals. Line 69 does not exclude further actions.'],
  ['all-members', 'Responses have all members of both formats. Those that do not apply are null (`reason`, or `action` and `payload`).',
    'Lines 39-58 show the formats and exclude no further members.'],
  ['pings-inside', 'Outgoing messages are sent in two frames with a ping between them.',
    'RFC 6455, section 5.4: control frames may be injected in the middle of a fragmented message.'],
  ['salvaged-id', 'The error for text that cannot be decoded carries the req_id that can be recognised in the text.',
    'Line 63: an identifier that is provided is copied. The document does not say how far text that fails to be decoded is read.'],
  ['headers', 'The handshake response carries further header fields.', 'RFC 6455, section 4.2.2, and RFC 9110: unknown fields are ignored.'],
].map(([name, does, why]) => ({ name, does, why }));

// ---------------------------------------------------------------------------------------------------------------
// Options
// ---------------------------------------------------------------------------------------------------------------

const settings = {
  port: 0, // 0: any free port
  seed: 1, // for everything the hub chooses at random
  parent: '', // ws:// address of a parent to connect to
  heartbeat: 0, // ms between batches of logs on their way up, 0: at once
  records: 10000, // logs that the hub keeps
  'max-records': 33554432, // characters of all logs that the hub keeps, about
  jobs: 1000, // jobs that the hub keeps
  'stop-ms': 200, // ms a job needs to end when stopped
  'max-clients': 500,
  'max-message': 1048576, // bytes, larger ones close the connection with 1009
  'max-buffer': 16777216, // bytes waiting for a client that does not read, then it is dropped
  'max-depth': 256, // nesting of JSON
  'ping-ms': 0, // ms between pings to each client, 0: none
  console: 0, // 1: logs are printed to stderr
};
let activeBug = '';
const activeVariants = new Set();

function usage(text) {
  process.stderr.write(`${text}\nusage: hub.mjs [--list] [--bug NAME] [--variant NAME]... `
    + `${Object.entries(settings).map(([k, v]) => `[--${k} ${v === '' ? 'URL' : v}]`).join(' ')}\n`);
  process.exit(2);
}

const args = process.argv.slice(2);
while (args.length) {
  const arg = args.shift();
  if (arg === '--list') {
    console.log(JSON.stringify({ bugs: BUGS, variants: VARIANTS }, null, 1));
    process.exit(0);
  }
  const [, name, inline] = /^--([a-z-]+)(?:=(.*))?$/.exec(arg) ?? usage(`unknown argument ${arg}`);
  const value = inline ?? args.shift() ?? usage(`--${name} needs a value`);
  if (name === 'bug') {
    if (activeBug) usage('at most one --bug');
    if (!BUGS.some((b) => b.name === value)) usage(`unknown bug ${value}`);
    activeBug = value;
  } else if (name === 'variant') {
    if (!VARIANTS.some((v) => v.name === value)) usage(`unknown variant ${value}`);
    activeVariants.add(value);
  } else if (!Object.hasOwn(settings, name)) {
    usage(`unknown option --${name}`);
  } else if (typeof settings[name] === 'number') {
    settings[name] = /^\d+$/.test(value) ? Number(value) : usage(`--${name} needs a number`);
  } else {
    settings[name] = value;
  }
}
const bug = (name) => activeBug === name;
const variant = (name) => activeVariants.has(name);
if (variant('log-up-late')) settings.heartbeat ||= 40;
if (variant('pings')) settings['ping-ms'] ||= 100;

let seedState = settings.seed >>> 0;
function random(n) { // 0 <= result < n
  seedState = (seedState + 0x6d2b79f5) >>> 0;
  let t = Math.imul(seedState ^ (seedState >>> 15), 1 | seedState);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
}

// ---------------------------------------------------------------------------------------------------------------
// JSON. Numbers keep their spelling, so that what is copied stays as it was.
// ---------------------------------------------------------------------------------------------------------------

class Num {
  constructor(text) { this.text = text; }
}

class DecodeError extends Error {}

const ESCAPES = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;

// Objects become Map, arrays Array, numbers Num.
function parse(text) {
  let at = 0;
  const fail = (what) => { throw new DecodeError(`${what} at position ${at}`); };
  const space = () => { while (at < text.length && ' \t\n\r'.includes(text[at])) at += 1; };

  function string(isName) {
    at += 1;
    const begin = at;
    let out = '';
    let escaped = false;
    for (;;) {
      PLAIN.lastIndex = at;
      out += PLAIN.exec(text)[0];
      at = PLAIN.lastIndex;
      if (at >= text.length) fail('unterminated string');
      if (text[at] === '"') break;
      if (text[at] !== '\\') fail('control character in string');
      escaped = true;
      const c = text[at + 1];
      if (c === 'u') {
        const hex = text.slice(at + 2, at + 6);
        if (!/^[0-9a-fA-F]{4}$/.test(hex)) fail('bad \\u escape');
        const unit = parseInt(hex, 16);
        out += bug('surrogate-escapes-lost') && unit >= 0xd800 && unit < 0xe000 ? '\ufffd' : String.fromCharCode(unit);
        at += 6;
      } else if (c !== undefined && Object.hasOwn(ESCAPES, c)) {
        out += bug('escaped-solidus-kept') && c === '/' ? '\\/' : ESCAPES[c];
        at += 2;
      } else {
        fail('bad escape');
      }
    }
    if (isName && escaped && bug('escaped-name-unknown')) out = text.slice(begin, at);
    at += 1;
    return out;
  }

  function value(depth) {
    if (depth > settings['max-depth']) fail('nesting too deep');
    space();
    const c = text[at];
    if (c === '{') {
      const object = new Map();
      at += 1;
      space();
      if (text[at] === '}') { at += 1; return object; }
      for (;;) {
        space();
        if (text[at] !== '"') fail('member name expected');
        const name = string(true);
        if (object.has(name) && variant('duplicates-refused')) fail('duplicate member');
        space();
        if (text[at] !== ':') fail('colon expected');
        at += 1;
        object.set(name, value(depth + 1));
        space();
        if (text[at] === '}') { at += 1; return object; }
        if (text[at] !== ',') fail('comma expected');
        at += 1;
      }
    }
    if (c === '[') {
      const array = [];
      at += 1;
      space();
      if (text[at] === ']') { at += 1; return array; }
      for (;;) {
        array.push(value(depth + 1));
        space();
        if (text[at] === ']') { at += 1; return array; }
        if (text[at] !== ',') fail('comma expected');
        at += 1;
      }
    }
    if (c === '"') return string(false);
    for (const [word, meaning] of [['true', true], ['false', false], ['null', null]]) {
      if (text.startsWith(word, at)) { at += word.length; return meaning; }
    }
    NUMBER.lastIndex = at;
    const found = NUMBER.exec(text);
    if (!found) fail('value expected');
    at = NUMBER.lastIndex;
    return new Num(found[0]);
  }

  if (bug('leading-newline-refused') && text[0] === '\n') fail('value expected');
  if (variant('bom-ignored') && text[0] === '\ufeff') at = 1;
  const result = value(1);
  space();
  if (at < text.length) fail('text after the value');
  return result;
}

function printString(s) {
  const text = JSON.stringify(s);
  if (!variant('escaped-text')) return text;
  return text.replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).replace(/\//g, '\\/');
}

function printNumber(text) {
  if (variant('exponent-numbers') && /^-?\d+$/.test(text)) {
    const [, sign, first, rest] = /^(-?)(\d)(\d*)$/.exec(text);
    return `${sign}${first}${rest ? `.${rest}` : ''}e${rest.length}`;
  }
  return variant('number-spelling') && /^-?\d+$/.test(text) ? `${text}.0` : text;
}

// Prints Map, Array, Num, string, number, boolean and null. Members that are undefined are left out.
function print(v, indent = '') {
  if (v === null || typeof v === 'boolean') return String(v);
  if (typeof v === 'string') return printString(v);
  if (typeof v === 'number') return printNumber(String(v));
  if (v instanceof Num) return printNumber(v.text);
  const deeper = `${indent} `;
  const [gap, end, colon] = variant('spaced') ? [`\n${deeper}`, `\n${indent}`, ' :\t'] : ['', '', ':'];
  if (Array.isArray(v)) return `[${v.map((x) => gap + print(x, deeper)).join(',')}${end}]`;
  let members = [...v].filter(([, x]) => x !== undefined);
  if (variant('member-order')) members = members.reverse();
  return `{${members.map(([k, x]) => `${gap}${printString(k)}${colon}${print(x, deeper)}`).join(',')}${end}}`;
}

const object = (members) => new Map(Object.entries(members).filter(([, v]) => v !== undefined));
const idKey = (id) => (id instanceof Num ? id.text : typeof id === 'string' ? `"${id}` : print(id));

// A Map that forgets its oldest entry.
class Bounded extends Map {
  constructor(limit) { super(); this.limit = limit; }

  set(k, v) {
    super.set(k, v);
    if (this.size > (this.limit ?? Infinity)) this.delete(this.keys().next().value);
    return this;
  }
}

// ---------------------------------------------------------------------------------------------------------------
// Frames: reads the headers of what a client sends, to know how a message was cut.
// ---------------------------------------------------------------------------------------------------------------

class FrameReader {
  constructor() {
    this.header = [];
    this.skip = 0; // payload bytes still to come
    this.current = null; // the message that is open
    this.finished = []; // how the finished messages were cut, oldest first
  }

  feed(chunk) {
    let at = 0;
    while (at < chunk.length) {
      if (this.skip > 0) {
        const n = Math.min(this.skip, chunk.length - at);
        this.skip -= n;
        at += n;
        continue;
      }
      this.header.push(chunk[at]);
      at += 1;
      const h = this.header;
      if (h.length < 2) continue;
      const code = h[1] & 127;
      const lengthBytes = code === 126 ? 2 : code === 127 ? 8 : 0;
      if (h.length < 2 + lengthBytes + (h[1] & 128 ? 4 : 0)) continue;
      const length = lengthBytes ? h.slice(2, 2 + lengthBytes).reduce((sum, b) => sum * 256 + b, 0) : code;
      this.frame(h[0] >= 128, h[0] & 15, length);
      this.skip = length;
      this.header = [];
    }
  }

  frame(fin, opcode, length) {
    if (opcode >= 8) {
      if (this.current) this.current.controls += 1;
      return;
    }
    this.current ??= { frames: 0, empty: false, controls: 0, lengths: [] };
    this.current.frames += 1;
    if (this.current.frames <= 1000) this.current.lengths.push(length);
    if (length === 0) this.current.empty = true;
    if (fin) {
      if (this.finished.length < 10000) this.finished.push(this.current);
      this.current = null;
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------
// State
// ---------------------------------------------------------------------------------------------------------------

const links = new Set(); // all open connections, oldest first
const records = []; // logs
let recordBytes = 0; // about
const jobs = new Map();
let scheduling = true;
let stops = 0;
let nextRequest = 1 + random(1000);
const pendingUp = []; // logs that wait for the heartbeat
let pendingBytes = 0;
let upTimer = null;
let ending = false;

// State that only bugs use.
const resultCache = new Bounded(1000);
const logCache = new Bounded(1000);
const recentIds = new Bounded(1000);
let childLeft = false;
let knownChildren = null;
let owedByDeparted = false;
let lastSeverity = null;
let stopper = null;
let stopsInHand = 0;
let latestStopper = null;
let parentLeft = false;
let upDead = false;
let malformedBy = null;
let lastRequest = null; // { link, posted }

const DELAY = 150; // ms a stop is in hand, for bugs that concern simultaneous stops
const STAGGER = 5; // ms between children, for the variant forward-staggered
const GATHER = 3; // ms in which messages of one connection are taken together

const children = () => [...links].filter((l) => l.role === 'child');
const parents = () => [...links].filter((l) => l.role === 'parent');

// ---------------------------------------------------------------------------------------------------------------
// Connections
// ---------------------------------------------------------------------------------------------------------------

class Link {
  constructor(ws, role, socket) {
    this.ws = ws;
    this.role = role;
    this.queue = []; // messages not yet served
    this.queued = 0; // bytes
    this.timer = null;
    this.waiting = new Bounded(100); // requests of the hub that the peer has not answered
    this.sent = 0; // messages the peer has sent
    this.frames = null;
    // For bugs only.
    this.interned = new Bounded(64);
    this.lastId = undefined;
    this.hadError = false;
    this.malformed = 0;
    this.lastMalformed = false;
    this.loseId = false;
    this.lastPosted = false;
    this.stops = 0;
    this.muteNext = false;
    this.loseNext = false;
    this.severity = null;
    this.timestamp = null;
    this.failed = new Bounded(64);
    this.refused = false;
    this.draft = null;
    this.previousId = undefined;
    this.postedIds = new Bounded(64);
    this.unlisted = false;

    if (socket) {
      this.frames = new FrameReader();
      socket.prependListener('data', (chunk) => this.frames.feed(chunk));
    }
    ws.on('message', (data, isBinary) => this.receive(data, isBinary));
    ws.on('close', (code) => this.closed(code));
    ws.on('error', (error) => {
      if (bug('invalid-utf8-neighbour') && error.code === 'WS_ERR_INVALID_UTF8') {
        for (const other of links) if (other !== this) other.loseNext = true;
      }
    });
    links.add(this);
    if (settings['ping-ms'] || variant('unsolicited-pongs')) {
      this.pinger = setInterval(() => {
        if (ws.readyState !== WebSocket.OPEN) return;
        if (variant('unsolicited-pongs')) ws.pong('alive');
        if (settings['ping-ms']) ws.ping(String(random(1000)));
      }, settings['ping-ms'] || 100);
      this.pinger.unref();
    }
    if (bug('empty-ping-unanswered')) ws.on('ping', (data) => { if (data.length && ws.readyState === WebSocket.OPEN) ws.pong(data); });
    if (role === 'parent' && variant('heartbeat-up')) {
      this.beat = setInterval(() => {
        this.request('heartbeat', object({ children: children().length, logs: records.length }), { posted: false });
      }, 50);
      this.beat.unref();
    }
    if (role === 'child') {
      if (variant('own-logs')) ownLog('INFO', 'child joined');
      if (variant('discovers-tree')) this.request('tree', new Map(), { posted: false });
      if (variant('stop-for-latecomers') && !scheduling) this.request('stop', new Map(), { posted: false });
    }
  }

  closed(code) {
    clearInterval(this.pinger);
    clearInterval(this.beat);
    if (bug('stopper-leaves-resumes') && stopper === this) scheduling = true;
    if (bug('parent-leave-drops-other-parent') && this.role === 'parent') {
      const youngest = parents().filter((l) => !l.unlisted).at(-1);
      if (youngest) youngest.unlisted = true;
    }
    const vanished = bug('vanished-child-blocks-later') && this.role === 'child' && code === 1006;
    if (vanished) this.vanished = true;
    else links.delete(this);
    if (vanished && children().filter((l) => l.vanished).length > 20) links.delete(this);
    if (this.role === 'child') {
      childLeft = true;
      if ([...this.waiting.values()].some((w) => w.action === 'stop')) owedByDeparted = true;
      settleStops();
      if (variant('own-logs')) ownLog('INFO', 'child left');
    } else if (parents().length === 0) {
      parentLeft = true;
    }
  }

  // Messages of one connection that arrive together are served together, in their order.
  receive(given, isBinary) {
    let data = given;
    const cut = this.frames?.finished.shift() ?? { frames: 1, empty: false, controls: 0, lengths: [] };
    if (this.ws.readyState !== WebSocket.OPEN) return;
    if (isBinary && variant('binary-closes')) {
      this.serve();
      this.ws.close(1003);
      return;
    }
    this.sent += 1;
    if (bug('idle-three-starve') && this.sent === 1
      && [...links].filter((l) => l !== this && l.sent === 0).length >= 3) return;
    if (this.loseNext) {
      this.loseNext = false;
      return;
    }
    if (bug('empty-frame-loses-message') && cut.frames > 1 && cut.empty) return;
    if (bug('ping-inside-loses-message') && cut.controls > 0) return;
    if (bug('kilobyte-multiple-unread') && data.length > 0 && data.length % 1024 === 0) return;
    if (bug('split-character-lost') && cut.frames > 1 && cut.frames <= 1000) {
      let begin = 0;
      data = Buffer.from(cut.lengths.map((n) => data.subarray(begin, begin += n).toString()).join(''));
    }
    this.queue.push({ data, isBinary });
    this.queued += data.length;
    if (bug('fragments-answered-twice') && cut.frames > 2) this.queue.push({ data, isBinary });
    if (this.queue.length >= 1000 || this.queued > settings['max-message'] * 2) this.serve();
    else this.timer ??= setTimeout(() => this.serve(), GATHER);
  }

  serve() {
    clearTimeout(this.timer);
    this.timer = null;
    if (bug('half-message-blocks') && [...links].some((l) => l !== this && l.frames?.current)) {
      if (this.queue.length >= 1000 || this.queued > settings['max-message'] * 2) { this.queue = []; this.queued = 0; }
      this.timer = setTimeout(() => this.serve(), 10);
      return;
    }
    const batch = this.queue;
    this.queue = [];
    this.queued = 0;
    if (bug('leaver-logs-lost') && this.ws.readyState !== WebSocket.OPEN) return;
    const answers = [];
    const state = { seen: new Set(), dead: false, reason: null, served: 0, logs: 0, text: '' };
    for (const item of batch) {
      const answer = serveMessage(this, item, state);
      if (answer) answers.push(answer);
    }
    for (const answer of afterBurst(answers)) this.respond(answer);
  }

  respond(answer) {
    let { id } = answer;
    if (id === undefined && variant('null-rsp-id')) id = null;
    if (variant('ids-as-doubles') && id instanceof Num && Number.isFinite(Number(id.text))) id = new Num(String(Number(id.text)));
    if (answer.result === 'error') this.hadError = true;
    if (bug('parent-errors-silent') && answer.result === 'error' && this.role === 'parent') return;
    const extra = variant('extra-members') ? { host: 'hub', elapsed: new Num('0.25') } : {};
    if (answer.result === 'success') {
      this.transmit(object({ action: answer.action, rsp_id: id, result: 'success', payload: answer.payload, ...(variant('all-members') ? { reason: null } : {}), ...extra }));
      return;
    }
    const blank = variant('all-members') ? { action: null, payload: null } : {};
    const more = variant('action-in-error') && answer.action !== undefined ? { action: answer.action, payload: new Map() } : {};
    const reason = variant('other-reasons') ? `Error — 誤り:\n\t${answer.reason}. ${'It was not carried out. '.repeat(20)}` : answer.reason;
    const message = object({ result: 'error', rsp_id: id, reason, ...blank, ...more, ...extra });
    if (bug('error-to-namesake') && id !== undefined) {
      const other = [...links].find((l) => l !== this && l.lastId === idKey(id) && l.ws.readyState === WebSocket.OPEN);
      if (other) {
        other.transmit(message);
        return;
      }
    }
    if (variant('errors-late')) setTimeout(() => this.transmit(message), 10);
    else this.transmit(message);
  }

  // Sends a request of the hub to this peer. The answer, if any, is taken note of and nothing else.
  request(action, payload, { posted, id, origin }) {
    if (posted) {
      this.transmit(object({ action, posted: true, payload }));
      return;
    }
    const number = nextRequest++;
    const own = id ?? (variant('stop-text-id') ? `hub-${number}-${random(1e9).toString(36)}` : new Num(String(number)));
    this.waiting.set(idKey(own), { action, origin });
    this.transmit(object({ action, req_id: own, posted: false, payload }));
  }

  transmit(message) {
    const text = variant('spaced') ? ` \r\n${print(message)}\n\t ` : print(message);
    if (variant('slow')) setTimeout(() => this.write(text), 15);
    else this.write(text);
  }

  write(text) {
    const { ws } = this;
    if (ws.readyState !== WebSocket.OPEN) return;
    if (ws.bufferedAmount > settings['max-buffer']) {
      ws.terminate();
      return;
    }
    if (variant('pings-inside')) {
      const bytes = Buffer.from(text);
      const n = 1 + random(bytes.length - 1);
      ws.send(bytes.subarray(0, n), { binary: false, fin: false });
      ws.ping('inside');
      ws.send(bytes.subarray(n), { binary: false, fin: true });
      return;
    }
    if (!variant('fragmented')) {
      ws.send(text);
      return;
    }
    let rest = Buffer.from(text);
    while (rest.length > 1 && random(4) > 0) {
      const n = random(3) === 0 ? 0 : 1 + random(rest.length - 1);
      ws.send(rest.subarray(0, n), { binary: false, fin: false });
      rest = rest.subarray(n);
    }
    ws.send(rest, { binary: false, fin: true });
  }
}

// What happens to the answers of requests that were outstanding together.
function afterBurst(list) {
  let answers = list;
  if (bug('outstanding-ids-swapped') && answers.length > 1) {
    [answers[0].id, answers[1].id] = [answers[1].id, answers[0].id];
  }
  if (bug('action-of-last-in-burst')) {
    for (const a of answers) a.action = answers.at(-1).action ?? a.action;
  }
  if (bug('fifth-evicts-first') && answers.length >= 5) answers[0].id = undefined;
  if (bug('burst-sixth-unanswered')) answers = answers.filter((_, i) => i !== 5);
  if (bug('anonymous-burst-one-answer')) {
    const last = answers.findLast((a) => a.id === undefined);
    answers = answers.filter((a) => a.id !== undefined || a === last);
  }
  if (bug('outstanding-prefix-id')) {
    const texts = answers.map((a) => a.id).filter((id) => typeof id === 'string' && id !== '');
    for (const a of answers) if (typeof a.id === 'string') a.id = texts.find((id) => a.id.startsWith(id)) ?? a.id;
  }
  if (bug('two-errors-one-answer')) {
    answers = answers.filter((a, i) => a.result !== 'error'
      || answers.findIndex((b) => b.result === 'error' && b.reason === a.reason) === i);
  }
  if (variant('reordered')) {
    const named = answers.filter((a) => a.id !== undefined).reverse();
    answers = answers.map((a) => (a.id === undefined ? a : named.shift()));
  }
  return answers;
}

// ---------------------------------------------------------------------------------------------------------------
// Messages
// ---------------------------------------------------------------------------------------------------------------

const failure = (reason, id, action) => ({ result: 'error', reason, id, action });
const success = (action, id, details) => ({
  result: 'success', action, id, payload: variant('ack-payload') ? object({ accepted: true, ...details }) : new Map(),
});

// Serves one message and returns the answer, or null.
function serveMessage(link, { data, isBinary }, state) {
  let text = '';
  let message;
  try {
    if (isBinary && variant('binary-refused')) throw new DecodeError('a binary message');
    text = isBinary ? new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data) : data.toString();
    message = parse(bug('first-line-only') ? text.trim().split('\n')[0] : text);
  } catch (error) {
    link.malformed += 1;
    link.lastMalformed = true;
    link.loseId = true;
    malformedBy = link;
    if (bug('second-malformed-silent') && link.malformed > 1) return null;
    if (bug('malformed-posted-silent') && /"posted"\s*:\s*true/.test(text)) return null;
    const id = bug('malformed-carries-last-id') ? link.previousId : variant('salvaged-id') ? salvage(text) : undefined;
    return failure(`Failed to decode the message: ${error.message}`, id);
  }
  link.lastMalformed = false;
  if (!(message instanceof Map)) {
    if (bug('array-unanswered') && Array.isArray(message)) return null;
    return failure('A message must be an object');
  }
  if (bug('hub-id-clash-swallowed') && message.has('req_id') && link.waiting.delete(idKey(message.get('req_id')))) return null;
  state.text = text;
  state.served += 1;
  if (message.has('result') && !message.has('req_id')) {
    takeAnswer(link, message);
    return null;
  }
  return serveRequest(link, message, state);
}

// The req_id of a request that cannot be decoded, if it can be recognised.
function salvage(text) {
  const found = /^([^{]*\{[^{]*)"req_id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)\s*[,}]/.exec(text);
  try {
    return found ? parse(found[2]) : undefined;
  } catch {
    return undefined;
  }
}

function serveRequest(link, message, state) {
  const action = message.get('action');
  let id = readId(link, message);
  let posted = message.get('posted');
  const names = [...message.keys()];
  const behindPayload = (name) => names.includes('payload') && names.indexOf(name) > names.indexOf('payload');
  if (bug('posted-after-payload-ignored') && behindPayload('posted')) posted = undefined;
  if (bug('posted-sticks') && posted === undefined) posted = link.lastPosted;
  link.lastPosted = posted === true;
  if (bug('posted-of-neighbour') && posted === undefined && lastRequest && lastRequest.link !== link) posted = lastRequest.posted;
  lastRequest = { link, posted: posted === true };
  if (bug('spaced-colon-posted') && !state.text.includes('"posted":')) posted = undefined;
  if (bug('stop-without-posted-silent') && action === 'stop' && posted === undefined) posted = true;
  const inner = message.get('payload');
  if (bug('payload-id-wins') && inner instanceof Map && inner.has('req_id')) id = inner.get('req_id');
  if (malformedBy && malformedBy !== link) {
    malformedBy = null;
    if (bug('malformed-neighbour-drops-id')) id = undefined;
  }
  link.previousId = id;
  if (bug('id-after-payload-lost') && behindPayload('req_id')) id = undefined;
  if (bug('error-to-namesake')) link.lastId = id === undefined ? undefined : idKey(id);

  if (state.dead) return null;
  let answer;
  const cacheKey = id === undefined ? null : `${typeof action === 'string' ? action : ''}|${idKey(id)}`;
  const cached = cacheKey === null ? undefined : resultCache.get(cacheKey);
  if (bug('answer-by-foreign-id') && cached && cached.link !== link) {
    answer = { ...cached.answer, id };
  } else if (bug('retry-gets-old-error') && cacheKey !== null && link.failed.has(cacheKey)) {
    answer = { ...link.failed.get(cacheKey), id };
  } else if (bug('burst-error-spreads') && state.reason !== null) {
    answer = failure(state.reason, id);
  } else if (variant('strict-posted') && posted !== undefined && typeof posted !== 'boolean') {
    answer = failure('`posted` must be true or false', id, typeof action === 'string' ? action : undefined);
  } else {
    answer = carryOut(link, message, action, id, posted === true, state);
    if (bug('answer-by-foreign-id') && answer && cacheKey?.length < 1000) resultCache.set(cacheKey, { link, answer: { ...answer } });
  }
  if (bug('burst-error-spreads') && answer?.result === 'error') state.reason ??= answer.reason;
  if (bug('burst-after-stop-dropped') && action === 'stop') state.dead = true;
  if (!answer) return null;
  if (bug('retry-gets-old-error') && answer.result === 'error' && cacheKey?.length < 1000) link.failed.set(cacheKey, answer);

  if (bug('same-id-outstanding') && id !== undefined) {
    const key = idKey(id);
    const other = recentIds.get(key);
    const now = Date.now();
    recentIds.set(key, { link, now });
    if (other && other.link !== link && now - other.now < 250) return null;
  }
  if (bug('posted-id-silences-namesake') && id !== undefined) {
    if (posted === true) link.postedIds.set(idKey(id), true);
    else if (link.postedIds.has(idKey(id))) return null;
  }
  const answersPosted = (bug('posted-refused-log-answered') && action === 'log' && answer.result === 'error')
    || (bug('posted-answered-after-error') && link.hadError)
    || (bug('posted-stop-answered') && action === 'stop')
    || (bug('posted-unknown-answered') && answer.unknown);
  return posted === true && !answersPosted ? null : answer;
}

function readId(link, message) {
  if (!message.has('req_id')) return undefined;
  const id = message.get('req_id');
  if (link.loseId) {
    link.loseId = false;
    if (bug('id-lost-after-malformed')) return undefined;
  }
  if (id instanceof Num) {
    if (bug('falsy-id-missing') && Number(id.text) === 0) return undefined;
    if (bug('fraction-id-cut') && /[.eE]/.test(id.text)) return new Num(String(Math.trunc(Number(id.text))));
    if (bug('number-and-text-ids')) return intern(link, id.text, id);
  }
  if (bug('structured-id-as-text') && (id instanceof Map || Array.isArray(id))) return print(id);
  if (typeof id === 'string') {
    if (bug('falsy-id-missing') && id === '') return undefined;
    if (bug('numeric-text-id') && /^(0|[1-9]\d*)$/.test(id)) return new Num(id);
    if (bug('id-cut-at-255') && id.length >= 255) return id.slice(0, 254);
    if (bug('prototype-id') && id in {}) return undefined;
    if (bug('long-ids-collide') && id.length > 32) return intern(link, id.slice(0, 32), id);
    if (bug('ids-differ-in-case')) return intern(link, id.toLowerCase(), id);
    if (bug('ids-differ-in-form')) return intern(link, id.normalize('NFC'), id);
    if (bug('number-and-text-ids')) return intern(link, id, id);
  }
  return id;
}

function intern(link, key, id) {
  if (!link.interned.has(key)) link.interned.set(key, id);
  return link.interned.get(key);
}

function carryOut(link, message, action, id, posted, state) {
  if (typeof action !== 'string') return failure('A request needs an action', id);
  if (action === 'log') return log(link, message.get('payload'), id, state);
  if (action === 'stop') return stop(link, message, id, posted, state);
  const answer = failure(`Unknown action ${JSON.stringify(action.slice(0, 100))}`, bug('unknown-action-id-lost') ? undefined : id, action);
  answer.unknown = true;
  return answer;
}

// The answer of a peer to a request of the hub.
function takeAnswer(link, message) {
  const key = message.has('rsp_id') ? idKey(message.get('rsp_id')) : '';
  const waiting = link.waiting.get(key);
  link.waiting.delete(key);
  if (waiting?.action === 'stop' && message.get('result') === 'error') link.refused = true;
  if (waiting && bug('child-answer-relayed') && waiting.origin?.id !== undefined) {
    waiting.origin.link.transmit(new Map([...message, ['rsp_id', waiting.origin.id]]));
  }
  settleStops();
}

// ---------------------------------------------------------------------------------------------------------------
// log
// ---------------------------------------------------------------------------------------------------------------

const SEVERITIES = ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'];
const now = () => new Num(variant('fraction-timestamp') ? (Date.now() / 1000).toFixed(3) : String(Math.floor(Date.now() / 1000)));

// Checks the payload of a log. Returns the entry or the reason why there is none.
function readLog(link, payload) {
  if (!(payload instanceof Map)) return 'A log needs a payload';
  const given = (name) => payload.has(name) && !(variant('null-is-missing') && payload.get(name) === null);

  if (!payload.has('message')) return 'A log needs a message';
  const message = payload.get('message');
  if (typeof message !== 'string' && !variant('any-message')) return 'The message must be a string';
  if (message === '' && bug('empty-message-missing')) return 'A log needs a message';

  let severity = 'INFO';
  if (bug('severity-remembered')) severity = link.severity ?? severity;
  if (bug('severity-of-neighbour') && lastSeverity && lastSeverity.link !== link) severity = lastSeverity.severity;
  if (given('severity')) {
    severity = payload.get('severity');
    if (bug('warn-accepted') && severity === 'WARN') severity = 'WARNING';
    if (!SEVERITIES.includes(severity)) return `The severity must be one of ${SEVERITIES.join(', ')}`;
    link.severity = severity;
    lastSeverity = { link, severity };
  }

  let timestamp = (bug('timestamp-remembered') && link.timestamp) || now();
  if (given('timestamp')) {
    timestamp = payload.get('timestamp');
    if (!(timestamp instanceof Num)) return 'The timestamp must be a number';
    if (bug('exponent-timestamp-refused') && /[eE]/.test(timestamp.text)) return 'The timestamp must be a number';
    link.timestamp = timestamp;
    if (bug('zero-timestamp-missing') && Number(timestamp.text) === 0) timestamp = now();
    if (bug('large-timestamp-as-ms') && Number(timestamp.text) >= 1e11) timestamp = new Num(String(Number(timestamp.text) / 1000));
    if (bug('timestamp-2038') && Number(timestamp.text) >= 2 ** 31) timestamp = new Num(String(Number(timestamp.text) | 0));
  }
  const extra = variant('log-up-extra')
    ? new Map([...payload].filter(([name]) => !['timestamp', 'severity', 'message'].includes(name))) : new Map();
  return { timestamp, severity, message, extra };
}

function log(link, given, id, state) {
  let payload = given;
  if (bug('draft-kept-after-refusal') && payload instanceof Map && !payload.has('message') && link.draft !== null) {
    payload = new Map([...payload, ['message', link.draft]]);
    link.draft = null;
  }
  const entry = readLog(link, payload);
  if (typeof entry === 'string') {
    link.muteNext = true;
    const draft = payload instanceof Map ? payload.get('message') : undefined;
    if (typeof draft === 'string') link.draft = draft;
    const answer = failure(entry, id, 'log');
    if (bug('missing-message-no-reason') && payload instanceof Map && !payload.has('message')) answer.reason = undefined;
    return answer;
  }
  state.logs += 1;
  const muted = (bug('batch-boundary-log-lost') && state.logs % 17 === 0)
    || (bug('log-muted-after-refusal') && link.muteNext)
    || (bug('malformed-neighbour-mutes-logs') && [...links].some((l) => l !== link && l.lastMalformed))
    || (bug('stop-mutes-other-logs') && stopper !== null && stopper !== link)
    || (bug('debug-not-propagated') && entry.severity === 'DEBUG');
  link.muteNext = false;
  const same = `${idKey(entry.timestamp)}|${entry.severity}|${idKey(entry.message)}`;
  const repeated = bug('equal-logs-merged') && state.seen.has(same);
  state.seen.add(same);
  if (!muted && !repeated) propagate(entry, link);
  if (bug('critical-log-sent-down') && entry.severity === 'CRITICAL') {
    for (const child of children()) if (child !== link) child.request('log', logPayload(entry), { posted: true });
  }
  if (bug('parent-leave-silences') && parentLeft && parents().length === 0) return null;
  return success('log', id, { records: records.length });
}

function logPayload({ timestamp, severity, message, extra }) {
  const more = variant('log-up-extra') ? { source: 'hub', ...Object.fromEntries(extra ?? []) } : {};
  return object({ timestamp, severity, message, ...more });
}

// Records a log and passes it up. A log from a parent is recorded only.
function propagate(given, from) {
  const entry = { ...given };
  if (bug('log-cached-by-message')) {
    const key = idKey(entry.message);
    const first = logCache.get(key);
    if (first) Object.assign(entry, { timestamp: first.timestamp, severity: first.severity });
    else if (key.length < 1000) logCache.set(key, entry);
  }
  if (bug('critical-becomes-error') && entry.severity === 'CRITICAL') entry.severity = 'ERROR';
  if (typeof entry.message === 'string') {
    if (bug('message-cut-64k') && entry.message.length >= 65536) entry.message = entry.message.slice(0, 65535);
    if (bug('markup-escaped')) entry.message = entry.message.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
    if (bug('nul-ends-message')) [entry.message] = entry.message.split('\0');
  }
  if (bug('numeric-message-affinity') && /^-?\d+(\.\d+)?$/.test(entry.message)) entry.message = new Num(String(Number(entry.message)));
  if (bug('parent-log-unrecorded') && from?.role === 'parent') return;
  const size = 100 + (typeof entry.message === 'string' ? entry.message : print(entry.message)).length;
  records.push({ timestamp: entry.timestamp, severity: entry.severity, message: entry.message, size });
  recordBytes += size;
  while (records.length > settings.records || recordBytes > settings['max-records']) recordBytes -= records.shift().size;
  if (settings.console) process.stderr.write(`${entry.timestamp.text} ${entry.severity} ${print(entry.message)}\n`);
  if (from?.role === 'parent') return;
  if (!settings.heartbeat) {
    sendUp(entry);
    return;
  }
  pendingUp.push(entry);
  pendingBytes += size;
  if (pendingBytes > settings['max-records']) flushUp();
  else upTimer ??= setTimeout(flushUp, settings.heartbeat);
}

function flushUp() {
  clearTimeout(upTimer);
  upTimer = null;
  pendingBytes = 0;
  for (const entry of pendingUp.splice(0)) sendUp(entry);
}

function sendUp(entry) {
  if (bug('up-dead-after-gap') && parentLeft && parents().length === 0) upDead = true;
  if (upDead) return;
  for (const parent of parents().filter((l) => !l.unlisted)) parent.request('log', logPayload(entry), { posted: !variant('log-up-unposted') });
}

function ownLog(severity, message) {
  if (!ending) propagate({ timestamp: now(), severity, message, extra: new Map() }, null);
}

// ---------------------------------------------------------------------------------------------------------------
// stop
// ---------------------------------------------------------------------------------------------------------------

function stop(link, message, id, posted, state) {
  if (bug('stop-needs-payload') && !message.has('payload')) return failure('A stop needs a payload', id, 'stop');
  const blocked = bug('departed-child-blocks-stop') && owedByDeparted;
  const forwarded = (bug('parent-stop-not-forwarded') && link.role === 'parent') || (bug('posted-stop-not-forwarded') && posted)
    || (bug('stop-behind-request-not-forwarded') && state.served > 1)
    ? 0 : distribute(link, id, posted);
  const answer = success('stop', id, { forwarded });
  if (posted) return answer;

  link.stops += 1;
  if (bug('second-stop-unanswered') && link.stops === 2) return null;
  if (blocked) return null;
  if (bug('silent-child-blocks-stop')) {
    blockedStops.push({ link, answer });
    settleStops();
    return null;
  }
  if (variant('forward-staggered')) {
    setTimeout(() => link.respond(answer), forwarded * STAGGER);
    return null;
  }
  if (bug('simultaneous-stops-one-answer') || bug('stop-answer-to-latest')) {
    const first = stopsInHand === 0 || latestStopper === link;
    stopsInHand += 1;
    latestStopper = link;
    setTimeout(() => {
      stopsInHand -= 1;
      if (bug('stop-answer-to-latest')) latestStopper.respond(answer);
      else if (first) link.respond(answer);
    }, DELAY);
    return null;
  }
  return answer;
}

// Stops the jobs of the hub and all children, but for the sender. Returns the number of children told.
function distribute(sender, id, posted) {
  stops += 1;
  scheduling = bug('scheduling-resumes') ? stops % 2 === 0 : false;
  stopper = sender;
  for (const job of jobs.values()) {
    if (job.state !== 'running') continue;
    job.state = 'stopping';
    clearTimeout(job.timer);
    job.timer = setTimeout(() => { job.state = 'stopped'; }, settings['stop-ms']);
    job.timer.unref();
  }
  let list = children();
  if (bug('stop-skips-after-leave') && childLeft && list.length > 1) list.pop();
  if (bug('late-child-skipped')) {
    knownChildren ??= new Set(list);
    list = list.filter((c) => knownChildren.has(c));
  }
  list = list.filter((c) => c !== sender || variant('stop-to-sender'));
  if (bug('stop-five-children')) list = list.slice(0, 5);
  if (bug('refusing-child-untold')) list = list.filter((c) => !c.refused);
  if (bug('three-unanswered-stops')) {
    list = list.filter((c) => [...c.waiting.values()].filter((w) => w.action === 'stop').length < 3);
  }
  if (variant('forward-staggered')) {
    for (let i = list.length - 1; i > 0; i -= 1) {
      const k = random(i + 1);
      [list[i], list[k]] = [list[k], list[i]];
    }
  }
  let told = 0;
  for (const child of list) {
    if (child.vanished) break;
    const origin = sender && !posted ? { link: sender, id } : undefined;
    const tell = () => child.request('stop', variant('stop-bare-down') ? undefined : new Map(), {
      posted: variant('stop-posted-down'), id: variant('stop-keeps-id') ? id : undefined, origin,
    });
    if (variant('forward-staggered') && told > 0) setTimeout(tell, told * STAGGER);
    else tell();
    told += 1;
  }
  if (variant('own-logs')) ownLog('WARNING', 'stopping');
  return told;
}

const blockedStops = [];
function settleStops() {
  const waits = children().some((c) => [...c.waiting.values()].some((w) => w.action === 'stop'));
  if (!waits) for (const { link, answer } of blockedStops.splice(0)) link.respond(answer);
  if (blockedStops.length > 1000) blockedStops.shift();
}

// ---------------------------------------------------------------------------------------------------------------
// Operator's controls
// ---------------------------------------------------------------------------------------------------------------

const field = (body, name, type, fallback) => {
  if (body[name] === undefined && fallback !== undefined) return fallback;
  if (typeof body[name] !== type) throw new Error(`"${name}" must be a ${type}`);
  return body[name];
};

const showJob = ({ id, state }) => ({ id, state });

const CONTROLS = {
  state: () => ({ children: children().length, parents: parents().length, scheduling, stops, jobs: jobs.size }),
  stop: () => ({ forwarded: distribute(null) }),
  log(body) {
    const severity = field(body, 'severity', 'string', 'INFO');
    if (!SEVERITIES.includes(severity)) throw new Error('unknown severity');
    const timestamp = body.timestamp === undefined ? now() : new Num(String(field(body, 'timestamp', 'number')));
    propagate({ timestamp, severity, message: field(body, 'message', 'string'), extra: new Map() }, null);
    return {};
  },
  job(body) {
    const id = field(body, 'id', 'string');
    const ms = field(body, 'run_ms', 'number', 0);
    if (!scheduling) return { id, scheduled: false };
    if (jobs.get(id)?.state === 'running') throw new Error('such a job is running');
    for (const [key, job] of jobs) {
      if (jobs.size < settings.jobs) break;
      clearTimeout(job.timer);
      jobs.delete(key);
    }
    const job = { id, state: 'running', timer: null };
    if (ms > 0) {
      job.timer = setTimeout(() => { job.state = 'finished'; }, Math.min(ms, 2 ** 31 - 1));
      job.timer.unref();
    }
    jobs.set(id, job);
    return { id, scheduled: true };
  },
  jobs: () => ({ jobs: [...jobs.values()].map(showJob) }),
  records: () => ({
    records: records.map((r) => ({ timestamp: Number(r.timestamp.text), severity: r.severity, message: typeof r.message === 'string' ? r.message : JSON.parse(print(r.message)) })),
  }),
  resume() {
    scheduling = true;
    for (const job of jobs.values()) clearTimeout(job.timer);
    jobs.clear();
    records.length = 0;
    recordBytes = 0;
    return {};
  },
  ping() {
    for (const link of links) if (link.ws.readyState === WebSocket.OPEN) link.ws.ping();
    return { pinged: links.size };
  },
  parent(body) {
    return connectUp(field(body, 'url', 'string')).then(() => ({ parents: parents().length }));
  },
  shutdown() {
    setImmediate(shutdown);
    return {};
  },
};

function connectUp(url) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, { maxPayload: settings['max-message'], handshakeTimeout: 5000 });
    ws.on('error', reject);
    ws.once('open', () => {
      new Link(ws, 'parent', null);
      resolve();
    });
  });
}

function control(request, response) {
  const reply = (status, body) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  };
  const { pathname } = new URL(request.url, 'http://localhost');
  const name = pathname.startsWith('/control/') ? pathname.slice(9) : '';
  if (!Object.hasOwn(CONTROLS, name)) {
    reply(name === '' ? 426 : 404, { error: name === '' ? 'websocket connections only' : 'no such control' });
    return;
  }
  if (request.method !== 'POST') {
    reply(405, { error: 'POST only' });
    return;
  }
  const chunks = [];
  let size = 0;
  request.on('data', (chunk) => {
    size += chunk.length;
    if (size > settings['max-message']) request.destroy();
    else chunks.push(chunk);
  });
  request.on('error', () => {});
  request.on('end', async () => {
    try {
      const text = Buffer.concat(chunks).toString();
      const body = text.trim() === '' ? {} : JSON.parse(text);
      if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new Error('the body must be an object');
      reply(200, await CONTROLS[name](body));
    } catch (error) {
      reply(400, { error: String(error.message) });
    }
  });
}

// ---------------------------------------------------------------------------------------------------------------
// Server
// ---------------------------------------------------------------------------------------------------------------

const server = http.createServer((request, response) => {
  try {
    control(request, response);
  } catch {
    response.writeHead(400);
    response.end();
  }
});
server.on('clientError', (_, socket) => socket.destroy());

const acceptor = new WebSocketServer({
  noServer: true, maxPayload: settings['max-message'], perMessageDeflate: variant('deflate') ? { threshold: 0 } : false,
  autoPong: !bug('empty-ping-unanswered'),
});
if (variant('headers')) acceptor.on('headers', (list) => list.push('Server: tier', 'X-Tier-Depth: 1'));

server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => {});
  if (links.size >= settings['max-clients'] || ending) {
    socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    return;
  }
  const role = request.url.split('?')[0] === '/parent' ? 'parent' : 'child';
  acceptor.handleUpgrade(request, socket, head, (ws) => new Link(ws, role, socket));
});

function shutdown() {
  if (ending) return;
  ending = true;
  server.close();
  for (const { ws } of links) {
    if (variant('close-without-code')) ws.close();
    else if (variant('close-private-code')) ws.close(4000, 'tier ends');
    else ws.close(1001);
  }
  const wait = setInterval(() => { if (![...links].some((l) => !l.vanished)) process.exit(0); }, 10);
  setTimeout(() => { clearInterval(wait); process.exit(0); }, 1000);
}
process.on('SIGTERM', shutdown);
process.on('SIGINT', shutdown);

server.listen(settings.port, '127.0.0.1', () => {
  process.stdout.write(`ws://127.0.0.1:${server.address().port}\n`);
  if (settings.parent) connectUp(settings.parent).catch((error) => process.stderr.write(`parent: ${error.message}\n`));
});
