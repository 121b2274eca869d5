"""Self-test of hub.py: python selftest.py [--matrix] [NAME...]

For every bug there is a conversation. It must go wrong with the bug, and right without any and with every variant.
With every bug, the examples of the document must still be answered as they should be.
`--matrix` also tells which other conversations a bug disturbs.
"""

import argparse
import asyncio
import json
import logging
import os
import re
import sys
import time

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

HUB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hub.py")
NONE = object()
PATIENCE = 15.0  # seconds for what must come
SILENCE = 2.5  # seconds after which a hub with a bug is taken to be silent
SEMVER = re.compile(r"0\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", re.ASCII)
UUID = "eb4fdc2c-755b-47d8-af76-bbca2dce554d"
TALKS = {}
QUIET = logging.getLogger("selftest")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


class Wrong(Exception):
    """The hub did what the document does not allow."""


class Silent(Wrong):
    """Something that must come did not come in time."""


def talk(name, silent=False):
    """The conversation for a bug. `silent`: with the bug, something stays away."""

    def register(function):
        TALKS[name] = (function, silent)
        return function

    return register


def check(condition, what):
    if not condition:
        raise Wrong(what)


def same(left, right):
    """Equality of JSON values: 1 equals 1.0 but not true."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return left == right


def message(command, payload=NONE, sid=NONE, version="0.1.0"):
    body = {} if sid is NONE else {"session_id": sid}
    body["command"] = command
    if payload is not NONE:
        body["payload"] = payload
    body["version"] = version
    return body


class Client:
    """A WebSocket client whose every received message is checked for its form."""

    def __init__(self, house):
        self.house = house
        self.replies = asyncio.Queue()
        self.pongs = asyncio.Queue()
        self.published = []
        self.fragments = []
        self.ended = asyncio.Event()

    async def open(self, headers):
        uri = parse_uri(f"ws://127.0.0.1:{self.house.port}/")
        self.protocol = ClientProtocol(uri, extensions=[ClientPerMessageDeflateFactory()], max_size=None, logger=QUIET)
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.house.port)
        request = self.protocol.connect()
        for name, value in headers.items():
            del request.headers[name]
            request.headers[name] = value
        self.protocol.send_request(request)
        self.flush()
        self.opened = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.read())
        await asyncio.wait_for(self.opened, PATIENCE)
        check(self.protocol.state is State.OPEN, "the handshake was refused")
        return self

    def flush(self):
        for data in self.protocol.data_to_send():
            if not self.writer.is_closing():
                self.writer.write(data) if data else self.writer.close()

    async def read(self):
        try:
            while data := await self.reader.read(65536):
                self.protocol.receive_data(data)
                for event in self.protocol.events_received():
                    self.take(event)
                self.flush()
            self.protocol.receive_eof()
            self.flush()
        except OSError:
            pass
        finally:
            if not self.opened.done():
                self.opened.set_result(None)
            self.ended.set()
            self.replies.put_nowait(None)
            self.pongs.put_nowait(None)
            self.writer.close()

    def take(self, event):
        if not self.opened.done():  # the response to the handshake
            self.opened.set_result(None)
        elif event.opcode is Opcode.PONG:
            self.pongs.put_nowait(bytes(event.data))
        elif event.opcode in (Opcode.TEXT, Opcode.CONT):
            self.fragments.append(bytes(event.data))
            if event.fin:
                body = json.loads(b"".join(self.fragments).decode("utf-8"))
                self.fragments = []
                if "command" in body:
                    self.published.append(body)
                else:
                    self.replies.put_nowait(body)

    # -- sending

    def send(self, what):
        """Send an object or a text as one frame."""
        self.frames(what if isinstance(what, str) else json.dumps(what))

    def frames(self, text, *cuts, ping=False, fin=True):
        """Send a text cut at the given bytes; with a ping before the last frame, or without the last frame's FIN."""
        check(self.protocol.state is State.OPEN, "the connection is closed")
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        edges = [0, *cuts, len(data)]
        pieces = [data[a:b] for a, b in zip(edges, edges[1:])]
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            if last and ping:
                self.protocol.send_ping(b"in between")
            if index == 0:
                self.protocol.send_text(piece, fin=last and fin)
            else:
                self.protocol.send_continuation(piece, fin=last and fin)
        self.flush()

    # -- receiving

    async def next(self):
        """The next reply; its form is checked."""
        try:
            reply = await asyncio.wait_for(self.replies.get(), self.house.patience)
        except asyncio.TimeoutError:
            raise Silent("no reply") from None
        if reply is None:
            self.replies.put_nowait(None)
            raise Wrong("the connection was closed")
        check(reply.get("status") in ("success", "failure"), "status is neither success nor failure")
        check_version(reply)
        check(isinstance(reply.get("session_id", ""), str), "session_id is no string")
        if reply["status"] == "failure":
            check(isinstance(reply.get("payload"), str) and reply["payload"], "a failure is not described by a string")
        else:
            check(isinstance(reply.get("payload", {}), dict), "the payload of a success is no object")
        return reply

    async def several(self, count):
        return [await self.next() for _ in range(count)]

    async def ask(self, command, payload=NONE, sid=NONE, version="0.1.0", ok=True, raw=None):
        """Send a request and get its reply: the session_id must be copied, the status as expected."""
        self.send(raw or message(command, payload, sid, version))
        reply = await self.next()
        check_id(reply, sid)
        if ok is not None:
            check(reply["status"] == ("success" if ok else "failure"), f"{command} brought {reply['status']}")
        return reply

    async def returned(self, payload, sid=NONE, raw=None):
        """execute returns its arguments."""
        reply = await self.ask("execute", payload, sid, raw=raw)
        check(same(reply.get("payload", {}), payload), "execute returned other arguments")

    async def malformed(self):
        """Send malformed text. True if the connection goes on, be the text answered or not."""
        self.send('{"command": "execute", ')
        self.send(message("get_static"))
        try:
            reply = await self.next()
            check("session_id" not in reply, "the reply to malformed text has a session_id")
            if reply["status"] == "failure":
                reply = await self.next()
        except Silent:
            raise
        except Wrong as wrong:
            if str(wrong) == "the connection was closed":
                return False
            raise
        check(reply["status"] == "success" and "session_id" not in reply, "get_static failed after malformed text")
        return True

    async def ping(self, data):
        check(self.protocol.state is State.OPEN, "the connection is closed")
        while not self.pongs.empty():
            self.pongs.get_nowait()
        self.protocol.send_ping(data)
        self.flush()
        try:
            while (pong := await asyncio.wait_for(self.pongs.get(), self.house.patience)) == b"here":
                pass  # an unsolicited one
        except asyncio.TimeoutError:
            raise Silent("no pong") from None
        check(pong == data, "the pong has other data than its ping")

    async def close(self, code=1000):
        if self.protocol.state is State.OPEN:
            self.protocol.send_close(code)
            self.flush()
        await asyncio.wait_for(self.ended.wait(), PATIENCE)
        self.task.cancel()

    async def vanish(self):
        """End the TCP connection without closing handshake."""
        self.writer.transport.abort()
        await asyncio.wait_for(self.ended.wait(), PATIENCE)


