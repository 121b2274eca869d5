// A concierge hub: JSON payloads over WebSockets, subprotocol "ert-concierge".
// Correct by default. `--bug NAME` plants one bug, `--variant NAME` switches on a legal variant.
import http from 'node:http';
import { randomBytes } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { WebSocketServer } from 'ws';

// ---------------------------------------------------------------------------------------------
// Catalogue: [name, line of the document, sentence, what the hub does, how a client notices]
// ---------------------------------------------------------------------------------------------
const CATALOGUE = {
  history: [
    ['malformed-not-counted', 17, 'Sequence numbers are based on the n-th text payload received.',
      'A text that is not JSON is answered but not counted.', 'After a malformed text every later seq is one too low.'],
    ['binary-counts-after-error', 17, 'Sequence numbers are based on the n-th text payload received.',
      'Once a connection has had a PROTOCOL status, its binary frames are counted too.', 'Error, then binary, then a fetch: seq is one too high.'],
    ['name-kept-after-ownership', 31, '4005: namespace conflict in the concierge.',
      'The name of a client that ever created a group stays taken after it has left.', 'The name is refused with 4005 although nobody holds it.'],
    ['second-group-survives', 39, 'The group will also be automatically deleted if the owning client leaves the concierge.',
      'Only the first group of the leaving owner is deleted.', 'The second group is still listed and no GROUP_DELETED comes for it.'],
    ['resubscription-dead', 37, 'A message to a group is broadcasted to every client subscribed to the group.',
      'A client that unsubscribed and subscribed again gets SUBSCRIBED but no broadcasts.', 'No MESSAGE arrives after subscribe, unsubscribe, subscribe.'],
    ['recreated-group-stale-owner', 39, 'The client that created the group is the only client that can delete the group.',
      'A group created again under a deleted name belongs to the old owner.', 'The second creator cannot delete its group; owner_uuid is the old one.'],
    ['stale-subscriptions', 452, "This payload lists all of the connecting client's subscriptions.",
      'Groups deleted by their owner stay in the list of a former subscriber.', 'SELF_FETCH_RESULT lists a group that no longer exists.'],
    ['refused-version-holds-name', 46, 'The name must not conflict with the current namespace.',
      'A connection refused for its version reserves the name it asked for.', 'A correct IDENTIFY with that name is dropped with 4005.'],
    ['refused-create-renames', 548, 'GROUP_ALREADY_CREATED carries the nickname of the group already created.',
      'A refused GROUP_CREATE overwrites the nickname of the existing group.', 'The nickname in later results is the one of the refused request.'],
    ['fetch-cached-by-seq', 247, 'GROUP_FETCH asks for all the clients of the group specified.',
      'Answers to GROUP_FETCH are cached by group and seq, for all connections.', 'A second connection with an equal seq gets an outdated list.'],
    ['no-notices-after-return', 526, 'GROUP_CREATED is fired as a status when someone else creates a group.',
      'A client under a name that was used before gets no GROUP_CREATED notices.', 'No notice arrives after leaving and coming back.'],
    ['second-identify-resets-seq', 17, 'Sequence numbers are based on the n-th text payload received.',
      'A second IDENTIFY, though refused, starts the count anew.', 'After it every seq is too low.'],
    ['refused-delete-unsubscribes', 37, 'A message to a group is broadcasted to every client subscribed to the group.',
      'A subscriber whose GROUP_DELETE is refused loses its subscription.', 'It gets no more broadcasts of that group.'],
    ['recreated-group-keeps-subscribers', 530, 'GROUP_CREATED: subscribers are the UUIDs of the subscribers; nobody can subscribe before the group is created (line 39).',
      'A group created again under a deleted name has the subscribers of the old one.', 'GROUP_CREATED lists them and they get messages without a subscription.'],
    ['recreated-group-old-nickname', 528, 'nickname: string | undefined: the nickname of the group.',
      'A group created again without a nickname has the nickname of the old one.', 'GROUP_CREATED has a nickname that was not given.'],
    ['returned-name-lost', 80, 'NAME targets directly pass the message to a single target client.',
      'A sender that once reached a name keeps the route to the connection that held it then.', 'MESSAGE_SENT, but nothing arrives after the addressee has left and come back.'],
  ],
  several: [
    ['unsubscribe-drops-latest-too', 178, "SELF_UNSUBSCRIBE: unsubscribe from a group's broadcasts.",
      'With three or more subscriptions, unsubscribing also removes the latest other one.', 'Broadcasts of a group that is still subscribed do not arrive.'],
    ['leaver-takes-next', 37, 'A message to a group is broadcasted to every client subscribed to the group.',
      'When a subscriber disconnects, the subscriber after it is removed as well.', 'The next subscriber gets no broadcasts any more.'],
    ['fifth-subscriber-evicts-first', 81, "GROUP broadcasts the message to all of the group's subscribers.",
      'The fifth subscriber of a group pushes out the first.', 'The first of five subscribers gets no broadcasts.'],
    ['fifth-subscription-evicts-first', 452, "SELF_FETCH_RESULT lists all of the client's subscriptions.",
      'The fifth subscription of a client pushes out its first.', 'Four of five subscriptions are listed; the first group is silent.'],
    ['sixth-in-a-row-lost', 80, 'NAME and UUID targets directly pass the message to a single target client.',
      'The sixth MESSAGE of a client without another command between is not passed on.', 'Six MESSAGE_SENT, five messages.'],
    ['delete-unsubscribes-sibling', 224, "GROUP_DELETE unsubscribes from one group's broadcast.",
      'Deleting one group of an owner empties the other groups of that owner.', 'Subscribers of the other group get no broadcasts.'],
    ['only-first-told-unsubscribed', 518, 'UNSUBSCRIBED is fired in response to GROUP_DELETE.',
      'Only the first subscriber of a deleted group is told.', 'The second subscriber gets no UNSUBSCRIBED.'],
    ['subscribed-owner-keeps-groups', 225, 'The group is automatically deleted if the owning client disconnects.',
      "A leaving owner that is subscribed to somebody else's group keeps its own groups.", 'The group is still listed after its owner has left.'],
    ['identify-stops-all-timers', 24, 'The client must identify within 5 seconds. Otherwise, the connection will be dropped.',
      'An IDENTIFY on one connection stops the timers of all waiting connections.', 'A silent connection is never dropped with 4004.'],
    ['fetch-all-ends-at-five', 362, 'GROUP_FETCH_ALL_RESULT lists all of the groups registered with the concierge.',
      'The list ends after five groups.', 'With seven groups two are missing.'],
    ['burst-takes-last-seq', 18, 'The seq field indicates what this status payload is in response to.',
      'The answer to CLIENT_FETCH_ALL is written a moment later and takes the seq that is current then.', 'Two fetches at once: both answers have the seq of the second.'],
    ['equal-message-once', 80, 'NAME and UUID targets directly pass the message to a single target client.',
      'A MESSAGE with exactly the text of the one before from that client is not passed on.', 'Two MESSAGE_SENT, one message.'],
    ['two-groups-one-unsubscribed', 518, 'UNSUBSCRIBED is fired for the group being deleted because its owner left the concierge.',
      'When an owner leaves, each subscriber is told UNSUBSCRIBED for one of its groups only.', 'A subscriber of two groups gets one UNSUBSCRIBED.'],
    ['broadcast-stops-at-sender', 81, "GROUP broadcasts the message to all of the group's subscribers.",
      'If the sender is subscribed, but not as the first, the broadcast ends with it.', 'Those who subscribed after the sender get nothing.'],
  ],
  identity: [
    ['origin-uuid-of-former-holder', 76, 'The message is relayed with an origin receipt field added by the concierge.',
      'The origin of a client that took over a name has the uuid of the former holder.', 'origin.uuid differs from the uuid in the HELLO of the sender.'],
    ['name-prefix-32-routing', 80, 'NAME targets directly pass the message to a single target client.',
      'Names longer than 32 characters are compared by their first 32.', 'The message arrives at another client with the same beginning.'],
    ['group-prefix-32', 154, "SELF_SUBSCRIBE: subscribe to a group's broadcasts, by name.",
      'Group names longer than 32 characters are compared by their first 32 when subscribing.', 'SUBSCRIBED names another group.'],
    ['name-case-fold', 553, 'NO_SUCH_NAME is fired when the name is not found in the namespace.',
      'A name that is not found is looked up again without regard to case.', 'A message to "BOB" reaches "bob".'],
    ['group-unicode-form', 546, 'GROUP_ALREADY_CREATED is fired for a group already created.',
      'Group names that differ only in Unicode form count as equal when creating.', 'Creating the decomposed name is refused.'],
    ['owner-case-fold', 224, 'The client that created the group is the only client that can delete the group.',
      'The owner is recognised by name without regard to case.', '"OWNER" deletes the group of "owner".'],
    ['origin-is-owner-for-outsider', 76, 'The message is relayed with an origin receipt of the sender.',
      'A group message of a sender that is not subscribed gets the owner as origin.', 'origin names the owner, not the sender.'],
    ['spoofed-origin-uuid', 74, 'The origin fields are ignored if they are sent to the concierge.',
      'A sent origin.uuid is kept if it is the uuid of another connected client.', "origin.uuid is the other client's."],
    ['status-to-namesake', 18, 'The seq field indicates what this status payload is in response to.',
      'Statuses for a client go to an earlier client whose name differs only in case.', 'The requester gets no answer, the namesake gets a foreign one.'],
    ['uuid-prefix-32', 557, 'NO_SUCH_UUID is fired when the uuid is not recognized.',
      'UUIDs are compared by their first 32 characters.', 'A message to an unknown uuid with the same beginning is delivered.'],
    ['already-created-names-requester', 549, "GROUP_ALREADY_CREATED: owner_uuid is the UUID of the group's owner.",
      'If the requester is subscribed to the group, owner_uuid is its own uuid.', 'owner_uuid is not the one of GROUP_CREATED.'],
    ['uuid-target-finds-name', 80, 'UUID targets directly pass the message to a single target client.',
      'A UUID target is looked up among the names first.', 'A client named like the uuid of another gets its messages.'],
    ['group-shadows-name', 80, 'NAME targets directly pass the message to a single target client.',
      'If a group has the name of a client, messages to the NAME go to the group.', 'MESSAGE_SENT, but the client gets nothing.'],
    ['joined-key-collision', 154, "SELF_SUBSCRIBE: subscribe to a group's broadcasts.",
      'Subscriptions are known by client name, colon and group name in one string.', 'With "p" in "q:r", the client "p:q" is told SUBSCRIBED for "r" without being subscribed.'],
    ['origin-group-sticks', 97, 'origin.group.name: the group of the message.',
      'origin.group is made with the first group message of a sender and kept.', 'A message to its second group names the first in origin.group.'],
  ],
  neighbours: [
    ['silent-connection-blocks-identify', 35, 'Successful identification will result in a HELLO payload.',
      'An IDENTIFY waits until every older connection has identified or is gone.', 'No HELLO while another connection is silent.'],
    ['abrupt-leaver-ends-broadcast', 81, "GROUP broadcasts the message to all of the group's subscribers.",
      'A subscriber lost without a close frame stays in the list and ends the broadcast.', 'Later subscribers get nothing.'],
    ['first-subscriber-leave-deletes-group', 39, 'The group is deleted by its owner or when the owning client leaves.',
      'The group is deleted when its first subscriber disconnects.', 'GROUP_DELETED although the owner is still there.'],
    ['errors-counted-for-all', 511, 'MESSAGE_SENT is fired in response to MESSAGE.',
      'After three PROTOCOL statuses of one client the next MESSAGE of another is refused.', 'PROTOCOL for a valid MESSAGE.'],
    ['duplicate-attempt-unregisters', 553, 'NO_SUCH_NAME is fired when the name is not found in the namespace.',
      'A refused duplicate IDENTIFY removes the name of its holder.', 'NO_SUCH_NAME for a client that is connected.'],
    ['leaver-empties-second-group', 37, 'A message to a group is broadcasted to every client subscribed to the group.',
      'A leaver with two subscriptions empties the second group.', 'The others get no broadcasts of the second group.'],
    ['owner-leave-deletes-prefixed', 39, 'The group will be deleted if the owning client leaves.',
      'Groups of others whose names begin with the name of the deleted group go as well.', 'GROUP_DELETED for a group whose owner is still there.'],
    ['late-joiner-missed-by-all', 106, 'target: { "type": "ALL" }: the message goes to all clients.',
      'Clients that joined after somebody left are not reached by target ALL.', 'A new client gets no message to ALL.'],
    ['owner-unsubscribe-mutes-group', 37, 'A message to a group is broadcasted to every client subscribed to the group.',
      'When the owner unsubscribes from its own group, nobody gets its broadcasts.', 'MESSAGE_SENT, but no message.'],
    ['abrupt-leaver-keeps-name', 31, '4005: namespace conflict in the concierge.',
      'The name of a client lost without a close frame stays taken.', 'Coming back is refused with 4005.'],
    ['plain-connection-ends-subprotocol', 22, 'Clients connect with the ert-concierge subprotocol; a server that takes it says so (RFC 6455, 4.2.2).',
      'After a connection without the subprotocol the next one that offers it is accepted without.', 'No Sec-WebSocket-Protocol in the answer.'],
    ['unfinished-message-holds-broadcast', 81, "GROUP broadcasts the message to all of the group's subscribers.",
      'While one subscriber has an unfinished fragmented message, the group gets no broadcasts.', 'MESSAGE_SENT, but no message.'],
    ['idle-unsubscribe-takes-last', 37, 'A message to a group is broadcasted to every client subscribed to the group.',
      'Unsubscribing without a subscription removes the last subscriber.', 'Somebody else gets no more broadcasts.'],
    ['foreign-delete-locks-group', 39, 'The client that created the group can delete the group.',
      'After a refused GROUP_DELETE of a stranger the owner is refused as well.', 'BAD instead of GROUP_DELETED for the owner.'],
    ['tags-of-previous-client', 411, 'tags: string[]: the tags of that client.',
      'A client that gives no tags has those of the latest client that gave some.', 'SELF_FETCH_RESULT and origin have tags of somebody else.'],
    ['last-unsubscribe-ends-group', 39, 'The group is deleted by its creator or when the owning client leaves.',
      'A group that had several subscribers is removed when the last one unsubscribes.', 'NO_SUCH_GROUP although nobody deleted it.'],
  ],
  values: [
    ['null-data-missing', 84, 'The data field is transmitted verbatim.',
      'data null is taken for missing.', 'PROTOCOL instead of MESSAGE_SENT.'],
    ['numbers-reparsed', 84, 'The data field is transmitted verbatim.',
      'Numbers in data go through a double.', '12345678901234567890 arrives as 12345678901234567000.'],
    ['empty-nickname-missing', 528, 'nickname: string | undefined: the nickname of the group.',
      'The nickname "" of a group is taken for missing.', 'nickname is null instead of "".'],
    ['empty-group-name-missing', 207, 'GROUP_CREATE: name is a string.',
      'The name "" of a group is taken for missing.', 'PROTOCOL instead of GROUP_CREATED.'],
    ['proto-member-lost', 84, 'The data field is transmitted verbatim.',
      'A member named __proto__ in data is lost.', 'data arrives without the member.'],
    ['prototype-group-names', 39, 'The group must first be created using CREATE_GROUP.',
      'Names from the prototype of an object count as created groups.', 'GROUP_ALREADY_CREATED for "constructor".'],
    ['markup-escaped', 84, 'The data field is transmitted verbatim.',
      'The characters <, > and & in data are escaped as in HTML.', 'data arrives with &lt; and so on.'],
    ['nul-cuts-nickname', 528, 'nickname: the nickname of the group.',
      'The nickname of a group ends at U+0000.', 'nickname is shorter than the one sent.'],
    ['nickname-cut-at-255', 528, 'nickname: the nickname of the group.',
      'Nicknames of groups are cut after 255 characters.', 'A nickname of 256 characters comes back with 255.'],
    ['long-data-cut', 84, 'The data field is transmitted verbatim.',
      'A string as data is cut after 65,535 characters.', 'A string of 65,536 characters arrives shorter.'],
    ['numeric-tags', 411, 'tags: string[].',
      'Tags that consist of digits are listed as numbers.', 'CLIENT_FETCH_ALL_RESULT has 7 for "007".'],
    ['group-name-trimmed', 527, 'name: the name of the group.',
      'White space around the name of a group is removed when creating.', 'GROUP_CREATED has another name.'],
    ['repeated-tags-merged', 462, 'tags: string[].',
      'Repeated tags of a client are merged.', 'SELF_FETCH_RESULT has fewer tags than IDENTIFY.'],
    ['falsy-data-null', 84, 'The data field is transmitted verbatim.',
      'false, 0 and "" as data are replaced by null.', 'data arrives as null.'],
    ['lone-surrogate-replaced', 84, 'The data field is transmitted verbatim.',
      'An escaped surrogate without its partner in data becomes U+FFFD.', 'data arrives as another string.'],
    ['dates-renormalised', 84, 'The data field is transmitted verbatim.',
      'Strings in data that are dates with a time and zone are written in UTC with milliseconds.', '"2024-03-01T12:00:00+02:00" arrives as "2024-03-01T10:00:00.000Z".'],
    ['deep-data-cut', 84, 'The data field is transmitted verbatim.',
      'Arrays and objects in data deeper than 64 levels become null.', 'data arrives shallower than it was sent.'],
    ['nickname-null-word', 528, 'nickname: the nickname of the group.',
      'The nicknames "null" and "undefined" are taken for missing.', 'nickname is null instead of the string "null".'],
  ],
  equivalents: [
    ['target-type-must-lead', 103, 'target: { "type": "NAME", "name": string }; members of an object are unordered (RFC 8259, 1).',
      'A target whose first member is not type is refused.', 'PROTOCOL for {"name": ..., "type": "NAME"}.'],
    ['escaped-type-unknown', 4, 'Payloads must have the proper type; escaped and literal strings are equal (RFC 8259, 8.3).',
      'A type written with an escape is not recognised.', 'UNSUPORTED for "SELF_\\u0046ETCH".'],
    ['solidus-escape-differs', 561, 'NO_SUCH_GROUP: the group is not present; "\\/" is "/" (RFC 8259, 7).',
      'A name written with "\\/" is taken with its backslash when subscribing.', 'NO_SUCH_GROUP for a group that exists.'],
    ['escaped-pair-replaced', 527, 'name: the name of the group; an escaped surrogate pair is one character (RFC 8259, 7).',
      'Escaped surrogate pairs in the name of a created group become U+FFFD.', 'GROUP_CREATED has another name.'],
    ['leading-space-refused', 543, 'PROTOCOL is fired when the server fails to decode; white space may come first (RFC 8259, 2).',
      'A text that begins with white space is refused.', 'PROTOCOL for a valid payload.'],
    ['frames-counted', 17, 'seq is based on the n-th text payload; frames are no payloads (RFC 6455, 5.4).',
      'Every frame of a fragmented text counts.', 'seq is too high after a text in three frames.'],
    ['build-metadata-refused', 48, 'Versions follow semantic versioning; build metadata is ignored.',
      'A version with build metadata counts as another version.', '4007 for "0.1.0+7".'],
    ['trailing-origin-kept', 74, 'The origin fields are ignored if they are sent to the concierge.',
      'An origin that is the last member of the payload is kept.', 'The receiver sees the origin that the sender made up.'],
    ['spaced-data-lost', 84, 'The data field is transmitted verbatim; white space around a colon is insignificant (RFC 8259, 2).',
      'data is not found if white space stands before its colon.', 'data arrives as null.'],
    ['escaped-data-key', 84, 'The data field is transmitted verbatim; names are strings with escapes (RFC 8259, 4).',
      'A data member whose name is written with an escape is taken for missing.', 'PROTOCOL instead of MESSAGE_SENT.'],
    ['nested-data-key', 84, 'The data field is transmitted verbatim.',
      'The first member named data at any depth is taken.', 'The data inside a preceding origin arrives instead.'],
    ['ping-between-frames-breaks', 543, 'PROTOCOL is fired when the server fails to decode; control frames may come between fragments (RFC 6455, 5.4).',
      'A ping in the middle of a fragmented text spoils the text.', 'PROTOCOL for a valid payload.'],
    ['frames-decoded-apart', 84, 'The data field is transmitted verbatim; frames of a text may be cut within a character (RFC 6455, 5.6).',
      'Each frame of a fragmented text is decoded by itself.', 'A character cut by a frame boundary arrives as U+FFFD.'],
    ['subprotocol-must-lead', 22, 'Clients connect with the ert-concierge subprotocol; they may offer several (RFC 6455, 4.1, 4.2.2).',
      'The subprotocol is taken only if it is offered first.', 'No Sec-WebSocket-Protocol in the answer to "chat, ert-concierge".'],
    ['client-seq-echoed', 17, 'Sequence numbers are based on the n-th text payload received.',
      'A seq that the client wrote into its payload is sent back.', 'The answer has the seq of the client, not the count.'],
  ],
  'one-of-many': [
    ['unsubscribe-unknown-ok', 560, 'NO_SUCH_GROUP is fired in response to MESSAGE, GROUP_DELETE, SUBSCRIBE, UNSUBSCRIBE.',
      'SELF_UNSUBSCRIBE for an unknown group is answered UNSUBSCRIBED.', 'UNSUBSCRIBED instead of NO_SUCH_GROUP.'],
    ['no-such-uuid-without-seq', 18, 'A missing seq means changes not made by the connecting client.',
      'NO_SUCH_UUID has no seq.', 'The status cannot be matched to its MESSAGE.'],
    ['status-payload-ignored', 541, 'UNSUPORTED is fired due to an unsupported payload.',
      'A STATUS payload of a client is not answered.', 'No status for that seq.'],
    ['fetch-result-accepted', 541, 'UNSUPORTED is fired due to an unsupported payload.',
      'A CLIENT_FETCH_ALL_RESULT payload of a client is answered with OK.', 'OK instead of UNSUPORTED.'],
    ['fetch-all-before-identify', 29, '4003: a normal payload was sent prior to identification.',
      'GROUP_FETCH_ALL is answered before identification.', 'A result instead of 4003.'],
    ['leave-told-to-subscribers-only', 533, 'GROUP_DELETED is fired as a status when someone else deletes a group.',
      'When the owner leaves, only subscribers are told GROUP_DELETED.', 'A client that is not subscribed gets no notice.'],
    ['already-created-no-subscribers', 550, 'GROUP_ALREADY_CREATED: subscribers are the UUIDs of the subscribers.',
      'GROUP_ALREADY_CREATED always has an empty list.', 'subscribers is [] for a group with subscribers.'],
    ['all-without-origin', 76, 'The message is relayed with an origin receipt field added.',
      'Messages to ALL have the origin that the sender sent, or none.', 'No origin.'],
    ['subscribe-number-name', 543, 'PROTOCOL is fired when the server fails to deserialize data to an accepted format.',
      'SELF_SUBSCRIBE takes a number as name.', 'NO_SUCH_GROUP instead of PROTOCOL.'],
    ['delete-unknown-says-name', 562, 'NO_SUCH_GROUP: group is the group unrecognized by the server.',
      'For GROUP_DELETE the member is called name.', 'No member group in NO_SUCH_GROUP.'],
    ['array-without-desc', 544, 'PROTOCOL: desc is the reason that the server failed to understand the payload.',
      'For a payload that is an array desc is missing.', 'PROTOCOL without desc.'],
    ['missing-secret-accepted', 32, '4006: expected secret does not match gateway secret.',
      'An IDENTIFY without a secret is accepted by a hub with a secret.', 'HELLO instead of 4006.'],
    ['leave-unsubscribed-has-seq', 519, 'UNSUBSCRIBED without having sent UNSUBSCRIBE; a missing seq means changes not made by the connecting client (line 18).',
      'UNSUBSCRIBED for an owner that left has the latest seq of the receiver.', 'It looks like an answer to the last payload of the subscriber.'],
    ['self-by-name-lost', 80, 'NAME targets directly pass the message to a single target client.',
      'A MESSAGE to the own name is answered but not passed on.', 'MESSAGE_SENT, but no message; by UUID it arrives.'],
    ['going-away-keeps-groups', 225, 'The group is automatically deleted if the owning client disconnects.',
      'The groups of an owner that closes with 1001 stay.', 'The group is still listed and no GROUP_DELETED comes.'],
    ['target-tags-broadcast', 80, 'NAME targets directly pass the message to a single target client.',
      'A NAME target with tags (as in the example) also reaches every client with one of these tags.', 'Somebody else gets the message.'],
  ],
};

