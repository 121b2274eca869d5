"""A hub that serves the messages between 2200 and 2300 over WebSockets.

The hub stands where 2300 stands: it answers requests and publishes messages.
`--bug NAME` plants one fault, `--variant NAME` switches on one legal variation.
See README.md for the options, the commands and the controls.
"""

import argparse
import asyncio
import copy
import dataclasses
import html
import json
import logging
import random
import re
import signal
import sys
import unicodedata
import uuid
from decimal import Decimal

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

MISSING = object()
TABLE_SIZE = 100  # entries that a bug's own table may hold
STRING = r'"(?:[^"\\]|\\.)*"'
SEMVER = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
COMMANDS = ("execute", "get_static", "get_dynamic", "initialize", "iterate", "terminate")
STATIC = {
    "name": "bench-5",
    "qubits": 5,
    "topology": [[0, 2], [1, 2], [2, 3], [2, 4]],
    "gate_time": 2e-08,
    "commands": list(COMMANDS),
}

# ----------------------------------------------------------------- requests, outcomes


@dataclasses.dataclass(eq=False)
class Request:
    """One message of a client. `message` is None if the text was no JSON object."""

    conn: object
    text: str = ""
    message: dict | None = None
    command: object = MISSING
    payload: object = MISSING
    version: object = MISSING
    session_id: str | None = None


@dataclasses.dataclass
class Outcome:
    ok: bool
    payload: object = MISSING


def success(payload=MISSING):
    return Outcome(True, payload)


def failure(text):
    return Outcome(False, text)


@dataclasses.dataclass
class Job:
    """An iterative job: opened by initialize, ended by terminate or when its connection ends."""

    session_id: str
    parameters: dict
    iterations: int = 0

# ----------------------------------------------------------------- bugs: the frame

SENTENCES = {
    5: "System communication is fetching static system information.",
    7: "Messages are Python dictionaries converted with json.loads and json.dumps: each value arrives as it was sent.",
    12: "The basic information is sufficient for non-iterative communication, e.g. requesting system information.",
    13: "These messages would be sent only once and not be part of a longer session.",
    19: "command: a string identifying the function to be executed.",
    21: "version: a str with the version number of the message format; it adheres to semantic versioning (0.y.z).",
    37: 'status: "success" or "failure", depending on whether the command executed successfully.',
    38: "payload: if failure, a string describing the failure; if success, the return value(s) of the command.",
    39: "version: a str with the version number of the message format; it adheres to semantic versioning (0.y.z).",
    53: "It is the extended version of the messages that also contains session identifiers.",
    54: "Session identifiers are needed when messages repetitively transcend application boundaries "
    "and should be tracked as such (e.g. execution of jobs).",
    61: "session_id: an arbitrary string, filled in in the request, which is copied into the response object.",
    78: "The same session_id from the request, to validate the request and reply.",
}
BUGS = {}


def bug(name, kind, source, does, seen):
    """Register a bug. `source` is a line of the document or a sentence of an RFC."""

    def register(cls):
        in_document = isinstance(source, int)
        BUGS[name] = cls
        cls.entry = {
            "name": name,
            "kind": kind,
            "line": source if in_document else None,
            "sentence": SENTENCES[source] if in_document else source,
            "does": does,
            "seen": seen,
        }
        return cls

    return register


class Bug:
    """The points at which a bug can act. This class leaves everything right."""

    def __init__(self, hub):
        self.hub = hub
        self.table = {}  # what a bug remembers of all connections

    def handshake(self, headers):
        """A reason to refuse the handshake, or None."""

    def ping(self, conn):
        """A ping has come."""

    def pong(self, conn, data):
        return conn, data

    def close_frame(self, conn, data):
        """The content of the hub's closing frame, or None for no frame."""
        return data

    def assemble(self, conn, pieces):
        return b"".join(pieces).decode("utf-8")

    def bad_utf8(self, conn):
        """A text message was not UTF-8."""

    def loads(self, text, **options):
        return json.loads(text, **options)

    def parsed(self, req):
        """The members of the request have been taken apart."""

    def version_served(self, version, served):
        return served

    def decided(self, req, outcome):
        """The outcome of a request; None while it is still outstanding."""
        return outcome

    def job_key(self, req):
        return req.session_id

    def job_open(self, req, key):
        return key in req.conn.jobs

    def opened(self, req, key, job):
        """A job was opened."""

    def iterating(self, req, job):
        return job

    def ended(self, req, key, job):
        """A job was terminated."""

    def held(self, req):
        """A request was put aside until it is released."""

    def released(self, pairs):
        """The (request, outcome) pairs that are released together."""
        return pairs

    def reply(self, req, body):
        return body

    def publish(self, copies):
        """The (connection, message) pairs of one publication."""
        return copies

    def left(self, conn):
        """A connection has ended; its jobs and held requests are still known."""


def keep(table, key, value):
    """table[key] = value, in a table of limited size."""
    if key not in table and len(table) >= TABLE_SIZE:
        del table[next(iter(table))]
    table[key] = value


def walk(value, change):
    """Apply `change` to a JSON value and everything in it, from the inside out."""
    if isinstance(value, dict):
        value = {name: walk(item, change) for name, item in value.items()}
    elif isinstance(value, list):
        value = [walk(item, change) for item in value]
    return change(value)


def by_connection(pairs):
    """Indexes of the pairs of each connection."""
    groups = {}
    for index, (req, _) in enumerate(pairs):
        groups.setdefault(req.conn, []).append(index)
    return groups


def with_id(pair, session_id):
    return dataclasses.replace(pair[0], session_id=session_id), pair[1]


def failed(body):
    return body["status"] == "failure"


def executed(req, body):
    return req.command == "execute" and not failed(body)


class IdBug(Bug):
    """A bug in how a session_id is copied into the reply."""

    def change(self, session_id):
        return session_id

    def reply(self, req, body):
        if "session_id" in body:
            changed = self.change(body["session_id"])
            if changed is MISSING:
                del body["session_id"]
            else:
                body["session_id"] = changed
        return body


class ValueBug(Bug):
    """A bug in the return values of execute."""

    def change(self, value):
        return value

    def reply(self, req, body):
        if executed(req, body) and "payload" in body:
            body["payload"] = walk(body["payload"], self.change)
        return body

# ----------------------------------------------------------------- bugs: history

@bug("session-sticks", "history", 53,
     "After an extended request has failed, the next base request of the connection gets its session_id.",
     "The reply to a base request has the session_id of an earlier, failed request.")
class SessionSticks(Bug):
    def reply(self, req, body):
        note = req.conn.note
        if req.session_id is not None:
            if failed(body):
                note["failed"] = req.session_id
        elif req.message is not None and "failed" in note:
            body = {"session_id": note.pop("failed"), **body}
        return body

@bug("session-lost-after-malformed", "history", 61,
     "After a malformed text, the next extended request of the connection is answered without session_id.",
     "An extended reply lacks session_id, once, after a malformed text.")
class SessionLostAfterMalformed(Bug):
    def reply(self, req, body):
        note = req.conn.note
        if req.message is None:
            note["lost"] = True
        elif "session_id" in body and note.pop("lost", False):
            del body["session_id"]
        return body

@bug("failed-id-stays-failed", "history", 37,
     "Once an execution under a session_id has failed, later executions under it are answered with failure.",
     "A sound execution that reuses the session_id of a failed one gets failure.")
