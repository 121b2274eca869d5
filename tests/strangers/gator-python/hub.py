#!/usr/bin/env python3
"""A message hub: JSON over WebSockets, two actions (`log` and `stop`).

The hub plays a tier. Every WebSocket connection on its port is a child (a
tier, a wrapper or a task), except those on the path `/parent`, which take the
parent's place. With `--parent URL` the hub dials its parent itself.

See README.md for the options, the controls and the reading of open points.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import random
import re
import signal
import sqlite3
import sys
import time
import unicodedata
from collections import OrderedDict, deque

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

MISSING = object()
SEVERITIES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# --------------------------------------------------------------------------
# Sentences of the document, by line
# --------------------------------------------------------------------------

JSON_TEXT = (12, "All messages are encoded in JSON.")
POSTED = (33, "If `posted` is true the host silently consumes the message and emits no response "
              "unless the message fails to be decoded.")
SUCCESS = (37, "Successful response: `action` of the request, `rsp_id`, `result` \"success\", `payload`.")
FAILURE = (51, "Failure response: `result` \"error\", `rsp_id`, `reason`.")
COPY_ID = (63, "If `req_id` is provided it is always copied into the response as `rsp_id`, which allows "
               "several outstanding messages.")
RECORD = (73, "The `log` action allows messages to be recorded or forwarded to the console.")
UPWARDS = (74, "A log propagates upwards through the wrapper and tier hierarchy.")
TIMESTAMP = (94, "`timestamp`: when the message was created; defaults to the current time.")
SEVERITY = (95, "`severity` must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL; defaults to INFO.")
MESSAGE = (96, "`message`: the message to log.")
TO_ALL = (105, "`stop` is distributed by tiers to all child tiers and wrappers.")
NO_TASKS = (106, "`stop` also stops any further tasks from being scheduled.")
NO_PAYLOAD = (118, "`stop` requires no payload.")
STOP_RESPONSE = (119, "A non-posted `stop` is answered once the request has been forwarded to all children.")
DOWNWARDS = (6, "Communication is bi-directional, so messages can also travel down, for instance to stop "
                "all jobs.")
WEBSOCKET = (1, "Gator uses websockets to communicate")

# --------------------------------------------------------------------------
# Bugs: (name, kind, sentence, what the hub does wrong, how a client notices)
# --------------------------------------------------------------------------

BUG_TABLE = [
    # -- history
    ("posted-answered-after-refusal", "history", POSTED,
     "After a refusal on a connection, the next valid posted request is answered.",
     "A response to a posted log."),
    ("id-lost-after-bad-text", "history", COPY_ID,
     "After an undecodable text, the next response on the connection has no rsp_id.",
     "The response to the next valid request lacks its identifier."),
    ("second-bad-text-unanswered", "history", POSTED,
     "Only the first undecodable text of a connection is answered.",
     "No error for the second undecodable text."),
    ("posted-sticks", "history", POSTED,
     "After three posted requests in a row, a request without `posted` is treated as posted.",
     "No response to a log without `posted`."),
    ("children-frozen-at-first-stop", "history", TO_ALL,
     "The first stop fixes the list of children; later stops go to that list.",
     "A child that joined after the first stop misses the second."),
    ("stop-cached-by-id", "history", TO_ALL,
     "A stop whose req_id an earlier stop had, on any connection, is answered from a cache.",
     "The second stop is answered, but a child that joined in between gets nothing."),
    ("clock-frozen", "history", TIMESTAMP,
     "The default time is taken at the first log without timestamp of a connection and used ever after.",
     "A later log without timestamp carries the old time."),
    ("severity-remembered", "history", SEVERITY,
     "After a refused severity, the connection's last good severity becomes its default.",
     "A log without severity arrives at the parent as ERROR, for instance."),
    ("quiet-after-three-refusals", "history", UPWARDS,
     "After three refusals on a connection its valid logs are answered but not kept.",
     "The log never reaches the parent."),
    ("repeat-suppressed", "history", UPWARDS,
     "A log with the text of the log before it on the same connection is not kept.",
     "Two equal logs arrive as one."),
    ("pong-empty-after-bad-text", "history", WEBSOCKET,
     "After an undecodable text, pongs on the connection carry no application data (RFC 6455, 5.5.3).",
     "The pong differs from the ping."),
    ("replacement-child-skipped", "history", TO_ALL,
     "The child that joins after another one left is taken for that one and is sent no stop.",
     "The new child misses the stop."),
    # -- several
    ("sixth-child-skipped", "several", TO_ALL,
     "Only the first five children are sent a stop.",
     "The sixth child gets no stop."),
    ("burst-sixth-id", "several", COPY_ID,
     "The sixth of six outstanding requests is answered with the identifier of the fifth.",
     "One identifier is answered twice, one never."),
    ("burst-sixth-log-lost", "several", UPWARDS,
     "A posted log that arrives behind five others not yet handled is dropped.",
     "The sixth log does not reach the parent."),
    ("second-simultaneous-stop-unanswered", "several", STOP_RESPONSE,
     "A stop that arrives while another connection's stop is under way is not answered.",
     "One of two simultaneous stops gets no response."),
    ("mixed-actions-crossed", "several", SUCCESS,
     "A stop behind an outstanding log is answered with the action of the log.",
     "The response to the stop says `log`."),
    ("leaver-takes-next", "several", TO_ALL,
     "When a child leaves, the child that joined next after it is forgotten too.",
     "The child that stayed gets no stop."),
    ("fifth-evicts-first", "several", UPWARDS,
     "When a fifth child joins, the logs of the oldest one no longer go up.",
     "The first child's log does not reach the parent."),
    ("posted-stop-one-child", "several", TO_ALL,
     "A posted stop goes to the first child only.",
     "The second child gets no stop."),
    ("equal-ids-one-answer", "several", COPY_ID,
     "Of two outstanding requests with equal identifiers on a connection one is answered.",
     "One response instead of two."),
    ("burst-shares-timestamp", "several", TIMESTAMP,
     "Outstanding logs, from the third on, get the timestamp of the first.",
     "The third log reaches the parent with a time that it never had."),
    ("burst-posted-answered", "several", POSTED,
     "A posted log behind five outstanding requests is answered.",
     "A response to a posted request."),
    # -- identity
    ("id-32", "identity", COPY_ID,
     "Text identifiers of a connection that share their first 32 characters are taken for one.",
     "The second response carries the first identifier."),
    ("id-case", "identity", COPY_ID,
     "Text identifiers that differ only in case are taken for one, across connections.",
     "The response carries the other connection's spelling."),
    ("id-unicode-form", "identity", COPY_ID,
     "Text identifiers that differ only in Unicode form are taken for one.",
     "The second response carries the first form."),
    ("id-number-text", "identity", COPY_ID,
     "The number 23 and the text \"23\" are taken for one identifier.",
     "The text comes back as the number used before."),
    ("refusal-to-first-user", "identity", FAILURE,
     "A refusal goes to the connection that was first to use an equal identifier.",
     "The requester waits, another connection gets the error."),
    ("stop-answer-to-namesake", "identity", STOP_RESPONSE,
     "The response to a stop goes to a connection with an outstanding request of equal identifier.",
     "The requester waits, the other one gets two responses."),
    ("error-id-of-posted", "identity", COPY_ID,
     "A refusal right after a posted request carries the identifier of the posted one.",
     "The error names the wrong request."),
    ("no-id-borrows", "identity", COPY_ID,
     "The refusal of a request without identifier carries the identifier of the request before.",
     "A second response to an identifier already answered."),
    ("message-32", "identity", MESSAGE,
     "Messages of a connection that share their first 32 characters are kept with the first text.",
     "The second log reaches the parent with the first text."),
    ("message-case", "identity", MESSAGE,
     "Messages that differ only in case are kept with the first text, across connections.",
     "The log reaches the parent in another connection's spelling."),
    ("action-of-namesake", "identity", SUCCESS,
     "A success names the action for which another connection first used an equal identifier.",
     "The response to a log says `stop`."),
    # -- neighbours
    ("gone-child-ends-forwarding", "neighbours", TO_ALL,
     "Forwarding a stop ends at a child that was cut off without closing.",
     "Children that joined later get no stop."),
    ("stopper-must-stay", "neighbours", TO_ALL,
     "A posted stop is dropped if its sender disconnects right after it.",
     "The children get no stop."),
    ("leaver-logs-lost", "neighbours", UPWARDS,
     "Posted logs of a connection that closes within half a second are dropped.",
     "The last words of a leaver do not reach the parent."),
    ("stop-undone-by-leaving", "neighbours", NO_TASKS,
     "When the sender of a stop leaves, tasks are scheduled again.",
     "A new job is scheduled after the stop."),
    ("bad-neighbour-hides-errors", "neighbours", FAILURE,
     "While another connection's last message was undecodable, refusals are not sent.",
     "No response to a log without message."),
    ("open-fragment-blocks", "neighbours", COPY_ID,
     "While another connection is in the middle of a fragmented message, nobody else is served.",
     "No response until the neighbour finishes."),
    ("silent-children-hold-stop", "neighbours", STOP_RESPONSE,
     "With three other children or more, a stop is answered only if each of them has sent something before.",
     "No response because a child has said nothing yet."),
    ("neighbour-same-text", "neighbours", UPWARDS,
     "A log with the text of another connection's last log is not kept.",
     "The second log does not reach the parent."),
    ("leaving-drops-others", "neighbours", UPWARDS,
     "When a connection closes, posted logs of others from the last half second are dropped.",
     "A log does not reach the parent because another connection left."),
    ("stopped-children-muted", "neighbours", UPWARDS,
     "Logs of children that were sent a stop are answered but not kept.",
     "What a task says while it is being terminated does not reach the parent."),
    ("first-leaver-unlinks", "neighbours", UPWARDS,
     "When the oldest child leaves while others stay, logs no longer go up.",
     "The other child's log does not reach the parent."),
    # -- values
    ("zero-id-missing", "values", COPY_ID,
     "In refusals, the identifiers 0, \"\" and false are taken for missing.",
     "The error has no rsp_id."),
    ("id-fraction-cut", "values", COPY_ID,
     "A fractional identifier is cut to a whole number.",
     "1.5 comes back as 1."),
    ("id-255", "values", COPY_ID,
     "Text identifiers are cut to 255 characters.",
     "A longer identifier comes back shortened."),
    ("id-html", "values", COPY_ID,
     "In refusals, <, > and & in identifiers are escaped for HTML.",
     "The error has another identifier."),
    ("id-nul", "values", COPY_ID,
     "Text identifiers end at U+0000.",
     "The identifier comes back shortened."),
    ("id-numeric-text", "values", COPY_ID,
     "Text identifiers that look like whole numbers come back as numbers.",
     "\"007\" comes back as 7."),
    ("id-prototype-name", "values", COPY_ID,
     "Identifiers such as \"constructor\" and \"__proto__\" are taken for missing.",
     "The response has no rsp_id."),
    ("id-large-as-text", "values", COPY_ID,
     "Whole numbers above 2147483647 come back as text.",
     "The identifier has another type."),
    ("empty-message-missing", "values", MESSAGE,
     "The message \"\" is taken for missing.",
     "A valid log is refused."),
    ("message-65535", "values", MESSAGE,
     "Messages are cut to 65,535 characters.",
     "A longer message reaches the parent shortened."),
    ("message-html", "values", MESSAGE,
     "<, > and & in messages are escaped for HTML.",
     "The message reaches the parent changed."),
    ("message-trimmed", "values", MESSAGE,
     "White space at both ends of a message is cut.",
     "The message reaches the parent changed."),
    ("message-astral", "values", MESSAGE,
     "Characters beyond U+FFFF become U+FFFD.",
     "The message reaches the parent changed."),
    ("timestamp-zero-now", "values", TIMESTAMP,
     "The timestamp 0 is taken for missing.",
     "The log reaches the parent with the current time."),
    ("timestamp-fraction-cut", "values", TIMESTAMP,
     "Timestamps are cut to whole seconds.",
     "The log reaches the parent with another time."),
    ("timestamp-milliseconds", "values", TIMESTAMP,
     "Timestamps of 100000000000 and more are taken for milliseconds.",
     "The log reaches the parent with a thousandth of the time."),
    # -- equivalents
    ("id-after-payload", "equivalents", COPY_ID,
     "A req_id written behind the payload is not seen (RFC 8259, 4: order is not significant).",
     "The response has no rsp_id."),
    ("escaped-posted", "equivalents", POSTED,
     "The member name `posted` is not recognised when written with an escape (RFC 8259, 8.3).",
     "A response to a posted request."),
    ("escaped-severity", "equivalents", SEVERITY,
     "A severity written with an escape is refused (RFC 8259, 8.3).",
     "A valid log is refused."),
    ("leading-line-feed", "equivalents", JSON_TEXT,
     "A text that begins with a tab or a line break is taken for undecodable (RFC 8259, 2).",
     "An error for a valid request."),
    ("three-frames", "equivalents", WEBSOCKET,
     "A message in three frames or more is dropped (RFC 6455, 5.4).",
     "No response."),
    ("empty-last-frame", "equivalents", WEBSOCKET,
     "A message whose last frame is empty is dropped (RFC 6455, 5.4).",
     "No response."),
    ("split-character", "equivalents", WEBSOCKET,
     "A character cut in two by a frame boundary is replaced (RFC 6455, 5.6).",
     "The message reaches the parent with U+FFFD."),
    ("posted-stop-no-payload", "equivalents", NO_PAYLOAD,
     "A posted stop without the member `payload` is dropped.",
     "The children get no stop."),
    ("posted-absent-stop", "equivalents", POSTED,
     "A stop without the member `posted` is not answered.",
     "No response."),
    ("exponent-timestamp", "equivalents", TIMESTAMP,
     "A timestamp written with an exponent is refused (RFC 8259, 6).",
     "A valid log is refused."),
    ("escaped-slash", "equivalents", MESSAGE,
     "In a text with the escape for a slash, slashes keep the backslash (RFC 8259, 7).",
     "The message reaches the parent changed."),
    ("surrogate-pair-escape", "equivalents", MESSAGE,
     "A character escaped as a surrogate pair becomes two U+FFFD (RFC 8259, 7).",
     "The message reaches the parent changed."),
    ("severity-after-message", "equivalents", SEVERITY,
     "A severity written behind the message is not seen.",
     "The log reaches the parent as INFO."),
    # -- one-of-many
    ("critical-as-error", "one-of-many", SEVERITY,
     "CRITICAL is kept as ERROR.",
     "The log reaches the parent with another severity."),
    ("debug-not-propagated", "one-of-many", UPWARDS,
     "DEBUG logs are recorded but do not go up.",
     "The log does not reach the parent."),
    ("no-id-for-missing-message", "one-of-many", COPY_ID,
     "The refusal of a log without message has no rsp_id.",
     "The error cannot be assigned."),
    ("no-reason-for-case", "one-of-many", FAILURE,
     "The refusal of a severity that is wrong only in case has no reason.",
     "The error lacks `reason`."),
    ("posted-bad-text-unanswered", "one-of-many", POSTED,
     "An undecodable text in which `posted` and true can be read is not answered.",
     "No error for a posted request that was cut off."),
    ("empty-text-unanswered", "one-of-many", POSTED,
     "An empty text is not answered, while other undecodable texts are.",
     "No error for the empty text."),
    ("parent-stop-kept", "one-of-many", DOWNWARDS,
     "A stop that comes from the parent is answered but not forwarded.",
     "The children get no stop."),
    ("dialled-parent-unanswered", "one-of-many", COPY_ID,
     "Requests over the link that the hub dialled itself are not answered.",
     "The parent gets no response to its stop."),
    ("posted-stop-keeps-scheduling", "one-of-many", NO_TASKS,
     "A posted stop is forwarded, but tasks are still scheduled.",
     "A new job is scheduled after the stop."),
    ("info-lowercase-accepted", "one-of-many", SEVERITY,
     "Of the lower-case severities, `info` is accepted.",
     "No error for a severity that is not in the list."),
    ("parent-answers-without-id", "one-of-many", COPY_ID,
     "Responses to the parent have no rsp_id.",
     "The parent cannot assign the response."),
    ("posted-default-severity", "one-of-many", SEVERITY,
     "The default severity of posted logs is DEBUG.",
     "A posted log without severity reaches the parent as DEBUG."),
    ("waiting-task-runs-after-stop", "one-of-many", NO_TASKS,
     "Tasks that already waited when the stop came are still scheduled when a slot is free.",
     "A waiting job runs after the stop."),
]

# --------------------------------------------------------------------------
# Legal variants: (name, what the hub does, why it is legal)
# --------------------------------------------------------------------------

VARIANT_TABLE = [
    ("member-order", "Members are written in reverse order.",
     "RFC 8259, 4: the order of members is not significant."),
    ("extra-members", "Messages carry additional members (`host`, `sent`).",
     "Lines 37 to 59 show the members that there are; they do not exclude others."),
    ("number-spelling", "Whole numbers are written as 23.0 or 23e0.",
     "RFC 8259, 6: spellings of the same number."),
    ("white-space", "Texts are indented and surrounded by line breaks and tabs.",
     "RFC 8259, 2: insignificant white space."),
    ("all-escaped", "Every character of every string is written as \\uXXXX, member names too.",
     "RFC 8259, 7: any character may be escaped."),
    ("raw-unicode", "Characters outside ASCII are written as they are.",
     "RFC 8259, 7 and 8.1: they need no escape."),
    ("fragmented", "Messages are sent in several frames, some empty, cut within characters.",
     "RFC 6455, 5.4: the sender chooses the frames."),
    ("pings", "The hub pings every 50 ms, with application data.",
     "RFC 6455, 5.5.2: either side may ping at any time."),
    ("pongs", "The hub sends unsolicited pongs.",
     "RFC 6455, 5.5.3: an unsolicited pong is a heartbeat and needs no answer."),
    ("late", "Responses come up to 150 ms late.",
     "The document names no time."),
    ("reordered", "Responses to outstanding requests come in reverse order.",
     "Line 63: identifiers allow several outstanding messages; no order is promised."),
    ("long-reason", "Reasons are long and contain line breaks, quotes and characters outside ASCII.",
     "Line 57: the reason is an explanation, its text is free."),
    ("null-id", "Responses for which no identifier is known carry `rsp_id: null`.",
     "Line 63 promises the identifier if one was provided; it does not forbid the member otherwise."),
    ("error-details", "Failure responses also carry `action` and an empty payload.",
     "Line 51 shows a format and does not exclude other members."),
    ("success-details", "Success payloads carry details (`children`, `recorded`).",
     "Line 37 leaves the payload's content open; none is documented for `log` and `stop`."),
    ("forward-nonposted", "Stops are forwarded non-posted, with an identifier of the hub.",
     "Line 118: a stop can be sent either posted or non-posted."),
    ("forward-bare", "A forwarded stop has only `action` and `posted`.",
     "Line 118: no payload is required; line 63: an identifier is optional."),
    ("forward-verbatim", "A stop is forwarded with the identifier and payload it came with.",
     "Line 120: the request is forwarded on; no form is given."),
    ("stop-to-sender-too", "The child that sent a stop is sent it as well.",
     "Line 105: to all child tiers and wrappers; the sender is not excluded."),
    ("children-shuffled", "The order in which children are sent a stop is random.",
     "Line 105 names no order."),
    ("late-child-stopped", "A child that joins after a stop is sent a stop at once.",
     "Lines 105 to 107: all children, and no further tasks."),
    ("log-batches", "Logs go up in batches every 200 ms.",
     "Line 4: data is aggregated during regular heartbeat intervals."),
    ("up-nonposted", "Logs go up non-posted, with an identifier.",
     "Line 100: posted is a recommendation."),
    ("up-verbatim", "A log goes up with the payload it came with, defaults not filled in.",
     "Lines 94 and 95: the default is the receiver's; no tier is told to fill it in."),
    ("fraction-of-now", "The default timestamp has a fraction.",
     "Line 94: a Unix timestamp; the resolution is not given."),
    ("heartbeat-down", "The hub sends posted `heartbeat` messages to its children every 100 ms.",
     "Lines 4 and 6: heartbeat intervals; messages also travel down."),
    ("wide-decoding", "A posted log that is refused (for a wrong severity, for instance) gets an error.",
     "Line 35: it is not said whether the check of the fields belongs to decoding."),
    ("any-message-type", "A message that is not text is accepted and kept as its JSON text.",
     "Line 96 names no type."),
    ("no-binary", "Binary messages end the connection with 1003.",
     "RFC 6455, 7.4.1: an endpoint may refuse a type of data; line 12 names JSON only."),
    ("deflate", "The hub accepts permessage-deflate.",
     "RFC 7692; RFC 6455, 9: extensions are negotiated."),
    ("double-numbers", "Whole numbers beyond 2^53 lose precision.",
     "RFC 8259, 6: implementations may limit range and precision."),
    ("close-1000", "On shutting down the hub closes with 1000 instead of 1001.",
     "RFC 6455, 7.4: the code is optional; the document names none."),
]

BUGS = {row[0]: row for row in BUG_TABLE}
VARIANTS = {row[0]: row for row in VARIANT_TABLE}


def listing():
    return {
        "bugs": [{"name": n, "kind": k, "line": s[0], "sentence": s[1], "does": d, "seen": v}
                 for n, k, s, d, v in BUG_TABLE],
        "variants": [{"name": n, "does": d, "why": w} for n, d, w in VARIANT_TABLE],
    }


# --------------------------------------------------------------------------
# JSON
# --------------------------------------------------------------------------

class BadText(Exception):
    """A message that cannot be decoded."""


def read_integer(text):
    if len(text) > 300:
        raise BadText("a number is out of range")
    return int(text)


def read_fraction(text):
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadText("a number is out of range")
    return value


def read_constant(text):
    raise BadText(f"{text} is not JSON")


def decode(raw):
    """Return the object in a text or binary message, or raise BadText."""
    try:
        if isinstance(raw, bytes):
            raw = raw.decode("utf-8")
        value = json.loads(raw, parse_int=read_integer, parse_float=read_fraction,
                           parse_constant=read_constant)
    except BadText:
        raise
    except RecursionError:
        raise BadText("the text is nested too deeply") from None
    except (ValueError, UnicodeError) as error:
        raise BadText(f"the text is not JSON: {error}"[:200]) from None
    if not isinstance(value, dict):
        raise BadText("the text is not a JSON object")
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > 100:
            raise BadText("the text is nested too deeply")
        level = [item for parent in level
                 for item in (parent.values() if isinstance(parent, dict) else parent)
                 if isinstance(item, (dict, list))]
    return value


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Writer:
    """Writes JSON texts in the spelling that the variants ask for."""

    def __init__(self, variants):
        self.reverse = "member-order" in variants
        self.numbers = "number-spelling" in variants
        self.escaped = "all-escaped" in variants
        self.spaced = "white-space" in variants
        self.doubles = "double-numbers" in variants
        self.ascii = "raw-unicode" not in variants
        self.plain = not (self.reverse or self.numbers or self.escaped or self.spaced or self.doubles)

    def text(self, value):
        try:
            out = self.dump(value) if self.plain else self.render(value)
            out.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate can only be written as an escape
            out = json.dumps(value)
        return f"\n\t{out}\r\n" if self.spaced else out

    def dump(self, value):
        return json.dumps(value, ensure_ascii=self.ascii)

    def render(self, value):
        if isinstance(value, dict):
            items = list(value.items())
            if self.reverse:
                items.reverse()
            gap = "\n  " if self.spaced else ""
            return "{" + ",".join(f"{gap}{self.render(k)}{gap}:{gap}{self.render(v)}"
                                  for k, v in items) + gap + "}"
        if isinstance(value, list):
            return "[" + ",".join(self.render(v) for v in value) + "]"
        if isinstance(value, str):
            return self.escape(value) if self.escaped else self.dump(value)
        if is_number(value):
            if self.doubles and isinstance(value, int):
                return str(int(float(value)))
            if self.numbers and isinstance(value, int) and abs(value) < 2 ** 53:
                return random.choice([f"{value}.0", f"{value}e0", f"{value}.00E+0"])
        return self.dump(value)

    @staticmethod
    def escape(text):
        data = text.encode("utf-16-be", "surrogatepass")
        units = (data[i:i + 2].hex() for i in range(0, len(data), 2))
        return '"' + "".join("\\u" + unit for unit in units) + '"'


class Bounded(OrderedDict):
    """A mapping that keeps its newest 1,000 entries."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        while len(self) > 1000:
            self.popitem(last=False)