def check_version(body):
    version = body.get("version")
    check(isinstance(version, str) and SEMVER.fullmatch(version), "version is no semantic version 0.y.z")


def check_id(reply, sid):
    if sid is NONE:
        check("session_id" not in reply, "the reply to a base request has a session_id")
    else:
        check("session_id" in reply, "the reply lacks session_id")
        check(reply["session_id"] == sid, "the reply has another session_id")


class House:
    """A running hub, its controls and its clients."""

    def __init__(self, *options, patience=PATIENCE):
        self.options = options
        self.patience = patience
        self.clients = []

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, HUB, *self.options, stdout=asyncio.subprocess.PIPE)
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        self.port = int(line.decode().strip().rpartition(":")[2])
        return self

    async def __aexit__(self, *_):
        try:
            await self.clear()
        finally:
            if self.process.returncode is None:
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), PATIENCE)
            except asyncio.TimeoutError:
                self.process.kill()

    async def client(self, **headers):
        client = Client(self)
        self.clients.append(client)
        return await client.open(headers)

    async def control(self, name, **body):
        data = json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"POST /control/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        head, _, content = (await asyncio.wait_for(reader.read(), PATIENCE)).partition(b"\r\n\r\n")
        writer.close()
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"control {name}: {head!r} {content!r}")
        return json.loads(content)

    async def until(self, **wanted):
        """Wait until the hub's status has these values."""
        end = time.monotonic() + PATIENCE
        while True:
            status = await self.control("status")
            if wanted.items() <= status.items():
                return
            if time.monotonic() > end:
                raise RuntimeError(f"status remains {status}")
            await asyncio.sleep(0.01)

    async def clear(self):
        for client in self.clients:
            if hasattr(client, "task"):
                await client.close()
        self.clients = []
        if self.process.returncode is None:
            await self.control("state", state="idle")
            await self.until(connections=0)

    async def outcome(self, name):
        """What was wrong in the conversation, or None."""
        try:
            await TALKS[name][0](self)
            return None
        except Wrong as wrong:
            return wrong
        finally:
            await self.clear()