const VARIANTS = [
  ['member-order', 'Writes the members of every object in reverse order.', 'RFC 8259, 1: an object is an unordered collection.'],
  ['extra-members', 'Adds an unknown member to every payload.', 'Line 9: "..." in the payload structure; line 494 for statuses. Nothing excludes more members.'],
  ['pretty', 'Writes payloads with white space and line breaks.', 'RFC 8259, 2: insignificant white space is allowed.'],
  ['ascii-escapes', 'Writes every character beyond ASCII as an escape.', 'RFC 8259, 7: any character may be escaped.'],
  ['number-spelling', 'Writes seq with a fraction or an exponent, as 3.0 or 30e-1.', 'RFC 8259, 6: the same number; line 493 says number.'],
  ['fragments', 'Sends each text in several frames.', 'RFC 6455, 5.4: a message may be fragmented.'],
  ['pings', 'Sends a ping before each payload, with a body.', 'RFC 6455, 5.5.2: a ping may be sent at any time.'],
  ['seq-from-zero', 'Counts texts from 0: IDENTIFY is number 0.', 'Line 17: "based on the n-th" leaves the first number open.'],
  ['short-origin', 'origin has only name and uuid.', 'Lines 138-141: the example has only these two.'],
  ['target-verbatim', 'Relays the target with its additional members.', 'Lines 120-124 and 142-145: only an example shows that tags are dropped.'],
  ['nickname-omitted', 'Leaves out a nickname that is not set, instead of null.', 'Line 514: string | undefined.'],
  ['nickname-from-name', 'Fetch results have the name as nickname where none was given.', 'Line 340: nickname is a string there, never undefined.'],
  ['owner-subscribed', 'The creator of a group is subscribed to it at once.', 'Line 200: GROUP_CREATE is described as "Subscribe to a group\'s broadcast".'],
  ['subscriber-names', 'Fetch results list subscribers by name.', 'Line 332: "Returns all the client names as an array of strings".'],
  ['all-includes-sender', 'Target ALL reaches the sender as well.', 'Line 106: ALL is not described further.'],
  ['sent-first', 'MESSAGE_SENT goes out before the message itself.', 'Line 511: no order is given.'],
  ['deleted-first', 'GROUP_DELETED goes out before UNSUBSCRIBED.', 'Lines 518 and 532: no order is given.'],
  ['own-unsubscribed-seq', 'An owner subscribed to the group it deletes gets UNSUBSCRIBED with seq.', 'Line 519: "may not have a seq"; line 518: in response to GROUP_DELETE.'],
  ['unknown-type-protocol', 'An unknown type is answered PROTOCOL (before identification: 4002).', 'Line 543: fails to deserialize data to an accepted format.'],
  ['foreign-delete-unsuported', 'GROUP_DELETE by somebody else is answered UNSUPORTED, not BAD.', 'Line 224: the code of the refusal is not given.'],
  ['resubscribe-bad', 'Subscribing twice is answered BAD; the subscription stays.', 'Lines 152-157: a second subscription is not described.'],
  ['idle-unsubscribe-bad', 'Unsubscribing without a subscription is answered BAD.', 'Lines 176-178: not described.'],
  ['fetch-unknown-bad', 'GROUP_FETCH for an unknown group is answered BAD.', 'Line 560: GROUP_FETCH is not among the commands of NO_SUCH_GROUP.'],
  ['second-identify-bad', 'A second IDENTIFY is answered BAD, not UNSUPORTED.', 'Line 43: the first payload; a later one is not described.'],
  ['close-reason', 'Closes with a reason text.', 'RFC 6455, 5.5.1: a close frame may have a reason.'],
  ['deflate', 'Compresses messages if the client offers permessage-deflate.', 'RFC 6455, 9, and RFC 7692.'],
  ['late-replies', 'Sends everything 15 ms later.', 'No time is given but for IDENTIFY (line 24).'],
  ['late-relay', 'Sends relayed messages 25 ms later than statuses.', 'Line 76: no time and no order is given.'],
  ['upper-uuids', 'Writes UUIDs in upper case.', 'Line 315: a string; RFC 4122, 3: case does not matter on input.'],
  ['mixed-lists', 'Lists clients, groups, subscribers and subscriptions in changing order.', 'Lines 333-463: no order is given.'],
  ['join-notices', 'Tells everybody about joining and leaving with a STATUS OK without seq.', 'Lines 18 and 484-485: statuses may happen for various reasons.'],
  ['strict-subprotocol', 'Refuses connections without the subprotocol with HTTP 400.', 'Line 22: the client should connect with it; RFC 6455, 4.2.2 lets a server refuse a handshake.'],
  ['client-nicknames', 'Clients without a nickname have their name as nickname.', 'Lines 93 and 409: a string whose source is not given.'],
  ['deleted-empty', 'GROUP_DELETED and the UNSUBSCRIBED it causes have an empty list of subscribers.', 'Lines 523 and 537: the state before or after is not given.'],
  ['uuid-exact', 'Target UUIDs must have the case of HELLO.', 'Line 104: a string; nothing says that other spellings are equal.'],
  ['verbose-desc', 'desc of PROTOCOL is a longer text with quotes, line breaks and characters beyond ASCII.', 'Line 544: string; the text is not given.'],
  ['late-notices', 'Sends payloads without seq 25 ms later than others, all in their order.', 'Lines 19 and 484: no time is given for statuses about changes of others.'],
  ['subscribe-notices', 'Tells the other subscribers of a group about subscribing and unsubscribing with a STATUS OK without seq.', 'Lines 18 and 484-485: statuses may happen for various reasons.'],
  ['time-uuids', 'UUIDs are of version 7: they begin with the time, so that those of a moment are alike at the beginning.', 'Line 307: universally unique; the version is not given (RFC 9562).'],
  ['identify-ok', 'HELLO is followed by a STATUS OK with the seq of IDENTIFY.', 'Line 484: statuses may come as responses to commands; line 510: OK.'],
  ['hello-build-metadata', 'The version in HELLO has build metadata.', 'Line 48: semantic versioning, which allows it and gives it no precedence.'],
  ['unsolicited-pongs', 'Sends a pong that nobody asked for before each payload.', 'RFC 6455, 5.5.3: a pong may be sent unsolicited.'],
  ['slow-hello', 'HELLO, and everything after it for that client, is held back for 80 ms after identification.', 'Line 35: no time is given.'],
];