class FailedIdStaysFailed(Bug):
    def decided(self, req, outcome):
        if req.command == "execute" and req.session_id is not None and outcome is not None:
            known = req.conn.note.setdefault("known", {})
            if not outcome.ok:
                keep(known, req.session_id, True)
            elif req.session_id in known:
                return failure("this job has failed")
        return outcome

@bug("third-failure-object", "history", 38,
     "From the third failure of a connection on, the failure's payload is an object.",
     "The payload of the third failure is no string.")
class ThirdFailureObject(Bug):
    def reply(self, req, body):
        if failed(body):
            count = req.conn.note["count"] = req.conn.note.get("count", 0) + 1
            if count >= 3:
                body["payload"] = {"message": body["payload"]}
        return body

@bug("payload-remembered", "history", 38,
     "An execute without payload returns the payload of the connection's earlier execute.",
     "An execute without arguments returns values that it was not given.")
class PayloadRemembered(Bug):
    def reply(self, req, body):
        if executed(req, body):
            if req.payload is not MISSING:
                req.conn.note["last"] = req.payload
            elif "last" in req.conn.note:
                body["payload"] = req.conn.note["last"]
        return body

@bug("answer-kept-by-id", "history", 38,
     "The return values of execute are kept per session_id and given again for the next execute under it.",
     "The second execute with an equal session_id returns the arguments of the first.")
class AnswerKeptById(Bug):
    def reply(self, req, body):
        if executed(req, body) and req.session_id is not None:
            kept = req.conn.note.setdefault("kept", {})
            if req.session_id in kept:
                body["payload"] = kept[req.session_id]
            elif "payload" in body:
                keep(kept, req.session_id, body["payload"])
        return body

@bug("job-resumes-count", "history", 54,
     "A job that is opened again under the id of a terminated one goes on counting where that one ended.",
     "The first iteration of a new job is not number 1 if its id was used before.")
class JobResumesCount(Bug):
    def ended(self, req, key, job):
        keep(req.conn.note.setdefault("counts", {}), key, job.iterations)

    def opened(self, req, key, job):
        job.iterations = req.conn.note.get("counts", {}).get(key, 0)

@bug("failure-drops-jobs", "history", 54,
     "A failed execute drops all open jobs of its connection.",
     "An open job can not be iterated after an unrelated execute has failed.")
class FailureDropsJobs(Bug):
    def reply(self, req, body):
        if req.command == "execute" and failed(body):
            req.conn.jobs.clear()
        return body

@bug("refused-version-sticks", "history", 39,
     "After a refused version, all later replies of the connection carry that text as their version.",
     "Replies after the refusal have a version that is no semantic version.")
class RefusedVersionSticks(Bug):
    def reply(self, req, body):
        note = req.conn.note
        if isinstance(req.version, str) and not self.hub.serves(req.version):
            note["version"] = req.version
        elif "version" in note:
            body["version"] = note["version"]
        return body

@bug("state-stale", "history", 38,
     "get_dynamic gives a connection the state of its first call for ever.",
     "After the state has changed, a second get_dynamic returns the old state.")
class StateStale(Bug):
    def reply(self, req, body):
        if req.command == "get_dynamic" and not failed(body):
            body["payload"] = req.conn.note.setdefault("state", body["payload"])
        return body

@bug("pong-empty-after-malformed", "history",
     "RFC 6455, 5.5.3: a Pong frame sent in response to a Ping frame must have identical application data.",
     "After a malformed text, pings of the connection are answered with empty pongs.",
     "A pong does not carry the data of its ping.")
class PongEmptyAfterMalformed(Bug):
    def reply(self, req, body):
        if req.message is None:
            req.conn.note["hurt"] = True
        return body

    def pong(self, conn, data):
        return conn, b"" if conn.note.get("hurt") else data

# ----------------------------------------------------------------- bugs: several

@bug("two-held-swapped", "several", 78,
     "Two executions of a connection that end together get each other's session_id.",
     "With two outstanding requests, each reply's payload is that of the other request.")
class TwoHeldSwapped(Bug):
    def released(self, pairs):
        for indexes in by_connection(pairs).values():
            ids = [pairs[index][0].session_id for index in indexes]
            for index, session_id in zip(indexes, ids[1:] + ids[:1]):
                pairs[index] = with_id(pairs[index], session_id)
        return pairs

@bug("fifth-evicts-first", "several", 61,
     "The fifth outstanding execution of a connection evicts the first, which is never answered.",
     "Of five outstanding requests, the first gets no reply.")
class FifthEvictsFirst(Bug):
    def held(self, req):
        own = [other for other in self.hub.held if other.conn is req.conn]
        if len(own) >= 5:
            self.hub.held.remove(own[0])

@bug("fifth-job-evicts-first", "several", 54,
     "The fifth open job of a connection evicts the first.",
     "With five open jobs, iterating the first fails.")
class FifthJobEvictsFirst(Bug):
    def opened(self, req, key, job):
        if len(req.conn.jobs) >= 5:
            del req.conn.jobs[next(iter(req.conn.jobs))]

@bug("failure-spreads", "several", 37,
     "If one of the executions that end together fails, the others of the connection are answered with failure too.",
     "A sound execution gets failure because another one failed at the same time.")
class FailureSpreads(Bug):
    def released(self, pairs):
        for indexes in by_connection(pairs).values():
            bad = [pairs[index][1] for index in indexes if not pairs[index][1].ok]
            for index in indexes:
                pairs[index] = (pairs[index][0], bad[0] if bad else pairs[index][1])
        return pairs

@bug("sixth-sent-twice", "several", 13,
     "If six base requests of a connection end together, the reply to the last is sent twice.",
     "Six outstanding base requests bring seven replies.")
class SixthSentTwice(Bug):
    def released(self, pairs):
        for indexes in by_connection(list(pairs)).values():
            base = [index for index in indexes if pairs[index][0].session_id is None]
            if len(base) >= 6:
                pairs.append(pairs[base[-1]])
        return pairs

@bug("third-hears-twice", "several", 13,
     "With three or more clients, the third gets each published message twice.",
     "One client receives a publication twice.")
class ThirdHearsTwice(Bug):
    def publish(self, copies):
        return copies[:3] + copies[2:] if len(copies) >= 3 else copies

@bug("publish-carries-session", "several", 12,
     "A client with two or more open jobs gets published messages with the session_id of its latest job.",
     "A published (base) message has a session_id.")
class PublishCarriesSession(Bug):
    def publish(self, copies):
        return [
            (conn, {"session_id": list(conn.jobs.values())[-1].session_id, **body} if len(conn.jobs) > 1 else body)
            for conn, body in copies
        ]

@bug("terminate-ends-all", "several", 54,
     "terminate ends all open jobs of the connection.",
     "After one of two jobs was terminated, the other can not be iterated.")
class TerminateEndsAll(Bug):
    def ended(self, req, key, job):
        req.conn.jobs.clear()

@bug("newest-job-counts", "several", 54,
     "With three or more open jobs, iterate acts on the newest of them.",
     "iterate returns number and parameters of another job.")
class NewestJobCounts(Bug):
    def iterating(self, req, job):
        jobs = list(req.conn.jobs.values())
        return jobs[-1] if len(jobs) >= 3 else job

@bug("all-return-the-last", "several", 38,
     "Three or more executions of a connection that end together all return the values of the last.",
     "Outstanding requests get return values of another request.")