async def hold(client, *requests):
    """Make executions outstanding; each request is (payload members, session_id)."""
    for members, sid in requests:
        client.send(message("execute", {"algorithm": "hold", **members}, sid))
    await client.ask("get_static")  # answered in order: the others have arrived


async def released(client, *requests):
    """The replies to held executions, in any order: each is its own."""
    replies = {reply.get("session_id"): reply for reply in await client.several(len(requests))}
    for members, sid in requests:
        check(sid in replies, "a session_id was not returned")
        check(replies[sid]["status"] == "success", "an execution failed")
        check(same(replies[sid]["payload"], {"algorithm": "hold", **members}), "an execution returned other arguments")
    await client.ask("get_static")


async def open_jobs(client, *ids):
    for sid in ids:
        reply = await client.ask("initialize", {"name": sid}, sid)
        check(same(reply["payload"].get("iteration"), 0), "a new job has iterations")


async def iterated(client, sid, number):
    reply = await client.ask("iterate", sid=sid)
    check(same(reply["payload"].get("iteration"), number), "a job has another number of iterations")
    check(reply["payload"].get("parameters") == {"name": sid}, "a job has other parameters")


async def examples(house):
    """The document's own examples."""
    client = await house.client()
    await client.returned({}, raw='{"command": "execute", "payload": {}, "version": "0.1.0"}')
    extended = '{"session_id": "%s", "command": "execute", "payload": {}, "version": "0.1.0"}'
    await client.returned({}, UUID, raw=extended % UUID)
    await client.ask("get_static")
    await client.close()
    await house.until(connections=0)


# ----------------------------------------------------------------- history


@talk("session-sticks")
async def _(house):
    client = await house.client()
    await client.ask("execute", {"algorithm": "fail"}, "first", ok=False)
    await client.ask("get_static")


@talk("session-lost-after-malformed")
async def _(house):
    client = await house.client()
    if await client.malformed():
        await client.returned({"x": 1}, "after")


@talk("failed-id-stays-failed")
async def _(house):
    client = await house.client()
    await client.ask("execute", {"algorithm": "fail", "reason": "no beam"}, "job", ok=False)
    await client.returned({"x": 1}, "job")


@talk("third-failure-object")
async def _(house):
    client = await house.client()
    for _ in range(4):
        await client.ask("execute", {"algorithm": "fail"}, ok=False)


@talk("payload-remembered")
async def _(house):
    client = await house.client()
    await client.returned({"x": 1})
    reply = await client.ask("execute")
    check(reply.get("payload", {}) == {}, "execute returned arguments that it was not given")


@talk("answer-kept-by-id")
async def _(house):
    client = await house.client()
    await client.returned({"x": 1}, "job")
    await client.returned({"x": 2}, "job")


@talk("job-resumes-count")
async def _(house):
    client = await house.client()
    await open_jobs(client, "job")
    await iterated(client, "job", 1)
    await client.ask("terminate", sid="job")
    await open_jobs(client, "job")
    await iterated(client, "job", 1)


@talk("failure-drops-jobs")
async def _(house):
    client = await house.client()
    await open_jobs(client, "job")
    await client.ask("execute", {"algorithm": "fail"}, "other", ok=False)
    await iterated(client, "job", 1)


@talk("refused-version-sticks")
async def _(house):
    client = await house.client()
    await client.ask("execute", version="latest", ok=None)
    await client.ask("execute")
    await client.ask("get_dynamic", sid="x")