# --------------------------------------------------------------------------
# Connections
# --------------------------------------------------------------------------

@dataclasses.dataclass
class Shape:
    """How a message came: the data of its frames."""
    frames: int = 1
    last_empty: bool = False
    parts: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Request:
    """A message that came, decoded as far as that goes."""
    link: object
    text: str
    shape: Shape
    bad: str = ""                 # why it cannot be decoded
    body: dict = dataclasses.field(default_factory=dict)
    before: object = None         # the request before it that was not yet handled
    head: object = None           # the first one not yet handled
    depth: int = 0                # how many there were
    twin: bool = False            # one of them has an equal identifier
    namesake: object = None       # another connection's request with an equal identifier
    rival: bool = False           # another connection's stop is under way

    @property
    def posted(self):
        return self.body.get("posted") is True

    @property
    def action(self):
        return self.body.get("action")

    @property
    def has_id(self):
        return "req_id" in self.body

    @property
    def key(self):
        """The identifier as text, for comparing."""
        return json.dumps(self.body["req_id"], sort_keys=True) if self.has_id else None


class HubConnection(ServerConnection):
    """A server connection that also takes `POST /control/NAME` and watches the frames."""

    hub = None

    def connection_made(self, transport):
        self.http = None          # None: not known yet, False: WebSocket, bytearray: HTTP
        self.first = b""
        self.served = False
        self.shapes = deque()
        self.shape = None
        super().connection_made(transport)

    def data_received(self, data):
        if self.http is None:
            self.first += data
            if len(self.first) < 5 and b"POST ".startswith(self.first):
                return
            data, self.first = self.first, b""
            self.http = bytearray() if data.startswith(b"POST ") else False
        if self.http is False:
            super().data_received(data)
            return
        if not self.served:
            self.http += data
            self.control()

    def control(self):
        head, separator, body = bytes(self.http).partition(b"\r\n\r\n")
        if not separator:
            if len(head) > 16384:
                self.transport.abort()
            return
        lines = head.decode("latin-1").split("\r\n")
        length = 0
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-length":
                length = int(value) if value.strip().isdigit() else 0
        if length > 1 << 20:
            self.served = True
            self.http_answer(413, {"error": "the body is too large"})
        elif len(body) >= length:
            self.served = True
            path = (lines[0].split(" ") + [""])[1].partition("?")[0]
            self.loop.create_task(self.run_control(path, body[:length]))

    async def run_control(self, path, body):
        try:
            data = decode(body) if body.strip() else {}
            prefix, _, name = path.rpartition("/")
            control = getattr(self.hub, "control_" + name, None) if prefix == "/control" else None
            if control is None:
                self.http_answer(404, {"error": "there is no such control"})
            else:
                self.http_answer(200, await control(data))
        except BadText as error:
            self.http_answer(400, {"error": str(error)})
        except Exception as error:
            self.http_answer(500, {"error": repr(error)})

    def http_answer(self, status, data):
        body = json.dumps(data).encode()
        head = (f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n")
        self.transport.write(head.encode() + body)
        self.transport.close()

    def eof_received(self):
        if self.http is False:
            return super().eof_received()
        return bool(self.http)

    def process_event(self, event):
        if isinstance(event, Frame):
            if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self.shape = Shape(frames=0)
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) and self.shape is not None:
                self.shape.frames += 1
                self.shape.last_empty = not event.data
                if self.hub.bug == "split-character":
                    self.shape.parts.append(bytes(event.data))
                if event.fin:
                    self.shapes.append(self.shape)
                    self.shape = None
        super().process_event(event)


