#!/usr/bin/env python3
"""A concierge hub: JSON payloads over WebSockets, subprotocol `ert-concierge`.

Correct by default. `--variant NAME` switches on a legal variant, `--bug NAME` one
planted bug; `--list` prints both lists as JSON. The README tells how the hub reads
the points that the protocol's document leaves open.
"""

import argparse
import asyncio
import collections
import hmac
import json
import logging
import random
import re
import signal
import sys
import unicodedata
import uuid

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

SUBPROTOCOL = "ert-concierge"

CLIENT_TYPES = {
    "IDENTIFY", "MESSAGE", "SELF_SUBSCRIBE", "SELF_UNSUBSCRIBE", "GROUP_CREATE", "GROUP_DELETE",
    "GROUP_FETCH", "GROUP_FETCH_ALL", "CLIENT_FETCH_ALL", "SELF_FETCH",
}
SERVER_TYPES = {
    "HELLO", "GROUP_FETCH_RESULT", "GROUP_FETCH_ALL_RESULT", "CLIENT_FETCH_ALL_RESULT",
    "SELF_FETCH_RESULT", "STATUS",
}
ALIASES = {
    "CREATE_GROUP": "GROUP_CREATE", "DELETE_GROUP": "GROUP_DELETE",
    "SUBSCRIBE": "SELF_SUBSCRIBE", "UNSUBSCRIBE": "SELF_UNSUBSCRIBE",
}

UNKNOWN, FATAL_DECODE, NO_AUTH, AUTH_FAILED = 4000, 4002, 4003, 4004
DUPLICATE_AUTH, BAD_SECRET, BAD_VERSION = 4005, 4006, 4007
REASONS = {
    UNKNOWN: "UNKOWN", FATAL_DECODE: "FATAL_DECODE", NO_AUTH: "NO_AUTH", AUTH_FAILED: "AUTH_FAILED",
    DUPLICATE_AUTH: "DUPLICATE_AUTH", BAD_SECRET: "BAD_SECRET", BAD_VERSION: "BAD_VERSION",
}

# --------------------------------------------------------------------------------------
# The lists of bugs and variants
# --------------------------------------------------------------------------------------

BUGS = {}
VARIANTS = {}


def bug(kind, name, line, sentence, does, seen):
    BUGS[name] = {"name": name, "kind": kind, "line": line, "sentence": sentence, "does": does, "seen": seen}


def variant(name, does, why):
    VARIANTS[name] = {"name": name, "does": does, "why": why}


SEQ = "Sequence numbers are based on the n-th text payload received by the concierge."
VERBATIM = "The data field is transmitted verbatim."
DIRECT = "The NAME and UUID target types will directly pass the message to a single target client."
BROADCAST = "The GROUP target type will broadcast the message to all of the group's subscribers."
AUTODELETE = "The group is also automatically deleted if the owning client disconnects from the concierge."
ONLY_OWNER = "The client that created the group is the only client that can delete the group."
CONFLICT = "It will check that the name does not conflict with the current namespace."

# 1. history
bug("history", "seq-skips-malformed", 17, SEQ,
    "a text that is not JSON is answered but not counted",
    "after such a text, every later seq of the connection is one too low")
bug("history", "name-kept-after-refusal", 46, CONFLICT,
    "a name that came with a refused version stays taken",
    "after 4007, a new connection with the same name and a good version is closed with 4005")
bug("history", "name-kept-second-time", 46, CONFLICT,
    "a name is freed when its holder leaves for the first time, but not for the second",
    "the third connection with a name is closed with 4005 although nobody holds it")
bug("history", "owner-stale", 224, ONLY_OWNER,
    "the right to delete a group name stays with the client that created it first",
    "a group deleted and created again by another client cannot be deleted by that client")
bug("history", "nickname-stale", 528, "nickname: The nickname of the group.",
    "a group that is deleted and created again keeps its first nickname",
    "GROUP_FETCH_RESULT shows the nickname of the earlier group")
bug("history", "resubscribe-deaf", 155, "All messages sent to the group will be broadcasted to the subscribers.",
    "a client that unsubscribes and subscribes again is listed but gets no more messages of the group",
    "a message to the group does not arrive after the second SELF_SUBSCRIBE")
bug("history", "subscriptions-return", 452, "This payload lists all of the connecting client's subscriptions.",
    "a new client gets the subscriptions of the client that held its name before",
    "SELF_FETCH_RESULT lists a group that this connection never subscribed to")
bug("history", "delete-error-keeps-groups", 225, AUTODELETE,
    "the groups of a client that once got NO_SUCH_GROUP for a GROUP_DELETE outlive it",
    "after the owner has left, GROUP_FETCH_ALL_RESULT still lists its group")
bug("history", "client-list-stale", 282, "This payload asks for all of the clients connected to the concierge.",
    "the second CLIENT_FETCH_ALL of a connection repeats the first answer unless somebody joined since",
    "a client that left between two fetches is still listed in the second")
bug("history", "fetch-cache-by-seq", 247, "This payload asks for all the clients of the group.",
    "the answer to GROUP_FETCH is cached by the group and the seq, for all connections together",
    "a second client that fetches at the same seq after a change gets the first client's old answer")

# 2. several
bug("several", "sixth-subscriber-silent", 81, BROADCAST,
    "a broadcast reaches the first five subscribers only",
    "the sixth subscriber of a group gets no message")
bug("several", "fifth-subscription-evicts", 155, "All messages sent to the group will be broadcasted to the subscribers.",
    "a client's fifth subscription silently ends its first",
    "messages to the first group no longer arrive, and SELF_FETCH_RESULT lists four groups")
bug("several", "unsubscribe-drops-last", 178, "Unsubscribe from a group's broadcasts.",
    "with three or more subscriptions, an unsubscription also ends the newest other one",
    "SELF_FETCH_RESULT lacks a group that the client did not unsubscribe from")
bug("several", "leave-takes-next", 81, BROADCAST,
    "when a subscriber disconnects, the one that subscribed next is removed from the group too",
    "the next subscriber gets no more messages of the group")
bug("several", "third-group-survives", 225, AUTODELETE,
    "when an owner leaves, only its first two groups are deleted",
    "the owner's third group is still listed by GROUP_FETCH_ALL_RESULT")
bug("several", "burst-of-six", 76, "The message is then relayed to the target.",
    "the sixth message of a client within a quarter of a second is acknowledged and lost",
    "of six messages sent at once the target gets five")
bug("several", "last-subscriber-unnotified", 518, "UNSUBSCRIBED is fired in response to the group being deleted.",
    "when a group with three or more subscribers is deleted, the last of them is not told",
    "the third subscriber gets no UNSUBSCRIBED")
bug("several", "seq-of-latest", 18, "The seq field indicates what this status payload is in response to.",
    "GROUP_FETCH is answered a little later with the number of the latest text received by then",
    "several GROUP_FETCH sent at once are all answered with the same seq")
bug("several", "same-tags-listed-once", 282, "This payload asks for all of the clients connected to the concierge.",
    "clients that carry the same two or more tags are listed once",
    "CLIENT_FETCH_ALL_RESULT lacks the second of two clients with equal tags")
bug("several", "owner-skipped", 81, BROADCAST,
    "an owner that is subscribed to its own group gets nothing while there are other subscribers",
    "the owner gets no message that another client sends to the group")

# 3. identity
bug("identity", "name-case-conflict", 31, "DUPLICATE_AUTH: namespace conflict in the concierge.",
    "names that differ only in case are taken for equal",
    "a client whose name differs in case only is closed with 4005")
bug("identity", "name-nfc", 80, DIRECT,
    "the name of a target is compared in its NFC form",
    "a message to a composed name reaches the client with the decomposed name that joined earlier")
bug("identity", "name-first-32", 80, DIRECT,
    "names of targets longer than 32 characters are compared by their first 32",
    "a message reaches the earlier of two clients whose names share their first 32 characters")