class AllReturnTheLast(Bug):
    def released(self, pairs):
        for indexes in by_connection(pairs).values():
            good = [index for index in indexes if pairs[index][1].ok]
            if len(good) >= 3:
                for index in good:
                    pairs[index] = (pairs[index][0], pairs[good[-1]][1])
        return pairs

@bug("base-takes-outstanding-id", "several", 53,
     "While two extended requests are outstanding, base requests are answered with the session_id of the first.",
     "The reply to a base request has a session_id.")
class BaseTakesOutstandingId(Bug):
    def reply(self, req, body):
        open_ids = [other.session_id for other in self.hub.held if other.conn is req.conn and other.session_id]
        if req.session_id is None and req.message is not None and len(open_ids) >= 2:
            body = {"session_id": open_ids[0], **body}
        return body

# ----------------------------------------------------------------- bugs: identity

@bug("job-prefix-32", "identity", 61,
     "Jobs are told apart by the first 32 characters of their session_id only.",
     "A second job whose id differs in its last characters can not be opened.")
class JobPrefix32(Bug):
    def job_key(self, req):
        return req.session_id[:32]

@bug("held-id-case", "identity", 78,
     "An outstanding request whose session_id equals another one's but for case is answered with that one's spelling.",
     "Two outstanding requests are answered with the same session_id.")
class HeldIdCase(Bug):
    def held(self, req):
        for other in self.hub.held:
            if (other.conn is req.conn and other is not req and req.session_id and other.session_id
                    and other.session_id.casefold() == req.session_id.casefold()):
                req.session_id = other.session_id

@bug("job-id-nfc", "identity", 61,
     "Jobs are looked up by the composed Unicode form (NFC) of their session_id.",
     "Two jobs whose ids differ in Unicode form only are one job.")
class JobIdNfc(Bug):
    def job_key(self, req):
        return unicodedata.normalize("NFC", req.session_id)

@bug("same-id-one-receiver", "identity", 78,
     "If two connections have an outstanding request with an equal session_id, the first gets both replies.",
     "A client receives the reply to another client's request.")
class SameIdOneReceiver(Bug):
    def released(self, pairs):
        owners = {}
        for index, (req, outcome) in enumerate(pairs):
            if req.session_id is not None:
                owner = owners.setdefault(req.session_id, req.conn)
                pairs[index] = (dataclasses.replace(req, conn=owner), outcome)
        return pairs

@bug("crossed-in-release", "identity", 78,
     "If executions of two connections end together, their session_ids are exchanged.",
     "A client's reply carries the session_id of another client.")
class CrossedInRelease(Bug):
    def released(self, pairs):
        firsts = [indexes[0] for indexes in by_connection(pairs).values()]
        firsts = [index for index in firsts if pairs[index][0].session_id is not None]
        if len(firsts) >= 2:
            one, two = firsts[:2]
            ids = pairs[one][0].session_id, pairs[two][0].session_id
            pairs[one], pairs[two] = with_id(pairs[one], ids[1]), with_id(pairs[two], ids[0])
        return pairs

@bug("refusal-names-another", "identity", 78,
     "The refusal of an unknown command carries the last session_id of another connection.",
     "A failure reply has a session_id that this client did not send.")
class RefusalNamesAnother(Bug):
    def reply(self, req, body):
        if "session_id" in body:
            others = [value for conn, value in self.table.items() if conn is not req.conn]
            if failed(body) and req.command not in COMMANDS and others:
                body["session_id"] = others[-1]
            else:
                keep(self.table, req.conn, req.session_id)
        return body

    def left(self, conn):
        self.table.pop(conn, None)

@bug("uuid-canonical", "identity", 61,
     "A session_id that is a UUID in another spelling (upper case, braces, urn:uuid:) is returned in the usual one.",
     "The reply's session_id is spelled otherwise than the request's.")
class UuidCanonical(IdBug):
    def change(self, session_id):
        pattern = r"(?:urn:uuid:)?\{?[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}?"
        return str(uuid.UUID(session_id)) if re.fullmatch(pattern, session_id) else session_id

@bug("numeric-ids-one", "identity", 61,
     "Session ids of equal numeric value on one connection are all returned in the first one's spelling.",
     'After "7", the request "07" is answered with "7".')
class NumericIdsOne(Bug):
    def reply(self, req, body):
        if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", body.get("session_id", "")):
            table = req.conn.note.setdefault("numbers", {})
            body["session_id"] = table.get(float(body["session_id"]), body["session_id"])
            keep(table, float(body["session_id"]), body["session_id"])
        return body

@bug("payload-session-id-wins", "identity", 61,
     "If the arguments have a member session_id too, it is copied instead of the request's own.",
     "The reply's session_id is the one inside the payload.")
class PayloadSessionIdWins(Bug):
    def parsed(self, req):
        if req.session_id is not None and isinstance(req.payload, dict):
            inner = req.payload.get("session_id")
            if isinstance(inner, str):
                req.session_id = inner

@bug("job-id-trimmed", "identity", 61,
     "Jobs are looked up by their session_id without white space at its ends.",
     'The jobs "a" and "a " are one job.')
class JobIdTrimmed(Bug):
    def job_key(self, req):
        return req.session_id.strip()

# ----------------------------------------------------------------- bugs: neighbours

@bug("leaver-fails-others", "neighbours", 37,
     "If a client leaves with an outstanding execution, those of all other clients end with failure.",
     "A sound execution gets failure because another client has left.")
class LeaverFailsOthers(Bug):
    def left(self, conn):
        if any(req.conn is conn for req in self.hub.held):
            for req in self.hub.held:
                keep(self.table, req, True)

    def released(self, pairs):
        ended = failure("the execution was ended")
        return [(req, ended if self.table.pop(req, False) else outcome) for req, outcome in pairs]

@bug("malformed-neighbour", "neighbours", 37,
     "After a malformed text of one client, the next request of another client is answered with failure.",
     "A sound request fails because of what another client sent.")
class MalformedNeighbour(Bug):
    culprit = None

    def decided(self, req, outcome):
        if req.message is None:
            self.culprit = req.conn
        elif self.culprit is not None and self.culprit is not req.conn:
            self.culprit = None
            return failure("the hub could not read the message")
        return outcome

@bug("shared-fragments", "neighbours",
     "RFC 6455, 5.4: the fragments of one message are the frames of one connection, in order.",
     "While one client has begun a fragmented message, its fragments are put before those of another client's message.",
     "A fragmented request is refused as malformed while another client's is unfinished.")
class SharedFragments(Bug):
    def assemble(self, conn, pieces):
        for other in self.hub.connections.values():
            if len(pieces) > 1 and other is not conn and other.fragments:
                pieces = other.fragments + pieces
                break
        return super().assemble(conn, pieces)

@bug("leftover-job", "neighbours", 61,
     "The ids of jobs that a client left open when it disconnected can not be used by any other client.",
     "initialize fails with an id that a client which is gone has used.")
class LeftoverJob(Bug):
    def left(self, conn):
        for key in conn.jobs:
            keep(self.table, key, True)

    def job_open(self, req, key):
        return key in req.conn.jobs or key in self.table

@bug("static-polluted", "neighbours", 5,
     "Arguments of an execute whose names are those of the static information replace it, for every client.",
     "get_static returns a value that another client sent as an argument.")