class Link:
    """One connection: a child, or the parent."""

    def __init__(self, hub, ws, kind, dialled=False):
        self.hub = hub
        self.ws = ws
        self.kind = kind
        self.dialled = dialled
        self.inbox = asyncio.Queue(64)
        self.outbox = asyncio.Queue()
        self.outbox_size = 0
        self.outstanding = []
        self.open = True
        self.sent = 0             # forwarded stops and logs, for identifiers
        self.answers = []         # variant reordered
        # What the bugs remember
        self.refusals = 0
        self.bad_texts = 0
        self.last_bad = False
        self.after_refusal = False
        self.after_bad = False
        self.posted_run = 0
        self.previous = None
        self.clock = None
        self.severity = None
        self.severity_refused = False
        self.last_text = None
        self.names = Bounded()
        self.texts = Bounded()
        self.skipped = False
        self.unheard = False
        self.was_stopped = False
        self.gone = False
        self.seen = 0

    # -- sending

    def send(self, message):
        """Queue a message; return a future that is done once it is written."""
        future = self.hub.loop.create_future()
        text = self.hub.writer.text(message)
        if not self.open:
            future.set_result(False)
        elif self.outbox.qsize() >= self.hub.options.max_pending or \
                self.outbox_size > 4 * self.hub.options.max_size:
            self.ws.transport.abort()   # it does not read what it is sent
            future.set_result(False)
        else:
            self.outbox_size += len(text)
            self.outbox.put_nowait((text, future))
        return future

    async def write(self):
        while True:
            text, future = await self.outbox.get()
            self.outbox_size -= len(text)
            try:
                if "fragmented" in self.hub.variants:
                    await self.write_fragments(text.encode())
                else:
                    await self.ws.send(text)
                done = True
            except ConnectionClosed:
                done = False
            if not future.done():
                future.set_result(done)

    async def write_fragments(self, data):
        cuts = sorted(random.sample(range(len(data) + 1), min(3, len(data))))
        parts = [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])] + [b""]
        if self.ws.protocol.state.name != "OPEN":
            return
        self.ws.protocol.send_text(parts[0], fin=False)
        for number, part in enumerate(parts[1:], 2):
            self.ws.protocol.send_continuation(part, fin=number == len(parts))
        self.ws.transport.write(b"".join(self.ws.protocol.data_to_send()))
        await asyncio.sleep(0)

    async def respond(self, message):
        """Send a response."""
        hub = self.hub
        if "late" in hub.variants:
            await asyncio.sleep(random.uniform(0, 0.15))
        if "reordered" in hub.variants:
            self.answers.append(message)
            if len(self.answers) == 1:
                hub.loop.call_later(0.03, self.flush_answers)
            return
        await self.send(message)

    def flush_answers(self):
        answers, self.answers = self.answers, []
        for message in reversed(answers):
            self.send(message)

    # -- receiving

    async def run(self):
        """Serve the connection until it ends."""
        tasks = [asyncio.create_task(self.write()), asyncio.create_task(self.work())]
        beat = asyncio.create_task(self.hub.beats(self))
        try:
            async for raw in self.ws:
                shape = Shape()
                if isinstance(self.ws, HubConnection) and self.ws.shapes:
                    shape = self.ws.shapes.popleft()
                if isinstance(raw, bytes) and "no-binary" in self.hub.variants:
                    await self.ws.close(1003)
                    break
                await self.inbox.put(self.arrive(raw, shape))
        except ConnectionClosed:
            pass
        finally:
            self.open = False
            beat.cancel()
            self.hub.leave(self)
            # What was received before the end is still handled.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.inbox.join(), 10)
            for task in tasks:
                task.cancel()
            while not self.outbox.empty():
                future = self.outbox.get_nowait()[1]
                if not future.done():
                    future.set_result(False)

    def arrive(self, raw, shape):
        """Decode a message and note what it meets."""
        self.seen += 1
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        if self.hub.bug == "split-character" and shape.frames > 1:
            text = raw = "".join(part.decode("utf-8", "replace") for part in shape.parts)
        request = Request(self, text, shape)
        try:
            if self.hub.bug == "leading-line-feed" and text[:1] in ("\n", "\r", "\t"):
                raise BadText("the text is not JSON")
            request.body = decode(raw)
        except BadText as error:
            request.bad = str(error)
        if self.hub.bug:
            request.depth = len(self.outstanding)
            if self.outstanding:
                request.head, request.before = self.outstanding[0], self.outstanding[-1]
                request.twin = request.has_id and any(o.key == request.key for o in self.outstanding)
            for link in self.hub.links:
                for other in link.outstanding if link is not self else ():
                    if request.has_id and other.key == request.key:
                        request.namesake, other.namesake = other, request
                    if request.action == "stop" == other.action and not other.posted:
                        request.rival = True
        self.outstanding.append(request)
        return request

    async def work(self):
        """Handle the messages one after the other."""
        while True:
            request = await self.inbox.get()
            try:
                await self.hub.handle(request)
            except Exception as error:   # a fault of the hub must not end the connection
                logging.error("handling failed: %r", error)
            finally:
                self.outstanding.remove(request)
                self.inbox.task_done()