bug("identity", "group-first-32", 547, "GROUP_ALREADY_CREATED carries the name of the group already created.",
    "names of groups longer than 32 characters are compared by their first 32",
    "GROUP_CREATE is refused for a group whose name shares its first 32 characters with another")
bug("identity", "group-case-delete", 534, "GROUP_DELETED carries the name of the group.",
    "GROUP_DELETE finds the oldest group whose name is equal but for its case",
    "the status GROUP_DELETED names another group than the request")
bug("identity", "origin-of-owner", 76, "The message is relayed with an origin receipt field added; identification happens per socket.",
    "a message to a group from a client that is not subscribed carries the uuid of the group's owner",
    "origin.uuid is not the uuid of the sender")
bug("identity", "origin-tags-of-last", 76, "The message is relayed with an origin receipt field added; identification happens per socket.",
    "when senders take turns at a target, origin.tags are those of the previous sender",
    "the second sender's message to a name carries the first sender's tags")
bug("identity", "origin-tags-accepted", 74, "The origin fields are ignored if they are sent to the concierge.",
    "a client that identified without tags can set origin.tags itself",
    "origin.tags are those that the sender put into its message")
bug("identity", "uuid-first-32", 557, "NO_SUCH_UUID is fired when the uuid is not recognized.",
    "the uuid of a target is compared by its first 32 characters",
    "a uuid with another ending is answered with MESSAGE_SENT, and the message is delivered")
bug("identity", "owner-by-nickname", 362, "This payload lists all of the groups registered, each with its owner_uuid.",
    "groups that share their nickname are listed with the owner of the first of them",
    "owner_uuid in GROUP_FETCH_ALL_RESULT is wrong for the second group")

# 4. neighbours
bug("neighbours", "sole-subscriber-leaves", 225, "A group is deleted by its owner, or if the owning client disconnects.",
    "a group is dropped when its only subscriber disconnects",
    "the owner's next message to the group is answered with NO_SUCH_GROUP")
bug("neighbours", "refused-twin-unlists", 553, "NO_SUCH_NAME is fired when the name is not found in the namespace.",
    "a refused connection with the same name makes the holder unreachable by name",
    "after somebody else got 4005, messages to the name are answered with NO_SUCH_NAME")
bug("neighbours", "pending-holds-notice", 526, "GROUP_CREATED is fired as a status when someone else creates a group.",
    "while any connection has not identified, nobody is told of new groups",
    "no GROUP_CREATED from another client's creation while a third connection is silent")
bug("neighbours", "broadcast-stops-at-dead", 81, BROADCAST,
    "a subscriber whose connection broke stays in the group unseen, and broadcasts end at its place",
    "later subscribers get nothing after an earlier one dropped its connection without a close frame")
bug("neighbours", "abrupt-leave-keeps-name", 46, CONFLICT,
    "a connection that ends without a close frame keeps its name",
    "after a broken connection, the client cannot come back under its name (4005)")
bug("neighbours", "tag-mates-unsubscribe", 178, "Unsubscribe from a group's broadcasts.",
    "an unsubscription also removes the subscribers with the same tags",
    "another client with equal tags gets no more messages of the group")
bug("neighbours", "foreign-delete-locks", 224, ONLY_OWNER,
    "a GROUP_DELETE by somebody else, though refused, locks the group for its owner too",
    "the owner's GROUP_DELETE is answered with BAD")
bug("neighbours", "malformed-next-door", 18, "The seq field indicates what this status payload is in response to.",
    "after one client's malformed text, the next answer to another client has no seq",
    "a command is answered without seq")
bug("neighbours", "quiet-clients-skipped", 37, "Clients can use MESSAGE payloads to send data to specific targets or entire groups (target ALL).",
    "messages to ALL pass over clients that have sent nothing since IDENTIFY",
    "a client that only listens gets no message to ALL")
bug("neighbours", "owner-unsubscribe-mutes", 81, BROADCAST,
    "when the owner unsubscribes from its group, the group's messages reach nobody",
    "the other subscribers get nothing more")
bug("neighbours", "refused-create-renames", 548, "nickname: The nickname of the group.",
    "a refused GROUP_CREATE gives the existing group the nickname of the request",
    "GROUP_FETCH_RESULT shows the nickname that another client asked for")

# 5. values
bug("values", "data-null-dropped", 84, VERBATIM,
    "a message to a UUID whose data is null is relayed without data",
    "the member data is missing")
bug("values", "data-falsy-in-group", 84, VERBATIM,
    "0, false, \"\", [] and {} as data of a message to a group become null",
    "data arrives as null")
bug("values", "data-html", 84, VERBATIM,
    "<, > and & in texts inside of arrays are written as HTML entities",
    "an element of an array in data is changed")
bug("values", "data-nul-cut", 84, VERBATIM,
    "texts in data are cut at U+0000",
    "a text in data arrives shorter")
bug("values", "data-big-int", 84, VERBATIM,
    "integers in data above 2^53 are rounded to a double",
    "the digits of a large integer change")
bug("values", "data-65536", 84, VERBATIM,
    "texts in data are cut to 65,535 characters",
    "a text of 65,536 characters arrives one shorter")
bug("values", "data-proto-keys", 84, VERBATIM,
    "members named __proto__ and constructor are dropped from nested objects of data",
    "such a member of data is missing")
bug("values", "name-numeric", 408, "name: string",
    "a name of digits only comes back as a number in CLIENT_FETCH_ALL_RESULT",
    "the name of a listed client is a number")
bug("values", "group-name-255", 463, "subscriptions: string[], all of the connecting client's subscriptions",
    "names of groups are cut to 255 characters in SELF_FETCH_RESULT",
    "the listed name is not the name subscribed to")
bug("values", "empty-tag-dropped", 59, "tags: string[]",
    "the tag \"\" is dropped from a client's tags",
    "SELF_FETCH_RESULT lists fewer tags than IDENTIFY had")
bug("values", "nickname-empty", 340, "nickname: string",
    "the nickname \"\" of a group is taken for missing",
    "GROUP_FETCH_RESULT does not carry the nickname \"\"")

# 6. equivalents
bug("equivalents", "target-type-first", 103, "target: { type, name } (RFC 8259, 4: members are unordered)",
    "a target whose first member is not type is refused",
    "PROTOCOL instead of MESSAGE_SENT")
bug("equivalents", "trailing-newline", 543, "PROTOCOL is fired when the server fails to decode (RFC 8259, 2: white space around a value)",
    "a payload that ends with a line feed is refused",
    "PROTOCOL for a well-formed payload")
bug("equivalents", "escaped-type", 4, "Payloads must have the proper type (RFC 8259, 8.3: escapes do not make a difference)",
    "an escape in the value of type makes the type unknown",
    "PROTOCOL for a well-formed payload")
bug("equivalents", "fragments-counted", 17, SEQ,
    "each frame of a fragmented text counts for seq",
    "seq is too high after a text in several frames")
bug("equivalents", "fragments-three", 543, "PROTOCOL is fired when the server fails to decode (RFC 6455, 5.4: fragmentation)",
    "a payload in three or more frames is refused",
    "PROTOCOL for a well-formed payload")
bug("equivalents", "version-build-metadata", 47, "The server versioning should follow semantic versioning (item 10: build metadata is ignored).",
    "a version with build metadata is refused",
    "0.1.0+x is closed with 4007 where 0.1.0 is welcome")
bug("equivalents", "self-by-uuid", 557, "NO_SUCH_UUID is fired when the uuid is not recognized.",
    "a client can reach itself by name but not by uuid",
    "NO_SUCH_UUID for the client's own uuid")
bug("equivalents", "tabs-refused", 543, "PROTOCOL is fired when the server fails to decode (RFC 8259, 2: a tab is white space)",
    "a payload with a tab between its tokens is refused",
    "PROTOCOL for a well-formed payload")