class StaticPolluted(Bug):
    def reply(self, req, body):
        if executed(req, body) and isinstance(req.payload, dict):
            for name in STATIC.keys() & req.payload.keys():
                self.hub.static[name] = req.payload[name]
        return body

@bug("pong-to-newest", "neighbours",
     "RFC 6455, 5.5.2: upon receipt of a Ping frame, an endpoint must send a Pong frame in response.",
     "Pongs are sent to the client that connected last, whoever sent the ping.",
     "A client gets no pong while a newer client is connected.")
class PongToNewest(Bug):
    def pong(self, conn, data):
        return list(self.hub.connections.values())[-1], data

@bug("close-spreads", "neighbours", 61,
     "When a client leaves, other clients whose last session_id equals its last one are closed too.",
     "A connection is closed because another one with an equal session_id has ended.")
class CloseSpreads(Bug):
    def reply(self, req, body):
        req.conn.note["last"] = req.session_id
        return body

    def left(self, conn):
        for other in list(self.hub.connections.values()):
            if other is not conn and conn.note.get("last") and other.note.get("last") == conn.note["last"]:
                other.close(1000)

@bug("answer-shared-by-id", "neighbours", 38,
     "An execute gets the return values that another connection was given under an equal session_id.",
     "execute returns the arguments of another client.")
class AnswerSharedById(Bug):
    def reply(self, req, body):
        if executed(req, body) and req.session_id is not None and "payload" in body:
            owner, payload = self.table.get(req.session_id, (req.conn.number, None))
            if owner != req.conn.number:
                body["payload"] = payload
            else:
                keep(self.table, req.session_id, (owner, body["payload"]))
        return body

@bug("heir-of-session", "neighbours", 53,
     "After a client has left an open job behind, the first base reply to the next new client has its session_id.",
     "The reply to a new client's base request has the session_id of a client that is gone.")
class HeirOfSession(Bug):
    legacy = None

    def left(self, conn):
        if conn.jobs:
            self.legacy = (self.hub.count, list(conn.jobs.values())[-1].session_id)

    def reply(self, req, body):
        if self.legacy and req.session_id is None and req.conn.number > self.legacy[0]:
            body = {"session_id": self.legacy[1], **body}
            self.legacy = None
        return body

@bug("bad-utf8-neighbour", "neighbours", 61,
     "After any client has sent text that is not UTF-8, non-ASCII characters of all session_ids come back as '?'.",
     "A session_id comes back changed because of what another client sent.")
class BadUtf8Neighbour(IdBug):
    hurt = False

    def bad_utf8(self, conn):
        self.hurt = True

    def change(self, session_id):
        return session_id.encode("ascii", "replace").decode() if self.hurt else session_id

# ----------------------------------------------------------------- bugs: values

@bug("empty-id-missing", "values", 61,
     'The session_id "" is taken for missing.',
     'The reply to a request with session_id "" has none.')
class EmptyIdMissing(IdBug):
    def change(self, session_id):
        return session_id or MISSING

@bug("id-65535", "values", 61,
     "A session_id is cut after 65,535 characters.",
     "A session_id of 65,536 characters comes back shorter.")
class Id65535(IdBug):
    def change(self, session_id):
        return session_id[:65535]

@bug("id-nul", "values", 61,
     "A session_id is cut at its first U+0000.",
     "A session_id with U+0000 comes back shorter.")
class IdNul(IdBug):
    def change(self, session_id):
        return session_id.split("\0")[0]

@bug("id-markup", "values", 61,
     "The characters <, > and & of a session_id are returned as HTML entities, in failure replies.",
     "A failure reply has &lt; where the request's session_id had <.")
class IdMarkup(Bug):
    def reply(self, req, body):
        if failed(body) and "session_id" in body:
            body["session_id"] = html.escape(body["session_id"], quote=False)
        return body

@bug("id-number", "values", 61,
     "A session_id of digits only is returned as a number.",
     'The request "42" is answered with session_id 42.')
class IdNumber(IdBug):
    def change(self, session_id):
        return int(session_id) if re.fullmatch("0|[1-9][0-9]{0,14}", session_id) else session_id

@bug("big-integer", "values", 7,
     "Integers beyond 2**53 lose their last digits.",
     "execute returns another integer than it was given.")
class BigInteger(ValueBug):
    def change(self, value):
        if isinstance(value, int) and 2**53 < abs(value) < 10**300:
            return int(float(value))
        return value

@bug("null-member", "values", 7,
     "Members whose value is null are left out of the return values.",
     "execute returns an object without the member that was null.")
class NullMember(ValueBug):
    def change(self, value):
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value

@bug("prototype-names", "values", 7,
     "Members named __proto__, constructor, toString, hasOwnProperty or __class__ are left out.",
     "execute returns an object without that member.")
class PrototypeNames(ValueBug):
    NAMES = {"__proto__", "constructor", "toString", "hasOwnProperty", "__class__"}

    def change(self, value):
        return {k: v for k, v in value.items() if k not in self.NAMES} if isinstance(value, dict) else value

@bug("numbered-members", "values", 7,
     'An object with the members "0", "1", ... is returned as an array.',
     "execute returns an array for an object.")
class NumberedMembers(ValueBug):
    def change(self, value):
        if isinstance(value, dict) and value and list(value) == [str(index) for index in range(len(value))]:
            return list(value.values())
        return value

@bug("single-list", "values", 7,
     "An array of one element is returned as that element.",
     "execute returns 1 for [1].")
class SingleList(ValueBug):
    def change(self, value):
        return value[0] if isinstance(value, list) and len(value) == 1 else value

@bug("small-fraction", "values", 7,
     "Fractions nearer to zero than 0.000001 are returned as 0.",
     "execute returns 0.0 for 2e-08.")
class SmallFraction(ValueBug):
    def change(self, value):
        return 0.0 if isinstance(value, float) and abs(value) < 1e-6 else value

@bug("long-ping", "values",
     "RFC 6455, 5.5.3: a Pong frame sent in response to a Ping frame must have identical application data.",
     "Pings with 125 bytes are answered with 124 of them.",
     "A pong lacks the last byte of its ping.")
class LongPing(Bug):
    def pong(self, conn, data):
        return conn, data[:124]

# ----------------------------------------------------------------- bugs: equivalents

@bug("id-as-last-member", "equivalents", 61,
     "The session_id is not seen if it is the last member of the request.",
     "The reply lacks session_id, depending on the order of the request's members.")
class IdAsLastMember(Bug):
    def parsed(self, req):
        if list(req.message)[-1:] == ["session_id"]:
            req.session_id = None

@bug("leading-white-space", "equivalents",
     "RFC 8259, 2: insignificant white space is allowed before or after any of the structural characters.",
     "Text that begins with white space is refused as malformed.",
     "A request with a line feed before its first brace gets failure.")
class LeadingWhiteSpace(Bug):
    def loads(self, text, **options):
        if text[:1] in (" ", "\t", "\r", "\n"):
            raise ValueError("no JSON text")
        return json.loads(text, **options)

@bug("escaped-member-name", "equivalents",
     "RFC 8259, 7 and 8.3: any character may be escaped; names are compared after the escapes are replaced.",
     "Members whose name is written with escapes are not seen.",
     r'A request with "\u0063ommand" gets failure.')
class EscapedMemberName(Bug):
    def loads(self, text, **options):
        value = json.loads(text, **options)
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if f'"{name}"' in text}
        return value