@talk("state-stale")
async def _(house):
    client = await house.client()
    for state in ("idle", "calibrating"):
        await house.control("state", state=state)
        reply = await client.ask("get_dynamic")
        check(reply["payload"]["state"] == state, "the state is an old one")


@talk("pong-empty-after-malformed")
async def _(house):
    client = await house.client()
    await client.ping(b"one")
    if await client.malformed():
        await client.ping(b"two")


# ----------------------------------------------------------------- several


@talk("two-held-swapped")
async def _(house):
    client = await house.client()
    jobs = [({"x": 1}, "one"), ({"x": 2}, "two")]
    await hold(client, *jobs)
    await house.control("release")
    await released(client, *jobs)


@talk("fifth-evicts-first", silent=True)
async def _(house):
    client = await house.client()
    jobs = [({"x": number}, f"job-{number}") for number in range(5)]
    await hold(client, *jobs)
    await house.control("release")
    await released(client, *jobs)


@talk("fifth-job-evicts-first")
async def _(house):
    client = await house.client()
    ids = [f"job-{number}" for number in range(6)]
    await open_jobs(client, *ids)
    for sid in ids:
        await iterated(client, sid, 1)


@talk("failure-spreads")
async def _(house):
    client = await house.client()
    await hold(client, ({"x": 1}, "good"), ({"then": "fail"}, "bad"), ({"x": 2}, "fine"))
    await house.control("release")
    replies = {reply.get("session_id"): reply["status"] for reply in await client.several(3)}
    check(replies == {"good": "success", "bad": "failure", "fine": "success"}, "a status is wrong")


@talk("sixth-sent-twice")
async def _(house):
    client = await house.client()
    await hold(client, *[({"x": 7}, NONE)] * 6)
    await house.control("release")
    for reply in await client.several(6):
        check(same(reply["payload"], {"algorithm": "hold", "x": 7}), "an execution returned other arguments")
    reply = await client.ask("get_static")
    check("algorithm" not in reply["payload"], "a reply was sent twice")


async def publish(house, clients):
    """Publish to all; what each of them gets."""
    for client in clients:
        await client.ask("get_static")
        client.published.clear()
    await house.control("publish", command="state_changed", payload={"state": "idle"})
    heard = []
    for client in clients:
        await client.ask("get_static")
        heard.append([body for body in client.published if body["command"] == "state_changed"])
    for body in sum(heard, []):
        check_version(body)
        check("session_id" not in body, "a published message has a session_id")
        check(body.get("payload") == {"state": "idle"}, "a published message has another payload")
    return heard


@talk("third-hears-twice")
async def _(house):
    clients = [await house.client() for _ in range(4)]
    counts = [len(heard) for heard in await publish(house, clients)]
    check(counts == [1] * 4, "a message was not published once to each")


@talk("publish-carries-session")
async def _(house):
    client = await house.client()
    await open_jobs(client, "one", "two")
    await publish(house, [client])


@talk("terminate-ends-all")
async def _(house):
    client = await house.client()
    await open_jobs(client, "one", "two")
    await client.ask("terminate", sid="one")
    await iterated(client, "two", 1)


@talk("newest-job-counts")
async def _(house):
    client = await house.client()
    await open_jobs(client, "one", "two", "three")
    await iterated(client, "two", 1)


@talk("all-return-the-last")
async def _(house):
    client = await house.client()
    jobs = [({"x": number}, f"job-{number}") for number in range(3)]
    await hold(client, *jobs)
    await house.control("release")
    await released(client, *jobs)


@talk("base-takes-outstanding-id")
async def _(house):
    client = await house.client()
    await hold(client, ({}, "one"), ({}, "two"))
    await client.ask("execute", {"x": 1})


# ----------------------------------------------------------------- identity


@talk("job-prefix-32")
async def _(house):
    client = await house.client()
    await open_jobs(client, UUID, UUID[:-1] + "e")
    await iterated(client, UUID, 1)


@talk("held-id-case")
async def _(house):
    client = await house.client()
    jobs = [({"x": 1}, "Job-A"), ({"x": 2}, "job-a")]
    await hold(client, *jobs)
    await house.control("release")
    await released(client, *jobs)


@talk("job-id-nfc")
async def _(house):
    client = await house.client()
    await open_jobs(client, "caf\u00e9", "cafe\u0301")