bug("equivalents", "surrogate-escapes-apart", 561, "NO_SUCH_GROUP is fired when the group is not present (RFC 8259, 7: escaped pairs).",
    "a group's name written with an escaped surrogate pair is another name than the plain character",
    "SELF_SUBSCRIBE with the escaped form is answered with NO_SUCH_GROUP")
bug("equivalents", "data-first", 84, VERBATIM,
    "data is lost when it stands before target",
    "data arrives as null")
bug("equivalents", "target-extra-refused", 120, "The example's target carries a further member (tags) and is served.",
    "a GROUP target with a further member is refused",
    "PROTOCOL instead of MESSAGE_SENT")

# 7. one-of-many
bug("one-of-many", "status-from-client-ignored", 541, "UNSUPORTED is fired due to an unsupported payload.",
    "a STATUS payload from a client is not answered; the other payloads of the server are",
    "no UNSUPORTED")
bug("one-of-many", "unsubscribe-error-no-seq", 18, "If the seq field is missing, the status is due to changes not made by the connecting client.",
    "NO_SUCH_GROUP in response to SELF_UNSUBSCRIBE has no seq",
    "seq is missing in the answer")
bug("one-of-many", "delete-error-member", 562, "group: The group unrecognized by the server.",
    "NO_SUCH_GROUP in response to GROUP_DELETE carries name instead of group",
    "the member group is missing")
bug("one-of-many", "fetch-before-identify", 24, "Any other payload sent during this period will also immediately drop the connection.",
    "GROUP_FETCH_ALL is served before identification",
    "an answer instead of a close")
bug("one-of-many", "ping-extends", 24, "The client must send IDENTIFY within 5 seconds, otherwise the connection will be dropped.",
    "a connection that has sent a Ping is never dropped for the lack of IDENTIFY",
    "the connection stays open")
bug("one-of-many", "uuid-origin-trusted", 74, "The origin fields are ignored if they are sent to the concierge.",
    "in messages to a UUID, origin.name is taken from the sender's own origin",
    "origin.name is not the name of the sender")
bug("one-of-many", "deleted-notice-with-seq", 533, "GROUP_DELETED has no seq if the client did not send a GROUP_DELETE payload.",
    "the other clients are told of a deletion with the deleter's seq",
    "a GROUP_DELETED that answers nothing carries a seq")
bug("one-of-many", "seq-text-from-ten", 413, "seq: number",
    "in CLIENT_FETCH_ALL_RESULT, seq is a text from 10 on",
    "seq is \"10\"")
bug("one-of-many", "empty-text-ignored", 24, "Any other payload sent during this period will also immediately drop the connection.",
    "an empty text before identification is passed over",
    "the connection stays open and can identify afterwards")
bug("one-of-many", "seq-counts-binary", 17, SEQ,
    "binary messages count for seq too",
    "after a binary message, every later seq is one too high")
bug("one-of-many", "kick-keeps-groups", 39, "The group will also be automatically deleted if the owning client leaves the concierge.",
    "the groups of a client that the operator removed stay",
    "after POST /control/kick, the owner's group is still listed and its name taken")

# Variants
variant("members-reversed", "writes the members of its payloads in reverse order",
        "RFC 8259, 4: members are unordered")
variant("ascii-escapes", "escapes all characters beyond ASCII in texts that it writes itself",
        "RFC 8259, 7: any character may be escaped")
variant("spaced-json", "writes white space between tokens and a line feed at the end",
        "RFC 8259, 2: insignificant white space is allowed")
variant("extra-members", "adds a member \"server\" to all of its payloads but MESSAGE",
        "line 494: the structure of STATUS is open; nothing excludes further members elsewhere")
variant("null-nicknames", "writes absent nicknames as null instead of leaving them out",
        "line 474: the example shows \"nickname\": null where line 460 says undefined")
variant("nickname-defaults-to-name", "gives groups without a nickname their name as nickname in fetch results",
        "line 340: nickname is a string there; what it is without one is not said")
variant("seq-from-zero", "counts the first text payload of a connection as 0",
        "line 17: the n-th payload; the document does not say where n begins")
variant("seq-as-float", "writes seq as 5.0",
        "RFC 8259, 6: a number may have a fraction; line 343 says number")
variant("fragmented-output", "sends each payload in several frames",
        "RFC 6455, 5.4: a sender may fragment")
variant("server-pings", "sends a Ping every 50 ms",
        "RFC 6455, 5.5.2: an endpoint may send a Ping at any time")
variant("deflate", "accepts permessage-deflate",
        "RFC 7692: the extension may be negotiated")
variant("ack-first", "sends MESSAGE_SENT before it relays the message",
        "line 511: no order between the status and the relayed message")
variant("late-relay", "delays relayed messages and notices by 30 ms",
        "lines 76 and 526: no time is promised")
variant("all-without-sender", "does not return a message to ALL to its sender",
        "line 106: who belongs to ALL is not said")
variant("owner-unsubscribed-with-seq", "UNSUBSCRIBED to an owner that deletes its group carries the seq of the GROUP_DELETE",
        "line 518: UNSUBSCRIBED is fired in response to GROUP_DELETE")
variant("deleted-first", "sends GROUP_DELETED before UNSUBSCRIBED",
        "lines 518 and 532: no order between them")
variant("no-deleted-on-leave", "sends no GROUP_DELETED when an owner leaves",
        "line 533: it is fired when someone else deletes a group; the leave is line 518's case")
variant("resubscribe-bad", "answers a second SELF_SUBSCRIBE to a group with BAD",
        "line 154: a repeated subscription is not described")
variant("unsubscribe-idle-ok", "answers SELF_UNSUBSCRIBE without a subscription with UNSUBSCRIBED",
        "line 178: the case is not described")
variant("unknown-type-unsupported", "answers an unknown type with UNSUPORTED",
        "line 541: fired due to an unsupported payload; HELLO is one example")
variant("second-identify-protocol", "answers a second IDENTIFY with PROTOCOL",
        "line 43: IDENTIFY must be the first payload; a second one is not described")
variant("fetch-missing-bad", "answers GROUP_FETCH for a group that is not there with BAD",
        "line 560: GROUP_FETCH is not in the list of NO_SUCH_GROUP")
variant("binary-ignored", "gives no answer to binary messages",
        "line 17: only text payloads are counted; binary ones are not described")
variant("binary-closed", "closes with 1003 on a binary message",
        "RFC 6455, 7.4.1: 1003 for a type of data that the endpoint cannot accept")
variant("relay-unknown-members", "relays unknown members of a message and of its target",
        "line 76: the message is relayed with an origin added; the example of line 142 drops one")
variant("uuid-upper", "writes UUIDs in upper case",
        "lines 94 and 315: uuid is a string; its form is not said")
variant("uuid-plain", "writes UUIDs as 32 hexadecimal digits",
        "line 315: uuid is a string; its form is not said")
variant("lists-reversed", "lists groups, clients, subscribers and subscriptions from the last to the first",
        "lines 269 and 282: no order is promised")
variant("lean-origin", "leaves empty tags out of origin",
        "line 138: the example's origin has no tags")
variant("fetch-all-names", "lists subscribers by name in GROUP_FETCH_ALL_RESULT",
        "line 373: string[] there; line 332 speaks of names, line 516 of UUIDs")
variant("close-reasons", "gives the name of the code as the reason of a close",
        "RFC 6455, 5.5.1: a close frame may have a reason")
variant("subprotocol-required", "refuses a handshake without the subprotocol with 400",
        "line 22: the client should connect with it")
variant("command-aliases", "accepts CREATE_GROUP, DELETE_GROUP, SUBSCRIBE and UNSUBSCRIBE as well",
        "lines 39, 518 and 560 use these names")