# --------------------------------------------------------------------------
# The hub
# --------------------------------------------------------------------------

class Records:
    """The SQLite table of logs, bounded in rows and in size."""

    def __init__(self, path, keep):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA synchronous=OFF")
        self.db.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY AUTOINCREMENT, "
                        "timestamp, severity TEXT, message TEXT)")
        self.keep = keep
        self.rows = deque()
        self.size = 0

    def add(self, entry):
        stamp = entry["timestamp"]
        if isinstance(stamp, int) and abs(stamp) >= 2 ** 63:
            stamp = float(stamp)
        message = entry["message"].encode("utf-8", "replace").decode()
        cursor = self.db.execute("INSERT INTO log (timestamp, severity, message) VALUES (?, ?, ?)",
                                 (stamp, entry["severity"], message))
        self.rows.append((cursor.lastrowid, len(message)))
        self.size += len(message)
        while len(self.rows) > self.keep or self.size > 1 << 26:
            row, size = self.rows.popleft()
            self.size -= size
            self.db.execute("DELETE FROM log WHERE id = ?", (row,))
        return cursor.lastrowid

    def read(self, after, limit):
        rows = self.db.execute("SELECT id, timestamp, severity, message FROM log WHERE id > ? "
                               "ORDER BY id LIMIT ?", (after, limit))
        return [dict(zip(("id", "timestamp", "severity", "message"), row)) for row in rows]

    def clear(self):
        self.db.execute("DELETE FROM log")
        self.rows.clear()
        self.size = 0