const DEFAULTS = {
  port: 0, bug: null, variants: [], seed: null,
  secret: null, hubVersion: '0.1.0', identifyTimeout: 5000,
  maxPayload: 4 * 1024 * 1024, maxConnections: 1000, maxGroups: 10000, maxBuffered: 16 * 1024 * 1024, maxStored: 64 * 1024 * 1024,
};
const SUBPROTOCOL = 'ert-concierge';
const MEMORY = 10000; // most names that a planted bug remembers

// ---------------------------------------------------------------------------------------------
// JSON
// ---------------------------------------------------------------------------------------------
class Raw { constructor(text) { this.text = text; } }

function skipSpace(text, i) {
  while (i < text.length && ' \t\r\n'.includes(text[i])) i++;
  return i;
}
function stringEnd(text, i) { // i: at the opening quote
  for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++;
  return i + 1;
}
function valueEnd(text, i) {
  if (text[i] === '"') return stringEnd(text, i);
  let depth = 0;
  while (i < text.length) {
    const c = text[i];
    if (c === '"') { i = stringEnd(text, i); if (depth === 0) return i; continue; }
    if (c === '{' || c === '[') depth++;
    else if (c === '}' || c === ']') { if (depth === 0) return i; if (--depth === 0) return i + 1; }
    else if (depth === 0 && ', \t\r\n'.includes(c)) return i;
    i++;
  }
  return i;
}
// The members of the outermost object, as they are spelled. The text is known to be valid.
function rawMembers(text) {
  const members = [];
  let i = skipSpace(text, skipSpace(text, 0) + 1);
  while (text[i] === '"') {
    const keyEnd = stringEnd(text, i), colon = skipSpace(text, keyEnd), start = skipSpace(text, colon + 1), end = valueEnd(text, start);
    members.push({ key: JSON.parse(text.slice(i, keyEnd)), keyText: text.slice(i, keyEnd), gap: colon - keyEnd, text: text.slice(start, end) });
    i = skipSpace(text, end);
    if (text[i] !== ',') break;
    i = skipSpace(text, i + 1);
  }
  return members;
}
const isString = v => typeof v === 'string';
const isObject = v => v !== null && typeof v === 'object' && !Array.isArray(v);
const isStrings = v => Array.isArray(v) && v.every(isString);

