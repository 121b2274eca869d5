#!/usr/bin/env python3
"""A hub for the Airavata scheduler's notifications, written by a stranger from the protocol's document alone.

Every habit below is one that the document (or RFC 6455, RFC 7519, ISO 8601) leaves to the hub, so a judge that demands
only what is written must find nothing wrong. All are on unless `--plain` or `--odd NAME,NAME` says otherwise:

  headers     upgrade answer in odd case with extra headers: names are case-insensitive, reasons are free
  hints       103 Early Hints before the 101: 1xx are interim
  drip        bytes arrive one by one or in torn pieces: TCP knows no messages
  fragments   messages in up to four fragments, cut inside characters, pings between (5.4)
  pings       pings and unasked pongs of the WebSocket at any time (5.5.2, 5.5.3)
  slow        every frame is 0-120 ms late: no answer has a deadline
  own-close   a client's close is answered with 1000 or without a code
  order       members of an object in any order: JSON objects have none
  extras      unknown members in every object: nothing closes one
  spaces      any white space JSON allows between tokens
  escapes     characters as \\uXXXX, also in member names: the same JSON string
  numbers     2.0 or 2e0 for 2: the document has no integers
  ids         any ids where no format is given; seconds, finer clocks or ISO 8601 as the timestamp in others; system-1, system_1
  stamps      timestamps with offsets, fractions (also after a comma), in basic format or as week dates: all is ISO 8601
  overtake    answers overtake events and each other: only events are "in the order they occur"
  heartbeat   JSON pings at any time, one at once: "periodic" names no period
  impatient   who leaves pings unanswered for fifteen seconds (RFC 6455's: ten) is closed: clients "should respond"
  news        system status at any time, one on arrival: system events go to all connected clients
  late-close  the close comes up to 0.4 s after the error message: the document orders nothing
  codes       that close has any code or none: none is documented
  http        a limit is answered with 429 or 503 at the upgrade: "connection limits" names no answer
  lost        an unknown path is answered with 404, or upgraded and closed with an error: not described
  strict      a ping without `id` or `timestamp` is an "Invalid message format": both are required of all messages
  echo        a pong has the id of the ping now and then: whether it is a new one is not said
  own-types   a message of a type that only hubs send is an unknown one, or badly formed: not described
  details     errors carry `data`: it may be in every message
  resubscribe subscribing twice answers success again, unsubscribing from nothing answers success, or an error
  workers     `worker` is no supported resource type: it is not in the table, though routing speaks of it
  refusals    a subscription that cannot be is a response with the status "error", or an error message
  no-id       the response to a subscription without `resourceId` has null, "" or none
  late-leave  who has left counts as connected 0.15-0.25 s longer: no sentence says "at once"
  twice       who subscribed twice (as user and by experiment) gets an event for each, with an id of its own
  quiet-unsub an unsubscription is not answered: the server "responds to subscription requests"
  rate        more than 60 messages in a second are too many: a rate limit without a number
  binary      a binary message ends the connection with 1003: all messages are JSON

Only where `--odd` names them, for the document advises against them or can be read otherwise:

  few         a system status carries only some of its members: all of `data` is an example, "message-specific"
  paths       a path subscribes to nothing: "Subscribe" is a step of its own after "Authenticate"
  texts       error texts in words of its own: those of the document stand in examples only
  early       a bad token is refused with 401 at the upgrade: the token is validated "on connection"
"""
import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import re
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, unquote, urlsplit

sys.dont_write_bytecode = True  # a test leaves nothing beside its sources
from concierge import decode, encode, number, space
from odd_websocket import TEXT, Connection, Failed, Gone, chance, odd, rng

HABITS = re.findall(r"^  ([a-z0-9-]+) +\S", __doc__, re.M)
ARGUABLE = {"few", "paths", "texts", "early"}
KINDS = {"experiments": "experiment", "tasks": "task", "projects": "project", "user": "user"}
RESOURCES = {"experiment", "task", "project", "user", "system"}
MISSING, INVALID, LIMIT = "Authentication required", "Invalid or expired token", "Rate limit exceeded"
FORMAT, UNKNOWN = "Invalid message format", "Unknown message type"
TYPES = {"error", "worker_registered", "worker_updated", "worker_offline"} | {
    f"{of}_{what}" for of in ("experiment", "task") for what in ("created", "updated", "progress", "completed", "failed")}