class Refused(Exception):
    """A request that gets a failure response. `cause` is for the bugs."""

    def __init__(self, reason, cause=""):
        super().__init__(reason)
        self.cause = cause


class Hub:
    def __init__(self, options):
        self.options = options
        self.bug = options.bug
        self.variants = set(options.variant)
        self.writer = Writer(self.variants)
        self.loop = asyncio.get_running_loop()
        self.records = Records(options.db, options.keep)
        self.links = []            # all, in the order of joining
        self.held = deque(maxlen=1000)    # logs for a dialled parent that is away
        self.parent_url = options.parent
        self.dialling = None
        self.ending = asyncio.Event()
        self.begin_run()

    def begin_run(self):
        self.stopped = False
        self.running = []
        self.waiting = deque()
        self.batch = []
        self.run_number = getattr(self, "run_number", 0) + 1
        # What the bugs remember
        self.stopper = None
        self.first_targets = None
        self.stop_ids = Bounded()
        self.vacancies = 0
        self.unlinked = False
        self.names = Bounded()
        self.texts = Bounded()
        self.first_user = Bounded()
        self.first_action = Bounded()
        self.last_log = None
        self.delayed = {}
        self.delay_number = 0

    # -- connections

    def children(self):
        return [link for link in self.links if link.kind == "child" and not link.gone]

    def parents(self):
        return [link for link in self.links if link.kind == "parent"]

    async def serve(self, ws):
        kind = "parent" if ws.request.path.partition("?")[0] == self.options.parent_path else "child"
        await self.attend(Link(self, ws, kind))

    async def attend(self, link):
        self.join(link)
        await link.run()

    def join(self, link):
        if self.bug == "pong-empty-after-bad-text":
            self.spoil_pongs(link)
        self.links.append(link)
        if link.kind == "parent":
            while self.held:
                link.send(self.up_message(link, *self.held.popleft()))
            return
        if self.bug == "replacement-child-skipped" and self.vacancies:
            self.vacancies -= 1
            link.skipped = True
        if self.bug == "fifth-evicts-first" and len(self.children()) >= 5:
            self.children()[0].unheard = True
        if self.stopped and "late-child-stopped" in self.variants:
            link.send(self.stop_message(link, None))

    def spoil_pongs(self, link):
        protocol = link.ws.protocol
        send_frame = protocol.send_frame

        def send(frame):
            if frame.opcode is Opcode.PONG and link.bad_texts:
                frame = dataclasses.replace(frame, data=b"")
            send_frame(frame)
        protocol.send_frame = send

    def leave(self, link):
        children = self.children()
        if link.kind == "child":
            place = children.index(link)
            if self.bug == "replacement-child-skipped":
                self.vacancies += 1
            if self.bug == "leaver-takes-next" and place + 1 < len(children):
                children[place + 1].skipped = True
            if self.bug == "first-leaver-unlinks" and place == 0 and len(children) > 1:
                self.unlinked = True
        if self.bug == "stop-undone-by-leaving" and link is self.stopper:
            self.stopped = False
        if self.bug == "leaving-drops-others":
            for number, (owner, timer) in list(self.delayed.items()):
                if owner is not link:
                    timer.cancel()
                    del self.delayed[number]
        if self.bug == "gone-child-ends-forwarding" and link.ws.protocol.close_code == 1006:
            link.gone = True
            self.links = [l for l in self.links if l.open or l.gone][-1000:]
        else:
            self.links.remove(link)

    async def beats(self, link):
        """What a variant sends at regular intervals."""
        with contextlib.suppress(ConnectionClosed):
            while self.variants & {"pings", "pongs", "heartbeat-down"}:
                if "pings" in self.variants:
                    await link.ws.ping(b"hub %d" % random.randrange(10 ** 6))
                if "pongs" in self.variants:
                    await link.ws.pong(b"alive")
                if "heartbeat-down" in self.variants and link.kind == "child":
                    link.send({"action": "heartbeat", "posted": True, "payload": {}})
                await asyncio.sleep(0.05 if "pings" in self.variants else 0.1)

    async def dial(self, url):
        """Keep a connection to the parent."""
        while True:
            try:
                async with connect(url, open_timeout=5, max_size=self.options.max_size) as ws:
                    await self.attend(Link(self, ws, "parent", dialled=True))
            except Exception as error:
                logging.info("parent %s: %r", url, error)
            await asyncio.sleep(self.options.redial)

    def set_parent(self, url):
        self.parent_url = url
        if self.dialling:
            self.dialling.cancel()
        self.dialling = asyncio.create_task(self.dial(url)) if url else None

    # -- messages

    def in_fragment(self, link):
        return any(l is not link and isinstance(l.ws, HubConnection) and l.ws.shape is not None
                   for l in self.links if l.open)

    async def handle(self, request):
        link = request.link
        if request.bad:
            await self.answer_bad_text(request)
            return
        link.last_bad = False
        body = request.body
        if "req_id" not in body and "result" in body and ("rsp_id" in body or "action" not in body):
            return                   # a response to a message of the hub
        if self.bug == "open-fragment-blocks":
            for _ in range(600):
                if not self.in_fragment(link):
                    break
                await asyncio.sleep(0.05)
        if self.bug == "escaped-posted" and '"posted"' not in request.text:
            body.pop("posted", None)
        if (self.bug == "three-frames" and request.shape.frames >= 3) or \
                (self.bug == "empty-last-frame" and request.shape.last_empty):
            return
        await asyncio.sleep(self.options.work_ms / 1000)
        try:
            payload = await self.perform(request)
            refusal = None
        except Refused as error:
            payload, refusal = None, error
            link.refusals += 1
        if self.is_silent(request, refusal):
            link.posted_run += 1
        elif not self.withholds(request, refusal):
            await self.respond(request, payload, refusal)
        if self.bug == "posted-answered-after-refusal" and not request.posted:
            link.after_refusal = refusal is not None
        if not request.posted:
            link.posted_run = 0
        link.previous = request

    async def answer_bad_text(self, request):
        link = request.link
        link.bad_texts += 1
        link.last_bad = link.after_bad = True
        if self.bug == "second-bad-text-unanswered" and link.bad_texts > 1:
            return
        if self.bug == "posted-bad-text-unanswered" and re.search(r'"posted"\s*:\s*true', request.text):
            return
        if self.bug == "empty-text-unanswered" and not request.text:
            return
        message = {"result": "error", "reason": self.reason(request.bad)}
        if "null-id" in self.variants:
            message["rsp_id"] = None
        await link.respond(message)

    def is_silent(self, request, refusal):
        """Whether the request is consumed without a response."""
        link, body = request.link, request.body
        if self.bug == "posted-sticks" and "posted" not in body and link.posted_run >= 3:
            return True
        if self.bug == "posted-absent-stop" and request.action == "stop" and "posted" not in body:
            return True
        if not request.posted:
            return False
        # An unknown action stays unanswered: line 33, as its message has been decoded.
        if refusal and request.action == "log" and "wide-decoding" in self.variants:
            return False
        if self.bug == "posted-answered-after-refusal" and link.after_refusal and not refusal:
            link.after_refusal = False
            return False
        if self.bug == "burst-posted-answered" and request.depth >= 5:
            return False
        return True

    def withholds(self, request, refusal):
        """Whether a bug keeps the response back."""
        link = request.link
        if self.bug == "bad-neighbour-hides-errors" and refusal:
            return any(l.last_bad for l in self.links if l is not link and l.open)
        if self.bug == "second-simultaneous-stop-unanswered":
            return request.rival
        if self.bug == "equal-ids-one-answer":
            return request.twin
        if self.bug == "dialled-parent-unanswered":
            return link.dialled
        if self.bug == "silent-children-hold-stop" and request.action == "stop":
            others = [l for l in self.children() if l is not link]
            return len(others) >= 3 and any(l.seen == 0 for l in others)
        return False

    def reason(self, text):
        if "long-reason" in self.variants:
            return f"{text}\n\t\"It is not possible\" \u2014 \u00e4\u4e2d\U0001f6d1 \\ " + "and so on, " * 300
        return text

    async def respond(self, request, payload, refusal):
        link, body = request.link, request.body
        target = link
        identifier = self.identifier(request, refusal)
        if refusal:
            message = {"result": "error"}
            if identifier is not MISSING:
                message["rsp_id"] = identifier
            message["reason"] = self.reason(str(refusal))
            if self.bug == "no-reason-for-case" and refusal.cause == "case":
                del message["reason"]
            if "error-details" in self.variants:
                message.update(action=body.get("action"), payload={})
        else:
            message = {"action": self.action_named(request)}
            if identifier is not MISSING:
                message["rsp_id"] = identifier
            message.update(result="success", payload=payload)
        if identifier is MISSING and "null-id" in self.variants:
            message["rsp_id"] = None
        if "extra-members" in self.variants:
            message.update(host="tier-1", sent=time.time())
        if self.bug == "refusal-to-first-user" and request.has_id:
            first = self.first_user.get(request.key)
            if refusal and first is not None and first.open:
                target = first
            elif first is None or not first.open:
                self.first_user[request.key] = link
        if self.bug == "stop-answer-to-namesake" and request.action == "stop" and request.namesake:
            target = request.namesake.link
        await target.respond(message)

    def action_named(self, request):
        action = request.action
        if self.bug == "mixed-actions-crossed" and action == "stop" and request.before is not None \
                and request.before.action == "log" and not request.before.posted:
            return "log"
        if self.bug == "action-of-namesake" and request.has_id:
            if request.key not in self.first_action:
                self.first_action[request.key] = (request.link, action)
            first, named = self.first_action[request.key]
            return action if first is request.link else named
        return action

    def identifier(self, request, refusal):
        """The rsp_id for a request, or MISSING."""
        link, body, bug = request.link, request.body, self.bug
        value = body.get("req_id", MISSING)
        if not bug:
            return value
        previous = link.previous
        if value is MISSING:
            if bug == "no-id-borrows" and refusal and previous is not None and previous.has_id:
                return previous.body["req_id"]
            return MISSING
        if bug == "id-lost-after-bad-text" and link.after_bad:
            link.after_bad = False
            return MISSING
        if bug == "burst-sixth-id" and request.depth >= 5 and request.before.has_id:
            return request.before.body["req_id"]
        if bug == "error-id-of-posted" and refusal and previous is not None and previous.posted \
                and previous.has_id:
            return previous.body["req_id"]
        if bug == "no-id-for-missing-message" and refusal and refusal.cause == "missing":
            return MISSING
        if bug == "parent-answers-without-id" and link.kind == "parent":
            return MISSING
        if bug == "id-after-payload" and "payload" in body:
            names = list(body)
            return MISSING if names.index("req_id") > names.index("payload") else value
        if bug == "zero-id-missing" and refusal and value in (0, "", False):
            return MISSING
        if bug == "id-fraction-cut" and isinstance(value, float):
            return int(value)
        if bug == "id-large-as-text" and is_number(value) and value > 2147483647:
            return str(value)
        if bug == "id-number-text" and (isinstance(value, str) or is_number(value)):
            return link.names.setdefault(str(value), value)
        if not isinstance(value, str):
            return value
        if bug == "id-32" and len(value) >= 32:
            return link.names.setdefault(value[:32], value)
        if bug == "id-case":
            return self.names.setdefault(value.casefold(), value)
        if bug == "id-unicode-form":
            return link.names.setdefault(unicodedata.normalize("NFC", value), value)
        if bug == "id-255":
            return value[:255]
        if bug == "id-html" and refusal:
            return escape_html(value)
        if bug == "id-nul":
            return value.partition("\0")[0]
        if bug == "id-numeric-text" and re.fullmatch(r"-?[0-9]{1,15}", value):
            return int(value)
        if bug == "id-prototype-name" and value in ("constructor", "__proto__", "toString",
                                                    "hasOwnProperty", "valueOf", "prototype"):
            return MISSING
        return value

    async def perform(self, request):
        """Do what a request asks for; return the payload of the response."""
        action = request.action
        if action == "log":
            return await self.do_log(request)
        if action == "stop":
            return await self.do_stop(request)
        if isinstance(action, str):
            raise Refused(f"there is no action {action[:100]!r}")
        raise Refused("`action` must be text")

    # -- log

    async def do_log(self, request):
        bug, link, payload = self.bug, request.link, request.body.get("payload")
        if not isinstance(payload, dict):
            raise Refused("`log` needs a payload with a `message`", "missing")
        message = payload.get("message", MISSING)
        if message is MISSING or (bug == "empty-message-missing" and message == ""):
            raise Refused("`message` is missing", "missing")
        if not isinstance(message, str):
            if "any-message-type" not in self.variants:
                raise Refused("`message` must be text")
            message = json.dumps(message)
        entry = {"timestamp": self.log_timestamp(request, payload),
                 "severity": self.log_severity(request, payload),
                 "message": self.log_message(request, message)}
        if bug == "burst-sixth-log-lost" and request.posted and request.depth >= 5:
            return {}
        if self.drops_log(link, message):
            return {}
        if bug in ("leaver-logs-lost", "leaving-drops-others") and request.posted:
            self.delay_number += 1
            timer = self.loop.call_later(0.5, self.keep_delayed, self.delay_number, link, entry, payload)
            self.delayed[self.delay_number] = (link, timer)
            return {}
        row = self.keep_log(link, entry, payload)
        return {"recorded": row} if "success-details" in self.variants else {}

    def keep_delayed(self, number, link, entry, payload):
        del self.delayed[number]
        if self.bug != "leaver-logs-lost" or link.open:
            self.keep_log(link, entry, payload)

    def drops_log(self, link, message):
        bug = self.bug
        last, link.last_text = link.last_text, message
        other, self.last_log = self.last_log, (link, message)
        return (bug == "repeat-suppressed" and last == message) \
            or (bug == "neighbour-same-text" and other is not None and other[0] is not link
                and other[1] == message) \
            or (bug == "quiet-after-three-refusals" and link.refusals >= 3) \
            or (bug == "stopped-children-muted" and link.was_stopped)

    def log_timestamp(self, request, payload):
        bug, link = self.bug, request.link
        stamp = payload.get("timestamp", MISSING)
        if bug == "timestamp-zero-now" and stamp is not MISSING and not stamp:
            stamp = MISSING
        if stamp is MISSING:
            now = time.time() if "fraction-of-now" in self.variants else int(time.time())
            if bug == "clock-frozen":
                link.clock = now = link.clock or now
            return now
        if not is_number(stamp):
            raise Refused("`timestamp` must be a number")
        if bug == "exponent-timestamp" and re.search(r'"timestamp"\s*:\s*-?[0-9.]+[eE]', request.text):
            raise Refused("`timestamp` must be a number")
        if bug == "timestamp-fraction-cut":
            return int(stamp)
        if bug == "timestamp-milliseconds" and stamp >= 10 ** 11:
            return stamp / 1000
        if bug == "burst-shares-timestamp" and request.depth >= 2:
            first = request.head.body.get("payload")
            if request.head.action == "log" and isinstance(first, dict):
                return first.get("timestamp", stamp)
        return stamp

    def log_severity(self, request, payload):
        bug, link = self.bug, request.link
        severity = payload.get("severity", MISSING)
        if bug == "severity-after-message" and severity is not MISSING:
            names = list(payload)
            if names.index("severity") > names.index("message"):
                severity = MISSING
        if severity is MISSING:
            if bug == "severity-remembered" and link.severity_refused and link.severity:
                return link.severity
            return "DEBUG" if bug == "posted-default-severity" and request.posted else "INFO"
        if bug == "info-lowercase-accepted" and severity == "info":
            return "INFO"
        if not isinstance(severity, str) or severity not in SEVERITIES \
                or (bug == "escaped-severity" and f'"{severity}"' not in request.text):
            link.severity_refused = True
            raise Refused("`severity` must be one of " + ", ".join(SEVERITIES),
                          "case" if str(severity).upper() in SEVERITIES else "")
        link.severity = severity
        return "ERROR" if bug == "critical-as-error" and severity == "CRITICAL" else severity

    def log_message(self, request, text):
        bug, link = self.bug, request.link
        if bug == "message-32" and len(text) >= 32:
            return link.texts.setdefault(text[:32], text)
        if bug == "message-case":
            return self.texts.setdefault(text.casefold(), text)
        if bug == "message-65535":
            return text[:65535]
        if bug == "message-html":
            return escape_html(text)
        if bug == "message-trimmed":
            return text.strip()
        if bug == "message-astral":
            return re.sub("[\U00010000-\U0010ffff]", "\ufffd", text)
        if bug == "surrogate-pair-escape" and re.search(r"\\u[dD][89abAB]", request.text):
            return re.sub("[\U00010000-\U0010ffff]", "\ufffd\ufffd", text)
        if bug == "escaped-slash" and "\\/" in request.text:
            return text.replace("/", "\\/")
        return text

    def keep_log(self, link, entry, payload):
        """Record a log and send it up."""
        row = self.records.add(entry)
        if self.options.console:
            print(f"{entry['timestamp']} {entry['severity']} {json.dumps(entry['message'])}",
                  file=sys.stderr, flush=True)
        if link.kind == "parent" or link.unheard or self.unlinked \
                or (self.bug == "debug-not-propagated" and entry["severity"] == "DEBUG"):
            return row
        if "log-batches" in self.variants:
            self.batch.append((entry, payload))
            if len(self.batch) == 1 or len(self.batch) >= 1000:
                self.loop.call_later(0.2 if len(self.batch) == 1 else 0, self.send_batch)
        else:
            self.send_up(entry, payload)
        return row

    def send_batch(self):
        batch, self.batch = self.batch, []
        for entry, payload in batch:
            self.send_up(entry, payload)

    def send_up(self, entry, payload):
        parents = self.parents()
        for parent in parents:
            parent.send(self.up_message(parent, entry, payload))
        if not parents and self.parent_url and len(entry["message"]) <= 4096:
            self.held.append((entry, payload))

    def up_message(self, parent, entry, payload):
        parent.sent += 1
        if "up-verbatim" in self.variants:
            entry = payload
        return {"action": "log", "req_id": parent.sent, "posted": "up-nonposted" not in self.variants,
                "payload": entry}

    # -- stop

    def stop_message(self, child, request):
        child.sent += 1
        if "forward-bare" in self.variants:
            return {"action": "stop", "posted": True}
        if "forward-verbatim" in self.variants and request is not None:
            message = {"action": "stop", "posted": request.posted}
            message.update({name: request.body[name] for name in ("req_id", "payload")
                            if name in request.body})
            return message
        return {"action": "stop", "req_id": child.sent, "payload": {},
                "posted": "forward-nonposted" not in self.variants}

    async def do_stop(self, request):
        bug, link = self.bug, request.link
        if bug == "posted-stop-no-payload" and request.posted and "payload" not in request.body:
            return {}
        if bug == "parent-stop-kept" and link.kind == "parent":
            return {}
        if bug == "stop-cached-by-id" and request.has_id:
            if request.key in self.stop_ids:
                return {}
            self.stop_ids[request.key] = True
        if bug == "stopper-must-stay" and request.posted:
            await asyncio.sleep(0.2)
            if not link.open:
                return {}
        self.stopper = link
        count = await self.stop_all(request, link)
        return {"children": count} if "success-details" in self.variants else {}

    def stop_targets(self, request, source):
        """The children that a stop goes to, in order."""
        bug = self.bug
        targets = []
        for child in self.links:
            if child.gone:
                break                # only with the bug gone-child-ends-forwarding
            if child.kind == "child" and child.open and not child.skipped \
                    and (child is not source or "stop-to-sender-too" in self.variants):
                targets.append(child)
        if bug == "sixth-child-skipped":
            targets = targets[:5]
        if bug == "posted-stop-one-child" and request is not None and request.posted:
            targets = targets[:1]
        if bug == "children-frozen-at-first-stop":
            if self.first_targets is None:
                self.first_targets = self.children()
            targets = [child for child in targets if child in self.first_targets]
        if "children-shuffled" in self.variants:
            random.shuffle(targets)
        return targets

    async def stop_all(self, request, source):
        """Stop scheduling, end the jobs and forward the stop to the children."""
        if not (self.bug == "posted-stop-keeps-scheduling" and request is not None and request.posted):
            self.stopped = True
        if self.bug != "waiting-task-runs-after-stop":
            self.waiting.clear()
        self.loop.call_later(self.options.grace, self.end_jobs, self.run_number)
        targets = self.stop_targets(request, source)
        sent = []
        for child in targets:
            child.was_stopped = True
            sent.append(child.send(self.stop_message(child, request)))
        if sent:
            await asyncio.wait(sent, timeout=2)
        return len(targets)

    def end_jobs(self, run_number):
        """The jobs that were running when a stop came have ended."""
        if run_number == self.run_number and self.stopped:
            self.running.clear()
            self.schedule()

    def schedule(self):
        if self.stopped and self.bug != "waiting-task-runs-after-stop":
            return
        while self.waiting and len(self.running) < self.options.slots:
            self.running.append(self.waiting.popleft())

    # -- controls

    def state(self):
        return {"children": len(self.children()), "parents": len(self.parents()),
                "stopped": self.stopped, "running": list(self.running), "waiting": list(self.waiting)}

    async def control_state(self, data):
        return self.state()

    async def control_logs(self, data):
        after, limit = data.get("after", 0), data.get("limit", 1000)
        if not (is_number(after) and is_number(limit)):
            raise BadText("`after` and `limit` must be numbers")
        return {"logs": self.records.read(int(after), min(int(limit), 1000))}

    async def control_job(self, data):
        name = data.get("name", "job")
        if not isinstance(name, str) or len(name) > 1000:
            raise BadText("`name` must be text")
        if self.stopped or len(self.waiting) >= 1000:
            return {"name": name, "accepted": False, "scheduled": False}
        self.waiting.append(name)
        self.schedule()
        return {"name": name, "accepted": True, "scheduled": name in self.running}

    async def control_finish(self, data):
        found = data.get("name", "job") in self.running
        if found:
            self.running.remove(data.get("name", "job"))
            self.schedule()
        return {"found": found, **self.state()}

    async def control_stop(self, data):
        return {"children": await self.stop_all(None, None)}

    async def control_parent(self, data):
        url = data.get("url")
        if url is not None and not isinstance(url, str):
            raise BadText("`url` must be text or null")
        self.set_parent(url)
        return {"url": url}

    async def control_reset(self, data):
        self.begin_run()
        self.records.clear()
        self.held.clear()
        return self.state()

    async def control_shutdown(self, data):
        self.loop.call_later(0.05, self.ending.set)
        return {"ending": True}