function semver(text) {
  const m = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$/.exec(text);
  return m && { major: m[1], minor: m[2], patch: m[3], pre: m[4] };
}
// Same major version; below 1.0.0 also the same minor version.
function compatible(text, own) {
  const a = semver(text), b = semver(own);
  return Boolean(a && b) && a.major === b.major && (a.major !== '0' || a.minor === b.minor);
}

// ---------------------------------------------------------------------------------------------
// The hub
// ---------------------------------------------------------------------------------------------
class Client {
  constructor(ws) {
    Object.assign(this, {
      ws, uuid: null, name: null, nickname: null, tags: [], seq: 0, identified: false, gone: false,
      groups: new Set(), frames: 0, unfinished: false, errors: 0, row: 0, timer: null, waiting: null,
      parts: null, pinged: false, previous: null, routes: new Map(), originGroup: null, held: null,
    });
  }
}
class Group {
  constructor(name, nickname, owner) { Object.assign(this, { name, nickname, owner, subscribers: [], muted: false, former: new Set(), locked: false, most: 0 }); }
}

const COMMANDS = new Set(['IDENTIFY', 'MESSAGE', 'SELF_SUBSCRIBE', 'SELF_UNSUBSCRIBE', 'GROUP_CREATE', 'GROUP_DELETE',
  'GROUP_FETCH', 'GROUP_FETCH_ALL', 'CLIENT_FETCH_ALL', 'SELF_FETCH']);
const FIELDS = new Map([['NAME', 'name'], ['UUID', 'uuid'], ['GROUP', 'group']]); // of a target
const ANSWERS = new Set(['HELLO', 'STATUS', 'GROUP_FETCH_RESULT', 'GROUP_FETCH_ALL_RESULT', 'CLIENT_FETCH_ALL_RESULT', 'SELF_FETCH_RESULT']);

export class Hub {
  constructor(options = {}) {
    this.options = { ...DEFAULTS, ...options };
    this.variants = new Set(this.options.variants);
    this.connections = new Set();     // every open connection, oldest first
    this.names = new Map();           // name -> identified client
    this.uuids = new Map();           // uuid in lower case -> identified client
    this.groups = new Map();          // name -> group
    this.stored = 0;                  // characters kept in names, nicknames and tags
    this.failures = 0;                // how many of the next IDENTIFYs end with 4000
    this.random = this.options.seed === null ? null : generator(this.options.seed);
    this.turn = 0;
    // What planted bugs remember.
    this.heldNames = new Set(); this.formerUuids = new Map(); this.formerOwners = new Map(); this.fetchCache = new Map();
    this.somebodyLeft = false; this.culprit = null; this.plainSeen = false;
    this.formerSubscribers = new Map(); this.formerNicknames = new Map(); this.lastTags = null; this.toldUnsubscribed = null;
  }

  bug(name) { return this.options.bug === name; }
  variant(name) { return this.variants.has(name); }
  remember(store, key, value) {
    if (store.size >= MEMORY) store.clear();
    if (store instanceof Map) store.set(key, value); else store.add(key);
  }

  newUuid() {
    const b = this.random ? Buffer.from(Array.from({ length: 16 }, () => Math.floor(this.random() * 256))) : randomBytes(16);
    const seven = this.variant('time-uuids');
    if (seven) b.writeUIntBE(this.random ? 1700000000000 + this.turn++ : Date.now(), 0, 6);
    b[6] = (b[6] & 0x0f) | (seven ? 0x70 : 0x40);
    b[8] = (b[8] & 0x3f) | 0x80;
    const uuid = b.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
    if (this.uuids.has(uuid)) return this.newUuid();
    return this.variant('upper-uuids') ? uuid.toUpperCase() : uuid;
  }

  // --- writing -------------------------------------------------------------------------------
  encode(value, key) {
    if (value instanceof Raw) return value.text;
    const wide = this.variant('pretty');
    if (Array.isArray(value)) {
      const items = value.map(v => this.encode(v));
      return wide && items.length ? `[\r\n\t${items.join(' ,\n')} ]` : `[${items.join(',')}]`;
    }
    if (value !== null && typeof value === 'object') {
      let entries = Object.entries(value).filter(([, v]) => v !== undefined);
      if (this.variant('member-order')) entries.reverse();
      entries = entries.map(([k, v]) => `${JSON.stringify(k)}${wide ? ' : ' : ':'}${this.encode(v, k)}`);
      return wide ? `{\n  ${entries.join(',\n  ')}\n}` : `{${entries.join(',')}}`;
    }
    if (key === 'seq' && this.variant('number-spelling')) return value % 2 ? `${value}.0` : `${value * 10}e-1`;
    return JSON.stringify(value);
  }