variant("newer-patch", "reports the version 0.1.7 and welcomes 0.1.x",
        "line 47: semantic versioning; line 316: version of the server")
variant("name-checked-first", "looks for a name conflict before it checks version and secret",
        "lines 27 to 33: no order between the reasons")

# --------------------------------------------------------------------------------------
# JSON
# --------------------------------------------------------------------------------------


class PayloadError(Exception):
    """A text that is not a payload the hub understands."""


class Number:
    """A number of a payload; the hub never needs its value."""

    def __init__(self, text):
        self.text = text


class Raw(str):
    """JSON text that goes into a payload as it is."""


def _no_constant(text):
    raise ValueError(f"{text} is not JSON")


DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)
SPACE = re.compile(r"[ \t\n\r]*")


def skip_space(text, at):
    return SPACE.match(text, at).end()


def read_object(text):
    """Reads a JSON object; returns its members and the raw text of each."""
    try:
        at = skip_space(text, 0)
        if text[at:at + 1] != "{":
            _, at = DECODER.raw_decode(text, at)
            if skip_space(text, at) != len(text):
                raise PayloadError("text after the value")
            raise PayloadError("a payload is an object")
        members, raws = {}, {}
        at = skip_space(text, at + 1)
        if text[at:at + 1] == "}":
            at += 1
        else:
            while True:
                if text[at:at + 1] != '"':
                    raise PayloadError("expected the name of a member")
                name, at = json.decoder.scanstring(text, at + 1, True)
                at = skip_space(text, at)
                if text[at:at + 1] != ":":
                    raise PayloadError("expected a colon")
                start = skip_space(text, at + 1)
                value, at = DECODER.raw_decode(text, start)
                members.pop(name, None)
                members[name], raws[name] = value, text[start:at]
                at = skip_space(text, at)
                sign = text[at:at + 1]
                at += 1
                if sign == "}":
                    break
                if sign != ",":
                    raise PayloadError("expected a comma or the end of the object")
                at = skip_space(text, at)
        if skip_space(text, at) != len(text):
            raise PayloadError("text after the object")
        return members, raws
    except PayloadError:
        raise
    except RecursionError:
        raise PayloadError("nested too deeply") from None
    except ValueError as error:
        raise PayloadError(f"not JSON: {error}") from None


def need_text(members, name):
    value = members.get(name)
    if not isinstance(value, str):
        raise PayloadError(f"{name} must be a string")
    return value


def optional_text(members, name):
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise PayloadError(f"{name} must be a string if present")
    return value


def change_texts(value, change, in_array=None):
    """Applies `change` to the texts in a value; with in_array, only to elements of arrays."""
    if isinstance(value, str):
        return change(value) if in_array is not False else value
    if isinstance(value, list):
        return [change_texts(item, change, None if in_array is None else True) for item in value]
    if isinstance(value, dict):
        return {k: change_texts(item, change, None if in_array is None else False) for k, item in value.items()}
    return value


def change_ints(value):
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2 ** 53:
        return int(float(value)) if abs(value) < 2 ** 1000 else value
    if isinstance(value, list):
        return [change_ints(item) for item in value]
    if isinstance(value, dict):
        return {k: change_ints(item) for k, item in value.items()}
    return value