@bug("escaped-pair", "equivalents",
     "RFC 8259, 7: a character outside the basic plane may be written as an escaped surrogate pair.",
     "A character written as an escaped surrogate pair arrives as two replacement characters.",
     r'The session_id "\ud83d\ude00" does not come back; the same character unescaped does.')
class EscapedPair(Bug):
    def loads(self, text, **options):
        pair = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
        return json.loads(re.sub(pair, r"\\ufffd\\ufffd", text), **options)

@bug("empty-first-frame", "equivalents",
     "RFC 6455, 5.4: the meaning of a fragmented message equals that of one frame with the fragments' concatenation.",
     "A message whose first frame is empty is taken for empty.",
     "A fragmented request with an empty first frame gets failure.")
class EmptyFirstFrame(Bug):
    def assemble(self, conn, pieces):
        return "" if len(pieces) > 1 and not pieces[0] else super().assemble(conn, pieces)

@bug("ping-between-frames", "equivalents",
     "RFC 6455, 5.4: control frames may be injected in the middle of a fragmented message.",
     "A ping between two frames of a message makes the hub forget the frames before it.",
     "A fragmented request with a ping in its middle gets failure.")
class PingBetweenFrames(Bug):
    def ping(self, conn):
        conn.fragments.clear()

@bug("split-character", "equivalents",
     "RFC 6455, 5.6: a text frame may include a partial UTF-8 sequence; the whole message must be valid.",
     "Each frame is decoded by itself.",
     "A character that was split over two frames comes back as replacement characters.")
class SplitCharacter(Bug):
    def assemble(self, conn, pieces):
        b"".join(pieces).decode("utf-8")
        return "".join(piece.decode("utf-8", "replace") for piece in pieces)

@bug("version-metadata", "equivalents", 21,
     "Versions with a pre-release or build part are refused.",
     "A request with version 0.1.0-rc.1 or 0.1.0+b5 gets failure.")
class VersionMetadata(Bug):
    def version_served(self, version, served):
        return served and not re.search("[-+]", version)

@bug("connection-list", "equivalents",
     'RFC 6455, 4.2.1: the Connection header field includes the token "Upgrade", which may be one of several.',
     "A handshake whose Connection header has a list of tokens is refused.",
     "Connection: keep-alive, Upgrade is answered with 400.")
class ConnectionList(Bug):
    def handshake(self, headers):
        return "Connection must be Upgrade" if "," in headers.get("Connection", "") else None

@bug("exponent-text", "equivalents", 7,
     "Numbers with an exponent are taken for text.",
     'execute returns "25e-1" for 25e-1.')
class ExponentText(Bug):
    def loads(self, text, **options):
        return json.loads(text, parse_float=lambda raw: raw if "e" in raw.lower() else float(raw), **options)

@bug("escaped-id-other-job", "equivalents", 54,
     "Jobs are looked up by the session_id as it is written in the text, with its escapes.",
     "A job can not be iterated if its id is written with an escape.")
class EscapedIdOtherJob(Bug):
    def job_key(self, req):
        found = re.search(r'"session_id"\s*:\s*(%s)' % STRING, req.text)
        return found[1] if found else req.session_id

# ----------------------------------------------------------------- bugs: one of many

@bug("dynamic-without-version", "one-of-many", 39,
     "Replies to get_dynamic have no version.",
     "A reply lacks version.")
class DynamicWithoutVersion(Bug):
    def reply(self, req, body):
        if req.command == "get_dynamic":
            del body["version"]
        return body

@bug("terminate-status", "one-of-many", 37,
     'A successful terminate is answered with status "terminated".',
     'The status is neither "success" nor "failure".')
class TerminateStatus(Bug):
    def reply(self, req, body):
        if req.command == "terminate" and not failed(body):
            body["status"] = "terminated"
        return body

@bug("unknown-command-object", "one-of-many", 38,
     "The failure of an unknown command has an object as payload.",
     "The payload of a failure is no string.")
class UnknownCommandObject(Bug):
    def reply(self, req, body):
        if isinstance(req.command, str) and req.command not in COMMANDS and failed(body):
            body["payload"] = {"error": body["payload"]}
        return body

@bug("iterate-refusal-without-id", "one-of-many", 78,
     "The refusal of an iterate outside a job has no session_id.",
     "A failure reply to an extended request lacks session_id.")
class IterateRefusalWithoutId(Bug):
    def reply(self, req, body):
        if req.command == "iterate" and failed(body):
            body.pop("session_id", None)
        return body

@bug("static-without-id", "one-of-many", 61,
     "get_static ignores the session_id.",
     "The reply to an extended get_static is a base reply.")
class StaticWithoutId(Bug):
    def reply(self, req, body):
        if req.command == "get_static":
            body.pop("session_id", None)
        return body

@bug("publish-version-short", "one-of-many", 21,
     'Published messages have the version "0.1".',
     "The version of a published message is no semantic version.")
class PublishVersionShort(Bug):
    def publish(self, copies):
        return [(conn, {**body, "version": "0.1"}) for conn, body in copies]

@bug("malformed-without-detail", "one-of-many", 38,
     "The failure reply to a malformed text has no payload.",
     "A failure is not described.")
class MalformedWithoutDetail(Bug):
    def reply(self, req, body):
        if req.message is None:
            del body["payload"]
        return body

@bug("no-arguments-null", "one-of-many", 38,
     'An execute without arguments is answered with "payload": null.',
     "The payload of a success is no object.")
class NoArgumentsNull(Bug):
    def reply(self, req, body):
        if executed(req, body) and req.payload is MISSING:
            body["payload"] = None
        return body

@bug("bare-close-unanswered", "one-of-many",
     "RFC 6455, 5.5.1: an endpoint that receives a Close frame and has not sent one must send one in response.",
     "A Close frame without a code is answered by closing the TCP connection alone.",
     "The connection ends without a Close frame.")
class BareCloseUnanswered(Bug):
    def close_frame(self, conn, data):
        return data or None

@bug("delayed-version-number", "one-of-many", 39,
     "Replies to the algorithm delay have a number as version.",
     "The version of a reply is no string.")
class DelayedVersionNumber(Bug):
    def reply(self, req, body):
        if executed(req, body) and isinstance(req.payload, dict) and req.payload.get("algorithm") == "delay":
            body["version"] = 0.1
        return body

@bug("initialize-list", "one-of-many", 38,
     "initialize returns its value in an array.",
     "The payload of a success is no object.")
class InitializeList(Bug):
    def reply(self, req, body):
        if req.command == "initialize" and not failed(body):
            body["payload"] = list(body["payload"].values())
        return body

# ----------------------------------------------------------------- variants