  // kind: 'reply', 'relay' or 'notice'
  send(client, payload, kind = 'reply') {
    if (client.gone) return;
    if (this.variant('extra-members')) payload = { ...payload, hub_note: { turn: ++this.turn } };
    let text = this.encode(payload);
    if (this.variant('pretty')) text = `\n ${text}\n`;
    if (this.variant('ascii-escapes')) {
      text = text.replace(/[\u0080-\uffff]/g, c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
    }
    const delay = kind === 'notice' && this.variant('late-notices') ? 25 : this.variant('late-replies') ? 15 : kind === 'relay' && this.variant('late-relay') ? 25 : 0;
    if (delay) setTimeout(() => this.write(client, text), delay); else this.write(client, text);
  }

  write(client, text) {
    const ws = client.ws;
    if (client.held) { client.held.push(text); return; }
    if (ws.readyState !== ws.OPEN) return;
    if (ws.bufferedAmount > this.options.maxBuffered) { ws.terminate(); return; }
    if (this.variant('pings')) ws.ping('still there?');
    if (this.variant('unsolicited-pongs')) ws.pong('still here');
    if (this.variant('fragments')) {
      const bytes = Buffer.from(text), third = Math.ceil(bytes.length / 3);
      ws.send(bytes.subarray(0, third), { fin: false, binary: false });
      ws.send(bytes.subarray(third, 2 * third), { fin: false, binary: false });
      ws.send(bytes.subarray(2 * third), { fin: true, binary: false });
    } else ws.send(text);
  }

  status(client, code, fields = {}, seq = client.seq) {
    let receiver = client;
    if (this.bug('status-to-namesake')) {
      const fold = client.name.toLowerCase();
      receiver = [...this.uuids.values()].find(c => c.name.toLowerCase() === fold) ?? client;
    }
    if (code === 'PROTOCOL') { client.errors++; if (client.errors >= 3) this.culprit = client; }
    if (code === 'NO_SUCH_UUID' && this.bug('no-such-uuid-without-seq')) seq = undefined;
    this.send(receiver, { type: 'STATUS', code, ...fields, seq });
  }
  notice(client, code, fields = {}) { this.send(client, { type: 'STATUS', code, ...fields }, 'notice'); }
  protocol(client, desc) {
    if (desc && this.variant('verbose-desc')) desc = `Entschuldigung \u2013 "${desc}"\r\n\tat payload \u2116 ${client.seq} \u{1f6d1}`;
    this.status(client, 'PROTOCOL', { desc });
  }

  list(items) {
    items = [...items];
    if (!this.variant('mixed-lists') || items.length < 2) return items;
    const shift = ++this.turn % items.length;
    return [...items.slice(shift), ...items.slice(0, shift)].reverse();
  }
  groupInfo(group, fetch = false) {
    const given = group.nickname !== null;
    const names = fetch && this.variant('subscriber-names');
    const nickname = given ? group.nickname : fetch && this.variant('nickname-from-name') ? group.name
      : this.variant('nickname-omitted') ? undefined : null;
    return {
      name: group.name, nickname, owner_uuid: group.owner.uuid,
      subscribers: this.list(group.subscribers.filter(c => !c.gone).map(c => (names ? c.name : c.uuid))),
    };
  }
  clientInfo(client) {
    let tags = client.tags, nickname = client.nickname;
    if (nickname === null && this.variant('client-nicknames')) nickname = client.name;
    else if (nickname === null && this.variant('nickname-omitted')) nickname = undefined;
    if (this.bug('numeric-tags')) tags = tags.map(t => (/^\d+$/.test(t) ? Number(t) : t));
    if (this.bug('repeated-tags-merged')) tags = [...new Set(tags)];
    return { name: client.name, nickname, uuid: client.uuid, tags };
  }
  identified() { return this.uuids.values(); }

  // --- connections ---------------------------------------------------------------------------
  connect(ws) {
    const client = new Client(ws);
    this.connections.add(client);
    if (ws.protocol !== SUBPROTOCOL) this.plainSeen = true;
    client.timer = setTimeout(() => this.drop(client, 4004, 'not identified in time'), this.options.identifyTimeout);
    this.countFrames(client);
    ws.on('message', (data, binary) => {
      try {
        if (client.gone) return;
        if (binary) this.onBinary(client);
        else if (this.bug('frames-decoded-apart') && client.parts) this.onText(client, client.parts.map(p => p.toString('utf8')).join(''));
        else this.onText(client, data.toString('utf8'));
      } catch (error) {
        process.stderr.write(`internal error: ${error.stack}\n`);
        this.drop(client, 4000, 'internal error');
      }
    });
    ws.on('ping', () => { client.pinged = client.unfinished; });
    ws.on('error', () => {});
    ws.on('close', code => this.leave(client, code === 1006, code));
  }

  // Counts the data frames of the text being received. Only planted bugs look at it.
  countFrames(client) {
    const receiver = client.ws._receiver;
    if (!receiver || typeof receiver.dataMessage !== 'function') return;
    const original = receiver.dataMessage;
    let count = 0;
    receiver.dataMessage = function (done) {
      client.frames = ++count;
      client.unfinished = !this._fin;
      if (this._fin) {
        client.parts = count > 1 && Array.isArray(this._fragments) ? [...this._fragments] : null;
        count = 0;
      }
      return original.call(this, done);
    };
  }

  drop(client, code, reason) {
    if (client.gone) return;
    this.leave(client, false);
    client.ws.close(code, this.variant('close-reason') ? reason : undefined);
  }

  leave(client, abrupt, code = null) {
    if (client.gone) return;
    client.gone = true;
    clearTimeout(client.timer);
    this.connections.delete(client);
    if (!client.identified) { this.resumeIdentify(); return; }

    this.stored -= client.size;
    const subscribed = [...client.groups];
    const owned = [...this.groups.values()].filter(g => g.owner === client);
    this.uuids.delete(client.uuid.toLowerCase());
    if (this.names.get(client.name) === client) this.names.delete(client.name);
    this.remember(this.formerUuids, client.name, client.uuid);
    this.somebodyLeft = true;
    if (this.bug('name-kept-after-ownership') && client.created) this.remember(this.heldNames, client.name);
    if (this.bug('abrupt-leaver-keeps-name') && abrupt) this.remember(this.heldNames, client.name);

    const lost = [];
    for (const group of subscribed) {
      const at = group.subscribers.indexOf(client);
      if (at < 0) continue;
      if (this.bug('abrupt-leaver-ends-broadcast') && abrupt) continue;
      const count = this.bug('leaver-takes-next') ? 2 : 1;
      for (const gone of group.subscribers.splice(at, count)) gone.groups.delete(group);
      if (this.bug('first-subscriber-leave-deletes-group') && at === 0 && group.owner !== client) lost.push(group);
    }
    if (this.bug('leaver-empties-second-group') && subscribed.length > 1) {
      for (const c of subscribed[1].subscribers.splice(0)) c.groups.delete(subscribed[1]);
    }
    let ending = owned;
    if (this.bug('second-group-survives')) ending = owned.slice(0, 1);
    if (this.bug('subscribed-owner-keeps-groups') && subscribed.some(g => g.owner !== client)) ending = [];
    if (this.bug('owner-leave-deletes-prefixed')) {
      for (const g of this.groups.values()) if (!owned.includes(g) && owned.some(o => g.name.startsWith(o.name))) lost.push(g);
    }
    if (this.bug('going-away-keeps-groups') && code === 1001) ending = [];
    this.toldUnsubscribed = new Set();
    for (const group of [...ending, ...lost]) if (this.groups.get(group.name) === group) this.endGroup(group, null);
    if (this.variant('join-notices')) for (const c of this.identified()) this.notice(c, 'OK', { left: client.name });
    this.resumeIdentify();
  }

  // --- payloads ------------------------------------------------------------------------------
  onBinary(client) {
    if (!client.identified) { this.drop(client, 4002, 'binary payload'); return; }
    if (this.bug('binary-counts-after-error') && client.errors > 0) client.seq++;
  }

  onText(client, text) {
    client.seq += this.bug('frames-counted') ? Math.max(1, client.frames) : 1;
    let payload, desc = null;
    try { payload = JSON.parse(text); } catch { desc = 'not JSON'; }
    if (desc === null && !isObject(payload)) desc = 'not an object';
    else if (desc === null && !(Object.hasOwn(payload, 'type') && isString(payload.type))) desc = 'no type';
    if (this.bug('leading-space-refused') && client.identified && /^[ \t\r\n]/.test(text)) desc = 'not JSON';

    if (this.bug('ping-between-frames-breaks') && client.pinged) desc = 'not JSON';
    client.pinged = false;

    if (!client.identified) {
      if (client.waiting) { this.drop(client, 4003, 'not identified'); return; }
      if (desc !== null) this.drop(client, 4002, desc);
      else if (payload.type === 'IDENTIFY') this.onIdentify(client, payload);
      else if (this.bug('fetch-all-before-identify') && payload.type === 'GROUP_FETCH_ALL') this.onGroupFetchAll(client);
      else if (this.variant('unknown-type-protocol') && !COMMANDS.has(payload.type) && !ANSWERS.has(payload.type)) this.drop(client, 4002, 'unknown type');
      else this.drop(client, 4003, 'not identified');
      return;
    }
    if (desc !== null) {
      if (this.bug('malformed-not-counted') && desc === 'not JSON') { this.status(client, 'PROTOCOL', { desc }, client.seq--); return; }
      if (this.bug('array-without-desc') && Array.isArray(payload)) desc = undefined;
      this.protocol(client, desc);
      return;
    }
    if (this.bug('client-seq-echoed') && Object.hasOwn(payload, 'seq') && Number.isInteger(payload.seq)) {
      const count = client.seq;
      client.seq = payload.seq;
      this.dispatch(client, payload, text);
      client.seq = count;
      return;
    }
    this.dispatch(client, payload, text);
  }

  dispatch(client, payload, text) {
    const type = payload.type;
    client.row = type === 'MESSAGE' ? client.row + 1 : 0;
    if (this.bug('escaped-type-unknown') && rawMembers(text).some(m => m.key === 'type' && m.text.includes('\\'))) {
      this.status(client, 'UNSUPORTED');
      return;
    }
    if (this.bug('status-payload-ignored') && type === 'STATUS') return;
    if (this.bug('fetch-result-accepted') && type === 'CLIENT_FETCH_ALL_RESULT') { this.status(client, 'OK'); return; }
    switch (type) {
      case 'MESSAGE': this.onMessage(client, payload, text); return;
      case 'GROUP_FETCH_ALL': this.onGroupFetchAll(client); return;
      case 'CLIENT_FETCH_ALL':
        if (this.bug('burst-takes-last-seq')) {
          const clients = this.list(this.identified()).map(c => this.clientInfo(c));
          setTimeout(() => this.send(client, { type: 'CLIENT_FETCH_ALL_RESULT', clients, seq: client.seq }), 30);
          return;
        }
        this.send(client, { type: 'CLIENT_FETCH_ALL_RESULT', clients: this.list(this.identified()).map(c => this.clientInfo(c)), seq: client.seq });
        return;
      case 'SELF_FETCH':
        this.send(client, {
          type: 'SELF_FETCH_RESULT', ...this.clientInfo(client),
          subscriptions: this.list([...client.groups].map(g => g.name)), seq: client.seq,
        });
        return;
      case 'IDENTIFY':
        this.status(client, this.variant('second-identify-bad') ? 'BAD' : 'UNSUPORTED');
        if (this.bug('second-identify-resets-seq')) client.seq = 1;
        return;
      case 'SELF_SUBSCRIBE': case 'SELF_UNSUBSCRIBE': case 'GROUP_CREATE': case 'GROUP_DELETE': case 'GROUP_FETCH': break;
      default:
        if (this.variant('unknown-type-protocol') && !ANSWERS.has(type)) this.protocol(client, 'unknown type');
        else this.status(client, 'UNSUPORTED');
        return;
    }
    let name = Object.hasOwn(payload, 'name') ? payload.name : undefined;
    if (this.bug('subscribe-number-name') && type === 'SELF_SUBSCRIBE' && typeof name === 'number') name = String(name);
    if (!isString(name)) { this.protocol(client, 'name must be a string'); return; }
    const spelled = () => rawMembers(text).findLast(m => m.key === 'name').text.slice(1, -1);
    if (this.bug('solidus-escape-differs') && type === 'SELF_SUBSCRIBE' && spelled().includes('\\/')) name = spelled();
    if (type === 'SELF_SUBSCRIBE') this.onSubscribe(client, name);
    else if (type === 'SELF_UNSUBSCRIBE') this.onUnsubscribe(client, name);
    else if (type === 'GROUP_DELETE') this.onDelete(client, name);
    else if (type === 'GROUP_FETCH') this.onGroupFetch(client, name);
    else {
      if (this.bug('escaped-pair-replaced') && /\\ud[89ab]../i.test(spelled())) name = name.replace(/[\u{10000}-\u{10ffff}]/gu, '\ufffd');
      this.onCreate(client, name, Object.hasOwn(payload, 'nickname') ? payload.nickname : undefined);
    }
  }

  // --- identification ------------------------------------------------------------------------
  onIdentify(client, payload) {
    const { name, version: wantedVersion, secret, tags, nickname } = payload;
    if (!isString(name) || !isString(wantedVersion) || !(secret === undefined || secret === null || isString(secret))
      || !(tags === undefined || tags === null || isStrings(tags))) {
      this.drop(client, 4002, 'malformed IDENTIFY');
      return;
    }
    if (this.bug('silent-connection-blocks-identify') && [...this.connections].some(c => c !== client && !c.identified && c.ws._hubOrder < client.ws._hubOrder)) {
      client.waiting = payload;
      return;
    }
    if (this.failures > 0) { this.failures--; this.drop(client, 4000, 'internal error'); return; }
    const wanted = this.options.secret;
    const lenient = this.bug('missing-secret-accepted') && (secret === undefined || secret === null);
    if (wanted !== null && secret !== wanted && !lenient) { this.drop(client, 4006, 'bad secret'); return; }
    let fits = compatible(wantedVersion, this.options.hubVersion);
    if (this.bug('build-metadata-refused') && wantedVersion.includes('+')) fits = false;
    if (!fits) {
      if (this.bug('refused-version-holds-name')) this.remember(this.heldNames, name);
      this.drop(client, 4007, 'bad version');
      return;
    }
    if (this.names.has(name) || this.heldNames.has(name)) {
      if (this.bug('duplicate-attempt-unregisters')) this.names.delete(name);
      this.drop(client, 4005, 'name is taken');
      return;
    }
    const size = weight(name, nickname, ...(tags ?? []));
    if (this.stored + size > this.options.maxStored) { this.drop(client, 4000, 'out of memory'); return; }
    this.stored += client.size = size;
    clearTimeout(client.timer);
    if (this.bug('identify-stops-all-timers')) for (const c of this.connections) clearTimeout(c.timer);
    Object.assign(client, {
      identified: true, name, uuid: this.newUuid(), tags: tags ?? [], nickname: isString(nickname) ? nickname : null,
      returned: this.formerUuids.has(name), late: this.somebodyLeft, waiting: null,
    });
    if (this.bug('tags-of-previous-client')) {
      if (tags) this.lastTags = tags; else client.tags = this.lastTags ?? [];
    }
    this.names.set(name, client);
    this.uuids.set(client.uuid.toLowerCase(), client);
    const version = this.options.hubVersion;
    if (this.variant('slow-hello')) {
      client.held = [];
      setTimeout(() => { const texts = client.held; client.held = null; for (const t of texts) this.write(client, t); }, 80);
    }
    this.send(client, { type: 'HELLO', uuid: client.uuid, version: this.variant('hello-build-metadata') && !version.includes('+') ? `${version}+hub.7` : version });
    if (this.variant('identify-ok')) this.status(client, 'OK');
    if (this.variant('join-notices')) for (const c of this.identified()) if (c !== client) this.notice(c, 'OK', { joined: name });
    this.resumeIdentify();
  }
  resumeIdentify() {
    for (const client of this.connections) {
      if (!client.waiting || client.gone) continue;
      const payload = client.waiting;
      client.waiting = null;
      this.onIdentify(client, payload);
      return;
    }
  }

  // --- messages ------------------------------------------------------------------------------
  onMessage(client, payload, text) {
    if (this.bug('errors-counted-for-all') && this.culprit && this.culprit !== client) {
      this.culprit.errors = 0;
      this.culprit = null;
      this.protocol(client, 'too many errors');
      return;
    }
    const members = rawMembers(text);
    const target = Object.hasOwn(payload, 'target') ? payload.target : undefined;
    const kind = isObject(target) && Object.hasOwn(target, 'type') ? target.type : undefined;
    const field = isString(kind) && kind !== 'ALL' ? FIELDS.get(kind) : undefined;
    if (!(field || kind === 'ALL') || (field && !(Object.hasOwn(target, field) && isString(target[field])))) {
      this.protocol(client, 'malformed target');
      return;
    }
    if (this.bug('target-type-must-lead') && Object.keys(target)[0] !== 'type') { this.protocol(client, 'malformed target'); return; }
    const member = members.findLast(m => m.key === 'data');
    const missing = !member || (this.bug('escaped-data-key') && member.keyText !== '"data"') || (this.bug('null-data-missing') && payload.data === null);
    if (missing) { this.protocol(client, 'no data'); return; }

    const value = field && target[field];
    let group = null, receivers;
    if (kind === 'NAME') {
      let to = this.names.get(value);
      if (this.bug('name-prefix-32-routing') && value.length > 32) to = [...this.names.values()].find(c => c.name.slice(0, 32) === value.slice(0, 32));
      if (!to && this.bug('name-case-fold')) to = [...this.names.values()].find(c => c.name.toLowerCase() === value.toLowerCase());
      if (!to) { this.status(client, 'NO_SUCH_NAME', { name: value }); return; }
      if (this.bug('returned-name-lost')) {
        if (client.routes.has(value)) to = client.routes.get(value); else this.remember(client.routes, value, to);
      }
      receivers = [to];
      if (this.bug('self-by-name-lost') && to === client) receivers = [];
      if (this.bug('group-shadows-name') && this.groups.has(value)) receivers = this.groupReceivers(this.groups.get(value), client);
      if (this.bug('target-tags-broadcast') && isStrings(target.tags)) {
        receivers.push(...[...this.identified()].filter(c => c !== to && c !== client && c.tags.some(x => target.tags.includes(x))));
      }
    } else if (kind === 'UUID') {
      let to = this.uuids.get(value.toLowerCase());
      if (this.bug('uuid-target-finds-name')) to = this.names.get(value) ?? to;
      if (to && this.variant('uuid-exact') && to.uuid !== value) to = undefined;
      if (this.bug('uuid-prefix-32')) to = [...this.identified()].find(c => c.uuid.slice(0, 32) === value.slice(0, 32));
      if (!to) { this.status(client, 'NO_SUCH_UUID', { uuid: value }); return; }
      receivers = [to];
    } else if (kind === 'GROUP') {
      group = this.groups.get(value);
      if (!group) { this.status(client, 'NO_SUCH_GROUP', { group: value }); return; }
      receivers = this.groupReceivers(group, client);
    } else {
      receivers = [...this.identified()].filter(c => c !== client || this.variant('all-includes-sender'));
      if (this.bug('late-joiner-missed-by-all')) receivers = receivers.filter(c => !c.late);
    }
    if (this.bug('sixth-in-a-row-lost') && client.row % 6 === 0) receivers = [];
    if (this.bug('equal-message-once')) {
      if (client.previous === text) receivers = [];
      client.previous = text;
    }

    const message = {
      type: 'MESSAGE',
      origin: this.origin(client, payload, group, members, kind),
      target: this.variant('target-verbatim') ? new Raw(members.findLast(m => m.key === 'target').text) : { type: kind, ...(field && { [field]: value }) },
      data: new Raw(this.dataText(payload.data, member, text)),
    };
    if (this.variant('sent-first')) this.status(client, 'MESSAGE_SENT');
    for (const to of receivers) {
      if (to.gone) break; // only where abrupt-leaver-ends-broadcast left one behind
      this.send(to, message, 'relay');
    }
    if (!this.variant('sent-first')) this.status(client, 'MESSAGE_SENT');
  }

  groupReceivers(group, sender) {
    if (group.muted) return [];
    let list = [...group.subscribers];
    if (this.bug('fifth-subscriber-evicts-first') && list.length > 4) list = list.slice(-4);
    if (this.bug('resubscription-dead')) list = list.filter(c => !group.former.has(c.uuid));
    if (this.bug('broadcast-stops-at-sender') && list.indexOf(sender) > 0) list = list.slice(0, list.indexOf(sender) + 1);
    if (this.bug('unfinished-message-holds-broadcast') && list.some(c => c.unfinished)) list = [];
    return list;
  }

  origin(client, payload, group, members, kind) {
    const sent = payload.origin;
    if (this.bug('all-without-origin') && kind === 'ALL') return sent;
    if (this.bug('trailing-origin-kept') && members.at(-1).key === 'origin') return sent;
    let from = client;
    if (this.bug('origin-is-owner-for-outsider') && group && !group.subscribers.includes(client)) from = group.owner;
    const origin = this.clientInfo(from);
    if (this.bug('origin-uuid-of-former-holder')) origin.uuid = this.formerUuids.get(from.name) ?? origin.uuid;
    if (this.bug('spoofed-origin-uuid') && isObject(sent) && isString(sent.uuid) && this.uuids.has(sent.uuid.toLowerCase())) origin.uuid = sent.uuid;
    if (this.variant('short-origin')) return { name: origin.name, uuid: origin.uuid };
    if (group) origin.group = this.groupInfo(group);
    if (group && this.bug('origin-group-sticks')) origin.group = client.originGroup ??= origin.group;
    return origin;
  }

  dataText(data, member, text) {
    if (this.bug('numbers-reparsed')) return JSON.stringify(data);
    if (this.bug('proto-member-lost') && /"(__proto__)"\s*:/.test(member.text)) return JSON.stringify(withoutProto(data));
    if (this.bug('markup-escaped')) return member.text.replace(/[<>&]/g, c => ({ '<': '&lt;', '>': '&gt;', '&': '&amp;' })[c]);
    if (this.bug('long-data-cut') && isString(data) && data.length > 65535) return JSON.stringify(data.slice(0, 65535));
    if (this.bug('falsy-data-null') && !data) return 'null';
    if (this.bug('lone-surrogate-replaced')) {
      return member.text.replace(/\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|\\u[dD][89a-fA-F][\da-fA-F]{2}|\\./g,
        m => (m.length === 6 ? '\\ufffd' : m));
    }
    if (this.bug('dates-renormalised')) {
      return member.text.replace(/"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))"/g,
        (m, date) => (Number.isNaN(Date.parse(date)) ? m : `"${new Date(date).toISOString()}"`));
    }
    if (this.bug('deep-data-cut')) return cutDeep(member.text, 64);
    if (this.bug('spaced-data-lost') && member.gap > 0) return 'null';
    if (this.bug('nested-data-key')) {
      const at = skipSpace(text, text.indexOf(':', text.indexOf('"data"')) + 1);
      return text.slice(at, valueEnd(text, at));
    }
    return member.text;
  }

  // --- groups --------------------------------------------------------------------------------
  onSubscribe(client, name) {
    let group = this.groups.get(name);
    if (this.bug('group-prefix-32') && name.length > 32) group = [...this.groups.values()].find(g => g.name.slice(0, 32) === name.slice(0, 32));
    if (!group) { this.status(client, 'NO_SUCH_GROUP', { group: name }); return; }
    if (group.subscribers.includes(client) && this.variant('resubscribe-bad')) { this.status(client, 'BAD'); return; }
    this.subscribe(client, group);
    this.status(client, 'SUBSCRIBED', this.groupInfo(group));
  }
  subscribe(client, group) {
    if (group.subscribers.includes(client)) return;
    if (this.bug('fifth-subscription-evicts-first') && client.groups.size >= 4) this.unsubscribe(client, [...client.groups][0]);
    if (this.bug('joined-key-collision')) {
      const key = `${client.name}:${group.name}`;
      for (const g of this.groups.values()) if (g.subscribers.some(c => `${c.name}:${g.name}` === key)) return;
    }
    group.subscribers.push(client);
    client.groups.add(group);
    group.most = Math.max(group.most, group.subscribers.length);
    this.tellSubscribers(group, client, 'subscribed');
  }
  tellSubscribers(group, about, what) {
    if (!this.variant('subscribe-notices')) return;
    for (const c of group.subscribers) if (c !== about) this.notice(c, 'OK', { event: what, client: about.name, group: group.name });
  }
  unsubscribe(client, group) {
    const at = group.subscribers.indexOf(client);
    if (at < 0) return false;
    group.subscribers.splice(at, 1);
    client.groups.delete(group);
    if (this.bug('resubscription-dead')) this.remember(group.former, client.uuid);
    this.tellSubscribers(group, client, 'unsubscribed');
    return true;
  }

  onUnsubscribe(client, name) {
    const group = this.groups.get(name);
    if (!group) {
      if (this.bug('unsubscribe-unknown-ok')) this.status(client, 'UNSUBSCRIBED', { name, nickname: null, owner_uuid: client.uuid, subscribers: [] });
      else this.status(client, 'NO_SUCH_GROUP', { group: name });
      return;
    }
    const many = client.groups.size > 2;
    const was = this.unsubscribe(client, group);
    if (!was && this.variant('idle-unsubscribe-bad')) { this.status(client, 'BAD'); return; }
    if (!was && this.bug('idle-unsubscribe-takes-last')) group.subscribers.splice(-1, 1);
    if (was && many && this.bug('unsubscribe-drops-latest-too')) this.unsubscribe(client, [...client.groups].at(-1));
    if (was && group.owner === client && this.bug('owner-unsubscribe-mutes-group')) group.muted = true;
    this.status(client, 'UNSUBSCRIBED', this.groupInfo(group));
    if (was && this.bug('last-unsubscribe-ends-group') && group.subscribers.length === 0 && group.most > 1) {
      this.groups.delete(name);
      this.stored -= weight(group.name, group.nickname);
    }
  }

  onCreate(client, name, nickname) {
    if (!(nickname === undefined || nickname === null || isString(nickname)) || (this.bug('empty-group-name-missing') && name === '')) {
      this.protocol(client, 'name and nickname must be strings');
      return;
    }
    nickname ??= null;
    if (this.bug('empty-nickname-missing') && nickname === '') nickname = null;
    if (this.bug('nul-cuts-nickname') && nickname !== null) nickname = nickname.split('\0')[0];
    if (this.bug('nickname-cut-at-255') && nickname !== null) nickname = nickname.slice(0, 255);
    if (this.bug('nickname-null-word') && (nickname === 'null' || nickname === 'undefined')) nickname = null;
    if (this.bug('group-name-trimmed')) name = name.trim();
    let existing = this.groups.get(name);
    if (this.bug('group-unicode-form')) existing ??= [...this.groups.values()].find(g => g.name.normalize() === name.normalize());
    if (this.bug('prototype-group-names') && name in {}) existing ??= new Group(name, null, client);
    if (existing) {
      if (this.bug('refused-create-renames')) existing.nickname = nickname;
      const info = this.groupInfo(existing);
      if (this.bug('already-created-names-requester') && existing.subscribers.includes(client)) info.owner_uuid = client.uuid;
      if (this.bug('already-created-no-subscribers')) info.subscribers = [];
      this.status(client, 'GROUP_ALREADY_CREATED', info);
      return;
    }
    if (this.bug('recreated-group-old-nickname')) nickname ??= this.formerNicknames.get(name) ?? null;
    const size = weight(name, nickname);
    if (this.groups.size >= this.options.maxGroups || this.stored + size > this.options.maxStored) {
      this.status(client, 'BAD', { desc: 'too many groups' });
      return;
    }
    this.stored += size;
    const group = new Group(name, nickname, client);
    if (this.bug('recreated-group-stale-owner') && this.formerOwners.has(name)) group.owner = this.formerOwners.get(name);
    if (this.bug('recreated-group-keeps-subscribers')) group.subscribers = (this.formerSubscribers.get(name) ?? []).filter(c => !c.gone);
    this.groups.set(name, group);
    client.created = true;
    if (this.variant('owner-subscribed')) this.subscribe(client, group);
    this.status(client, 'GROUP_CREATED', this.groupInfo(group));
    for (const c of this.identified()) {
      if (c === client || (this.bug('no-notices-after-return') && c.returned)) continue;
      this.notice(c, 'GROUP_CREATED', this.groupInfo(group));
    }
  }

  onDelete(client, name) {
    const group = this.groups.get(name);
    if (!group) { this.status(client, 'NO_SUCH_GROUP', this.bug('delete-unknown-says-name') ? { name } : { group: name }); return; }
    const owner = group.owner === client || (this.bug('owner-case-fold') && group.owner.name.toLowerCase() === client.name.toLowerCase());
    if (!owner || (group.locked && this.bug('foreign-delete-locks-group'))) {
      group.locked = true;
      if (this.bug('refused-delete-unsubscribes')) this.unsubscribe(client, group);
      this.status(client, this.variant('foreign-delete-unsuported') ? 'UNSUPORTED' : 'BAD');
      return;
    }
    if (this.bug('recreated-group-stale-owner')) this.remember(this.formerOwners, name, client);
    this.endGroup(group, client);
    if (this.bug('delete-unsubscribes-sibling')) {
      for (const g of this.groups.values()) if (g.owner === client) for (const c of [...g.subscribers]) this.unsubscribe(c, g);
    }
  }

  // actor: the client that sent GROUP_DELETE, or null if the owner left.
  endGroup(group, actor) {
    const info = this.groupInfo(group);
    if (this.variant('deleted-empty')) info.subscribers = [];
    const subscribers = [...group.subscribers];
    this.groups.delete(group.name);
    this.stored -= weight(group.name, group.nickname);
    if (this.bug('recreated-group-keeps-subscribers')) this.remember(this.formerSubscribers, group.name, subscribers);
    if (this.bug('recreated-group-old-nickname')) this.remember(this.formerNicknames, group.name, group.nickname);
    group.subscribers = [];
    const keep = this.bug('stale-subscriptions') && actor;
    for (const c of subscribers) if (!keep) c.groups.delete(group);
    const tellDeleted = () => {
      if (actor) this.status(actor, 'GROUP_DELETED', info);
      for (const c of this.identified()) {
        if (c === actor || (this.bug('leave-told-to-subscribers-only') && !actor && !subscribers.includes(c))) continue;
        this.notice(c, 'GROUP_DELETED', info);
      }
    };
    if (this.variant('deleted-first')) tellDeleted();
    for (const c of this.bug('only-first-told-unsubscribed') ? subscribers.slice(0, 1) : subscribers) {
      if (!actor && this.bug('two-groups-one-unsubscribed')) {
        if (this.toldUnsubscribed.has(c)) continue;
        this.toldUnsubscribed.add(c);
      }
      if (!actor && this.bug('leave-unsubscribed-has-seq')) this.notice(c, 'UNSUBSCRIBED', { ...info, seq: c.seq });
      else if (c === actor && this.variant('own-unsubscribed-seq')) this.status(c, 'UNSUBSCRIBED', info);
      else this.notice(c, 'UNSUBSCRIBED', info);
    }
    if (!this.variant('deleted-first')) tellDeleted();
  }

  onGroupFetch(client, name) {
    const group = this.groups.get(name);
    if (!group) {
      if (this.variant('fetch-unknown-bad')) this.status(client, 'BAD'); else this.status(client, 'NO_SUCH_GROUP', { group: name });
      return;
    }
    let payload = { type: 'GROUP_FETCH_RESULT', ...this.groupInfo(group, true), seq: client.seq };
    if (this.bug('fetch-cached-by-seq')) {
      const key = `${client.seq} ${name}`;
      payload = this.fetchCache.get(key) ?? payload;
      this.remember(this.fetchCache, key, payload);
    }
    this.send(client, payload);
  }
  onGroupFetchAll(client) {
    let groups = this.list(this.groups.values()).map(g => this.groupInfo(g, true));
    if (this.bug('fetch-all-ends-at-five')) groups = groups.slice(0, 5);
    this.send(client, { type: 'GROUP_FETCH_ALL_RESULT', groups, seq: client.seq });
  }

  // --- controls ------------------------------------------------------------------------------
  control(name, body) {
    const found = () => [...this.identified()].find(c => c.name === body.name);
    if (name === 'state') {
      return { connections: this.connections.size, clients: [...this.identified()].map(c => c.name), groups: [...this.groups.keys()] };
    }
    if (name === 'drop') {
      const client = found();
      if (!client) return { dropped: false };
      if (body.abrupt === true) { client.ws.terminate(); this.leave(client, true); } else this.drop(client, closeCode(body.code, 1001), 'dropped by operator');
      return { dropped: true };
    }
    if (name === 'fail') {
      this.failures = Number.isInteger(body.count) && body.count >= 0 && body.count <= 1000 ? body.count : 1;
      return { failures: this.failures };
    }
    if (name === 'notice') {
      const to = body.name === undefined ? [...this.identified()] : [found()].filter(Boolean);
      for (const c of to) this.notice(c, 'OK');
      return { told: to.length };
    }
    if (name === 'shutdown') {
      setImmediate(() => this.stop(closeCode(body.code, 1001)));
      return { stopping: true };
    }
    return null;
  }

  // --- server --------------------------------------------------------------------------------
  start() {
    const server = this.server = http.createServer((request, response) => this.onHttp(request, response));
    const wss = this.wss = new WebSocketServer({
      noServer: true, maxPayload: this.options.maxPayload,
      perMessageDeflate: this.variant('deflate') ? { threshold: 0 } : false,
      handleProtocols: offered => {
        if (!offered.has(SUBPROTOCOL)) return false;
        if (this.bug('subprotocol-must-lead') && [...offered][0] !== SUBPROTOCOL) return false;
        if (this.bug('plain-connection-ends-subprotocol') && this.plainSeen) { this.plainSeen = false; return false; }
        return SUBPROTOCOL;
      },
    });
    let order = 0;
    server.on('upgrade', (request, socket, head) => {
      socket.on('error', () => {});
      const offered = String(request.headers['sec-websocket-protocol'] ?? '').split(',').map(s => s.trim());
      const refuse = this.variant('strict-subprotocol') && !offered.includes(SUBPROTOCOL) ? '400 Bad Request'
        : this.connections.size >= this.options.maxConnections ? '503 Service Unavailable' : null;
      if (refuse) { socket.end(`HTTP/1.1 ${refuse}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`); return; }
      wss.handleUpgrade(request, socket, head, ws => { ws._hubOrder = order++; this.connect(ws); });
    });
    server.on('clientError', (error, socket) => socket.destroy());
    return new Promise((resolve, reject) => {
      server.on('error', reject);
      server.listen(this.options.port, '127.0.0.1', () => resolve(server.address().port));
    });
  }

  onHttp(request, response) {
    const answer = (code, value) => {
      response.writeHead(code, { 'Content-Type': 'application/json' });
      response.end(JSON.stringify(value));
    };
    const match = /^\/control\/([a-z-]+)$/.exec(request.url);
    if (!match || request.method !== 'POST') { request.resume(); answer(404, { error: 'not found' }); return; }
    let text = '';
    request.setEncoding('utf8');
    request.on('error', () => {});
    request.on('data', part => { text += part; if (text.length > 65536) request.destroy(); });
    request.on('end', () => {
      let body;
      try { body = text.trim() === '' ? {} : JSON.parse(text); } catch { body = null; }
      if (!isObject(body)) { answer(400, { error: 'the body must be a JSON object' }); return; }
      const result = this.control(match[1], body);
      answer(result ? 200 : 404, result ?? { error: 'no such control' });
    });
  }

  stop(code = 1001) {
    for (const client of [...this.connections]) {
      client.gone = true;
      clearTimeout(client.timer);
      client.ws.close(code);
    }
    this.server.close();
    this.server.closeAllConnections?.();
    setTimeout(() => process.exit(0), 200);
  }
}

const weight = (...texts) => texts.reduce((sum, t) => sum + 32 + (isString(t) ? t.length : 0), 0);
function closeCode(code, otherwise) {
  return Number.isInteger(code) && (code === 1000 || code === 1001 || code === 1011 || code === 1012 || (code >= 3000 && code <= 4999)) ? code : otherwise;
}
function withoutProto(value) {
  if (Array.isArray(value)) return value.map(withoutProto);
  if (!isObject(value)) return value;
  const copy = {};
  for (const [k, v] of Object.entries(value)) copy[k] = withoutProto(v);
  return copy;
}
// JSON text with null for every array and object that is deeper than most.
function cutDeep(text, most) {
  let out = '', depth = 0;
  for (let i = 0; i < text.length;) {
    const c = text[i];
    let end = i + 1;
    if (c === '"') end = stringEnd(text, i);
    else if ((c === '{' || c === '[') && ++depth > most) { out += 'null'; depth--; i = valueEnd(text, i); continue; }
    else if (c === '}' || c === ']') depth--;
    out += text.slice(i, end);
    i = end;
  }
  return out;
}
function generator(seed) { // mulberry32
  let a = Number(seed) >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// ---------------------------------------------------------------------------------------------
// Command line
// ---------------------------------------------------------------------------------------------
export function catalogue() {
  const bugs = [];
  for (const [kind, rows] of Object.entries(CATALOGUE)) {
    for (const [name, line, sentence, does, seen] of rows) bugs.push({ name, kind, line, sentence, does, seen });
  }
  return { bugs, variants: VARIANTS.map(([name, does, why]) => ({ name, does, why })) };
}

function parseArguments(args) {
  const options = { variants: [] };
  const number = text => {
    const n = Number(text);
    if (!Number.isInteger(n) || n < 0) throw new Error(`not a number: ${text}`);
    return n;
  };
  const takes = {
    '--port': v => { options.port = number(v); },
    '--bug': v => { if (options.bug) throw new Error('only one bug'); options.bug = v; },
    '--variant': v => { options.variants.push(v); },
    '--seed': v => { options.seed = number(v); },
    '--secret': v => { options.secret = v; },
    '--hub-version': v => { if (!semver(v)) throw new Error(`not a version: ${v}`); options.hubVersion = v; },
    '--identify-timeout': v => { options.identifyTimeout = number(v); },
    '--max-payload': v => { options.maxPayload = number(v); },
    '--max-connections': v => { options.maxConnections = number(v); },
    '--max-groups': v => { options.maxGroups = number(v); },
    '--max-stored': v => { options.maxStored = number(v); },
    '--max-buffered': v => { options.maxBuffered = number(v); },
  };
  for (let i = 0; i < args.length; i++) {
    if (args[i] === '--list') { options.list = true; continue; }
    const [flag, inline] = args[i].includes('=') ? [args[i].slice(0, args[i].indexOf('=')), args[i].slice(args[i].indexOf('=') + 1)] : [args[i]];
    if (!Object.hasOwn(takes, flag)) throw new Error(`unknown option: ${flag}`);
    const value = inline ?? args[++i];
    if (value === undefined) throw new Error(`${flag} needs a value`);
    takes[flag](value);
  }
  const known = catalogue();
  if (options.bug && !known.bugs.some(b => b.name === options.bug)) throw new Error(`unknown bug: ${options.bug}`);
  for (const v of options.variants) if (!known.variants.some(k => k.name === v)) throw new Error(`unknown variant: ${v}`);
  return options;
}

async function main() {
  let options;
  try { options = parseArguments(process.argv.slice(2)); } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
  if (options.list) { process.stdout.write(JSON.stringify(catalogue(), null, 1) + '\n'); return; }
  const hub = new Hub(options);
  const port = await hub.start();
  process.stdout.write(`ws://127.0.0.1:${port}\n`);
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => hub.stop(1001));
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main().catch(error => { process.stderr.write(`${error.message}\n`); process.exit(1); });
}