@talk("same-id-one-receiver")
async def _(house):
    one, two = await house.client(), await house.client()
    await hold(one, ({"x": 1}, "job"))
    await hold(two, ({"x": 2}, "job"))
    await house.control("release")
    await released(one, ({"x": 1}, "job"))
    await released(two, ({"x": 2}, "job"))


@talk("crossed-in-release")
async def _(house):
    one, two = await house.client(), await house.client()
    await hold(one, ({"x": 1}, "job-1"))
    await hold(two, ({"x": 2}, "job-2"))
    await house.control("release")
    await released(one, ({"x": 1}, "job-1"))
    await released(two, ({"x": 2}, "job-2"))


@talk("refusal-names-another")
async def _(house):
    one, two = await house.client(), await house.client()
    await one.returned({"x": 1}, "mine")
    await two.returned({"x": 2}, "yours")
    await one.ask("not a command", sid="mine", ok=False)


@talk("uuid-canonical")
async def _(house):
    client = await house.client()
    for sid in (UUID, UUID.upper(), "{%s}" % UUID, "urn:uuid:" + UUID):
        await client.returned({"x": 1}, sid)


@talk("numeric-ids-one")
async def _(house):
    client = await house.client()
    for sid in ("7", "07", "7.0"):
        await client.returned({"x": 1}, sid)


@talk("payload-session-id-wins")
async def _(house):
    client = await house.client()
    await client.returned({"session_id": "inner"}, "outer")


@talk("job-id-trimmed")
async def _(house):
    client = await house.client()
    await open_jobs(client, "job", "job ", "\tjob")


# ----------------------------------------------------------------- neighbours


@talk("leaver-fails-others")
async def _(house):
    one, two = await house.client(), await house.client()
    await hold(one, ({"x": 1}, "stays"))
    await hold(two, ({"x": 2}, "leaves"))
    await two.vanish()
    await house.until(connections=1, held=1)
    await house.control("release")
    await released(one, ({"x": 1}, "stays"))


@talk("malformed-neighbour")
async def _(house):
    one, two = await house.client(), await house.client()
    await one.malformed()
    await two.returned({"x": 1}, "two")


@talk("shared-fragments")
async def _(house):
    one, two = await house.client(), await house.client()
    await one.ask("get_static")
    one.frames('{"command": "get_st', fin=False)
    await one.ping(b"the frame has arrived")
    two.frames(json.dumps(message("execute", {"x": 1}, "two")), 10, 20)
    reply = await two.next()
    check_id(reply, "two")
    check(same(reply["payload"], {"x": 1}), "execute returned other arguments")


@talk("leftover-job")
async def _(house):
    one = await house.client()
    await open_jobs(one, "job")
    await one.close()
    await house.until(connections=0)
    await open_jobs(await house.client(), "job")


@talk("static-polluted")
async def _(house):
    one, two = await house.client(), await house.client()
    before = await two.ask("get_static")
    await one.returned({"name": "mine", "qubits": 0})
    after = await two.ask("get_static")
    check(same(before["payload"], after["payload"]), "the static information has changed")


@talk("pong-to-newest", silent=True)
async def _(house):
    one = await house.client()
    await one.ping(b"alone")
    two = await house.client()
    await two.ask("get_static")
    await one.ping(b"in company")


@talk("close-spreads")
async def _(house):
    one, two = await house.client(), await house.client()
    await one.returned({"x": 1}, "equal")
    await two.returned({"x": 2}, "equal")
    await one.close()
    await house.until(connections=1)
    await two.returned({"x": 3}, "equal")


@talk("answer-shared-by-id")
async def _(house):
    one, two = await house.client(), await house.client()
    await one.returned({"x": 1}, "equal")
    await two.returned({"x": 2}, "equal")


@talk("heir-of-session")
async def _(house):
    one = await house.client()
    await open_jobs(one, "legacy")
    await one.close()
    await house.until(connections=0)
    two = await house.client()
    await two.ask("get_static")


@talk("bad-utf8-neighbour")
async def _(house):
    one, two = await house.client(), await house.client()
    one.frames(b'{"command": "\xff\xfe"}')
    await asyncio.wait_for(one.ended.wait(), PATIENCE)
    await two.returned({"x": 1}, "\u00e9\u4e2d\U0001f600")