VARIANTS = {
    "reversed-members": ("Replies have their members in reverse order.", "RFC 8259, 4: order has no meaning."),
    "shuffled-members": ("Replies have their members in changing order.", "RFC 8259, 4: order has no meaning."),
    "extra-members": ("Replies have additional members.", "Lines 33-39 list members and exclude no others."),
    "compact": ("Replies are written without white space.", "RFC 8259, 2: white space is insignificant."),
    "indented": ("Replies are written on several lines.", "RFC 8259, 2: white space is insignificant."),
    "non-ascii": ("Non-ASCII characters are sent unescaped.", "RFC 8259, 7: only few characters must be escaped."),
    "escaped-text": ("Every character of every string is escaped.", "RFC 8259, 7: any character may be escaped."),
    "exponents": ("Fractions are written with an exponent.", "RFC 8259, 6: a number may have an exponent part."),
    "fragments": ("Messages are sent in several frames.", "RFC 6455, 5.4: a message may be fragmented anywhere."),
    "pings": ("A ping goes before every reply.", "RFC 6455, 5.5.2: a ping may be sent at any time."),
    "unsolicited-pongs": ("A pong goes before every reply.", "RFC 6455, 5.5.3: a pong may be sent unsolicited."),
    "slow": ("Every message is sent 10 ms later.", "The document states no times."),
    "reordered": ("Extended replies come in changing order.", "Lines 61 and 78: the id validates; no order is stated."),
    "coalesced": ("Messages are gathered for 5 ms.", "The document states no times; TCP has no message bounds."),
    "other-texts": ("Failures are described in other words.", "Line 38: a string, whose words are free."),
    "version-copied": ("Replies carry the request's version.", "Line 39: a version number, not said whose."),
    "version-other": ("The hub's version is 0.3.0-beta.2+build.7.", "Lines 21 and 39: semantic versioning, 0.y.z."),
    "close-empty": ("A Close frame is answered without a code.", "RFC 6455, 5.5.1: the body is optional."),
    "close-1000": ("A Close frame is answered with code 1000.", "RFC 6455, 5.5.1: the code is typically echoed."),
    "malformed-silent": ("Malformed text is not answered.", "Lines 33-39 are about commands; this is none."),
    "malformed-closes": ("Malformed text is answered, then the connection closed (1008).",
                         "RFC 6455, 7.4.1: 1008 for a message that violates the endpoint's policy."),
    "any-version": ("Requests of any version are served.", "Line 21 says nothing about refusing a version."),
    "more-static": ("get_static returns more.", "Line 38: the return values depend on the command."),
    "heartbeat": ("After every third reply a message is published.", "Line 11: messages for requests or publish."),
    "greeting": ("A message is published to each new client.", "Line 11: messages for requests or publish."),
    "empty-payload": ("A success without values has payload {}.", "Lines 38 and 44: presence depends on the command."),
    "empty-left-out": ("A success with payload {} leaves it out.", "Lines 38 and 44: presence depends on the command."),
    "deflate": ("permessage-deflate is accepted if offered.", "RFC 7692; RFC 6455, 9."),
    "handshake-headers": ("The handshake has further headers.", "RFC 6455, 4.2.2: the response may have others."),
    "binary-served": ("Binary messages are served like text.", "The document speaks of strings and json.loads only."),
    "no-constants": ("NaN and Infinity are refused.", "RFC 8259, 6: they are not permitted."),
    "strict-members": ("Requests with unknown members get failure.", "Lines 17-21 say nothing about other members."),
    "more-commands": ("The command noop exists too.", "Line 19: the document does not list the commands."),
}

# ----------------------------------------------------------------- the hub


class Protocol(ServerProtocol):
    """The server side of one WebSocket; its own control frames pass through the hub."""

    conn = None

    def send_frame(self, frame):
        hub = self.conn.hub
        if frame.opcode is Opcode.PONG:
            target, data = hub.bug.pong(self.conn, bytes(frame.data))
            if target is not self.conn:
                if target.protocol.state is State.OPEN:
                    target.protocol.send_pong(data)
                    target.flush()
                return
            frame = Frame(Opcode.PONG, data)
        elif frame.opcode is Opcode.CLOSE:
            data = hub.bug.close_frame(self.conn, bytes(frame.data))
            if data is None:
                return
            if self.close_rcvd is not None and "close-empty" in hub.variants:
                data = b""
            if self.close_rcvd is not None and "close-1000" in hub.variants:
                data = (1000).to_bytes(2, "big")
            frame = Frame(Opcode.CLOSE, data)
        super().send_frame(frame)


class Connection:
    """One client."""

    def __init__(self, hub, number, writer):
        self.hub = hub
        self.number = number
        self.writer = writer
        extensions = [ServerPerMessageDeflateFactory()] if "deflate" in hub.variants else None
        self.protocol = Protocol(max_size=hub.settings.max_size, extensions=extensions, logger=QUIET)
        self.protocol.conn = self
        self.fragments = []
        self.binary = False
        self.jobs = {}
        self.delays = 0  # executions that a timer will end
        self.unsent = 0  # messages that a timer will send
        self.due = 0.0
        self.replies = 0
        self.timer = None
        self.deaf = False  # takes no more messages
        self.note = {}  # what a bug remembers

    def flush(self):
        transport = self.writer.transport
        for data in self.protocol.data_to_send():
            if transport.is_closing():
                break
            if data:
                self.writer.write(data)
            elif transport.can_write_eof():
                transport.write_eof()
        if transport.get_write_buffer_size() > self.hub.settings.max_backlog:
            transport.abort()
        elif self.protocol.close_expected() and self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(5, transport.abort)

    def close(self, code):
        if self.protocol.state is State.OPEN:
            self.protocol.send_close(code)
            self.flush()

    def write(self, text):
        if self.protocol.state is not State.OPEN:
            return
        data = text.encode("utf-8")
        if "pings" in self.hub.variants:
            self.protocol.send_ping(b"still there?")
        if "unsolicited-pongs" in self.hub.variants:
            self.writer.write(Frame(Opcode.PONG, b"here").serialize(mask=False))
        if "fragments" in self.hub.variants:
            cuts = sorted(self.hub.random.randint(0, len(data)) for _ in range(3))
            pieces = [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]
            self.protocol.send_text(pieces[0], fin=False)
            for piece in pieces[1:-1]:
                self.protocol.send_continuation(piece, fin=False)
            self.protocol.send_continuation(pieces[-1], fin=True)
        else:
            self.protocol.send_text(data)
        self.flush()