def stamp():
    now = datetime.now(timezone.utc)
    if "stamps" not in odd:
        return now.strftime("%Y-%m-%dT%H:%M:%SZ")
    there = now.astimezone(timezone(timedelta(minutes=rng.choice([0, 60, -210, 345]))))
    zone = there.strftime("%z")
    return rng.choice([
        now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), now.strftime("%Y-%m-%dT%H:%M:%S,%fZ"),
        there.strftime("%Y-%m-%dT%H:%M:%S.%f") + zone[:3] + ":" + zone[3:], there.strftime("%Y%m%dT%H%M%S.%f") + zone,
        now.strftime("%G-W%V-%uT%H:%M:%S.%fZ"), now.strftime("%Y-%jT%H:%M:%S.%fZ")])


class Ids:
    """No id is given twice."""
    last = 0

    @classmethod
    def next(cls):
        cls.last = max(cls.last + 1, int(time.time() * 1000))
        return cls.last

    @classmethod
    def of(cls, prefix):
        n = cls.next()
        return rng.choice([str(uuid.uuid4()), f"№ {n}", f"{prefix}-{n}"]) if "ids" in odd else f"{prefix}-{n}"

    @classmethod
    def of_event(cls, prefix):
        n = cls.next()
        written = datetime.fromtimestamp(n / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        times = [n, n * 1000000, f"{n // 1000}.{n % 1000:03}", written] if "ids" in odd else [n]
        return f"{prefix}_{rng.choice(times)}"


def claims(token, secret):
    """What a good token says; ValueError for any other."""
    try:
        head, body, mac = token.split(".")
        read = lambda part: base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
        good = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
        head, said, now = json.loads(read(head)), json.loads(read(body)), time.time()
        if head["alg"] != "HS256" or not hmac.compare_digest(good, read(mac)):
            raise ValueError("not signed by us")
        if said.get("exp", now + 1) <= now or said.get("nbf", now) > now:
            raise ValueError("not valid now")
        said["sub"] + ""
        return said
    except (KeyError, TypeError, AttributeError, RecursionError) as why:
        raise ValueError(str(why)) from None


class Peer(Connection):
    def __init__(self, hub, reader, writer):
        super().__init__(reader, writer)
        self.hub, self.user, self.why, self.subscriptions, self.pinged, self.sent = hub, None, None, set(), None, 0
        self.arrivals, self.address = [], writer.get_extra_info("peername")[0]

    def refused(self, path, head):
        """Finds out who comes and where to, and whether they may."""
        url = urlsplit(path)
        words = head.get("authorization", "").split(None, 1)
        bearer = words[1] if len(words) == 2 and words[0].lower() == "bearer" else ""
        token = parse_qs(url.query).get("token", [bearer])[0]
        parts = [unquote(part) for part in url.path.split("/")[1:]]
        known = parts[0] == "ws" and (parts[1:] == ["user"] or len(parts) == 3 and parts[1] in KINDS and parts[2])
        if not known and (not chance("lost") or len(parts) < 2):
            return "404 Not Found"
        try:
            self.user = claims(token, self.hub.secret)["sub"]
            self.why = None if known else "No such resource"
        except ValueError:
            self.why = INVALID if token else MISSING
            return "401 Unauthorized" if "early" in odd else None
        mine = [p for p in self.hub.peers if p.user == self.user]
        near = [p for p in self.hub.peers if p.address == self.address]
        if not self.why and any(n >= most for n, most in zip(map(len, (mine, near, self.hub.peers)), self.hub.limits)):
            self.why = LIMIT
            return rng.choice(["429 Too Many Requests", "503 Service Unavailable"]) if chance("http") else None
        if not self.why:
            self.hub.peers.append(self)
            if "paths" not in odd:
                self.subscriptions.add((KINDS[parts[1]], parts[2] if len(parts) == 3 else self.user))

    def tell(self, kind, id, line="answers", **more):
        if not self.closing:
            payload = {"type": kind, "id": id, "timestamp": stamp()} | more
            self.sent += 1
            self.send(TEXT, (space() + encode(payload) + space()).encode(),
                      "events" if line == "events" else self.sent % 8)

    def error(self, text):
        more = {"data": {"hint": rng.choice(["read the document", None, 3])}} if chance("details") else {}
        text = f"E{rng.randint(100, 999)}: {text.lower()}, sorry" if "texts" in odd else text
        self.tell("error", Ids.of("error"), error=text, **more)

    async def dismiss(self):
        """Says why, and closes the connection."""
        self.error(self.why)
        if "late-close" in odd:
            await asyncio.sleep(rng.uniform(0.15, 0.5))
        self.close(rng.choice([0, 1000, 1008, 1011, 3000, 4001, 4999]) if "codes" in odd else 1008)

    async def beat(self):
        while True:
            if "heartbeat" not in odd:
                await asyncio.sleep(20)
            self.pinged = self.pinged or time.monotonic()
            self.tell("ping", Ids.of("ping"))
            if "news" in odd:
                self.tell("system_status", self.hub.system_id(), "events", data=self.hub.health())
            await asyncio.sleep(rng.uniform(0.5, 3) if "heartbeat" in odd else 10)
            if "impatient" in odd and self.pinged and time.monotonic() - self.pinged > 15:
                self.close(1008)

    def receive(self, opcode, body):
        now = time.monotonic()
        self.arrivals = [t for t in self.arrivals if now - t < 1] + [now]
        if "rate" in odd and len(self.arrivals) > 60:
            return self.error(LIMIT)
        if opcode != TEXT and "binary" in odd:
            raise Failed(1003, "JSON is text")
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise Failed(1007, "text is UTF-8") from None
        try:
            message, _ = decode(text)
            kind, data = message["type"], message.get("data", {})
            good = opcode == TEXT and isinstance(kind, str) and isinstance(data, dict)
            good = good and all(isinstance(message.get(key, ""), str) for key in ("id", "timestamp", "error"))
        except (ValueError, KeyError, RecursionError):
            good = False
        if not good:
            return self.error(FORMAT)
        if kind == "pong":
            self.pinged = None
        elif kind == "ping":
            if "strict" in odd and not {"id", "timestamp"} <= message.keys():
                return self.error(FORMAT)
            self.tell("pong", message["id"] if message.get("id") and chance("echo") else Ids.of("pong"))
        elif kind == "system_status":
            self.subscribe(data)
        else:
            self.error(rng.choice([UNKNOWN, FORMAT]) if kind in TYPES and "own-types" in odd else UNKNOWN)

    def subscribe(self, data):
        action, kind, name = data.get("action"), data.get("resourceType"), data.get("resourceId")
        if action not in ("subscribe", "unsubscribe") or not isinstance(kind, str):
            return self.error(FORMAT)
        shown = {"resourceId": name} if name else rng.choice([{}, {"resourceId": None}, {"resourceId": ""}]) \
            if "no-id" in odd else {}
        shown = {"resourceType": kind} | shown
        known = kind in RESOURCES or (kind == "worker" and "workers" not in odd)
        named = isinstance(name, str) and name or (name is None and kind in ("user", "system"))
        key = (kind, "" if kind == "system" else name or self.user)
        lawful = known and named and (action == "subscribe" or key in self.subscriptions or not chance("resubscribe"))
        if not lawful and chance("refusals"):
            return self.tell("system_status", Ids.of("sub-response"),
                             data={"action": action} | shown | {"status": "error", "reason": "not possible"})
        if not lawful:
            return self.error(FORMAT)
        (self.subscriptions.add if action == "subscribe" else self.subscriptions.discard)(key)
        if action == "subscribe" or not chance("quiet-unsub"):
            self.tell("system_status", Ids.of("sub-response"), data={"action": action + "d"} | shown | {"status": "success"})


class Hub:
    def __init__(self, secret, limits):
        self.secret, self.limits, self.born = secret, limits, time.time()
        self.peers, self.experiments = [], {}

    def health(self):
        there = {"totalConnections": number(len(self.peers)), "activeConnections": number(len(self.peers)),
                 "totalMessages": number(Ids.last % 1000), "messagesPerSecond": 25.5, "averageLatency": "0.05s",
                 "uptime": f"{int(time.time() - self.born)}s"}
        return dict(rng.sample(list(there.items()), rng.randint(1, 6))) if "few" in odd else there

    @staticmethod
    def system_id():
        return f"system-{Ids.next()}" if chance("ids") else Ids.of_event("system")

    async def serve(self, reader, writer):
        peer, tasks, ended = Peer(self, reader, writer), [], True
        try:
            async with asyncio.timeout(10):
                await peer.upgrade(None)
            tasks.append(asyncio.create_task(peer.write_out()))
            if peer.why:
                await peer.dismiss()
                raise Failed(1008, "")
            tasks.append(asyncio.create_task(peer.beat()))
            while True:
                peer.receive(*await peer.message())
        except Failed as failed:
            peer.close(*failed.args)
            ended = False
        except (Gone, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            polite, peer.closing = peer.closing, True
            if peer in self.peers:
                asyncio.get_running_loop().call_later(rng.uniform(0.15, 0.25) if "late-leave" in odd else 0,
                                                      self.peers.remove, peer)
            if tasks and polite:
                await peer.see_off(tasks[0], ended)
            for task in tasks:
                task.cancel()
            writer.close()

    def emit(self, event):
        """Sends an event to those it is for; how many that were."""
        kind, data = event["type"], event.get("data", {})
        family = kind.split("_")[0]
        whole = data.get(family) or {}
        name = whole.get("id") or data.get(f"{family}Id", "")
        experiment = name if family == "experiment" else data.get("experimentId") or whole.get("experimentId", "")
        known = self.experiments.setdefault(experiment, {})
        for key in ("projectId", "ownerId"):
            known.update({key: found for found in (event.get(key), data.get(key), whole.get(key)) if found})
        wanted = [(family, name)]
        if family in ("experiment", "task"):
            wanted += [("experiment", experiment), ("project", known.get("projectId")), ("user", known.get("ownerId"))]
        elif family == "worker":
            wanted.append(("system", ""))
        prefix = {"experiment": "exp"}.get(family, family)
        count = 0
        for peer in self.peers:
            hits = 1 if family == "system" else len(peer.subscriptions & set(wanted))
            for _ in range(hits if "twice" in odd else min(hits, 1)):
                id = self.system_id() if family == "system" else Ids.of_event(f"{prefix}_{name}")
                peer.tell(kind, id, "events", data=data)
                count += 1
        return count

    async def admin(self, reader, writer):
        """`POST /emit` with `{"type": ..., "data": {...}}`, and `projectId` and `ownerId` where data has none."""
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            length = next((int(l.split(":")[1]) for l in lines if l.lower().startswith("content-length:")), 0)
            body = await reader.readexactly(length)
            good = lines[0].startswith("POST /emit ")
            status, answer = ("200 OK", {"delivered": self.emit(json.loads(body))}) if good else ("404 Not Found", {})
        except (ValueError, KeyError, AttributeError, asyncio.IncompleteReadError) as why:
            status, answer = "400 Bad Request", {"error": str(why)}
        text = json.dumps(answer)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        writer.close()


async def main():
    cli = argparse.ArgumentParser(description="An Airavata hub with legal but uncommon habits.")
    cli.add_argument("--port", type=int, default=0)
    cli.add_argument("--secret", default="sesame", help="the key that tokens are signed with (HS256)")
    cli.add_argument("--plain", action="store_true", help="no odd habits")
    cli.add_argument("--odd", type=lambda s: set(s.split(",")), help="only these habits, separated by commas")
    cli.add_argument("--limits", type=lambda s: [int(n) for n in s.split(",")], default=[10, 50, 1000],
                     help="connections of a user, of an address and of all, as 10,50,1000")
    cli.add_argument("--seed", type=int, default=1, help="of the dice that choose among the habits")
    args = cli.parse_args()
    odd.update(set() if args.plain else args.odd or set(HABITS) - ARGUABLE)
    if odd - set(HABITS):
        cli.error(f"no such habit: {', '.join(odd - set(HABITS))}; there are {', '.join(HABITS)}")
    rng.seed(args.seed)
    hub = Hub(args.secret, args.limits)
    server = await asyncio.start_server(hub.serve, "127.0.0.1", args.port)
    admin = await asyncio.start_server(hub.admin, "127.0.0.1", 0)
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    print(f"http://127.0.0.1:{admin.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