# ----------------------------------------------------------------- values


def copied(name, *ids):
    @talk(name)
    async def _(house):
        client = await house.client()
        for sid in ids:
            await client.ask("execute", {"x": 1}, sid)
            await client.ask("execute", {"algorithm": "fail"}, sid, ok=False)


def valued(name, *payloads):
    @talk(name)
    async def _(house):
        client = await house.client()
        for payload in payloads:
            await client.returned(payload, "values")


copied("empty-id-missing", "")
copied("id-65535", "x" * 65536)
copied("id-nul", "a\0b", "\0")
copied("id-markup", "<b>&amp;</b>")
copied("id-number", "0", "42", "1e3")
valued("big-integer", {"list": [2**53 + 1, -(2**63), 10**30 + 1]})
valued("null-member", {"x": None, "y": {"z": None}})
valued("prototype-names", {"__proto__": 1, "constructor": {"toString": 2}, "__class__": [], "hasOwnProperty": ""})
valued("numbered-members", {"x": {"0": "a", "1": "b"}})
valued("single-list", {"x": [1], "y": [[]]})
valued("small-fraction", {"x": 2e-08, "y": -5e-324, "z": 0.1})


@talk("long-ping")
async def _(house):
    client = await house.client()
    for length in (0, 124, 125):
        await client.ping(b"p" * length)


# ----------------------------------------------------------------- equivalents


def read_alike(name, *texts, sid="s", payload=None):
    """Texts that mean: execute {"x": 1} under the session_id."""

    @talk(name)
    async def _(house):
        client = await house.client()
        for text in texts:
            await client.returned(payload or {"x": 1}, sid, raw=text)


read_alike("id-as-last-member", '{"command": "execute", "payload": {"x": 1}, "version": "0.1.0", "session_id": "s"}')
read_alike("leading-white-space",
           '\n{"session_id": "s", "command": "execute", "payload": {"x": 1}, "version": "0.1.0"}',
           '\t {\r\n"session_id":"s",\t"command":"execute","payload":{"x":1},"version":"0.1.0"} \n')
read_alike("escaped-member-name",
           r'{"session_id": "s", "\u0063ommand": "execute", "payload": {"x": 1}, "v\u0065rsion": "0.1.0"}')
read_alike("escaped-pair",
           '{"session_id": "\U0001f600", "command": "execute", "payload": {"x": 1}, "version": "0.1.0"}',
           r'{"session_id": "\ud83d\ude00", "command": "execute", "payload": {"x": 1}, "version": "0.1.0"}',
           sid="\U0001f600")
read_alike("exponent-text",
           '{"session_id": "s", "command": "execute", "payload": {"x": 25e-1, "y": 1E2}, "version": "0.1.0"}',
           payload={"x": 2.5, "y": 100})


def in_frames(name, cut, ping=False):
    @talk(name)
    async def _(house):
        client = await house.client()
        text = '{"session_id": "\u00e9\U0001f600", "command": "execute", "payload": {"x": 1}, "version": "0.1.0"}'
        client.frames(text, *cut(text.encode()), ping=ping)
        reply = await client.next()
        check_id(reply, "\u00e9\U0001f600")
        check(reply["status"] == "success" and same(reply["payload"], {"x": 1}), "a message in frames was not served")


in_frames("empty-first-frame", lambda data: (0, 40))
in_frames("ping-between-frames", lambda data: (50,), ping=True)
in_frames("split-character", lambda data: (data.index(b"\xc3\xa9") + 1, data.index(b"\xf0") + 2))


@talk("version-metadata")
async def _(house):
    client = await house.client()
    for version in ("0.1.0-rc.1", "0.1.0+b5", "0.1.0-alpha+001"):
        await client.ask("execute", sid="s", version=version)


@talk("connection-list")
async def _(house):
    client = await house.client(Connection="keep-alive, Upgrade")
    await client.ask("get_static")


@talk("escaped-id-other-job")
async def _(house):
    client = await house.client()
    await open_jobs(client, "job/1")
    reply = await client.ask("iterate", sid="job/1",
                             raw=r'{"session_id": "\u006aob\/1", "command": "iterate", "version": "0.1.0"}')
    check(same(reply["payload"]["iteration"], 1), "a job has another number of iterations")