class Hub:
    def __init__(self, settings):
        self.settings = settings
        self.variants = set(settings.variant)
        self.random = random.Random(settings.seed)
        self.bug = BUGS.get(settings.bug, Bug)(self)
        self.connections = {}
        self.count = 0
        self.held = []
        self.state = "idle"
        self.static = copy.deepcopy(STATIC)
        if "more-static" in self.variants:
            self.static.update(vendor=None, location={"room": "B0.12"})
        self.version = "0.3.0-beta.2+build.7" if "version-other" in self.variants else settings.format_version
        self.stopping = asyncio.Event()

    # -- connections

    async def serve(self, reader, writer):
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            if head.startswith(b"POST "):
                await self.control(head, reader, writer)
            else:
                await self.converse(head, reader, writer)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def converse(self, head, reader, writer):
        self.count += 1
        conn = Connection(self, self.count, writer)
        protocol = conn.protocol
        protocol.receive_data(head)
        for request in protocol.events_received():
            reason = self.bug.handshake(request.headers)
            response = protocol.reject(400, reason) if reason else protocol.accept(request)
            if "handshake-headers" in self.variants:
                response.headers["X-Request-Number"] = str(conn.number)
                response.headers["Set-Cookie"] = "seen=1"
            protocol.send_response(response)
        if protocol.state is not State.OPEN:
            conn.flush()
            return
        self.connections[conn.number] = conn
        try:
            conn.flush()
            if "greeting" in self.variants:
                self.post(conn, self.publication("welcome", {"client": conn.number}))
            while data := await reader.read(65536):
                protocol.receive_data(data)
                for frame in protocol.events_received():
                    self.take(conn, frame)
                conn.flush()
                await writer.drain()
                while conn.unsent > 100 and not writer.transport.is_closing():
                    await asyncio.sleep(0.01)
        finally:
            del self.connections[conn.number]
            self.bug.left(conn)
            self.held = [req for req in self.held if req.conn is not conn]
            if conn.timer:
                conn.timer.cancel()

    def take(self, conn, frame):
        """Take one frame; a whole message goes to `receive`."""
        if frame.opcode is Opcode.PING:
            self.bug.ping(conn)
        if conn.deaf or frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            conn.fragments = []
            conn.binary = frame.opcode is Opcode.BINARY
        if frame.data or not conn.fragments:
            conn.fragments.append(bytes(frame.data))
        if not frame.fin:
            return
        pieces, conn.fragments = conn.fragments, []
        if conn.binary and "binary-served" not in self.variants:
            self.answer(Request(conn), failure("a message must be a text message"))
            return
        try:
            text = self.bug.assemble(conn, pieces)
        except UnicodeDecodeError:
            self.bug.bad_utf8(conn)
            if conn.protocol.state is State.OPEN:
                conn.protocol.fail(1007, "the text is not UTF-8")
            return
        self.receive(conn, text)

    # -- requests

    def receive(self, conn, text):
        req = Request(conn, text)
        try:
            try:
                options = {"parse_constant": refuse_constant} if "no-constants" in self.variants else {}
                message = self.bug.loads(text, **options)
            except ValueError:
                message = None
            if isinstance(message, dict):
                req.message = message
                req.command = message.get("command", MISSING)
                req.payload = message.get("payload", MISSING)
                req.version = message.get("version", MISSING)
                if isinstance(message.get("session_id"), str):
                    req.session_id = message["session_id"]
                self.bug.parsed(req)
            outcome = self.bug.decided(req, self.decide(req))
        except RecursionError:
            outcome = failure("the text is nested too deeply")
        if outcome is not None:
            self.answer(req, outcome)

    def serves(self, version):
        """Whether requests with this version are served: any 0.y.z."""
        if "any-version" in self.variants:
            return True
        match = SEMVER.fullmatch(version)
        return self.bug.version_served(version, bool(match) and match[1] == "0")

    def decide(self, req):
        """The outcome of a request, or None if it comes later."""
        if req.message is None:
            return failure("the text is no JSON object")
        if not isinstance(req.command, str):
            return failure("command must be a string")
        if not isinstance(req.version, str):
            return failure("version must be a string")
        if not self.serves(req.version):
            return failure("version is not one of 0.y.z")
        if req.payload is not MISSING and not isinstance(req.payload, dict):
            return failure("payload must be an object")
        if not isinstance(req.message.get("session_id", ""), str):
            return failure("session_id must be a string")
        if "strict-members" in self.variants:
            if req.message.keys() - {"session_id", "command", "payload", "version"}:
                return failure("the request has an unknown member")
        if req.command == "noop" and "more-commands" in self.variants:
            return success()
        if req.command not in COMMANDS:
            return failure("the command is not known")
        return getattr(self, "do_" + req.command)(req)

    def do_get_static(self, req):
        return success(self.static)

    def do_get_dynamic(self, req):
        return success({"state": self.state})

    def do_execute(self, req):
        arguments = req.payload if isinstance(req.payload, dict) else {}
        algorithm = arguments.get("algorithm")
        if algorithm == "fail":
            return failure(reason_of(arguments))
        if algorithm in ("hold", "delay") and isinstance(algorithm, str):
            own = sum(other.conn is req.conn for other in self.held) + req.conn.delays
            if own >= self.settings.max_held:
                return failure("too many executions are outstanding")
        if algorithm == "hold":
            self.held.append(req)
            self.bug.held(req)
            return None
        if algorithm == "delay":
            ms = arguments.get("ms", 50)
            if isinstance(ms, bool) or not isinstance(ms, (int, float)) or not 0 <= ms <= 10000:
                return failure("ms must be a number from 0 to 10000")
            req.conn.delays += 1
            asyncio.get_running_loop().call_later(ms / 1000, self.delayed, req)
            return None
        return success(req.payload)

    def delayed(self, req):
        req.conn.delays -= 1
        self.answer(req, success(req.payload))

    def do_initialize(self, req):
        if req.session_id is None:
            return failure("a job needs a session_id")
        key = self.bug.job_key(req)
        if self.bug.job_open(req, key):
            return failure("a job with this session_id is open")
        if len(req.conn.jobs) >= self.settings.max_jobs:
            return failure("too many jobs are open")
        job = Job(req.session_id, {} if req.payload is MISSING else req.payload)
        req.conn.jobs[key] = job
        self.bug.opened(req, key, job)
        return success({"iteration": job.iterations})

    def do_iterate(self, req):
        job = None if req.session_id is None else req.conn.jobs.get(self.bug.job_key(req))
        if job is None:
            return failure("no job with this session_id is open")
        job = self.bug.iterating(req, job)
        job.iterations += 1
        return success({"iteration": job.iterations, "parameters": job.parameters})

    def do_terminate(self, req):
        key = None if req.session_id is None else self.bug.job_key(req)
        job = req.conn.jobs.pop(key, None)
        if job is None:
            return failure("no job with this session_id is open")
        self.bug.ended(req, key, job)
        return success({"iterations": job.iterations})

    # -- replies

    def answer(self, req, outcome):
        try:
            self.send_reply(req, outcome)
        except (RecursionError, ValueError):
            self.send_reply(req, failure("the reply can not be written as JSON"))

    def send_reply(self, req, outcome):
        malformed = req.message is None
        if malformed and "malformed-silent" in self.variants:
            return
        payload = outcome.payload
        if not outcome.ok and "other-texts" in self.variants:
            payload = self.random.choice(["That did not work.", "E42", "no <&> \u2603 such\nthing", "null"])
        if outcome.ok and payload is MISSING and "empty-payload" in self.variants:
            payload = {}
        if outcome.ok and payload == {} and "empty-left-out" in self.variants:
            payload = MISSING
        body = {} if req.session_id is None else {"session_id": req.session_id}
        body["status"] = "success" if outcome.ok else "failure"
        if payload is not MISSING:
            body["payload"] = payload
        body["version"] = self.version
        if "version-copied" in self.variants and isinstance(req.version, str):
            if SEMVER.fullmatch(req.version) and req.version.startswith("0."):
                body["version"] = req.version
        body = self.bug.reply(req, body)
        if "extra-members" in self.variants:
            body = {"handled_by": "hub", **body, "sequence": req.conn.replies, "trace": None}
        self.post(req.conn, body, loose=req.session_id is not None)
        req.conn.replies += 1
        if "heartbeat" in self.variants and req.conn.replies % 3 == 0:
            self.post(req.conn, self.publication("heartbeat", {"replies": req.conn.replies}))
        if malformed and "malformed-closes" in self.variants:
            req.conn.deaf = True
            asyncio.get_running_loop().call_later(0.03 if req.conn.unsent else 0, req.conn.close, 1008)

    def publication(self, command, payload=MISSING):
        body = {"command": command}
        if payload is not MISSING:
            body["payload"] = payload
        return {**body, "version": self.version}

    def post(self, conn, body, loose=False):
        """Send a message, now or a little later. `loose`: its order among others is free."""
        text = self.encode(body)
        loop = asyncio.get_running_loop()
        now = loop.time()
        if "slow" in self.variants:
            due = now + 0.01
        elif "coalesced" in self.variants:
            due = now + 0.005 - now % 0.005
        elif "reordered" in self.variants and loose:
            due = now + self.random.random() * 0.02
        else:
            conn.write(text)
            return
        if "reordered" not in self.variants:
            due = conn.due = max(due, conn.due + 1e-6)
        conn.unsent += 1
        loop.call_at(due, self.post_now, conn, text)

    def post_now(self, conn, text):
        conn.unsent -= 1
        conn.write(text)

    def encode(self, body):
        if "reversed-members" in self.variants:
            body = dict(reversed(body.items()))
        if "shuffled-members" in self.variants:
            body = dict(self.random.sample(list(body.items()), len(body)))
        options = {}
        if "compact" in self.variants:
            options["separators"] = (",", ":")
        if "indented" in self.variants:
            options["indent"] = "\t"
        if "non-ascii" in self.variants:
            options["ensure_ascii"] = False
        if "no-constants" in self.variants:
            options["allow_nan"] = False
        text = json.dumps(body, **options)
        if "non-ascii" in self.variants:  # a lone surrogate has no UTF-8 form: it stays escaped
            text = re.sub("[\ud800-\udfff]", lambda found: "\\u%04x" % ord(found[0]), text)
        if "escaped-text" in self.variants:
            text = re.sub(STRING, lambda found: escape_all(found[0]), text)
        if "exponents" in self.variants:
            text = re.sub(STRING + r"|-?[0-9][0-9.eE+-]*", lambda found: respell(found[0]), text)
        return text

    # -- controls

    async def control(self, head, reader, writer):
        lines = head.decode("latin-1").split("\r\n")
        path = lines[0].split(" ")[1] if lines[0].count(" ") >= 2 else ""
        fields = [line.partition(":") for line in lines[1:]]
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        length = headers.get("content-length", "0")
        action = getattr(self, "control_" + path.removeprefix("/control/"), None)
        status, result = "200 OK", None
        if not path.startswith("/control/") or action is None:
            status, result = "404 Not Found", {"error": "no such control"}
        elif not re.fullmatch("[0-9]{1,7}", length) or int(length) > self.settings.max_size:
            status, result = "400 Bad Request", {"error": "Content-Length is missing or too large"}
        else:
            data = await asyncio.wait_for(reader.readexactly(int(length)), 10)
            try:
                body = json.loads(data or b"{}")
                if not isinstance(body, dict):
                    raise ValueError("the body must be a JSON object")
                result = action(body)
            except (ValueError, RecursionError) as error:
                status, result = "400 Bad Request", {"error": str(error)}
        content = json.dumps(result).encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
                     "Connection: close\r\n\r\n".encode() + content)
        await writer.drain()

    def control_publish(self, body):
        command, payload = body.get("command", "state_changed"), body.get("payload", MISSING)
        if not isinstance(command, str) or not (payload is MISSING or isinstance(payload, dict)):
            raise ValueError("command must be a string, payload an object")
        message = self.publication(command, payload)
        for conn, copy_ in self.bug.publish([(conn, message) for conn in self.connections.values()]):
            self.post(conn, copy_)
        return {"receivers": len(self.connections)}

    def control_release(self, body):
        wanted, count = body.get("session_id", MISSING), body.get("count", len(self.held))
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError("count must be a whole number")
        chosen = [req for req in self.held if wanted is MISSING or req.session_id == wanted][:count]
        self.held = [req for req in self.held if req not in chosen]
        pairs = []
        for req in chosen:
            sound = req.payload.get("then") != "fail"
            pairs.append((req, success(req.payload) if sound else failure(reason_of(req.payload))))
        for req, outcome in self.bug.released(pairs):
            self.answer(req, outcome)
        return {"released": len(chosen)}

    def control_state(self, body):
        if not isinstance(body.get("state"), str):
            raise ValueError("state must be a string")
        self.state = body["state"]
        return {"state": self.state}

    def control_status(self, body):
        return {"connections": len(self.connections), "held": len(self.held), "state": self.state}

    def control_close(self, body):
        code = body.get("code", 1001)
        if isinstance(code, bool) or code not in (1000, 1001, 1008, 1011, 1012, 1013):
            raise ValueError("code must be one of 1000, 1001, 1008, 1011, 1012, 1013")
        closed = len(self.connections)
        for conn in list(self.connections.values()):
            conn.close(code)
        return {"closed": closed}

    def control_shutdown(self, body):
        asyncio.get_running_loop().call_later(0.05, self.stopping.set)
        return {"stopping": True}

    async def run(self):
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.settings.port, limit=65536)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await self.stopping.wait()
        server.close()
        for conn in list(self.connections.values()):
            conn.close(1001)
        deadline = loop.time() + 1
        while self.connections and loop.time() < deadline:
            await asyncio.sleep(0.01)
        for conn in list(self.connections.values()):
            conn.writer.transport.abort()