def escape_html(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --------------------------------------------------------------------------
# Start and end
# --------------------------------------------------------------------------

async def run(options):
    hub = Hub(options)
    HubConnection.hub = hub
    for number in (signal.SIGTERM, signal.SIGINT):
        hub.loop.add_signal_handler(number, hub.ending.set)
    interval = options.ping_interval or None
    server = await serve(
        hub.serve, "127.0.0.1", options.port, create_connection=HubConnection,
        compression="deflate" if "deflate" in hub.variants else None,
        max_size=options.max_size, ping_interval=interval, ping_timeout=interval,
        close_timeout=2, logger=logging.getLogger("hub"))
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    if options.parent:
        hub.set_parent(options.parent)
    await hub.ending.wait()
    hub.set_parent(None)
    if "close-1000" in hub.variants:
        await asyncio.wait([asyncio.create_task(link.ws.close(1000)) for link in hub.links]
                           + [asyncio.create_task(asyncio.sleep(0))], timeout=3)
    server.close()                   # closes with 1001
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(server.wait_closed(), 4)


def parse_options():
    parser = argparse.ArgumentParser(description="A message hub for the actions log and stop.")
    add = parser.add_argument
    add("--port", type=int, default=0, help="port on 127.0.0.1; 0: any free port")
    add("--bug", choices=sorted(BUGS), metavar="NAME", help="plant a bug")
    add("--variant", choices=sorted(VARIANTS), action="append", default=[], metavar="NAME",
        help="choose a legal variant (repeatable)")
    add("--seed", type=int, default=1, help="for what the hub chooses at random")
    add("--list", action="store_true", help="print bugs and variants as JSON")
    add("--parent", metavar="URL", help="the parent to connect to")
    add("--parent-path", default="/parent", help="connections on this path take the parent's place")
    add("--redial", type=float, default=0.5, help="seconds between attempts to reach the parent")
    add("--db", default=":memory:", help="SQLite file for the logs")
    add("--keep", type=int, default=5000, help="logs kept in the database")
    add("--console", action="store_true", help="forward logs to the console (stderr)")
    add("--slots", type=int, default=1, help="jobs that run at a time")
    add("--grace", type=float, default=0.2, help="seconds until a stop has terminated the jobs")
    add("--work-ms", type=float, default=5, help="milliseconds that handling a request takes")
    add("--max-size", type=int, default=4 << 20, help="largest message accepted, in bytes")
    add("--max-pending", type=int, default=2000, help="unsent messages per connection")
    add("--ping-interval", type=float, default=20, help="seconds; 0: no keepalive pings")
    return parser.parse_args()


def main():
    options = parse_options()
    if options.list:
        print(json.dumps(listing(), indent=1))
        return
    random.seed(options.seed)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    logging.getLogger("hub").setLevel(logging.CRITICAL)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