# ----------------------------------------------------------------- one of many


@talk("dynamic-without-version")
async def _(house):
    client = await house.client()
    await client.ask("get_dynamic")


@talk("terminate-status")
async def _(house):
    client = await house.client()
    await open_jobs(client, "job")
    await client.ask("terminate", sid="job")


@talk("unknown-command-object")
async def _(house):
    client = await house.client()
    await client.ask("no such command", ok=False)


@talk("iterate-refusal-without-id")
async def _(house):
    client = await house.client()
    await client.ask("iterate", sid="never opened", ok=False)


@talk("static-without-id")
async def _(house):
    client = await house.client()
    await client.ask("get_static", sid=UUID)


@talk("publish-version-short")
async def _(house):
    await publish(house, [await house.client()])


@talk("malformed-without-detail")
async def _(house):
    client = await house.client()
    await client.malformed()


@talk("no-arguments-null")
async def _(house):
    client = await house.client()
    await client.ask("execute", sid="s")


@talk("bare-close-unanswered")
async def _(house):
    client = await house.client()
    await client.ask("get_static")
    await client.close(code=None)
    check(client.protocol.close_rcvd is not None, "a Close frame was not answered")


@talk("delayed-version-number")
async def _(house):
    client = await house.client()
    await client.returned({"algorithm": "delay", "ms": 5}, "s")


@talk("initialize-list")
async def _(house):
    client = await house.client()
    await client.ask("initialize", sid="s")


# ----------------------------------------------------------------- the test


async def try_bug(entry, matrix):
    name = entry["name"]
    found = []
    async with House("--bug", name, patience=SILENCE) as house:
        try:
            await examples(house)
        except Wrong as wrong:
            return f"NOT HARD: the document's examples show it: {wrong}"
        wrong = await house.outcome(name)
        if wrong is None:
            return "NOT SEEN"
        if isinstance(wrong, Silent) != TALKS[name][1]:
            return f"NOT CLEAR: {wrong}"
        for other in TALKS if matrix else ():
            if other != name and await house.outcome(other):
                found.append(other)
    return f"ok: {wrong}" + (f"; also in {', '.join(found)}" if found else "")


async def try_right(options, names):
    async with House(*options) as house:
        try:
            await examples(house)
        except Wrong as wrong:
            return f"WRONG in the document's examples: {wrong}"
        for name in names:
            wrong = await house.outcome(name)
            if wrong is not None:
                return f"WRONG in {name}: {wrong}"
    return f"ok: {len(names)} conversations"


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help="bugs, variants, or plain, which is the hub as it is; none: all")
    parser.add_argument("--matrix", action="store_true", help="with every bug, hold all conversations")
    options = parser.parse_args()
    process = await asyncio.create_subprocess_exec(sys.executable, HUB, "--list", stdout=asyncio.subprocess.PIPE)
    listed = json.loads((await process.communicate())[0])
    bugs = [entry for entry in listed["bugs"] if not options.names or entry["name"] in options.names]
    variants = [entry for entry in listed["variants"] if not options.names or entry["name"] in options.names]
    if {entry["name"] for entry in listed["bugs"]} != TALKS.keys():
        print("bugs and conversations do not match:", {entry["name"] for entry in listed["bugs"]} ^ TALKS.keys())
        return 1
    chosen = list(TALKS) if "plain" in options.names or not bugs else [entry["name"] for entry in bugs]
    gate = asyncio.Semaphore(3)
    bad = 0

    async def line(kind, name, work):
        nonlocal bad
        async with gate:
            try:
                result = await work
            except (RuntimeError, OSError, asyncio.TimeoutError) as error:
                result = f"BROKEN: {error!r}"
            bad += not result.startswith("ok")
            print(f"{kind} {name}: {result}", flush=True)

    work = [line("hub", "without a bug", try_right([], chosen))]
    work += [line("variant", entry["name"], try_right(["--variant", entry["name"]], list(TALKS))) for entry in variants]
    work += [line("bug", entry["name"], try_bug(entry, options.matrix)) for entry in bugs]
    await asyncio.gather(*work)
    result = f"{bad} NOT as it should be" if bad else "all as it should be"
    print(f"{len(bugs)} bugs, {len(variants)} variants: {result}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