def reason_of(arguments):
    reason = arguments.get("reason")
    return reason if isinstance(reason, str) and reason else "the algorithm has failed"


def refuse_constant(name):
    raise ValueError(name + " is no JSON number")


def escape_all(token):
    """A JSON string with every character escaped."""
    parts = re.findall(r"\\u[0-9a-f]{4}|\\.|.", token[1:-1])
    return '"' + "".join(part if part[0] == "\\" else "\\u%04x" % ord(part) for part in parts) + '"'


def respell(token):
    """A fraction as whole number with exponent: 1.5 as 15e-1. Other tokens stay."""
    if token[0] == '"' or not re.search("[.eE]", token):
        return token
    sign, digits, exponent = Decimal(token).as_tuple()
    return ("-" if sign else "") + "".join(map(str, digits)) + "e" + str(exponent)


QUIET = logging.getLogger("hub")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


def main():
    parser = argparse.ArgumentParser(description="A hub for the messages between 2200 and 2300.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0: any free one")
    parser.add_argument("--bug", choices=sorted(BUGS), metavar="NAME", help="plant this bug")
    parser.add_argument("--variant", choices=sorted(VARIANTS), metavar="NAME", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1, help="for variants that draw by chance")
    parser.add_argument("--format-version", default="0.1.0", help="version of the hub's messages")
    parser.add_argument("--max-size", type=int, default=2**20, help="bytes of the longest message taken")
    parser.add_argument("--max-jobs", type=int, default=32, help="open jobs per connection")
    parser.add_argument("--max-held", type=int, default=64, help="outstanding executions per connection")
    parser.add_argument("--max-backlog", type=int, default=2**23, help="unsent bytes at which a client is cut off")
    parser.add_argument("--list", action="store_true", help="print bugs and variants as JSON")
    settings = parser.parse_args()
    if not (SEMVER.fullmatch(settings.format_version) and settings.format_version.startswith("0.")):
        parser.error("--format-version must be 0.y.z")
    if settings.list:
        variants = [{"name": name, "does": does, "why": why} for name, (does, why) in VARIANTS.items()]
        print(json.dumps({"bugs": [cls.entry for cls in BUGS.values()], "variants": variants}, indent=1))
        return

    async def start():
        await Hub(settings).run()

    asyncio.run(start())


if __name__ == "__main__":
    sys.exit(main())