def drop_proto(value, depth=0):
    if isinstance(value, list):
        return [drop_proto(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {k: drop_proto(item, depth + 1) for k, item in value.items()
                if depth == 0 or k not in ("__proto__", "constructor")}
    return value


def html_entities(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --------------------------------------------------------------------------------------
# Connection: WebSocket or, for POST, plain HTTP
# --------------------------------------------------------------------------------------

MAX_HTTP = 64 * 1024


class Connection(ServerConnection):
    """A WebSocket connection that hands POST requests to the hub's controls."""

    hub = None  # set on the class before the hub listens

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.head = b""
        self.mode = None
        self.saw_ping = False
        self.frames = 0
        self.frame_counts = collections.deque()

    def data_received(self, data):
        if self.mode == "ws":
            super().data_received(data)
            return
        if self.mode == "done":
            return
        self.head += data
        if self.mode is None:
            if b"POST ".startswith(self.head[:5]) and len(self.head) < 5:
                return
            if not self.head.startswith(b"POST "):
                self.mode = "ws"
                head, self.head = self.head, b""
                super().data_received(head)
                return
            self.mode = "http"
        self.read_post()

    def read_post(self):
        end = self.head.find(b"\r\n\r\n")
        if end < 0:
            if len(self.head) > MAX_HTTP:
                self.answer_post(431, {"error": "too large"})
            return
        lines = self.head[:end].decode("latin-1").split("\r\n")
        length = 0
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-length":
                length = int(value) if value.strip().isdigit() else MAX_HTTP + 1
        if length > MAX_HTTP:
            self.answer_post(413, {"error": "too large"})
            return
        body = self.head[end + 4:]
        if len(body) < length:
            return
        path = lines[0].split(" ")[1] if lines[0].count(" ") >= 2 else ""
        try:
            wish = json.loads(body[:length] or b"{}")
            if not isinstance(wish, dict):
                raise ValueError("an object is needed")
        except (ValueError, RecursionError) as error:
            self.answer_post(400, {"error": str(error)})
            return
        self.answer_post(*self.hub.control(path, wish))

    def answer_post(self, status, answer):
        body = json.dumps(answer).encode()
        reason = {200: "OK", 400: "Bad Request", 404: "Not Found"}.get(status, "Error")
        self.transport.write(
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.mode, self.head = "done", b""
        self.transport.close()

    def process_event(self, event):
        opcode = getattr(event, "opcode", None)
        if opcode is Opcode.PING:
            self.saw_ping = True
        elif opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self.frames += 1
            if event.fin:
                self.frame_counts.append(self.frames)
                self.frames = 0
        super().process_event(event)

    async def next_message(self):
        """The next message and the number of its frames."""
        message = await self.recv()
        return message, self.frame_counts.popleft() if self.frame_counts else 1


# --------------------------------------------------------------------------------------
# Clients and groups
# --------------------------------------------------------------------------------------


class Client:
    def __init__(self, hub, ws, name, tags):
        self.hub, self.ws, self.name, self.tags = hub, ws, name, tags
        self.uuid = hub.new_uuid()
        self.seq = 1                 # text payloads received; IDENTIFY was the first
        self.subscriptions = {}      # name of a group -> Group
        self.outbox = collections.deque()
        self.outbox_size = 0
        self.wake = asyncio.Event()
        self.closing = False
        # used by bugs only
        self.delete_failed = False
        self.kicked = False
        self.dead = False
        self.unlisted = False
        self.last_sender = self.last_tags = None
        self.client_list = None
        self.burst = collections.deque(maxlen=6)

    def push(self, payload, late=False):
        """Queues a payload; a client that does not read is dropped at the limit."""
        if self.closing:
            return
        text = self.hub.encode(payload)
        self.outbox_size += len(text)
        self.outbox.append((text, late))
        if self.outbox_size > self.hub.options.max_queue:
            self.closing = True
            self.outbox.clear()
            self.ws.transport.abort()
        self.wake.set()

    async def write(self):
        """Sends what is queued, in order."""
        try:
            while True:
                while self.outbox:
                    text, late = self.outbox.popleft()
                    if late and self.hub.has("late-relay"):
                        await asyncio.sleep(0.03)
                    await self.hub.transmit(self.ws, text)
                    self.outbox_size -= len(text)
                self.wake.clear()
                await self.wake.wait()
        except ConnectionClosed:
            pass

    def status(self, code, seq=None, late=False, **members):
        payload = {"type": "STATUS", "code": code, **members}
        if seq is not None:
            payload["seq"] = self.hub.seq_value(seq)
        self.push(payload, late)


class Group:
    def __init__(self, name, nickname, owner):
        self.name, self.nickname, self.owner = name, nickname, owner
        self.subscribers = {}        # uuid -> Client
        # used by bugs only
        self.locked = self.muted = False
        self.left = set()


# --------------------------------------------------------------------------------------
# Hub
# --------------------------------------------------------------------------------------


def parse_version(text):
    match = re.fullmatch(r"(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", text,
                         re.ASCII)
    return match and (int(match[1]), int(match[2]), int(match[3]))


class Hub:
    def __init__(self, options):
        self.options = options
        self.bug = options.bug
        self.variants = set(options.variant)
        self.random = random.Random(options.seed)
        self.version = "0.1.7" if self.has("newer-patch") and options.version == "0.1.0" else options.version
        self.names = {}              # name -> Client
        self.uuids = {}              # uuid -> Client
        self.groups = {}             # name -> Group
        self.pending = set()         # connections that have not identified
        self.fail_next = 0
        self.stop = asyncio.Event()
        self.stop_code = 1001
        self.tasks = set()
        # used by bugs only
        self.memory = collections.OrderedDict()
        self.joins = 0
        self.tainted = None

    def has(self, name):
        return name in self.variants

    # -- helpers for bugs ----------------------------------------------------------

    def remember(self, key, value):
        self.memory[key] = value
        while len(self.memory) > 10000:
            self.memory.popitem(last=False)

    # -- writing -------------------------------------------------------------------

    def dumps(self, value, ascii_only=False):
        if isinstance(value, Raw):
            return str(value)
        if isinstance(value, dict) and (self.has("members-reversed") or any(isinstance(v, Raw) for v in value.values())):
            return self.join_members(value, ascii_only)
        separators = (" ,\n\t", " : ") if self.has("spaced-json") else (",", ":")
        return json.dumps(value, ensure_ascii=ascii_only, separators=separators)

    def join_members(self, payload, ascii_only):
        items = list(payload.items())
        if self.has("members-reversed"):
            items.reverse()
        comma, colon = (" ,\n\t", " : ") if self.has("spaced-json") else (",", ":")
        return "{" + comma.join(json.dumps(name, ensure_ascii=ascii_only) + colon + self.dumps(value, ascii_only)
                                for name, value in items) + "}"

    def encode(self, payload):
        if self.has("extra-members") and payload["type"] != "MESSAGE":
            payload = {**payload, "server": {"kind": "concierge", "type": None}}
        text = self.join_members(payload, self.has("ascii-escapes"))
        try:
            text.encode()
        except UnicodeEncodeError:   # a lone surrogate can only be written as an escape
            text = self.join_members(payload, True)
        return text + "\n" if self.has("spaced-json") else text

    async def transmit(self, ws, text):
        if self.has("fragmented-output") and len(text) > 2:
            third = len(text) // 3
            await ws.send([text[:third], text[third:2 * third], text[2 * third:]])
        else:
            await ws.send(text)

    def seq_value(self, seq):
        if isinstance(seq, str):
            return seq
        number = seq - 1 if self.has("seq-from-zero") else seq
        return Raw(f"{number}.0") if self.has("seq-as-float") else number

    def ordered(self, items):
        items = list(items)
        if self.has("lists-reversed"):
            items.reverse()
        return items

    def new_uuid(self):
        value = uuid.UUID(int=self.random.getrandbits(128), version=4) if self.options.seed is not None else uuid.uuid4()
        if self.has("uuid-plain"):
            return value.hex
        return str(value).upper() if self.has("uuid-upper") else str(value)

    # -- descriptions --------------------------------------------------------------

    def nickname_member(self, nickname):
        if nickname is not None:
            return {"nickname": nickname}
        return {"nickname": None} if self.has("null-nicknames") else {}

    def describe_group(self, group, by_name=False, result=False):
        nickname = group.nickname
        if nickname is None and result and self.has("nickname-defaults-to-name"):
            nickname = group.name
        members = self.ordered(c for c in group.subscribers.values() if not c.dead)
        return {
            "name": group.name,
            **self.nickname_member(nickname),
            "owner_uuid": group.owner.uuid,
            "subscribers": [c.name if by_name else c.uuid for c in members],
        }

    def describe_client(self, client):
        return {"name": client.name, **self.nickname_member(None), "uuid": client.uuid, "tags": client.tags}

    def describe_origin(self, sender, group=None):
        origin = self.describe_client(sender)
        if not sender.tags and self.has("lean-origin"):
            del origin["tags"]
        if group is not None:
            origin["group"] = self.describe_group(group)
        return origin

    # -- connections ---------------------------------------------------------------

    async def serve_connection(self, ws):
        pinger = asyncio.create_task(self.ping_often(ws)) if self.has("server-pings") else None
        client = None
        self.pending.add(ws)
        try:
            client = await self.identify(ws)
            self.pending.discard(ws)
            if client is not None:
                await self.converse(client)
        except ConnectionClosed:
            pass
        except Exception as error:  # an error of the hub itself: 4000, and the hub lives on
            print(f"internal error: {error!r}", file=sys.stderr, flush=True)
            await self.close(ws, UNKNOWN)
        finally:
            self.pending.discard(ws)
            if client is not None:
                self.leave(client)
            if pinger is not None:
                pinger.cancel()

    async def ping_often(self, ws):
        try:
            while True:
                await asyncio.sleep(0.05)
                await ws.ping()
        except ConnectionClosed:
            pass

    async def close(self, ws, code):
        await ws.close(code, REASONS.get(code, "") if self.has("close-reasons") else "")

    async def identify(self, ws):
        """Waits for IDENTIFY; returns the client, or None after a close."""
        deadline = asyncio.get_running_loop().time() + self.options.identify_timeout
        seq = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    text, _ = await ws.next_message()
            except TimeoutError:
                if self.bug == "ping-extends" and ws.saw_ping:
                    deadline += 3600
                    continue
                await self.close(ws, AUTH_FAILED)
                return None
            seq += 1
            if self.bug == "empty-text-ignored" and text == "":
                continue
            code, name, tags = self.check_identify(text)
            if self.bug == "fetch-before-identify" and code == NO_AUTH and "GROUP_FETCH_ALL" in text:
                await ws.send(self.encode({**self.all_groups(), "seq": self.seq_value(seq)}))
                continue
            if code is not None:
                await self.close(ws, code)
                return None
            return self.join(ws, name, tags, seq)

    def check_identify(self, text):
        """Returns (code of the close or None, name, tags)."""
        if isinstance(text, bytes):
            return FATAL_DECODE, None, None
        try:
            members, _ = read_object(text)
            kind = need_text(members, "type")
            if kind != "IDENTIFY":
                return NO_AUTH, None, None
            name, version = need_text(members, "name"), need_text(members, "version")
            secret = optional_text(members, "secret")
            tags = members.get("tags")
            if tags is None:
                tags = []
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise PayloadError("tags must be strings")
        except PayloadError:
            return FATAL_DECODE, None, None
        if self.fail_next > 0:
            self.fail_next -= 1
            return UNKNOWN, None, None
        checks = [self.check_version, self.check_secret, self.check_name]
        if self.has("name-checked-first"):
            checks.reverse()
        for check in checks:
            code = check(name, version, secret)
            if code is not None:
                return code, None, None
        if self.bug == "empty-tag-dropped":
            tags = [tag for tag in tags if tag != ""]
        return None, name, tags

    def check_version(self, name, version, secret):
        wanted, own = parse_version(version), parse_version(self.version)
        good = wanted is not None and wanted[0] == own[0] and (own[0] > 0 or wanted[1] == own[1])
        if self.bug == "version-build-metadata" and "+" in version:
            good = False
        if not good:
            if self.bug == "name-kept-after-refusal":
                self.remember(("kept", name), True)
            return BAD_VERSION
        return None

    def check_secret(self, name, version, secret):
        expected = self.options.secret
        if expected and not hmac.compare_digest(expected.encode(), (secret or "").encode("utf-8", "surrogatepass")):
            return BAD_SECRET
        return None

    def check_name(self, name, version, secret):
        if name in self.names:
            if self.bug == "refused-twin-unlists":
                self.names[name].unlisted = True
            return DUPLICATE_AUTH
        if self.bug == "name-case-conflict" and name.casefold() in {other.casefold() for other in self.names}:
            return DUPLICATE_AUTH
        if ("kept", name) in self.memory:
            return DUPLICATE_AUTH
        return None

    def join(self, ws, name, tags, seq):
        client = Client(self, ws, name, tags)
        client.seq = seq
        self.names[name] = client
        self.uuids[client.uuid] = client
        self.joins += 1
        if self.bug == "subscriptions-return":
            for group in self.memory.get(("subscriptions", name), []):
                if group in self.groups:
                    self.link(client, self.groups[group])
        client.push({"type": "HELLO", "uuid": client.uuid, "version": self.version})
        return client

    async def converse(self, client):
        writer = asyncio.create_task(client.write())
        try:
            while True:
                message, frames = await client.ws.next_message()
                if isinstance(message, bytes):
                    if self.has("binary-closed"):
                        await client.ws.close(1003)
                        return
                    if self.bug == "seq-counts-binary":
                        client.seq += 1
                    if not self.has("binary-ignored"):
                        client.status("PROTOCOL", desc="payloads are text")
                    continue
                client.seq += frames if self.bug == "fragments-counted" else 1
                self.handle(client, message, client.seq, frames)
                if len(client.outbox) > 1000:
                    await asyncio.sleep(0)   # let the writer have its turn
        finally:
            writer.cancel()

    def leave(self, client):
        """The client has gone: its name, subscriptions and groups go too."""
        client.closing = True
        abrupt = client.ws.close_code == 1006
        del self.uuids[client.uuid]
        if self.names.get(client.name) is client:
            del self.names[client.name]
        if self.bug == "abrupt-leave-keeps-name" and abrupt:
            self.remember(("kept", client.name), True)
        if self.bug == "name-kept-second-time":
            times = self.memory.get(("left", client.name), 0) + 1
            self.remember(("left", client.name), times)
            if times == 2:
                self.remember(("kept", client.name), True)
        if self.bug == "subscriptions-return":
            self.remember(("subscriptions", client.name), list(client.subscriptions))
        for group in list(client.subscriptions.values()):
            if self.bug == "broadcast-stops-at-dead" and abrupt:
                client.dead = True
                continue
            if self.bug == "leave-takes-next":
                order = list(group.subscribers.values())
                after = order[order.index(client) + 1:]
                if after:
                    self.unlink(after[0], group)
            self.unlink(client, group)
            if self.bug == "sole-subscriber-leaves" and not group.subscribers:
                self.groups.pop(group.name, None)
        owned = [group for group in self.groups.values() if group.owner is client]
        if self.bug == "third-group-survives":
            owned = owned[:2]
        if self.bug == "delete-error-keeps-groups" and client.delete_failed:
            owned = []
        if self.bug == "kick-keeps-groups" and client.kicked:
            owned = []
        for group in owned:
            self.delete_group(group)

    # -- groups --------------------------------------------------------------------

    def link(self, client, group):
        group.subscribers[client.uuid] = client
        client.subscriptions[group.name] = group

    def unlink(self, client, group):
        group.subscribers.pop(client.uuid, None)
        client.subscriptions.pop(group.name, None)

    def delete_group(self, group, by=None, seq=None):
        """Deletes a group and tells everybody whom it concerns."""
        info = self.describe_group(group)
        subscribers = [c for c in group.subscribers.values() if not c.dead]
        del self.groups[group.name]
        for client in list(group.subscribers.values()):
            self.unlink(client, group)
        if self.bug == "last-subscriber-unnotified" and len(subscribers) >= 3:
            subscribers.pop()

        def tell_subscribers():
            for client in subscribers:
                own = client is by and self.has("owner-unsubscribed-with-seq")
                client.status("UNSUBSCRIBED", seq if own else None, late=True, **info)

        def tell_all():
            if by is not None:
                by.status("GROUP_DELETED", seq, **info)
            elif self.has("no-deleted-on-leave"):
                return
            notice_seq = seq if self.bug == "deleted-notice-with-seq" else None
            for client in self.uuids.values():
                if client is not by:
                    client.status("GROUP_DELETED", notice_seq, late=True, **info)

        steps = [tell_subscribers, tell_all]
        if self.has("deleted-first"):
            steps.reverse()
        for step in steps:
            step()

    def find_group(self, name, command=None):
        if self.bug == "group-first-32" and len(name) > 32:
            for group in self.groups.values():
                if len(group.name) > 32 and group.name[:32] == name[:32]:
                    return group
        if self.bug == "group-case-delete" and command == "GROUP_DELETE":
            for group in self.groups.values():
                if group.name.casefold() == name.casefold():
                    return group
        return self.groups.get(name)

    # -- commands ------------------------------------------------------------------

    def handle(self, client, text, seq, frames):
        try:
            members, raws = read_object(text)
        except PayloadError as error:
            client.status("PROTOCOL", seq, desc=str(error))
            if self.bug == "seq-skips-malformed":
                client.seq -= 1
            if self.bug == "malformed-next-door":
                self.tainted = client
            return
        if self.bug == "malformed-next-door" and self.tainted not in (None, client):
            self.tainted = seq = None
        try:
            if self.bug == "trailing-newline" and text.endswith("\n"):
                raise PayloadError("text after the object")
            if self.bug == "tabs-refused" and "\t" in text:
                raise PayloadError("unexpected character")
            if self.bug == "fragments-three" and frames >= 3:
                raise PayloadError("incomplete text")
            kind = need_text(members, "type")
            if self.bug == "escaped-type" and "\\" in raws["type"]:
                raise PayloadError("unknown type")
            if self.has("command-aliases"):
                kind = ALIASES.get(kind, kind)
            if kind in SERVER_TYPES:
                if self.bug == "status-from-client-ignored" and kind == "STATUS":
                    return
                client.status("UNSUPORTED", seq)
            elif kind not in CLIENT_TYPES:
                if self.has("unknown-type-unsupported"):
                    client.status("UNSUPORTED", seq)
                else:
                    raise PayloadError("unknown type")
            elif kind == "IDENTIFY":
                if self.has("second-identify-protocol"):
                    raise PayloadError("already identified")
                client.status("UNSUPORTED", seq)
            else:
                getattr(self, "on_" + kind.lower())(client, members, raws, seq)
        except PayloadError as error:
            client.status("PROTOCOL", seq, desc=str(error))

    def result(self, client, payload, seq):
        if seq is not None:
            payload["seq"] = self.seq_value(seq)
        client.push(payload)

    def group_name(self, members, raws):
        name = need_text(members, "name")
        if self.bug == "surrogate-escapes-apart" and re.search(r"\\u[dD][89abAB]", raws["name"]):
            units = name.encode("utf-16-le", "surrogatepass")
            name = "".join(chr(units[i] | units[i + 1] << 8) for i in range(0, len(units), 2))
        return name

    def on_group_create(self, client, members, raws, seq):
        name, nickname = self.group_name(members, raws), optional_text(members, "nickname")
        if self.bug == "nickname-empty" and nickname == "":
            nickname = None
        group = self.find_group(name)
        if group is not None:
            if self.bug == "refused-create-renames" and nickname is not None:
                group.nickname = nickname
            client.status("GROUP_ALREADY_CREATED", seq, **self.describe_group(group))
            return
        if len(self.groups) >= self.options.max_groups:
            client.status("BAD", seq, desc="too many groups")
            return
        if self.bug in ("owner-stale", "nickname-stale"):
            if ("group", name) not in self.memory:
                self.remember(("group", name), (client.uuid, nickname))
            _, first_nickname = self.memory[("group", name)]
            if self.bug == "nickname-stale" and first_nickname is not None:
                nickname = first_nickname
        group = self.groups[name] = Group(name, nickname, client)
        info = self.describe_group(group)
        client.status("GROUP_CREATED", seq, **info)
        if self.bug == "pending-holds-notice" and self.pending:
            return
        for other in self.uuids.values():
            if other is not client:
                other.status("GROUP_CREATED", late=True, **info)

    def on_group_delete(self, client, members, raws, seq):
        name = self.group_name(members, raws)
        group = self.find_group(name, "GROUP_DELETE")
        if group is None:
            client.delete_failed = True
            client.status("NO_SUCH_GROUP", seq, **{"name" if self.bug == "delete-error-member" else "group": name})
            return
        allowed = group.owner is client
        if self.bug == "owner-stale":
            allowed = self.memory.get(("group", name), (client.uuid,))[0] == client.uuid
        if self.bug == "foreign-delete-locks":
            allowed = allowed and not group.locked
            group.locked = True
        if not allowed:
            client.status("BAD", seq, desc="not the owner of the group")
            return
        self.delete_group(group, client, seq)

    def on_self_subscribe(self, client, members, raws, seq):
        name = self.group_name(members, raws)
        group = self.find_group(name)
        if group is None:
            client.status("NO_SUCH_GROUP", seq, group=name)
            return
        if client.uuid in group.subscribers and self.has("resubscribe-bad"):
            client.status("BAD", seq, desc="already subscribed")
            return
        if self.bug == "fifth-subscription-evicts" and len(client.subscriptions) >= 4 and name not in client.subscriptions:
            self.unlink(client, next(iter(client.subscriptions.values())))
        self.link(client, group)
        client.status("SUBSCRIBED", seq, **self.describe_group(group))

    def on_self_unsubscribe(self, client, members, raws, seq):
        name = self.group_name(members, raws)
        group = self.find_group(name)
        if group is None:
            client.status("NO_SUCH_GROUP", None if self.bug == "unsubscribe-error-no-seq" else seq, group=name)
            return
        if client.uuid not in group.subscribers and not self.has("unsubscribe-idle-ok"):
            client.status("BAD", seq, desc="not subscribed")
            return
        many = len(client.subscriptions) >= 3
        self.unlink(client, group)
        if self.bug == "resubscribe-deaf":
            group.left.add(client.uuid)
        if self.bug == "unsubscribe-drops-last" and many:
            self.unlink(client, list(client.subscriptions.values())[-1])
        if self.bug == "owner-unsubscribe-mutes" and group.owner is client:
            group.muted = True
        if self.bug == "tag-mates-unsubscribe" and client.tags:
            for other in list(group.subscribers.values()):
                if other.tags == client.tags:
                    self.unlink(other, group)
        client.status("UNSUBSCRIBED", seq, **self.describe_group(group))

    def on_group_fetch(self, client, members, raws, seq):
        name = self.group_name(members, raws)
        group = self.find_group(name)
        if group is None:
            if self.has("fetch-missing-bad"):
                client.status("BAD", seq, desc="no such group")
            else:
                client.status("NO_SUCH_GROUP", seq, group=name)
            return
        payload = {"type": "GROUP_FETCH_RESULT", **self.describe_group(group, by_name=True, result=True)}
        if self.bug == "fetch-cache-by-seq":
            if ("fetch", name, seq) in self.memory:
                payload = dict(self.memory[("fetch", name, seq)])
            else:
                self.remember(("fetch", name, seq), dict(payload))
        if self.bug == "seq-of-latest":
            asyncio.get_running_loop().call_later(0.05, lambda: self.result(client, payload, client.seq))
            return
        self.result(client, payload, seq)

    def all_groups(self):
        groups = []
        owners = {}
        for group in self.ordered(self.groups.values()):
            info = self.describe_group(group, by_name=self.has("fetch-all-names"), result=True)
            if self.bug == "owner-by-nickname" and group.nickname is not None:
                info["owner_uuid"] = owners.setdefault(group.nickname, group.owner.uuid)
            groups.append(info)
        return {"type": "GROUP_FETCH_ALL_RESULT", "groups": groups}

    def on_group_fetch_all(self, client, members, raws, seq):
        self.result(client, self.all_groups(), seq)

    def on_client_fetch_all(self, client, members, raws, seq):
        clients, seen = [], set()
        for other in self.ordered(self.uuids.values()):
            if self.bug == "same-tags-listed-once" and len(other.tags) >= 2:
                if tuple(other.tags) in seen:
                    continue
                seen.add(tuple(other.tags))
            info = self.describe_client(other)
            if self.bug == "name-numeric" and other.name.isascii() and other.name.isdigit() and len(other.name) < 16:
                info["name"] = int(other.name)
            clients.append(info)
        if self.bug == "client-list-stale":
            if client.client_list is not None and client.client_list[0] == self.joins:
                clients = client.client_list[1]
            client.client_list = (self.joins, clients)
        if self.bug == "seq-text-from-ten" and seq is not None and seq >= 10:
            seq = str(seq)
        self.result(client, {"type": "CLIENT_FETCH_ALL_RESULT", "clients": clients}, seq)

    def on_self_fetch(self, client, members, raws, seq):
        names = self.ordered(client.subscriptions)
        if self.bug == "group-name-255":
            names = [name[:255] for name in names]
        self.result(client, {"type": "SELF_FETCH_RESULT", **self.describe_client(client), "subscriptions": names}, seq)

    # -- messages ------------------------------------------------------------------

    def find_by_name(self, name):
        if self.bug == "name-nfc":
            for client in self.names.values():
                if unicodedata.normalize("NFC", client.name) == unicodedata.normalize("NFC", name):
                    return client
        if self.bug == "name-first-32" and len(name) > 32:
            for client in self.names.values():
                if len(client.name) > 32 and client.name[:32] == name[:32]:
                    return client
        client = self.names.get(name)
        return None if client is not None and client.unlisted else client

    def find_by_uuid(self, text, sender):
        if self.bug == "uuid-first-32":
            for client in self.uuids.values():
                if client.uuid[:32] == text[:32]:
                    return client
        client = self.uuids.get(text)
        return None if self.bug == "self-by-uuid" and client is sender else client

    def on_message(self, client, members, raws, seq):
        target = members.get("target")
        if not isinstance(target, dict):
            raise PayloadError("target must be an object")
        if "data" not in members:
            raise PayloadError("data is missing")
        kind = need_text(target, "type")
        if self.bug == "target-type-first" and next(iter(target)) != "type":
            raise PayloadError("target has no type")
        group = None
        if kind == "NAME":
            name = need_text(target, "name")
            found = self.find_by_name(name)
            if found is None:
                client.status("NO_SUCH_NAME", seq, name=name)
                return
            receivers, shown = [found], {"type": "NAME", "name": name}
        elif kind == "UUID":
            text = need_text(target, "uuid")
            found = self.find_by_uuid(text, client)
            if found is None:
                client.status("NO_SUCH_UUID", seq, uuid=text)
                return
            receivers, shown = [found], {"type": "UUID", "uuid": text}
        elif kind == "GROUP":
            name = need_text(target, "group")
            if self.bug == "target-extra-refused" and len(target) > 2:
                raise PayloadError("unknown member of target")
            group = self.find_group(name)
            if group is None:
                client.status("NO_SUCH_GROUP", seq, group=name)
                return
            receivers, shown = self.receivers_of(group, client), {"type": "GROUP", "group": name}
        elif kind == "ALL":
            receivers, shown = list(self.uuids.values()), {"type": "ALL"}
            if self.has("all-without-sender"):
                receivers.remove(client)
            if self.bug == "quiet-clients-skipped":
                receivers = [other for other in receivers if other.seq > 1]
        else:
            raise PayloadError("unknown type of target")
        if self.bug == "burst-of-six":
            client.burst.append(asyncio.get_running_loop().time())
            if len(client.burst) == 6 and client.burst[-1] - client.burst[0] < 0.25:
                client.burst.clear()
                receivers = []

        if self.has("ack-first"):
            client.status("MESSAGE_SENT", seq)
        origin = self.describe_origin(client, group)
        if self.bug == "origin-of-owner" and group is not None and client.uuid not in group.subscribers:
            origin["uuid"] = group.owner.uuid
        claimed = members.get("origin")
        if isinstance(claimed, dict):
            if self.bug == "origin-tags-accepted" and not client.tags and isinstance(claimed.get("tags"), list):
                origin["tags"] = [tag for tag in claimed["tags"] if isinstance(tag, str)]
            if self.bug == "uuid-origin-trusted" and kind == "UUID" and isinstance(claimed.get("name"), str):
                origin["name"] = claimed["name"]
        payload = {"type": "MESSAGE", "origin": origin, "target": shown}
        data = self.relayed_data(raws["data"], kind, list(members))
        if data is not None:
            payload["data"] = data
        if self.has("relay-unknown-members"):
            for name in members:
                if name not in ("type", "origin", "target", "data"):
                    payload[name] = Raw(raws[name])
            payload["target"] = Raw(raws["target"])
        for receiver in receivers:
            sent = payload
            if self.bug == "origin-tags-of-last" and kind == "NAME":
                if receiver.last_sender not in (None, client.uuid):
                    sent = {**payload, "origin": {**origin, "tags": receiver.last_tags}}
                receiver.last_sender, receiver.last_tags = client.uuid, client.tags
            receiver.push(sent, late=True)
        if not self.has("ack-first"):
            client.status("MESSAGE_SENT", seq)

    def receivers_of(self, group, sender):
        receivers = list(group.subscribers.values())
        if self.bug == "broadcast-stops-at-dead":
            alive = []
            for client in receivers:
                if client.dead:
                    break
                alive.append(client)
            receivers = alive
        if self.bug == "sixth-subscriber-silent":
            receivers = receivers[:5]
        if self.bug == "resubscribe-deaf":
            receivers = [client for client in receivers if client.uuid not in group.left]
        if self.bug == "owner-skipped" and len(receivers) > 1 and sender is not group.owner:
            receivers = [client for client in receivers if client is not group.owner]
        if group.muted:
            receivers = []
        return receivers

    def relayed_data(self, raw, kind, order):
        """The text of data; only a bug changes it."""
        name = self.bug
        if name == "data-first" and order.index("data") < order.index("target"):
            return None if raw == "null" else Raw("null")
        if name is None or not name.startswith("data-"):
            return Raw(raw)
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            return Raw(raw)
        changed = value
        if name == "data-null-dropped" and kind == "UUID" and value is None:
            return None
        if name == "data-falsy-in-group" and kind == "GROUP" and not value:
            changed = None
        elif name == "data-html":
            changed = change_texts(value, html_entities, in_array=False)
        elif name == "data-nul-cut":
            changed = change_texts(value, lambda text: text.split("\0")[0])
        elif name == "data-big-int":
            changed = change_ints(value)
        elif name == "data-65536":
            changed = change_texts(value, lambda text: text[:65535])
        elif name == "data-proto-keys":
            changed = drop_proto(value)
        return Raw(raw) if changed == value and changed is not None else Raw(json.dumps(changed))

    # -- controls ------------------------------------------------------------------

    def control(self, path, wish):
        """Serves POST /control/NAME; returns (status, answer)."""
        name = path.removeprefix("/control/") if path.startswith("/control/") else None
        if name == "state":
            return 200, {"clients": len(self.uuids), "groups": len(self.groups), "pending": len(self.pending)}
        if name == "kick":
            client = self.names.get(wish.get("name")) if isinstance(wish.get("name"), str) else None
            if client is None:
                return 200, {"ok": False, "error": "no such client"}
            client.kicked = True
            if wish.get("abort") is True:
                client.ws.transport.abort()
            else:
                code = wish.get("code", 1000)
                if not isinstance(code, int) or not (code in (1000, 1001, 1008, 1011) or 3000 <= code <= 4999):
                    return 400, {"error": "code cannot be sent"}
                self.start(client.ws.close(code))
            return 200, {"ok": True}
        if name == "notice":
            wanted = wish.get("name")
            clients = [c for c in self.uuids.values() if wanted is None or c.name == wanted]
            for client in clients:
                client.status("OK")
            return 200, {"ok": True, "clients": len(clients)}
        if name == "fail":
            count = wish.get("count", 1)
            if not isinstance(count, int) or not 0 <= count <= 1000:
                return 400, {"error": "count must be 0 to 1000"}
            self.fail_next = count
            return 200, {"ok": True}
        if name == "shutdown":
            asyncio.get_running_loop().call_later(0.05, self.stop.set)
            return 200, {"ok": True}
        return 404, {"error": "no such control"}

    def start(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- running -------------------------------------------------------------------

    def select_subprotocol(self, ws, offered):
        return SUBPROTOCOL if SUBPROTOCOL in offered else None

    def process_request(self, ws, request):
        if len(self.uuids) + len(self.pending) >= self.options.max_clients:
            return ws.respond(503, "too many clients\n")
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        if self.has("subprotocol-required") and SUBPROTOCOL not in [item.strip() for item in offered.split(",")]:
            return ws.respond(400, f"the subprotocol {SUBPROTOCOL} is required\n")
        return None

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        Connection.hub = self
        quiet = logging.getLogger("concierge.websockets")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        server = await serve(
            self.serve_connection, "127.0.0.1", self.options.port,
            create_connection=Connection, subprotocols=[SUBPROTOCOL],
            select_subprotocol=self.select_subprotocol, process_request=self.process_request,
            compression="deflate" if self.has("deflate") else None,
            max_size=self.options.max_size, ping_interval=self.options.ping_interval or None,
            ping_timeout=self.options.ping_interval or None, open_timeout=self.options.open_timeout, close_timeout=2,
            server_header=None, logger=quiet)
        port = server.sockets[0].getsockname()[1]
        print(f"ws://127.0.0.1:{port}", flush=True)
        await self.stop.wait()
        server.close(code=self.stop_code)
        try:
            async with asyncio.timeout(2):
                await server.wait_closed()
        except TimeoutError:         # somebody does not close; the rest ends with the process
            pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--bug", choices=list(BUGS), metavar="NAME")
    parser.add_argument("--variant", action="append", default=[], choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=None, help="makes the UUIDs repeatable")
    parser.add_argument("--list", action="store_true", help="print bugs and variants as JSON")
    parser.add_argument("--secret", default="", help="secret that IDENTIFY must carry; empty: none is asked for")
    parser.add_argument("--version", default="0.1.0", help="version of the gateway")
    parser.add_argument("--identify-timeout", type=float, default=5.0, help="seconds")
    parser.add_argument("--open-timeout", type=float, default=30.0, help="seconds for the handshake")
    parser.add_argument("--ping-interval", type=float, default=20.0, help="seconds; 0: no keepalive")
    parser.add_argument("--max-size", type=int, default=4 * 1024 * 1024, help="bytes of a message")
    parser.add_argument("--max-queue", type=int, default=32 * 1024 * 1024, help="characters waiting for one client")
    parser.add_argument("--max-groups", type=int, default=10000)
    parser.add_argument("--max-clients", type=int, default=1000)
    options = parser.parse_args()
    if options.list:
        print(json.dumps({"bugs": list(BUGS.values()), "variants": list(VARIANTS.values())}, indent=1))
        return
    if parse_version(options.version) is None:
        parser.error("--version must be a semantic version")
    asyncio.run(Hub(options).run())


if __name__ == "__main__":
    main()
