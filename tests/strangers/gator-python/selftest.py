#!/usr/bin/env python3
"""Self-test of hub.py.

For every bug there is a conversation. It must go wrong with the bug, and go
right without it and under every variant.

    selftest.py [--jobs N] [NAME ...]      NAME: bugs, variants, `robustness`
"""

import argparse
import asyncio
import json
import math
import os
import signal
import sys
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS_RIGHT = 8.0      # how long to wait for what must come
SECONDS_BUG = 2.0        # the same where a bug is planted
QUIET = 0.25             # how long to listen for what must not come
LEFT_OUT = object()


class Wrong(Exception):
    """The hub does not do what the document says."""


def same(a, b):
    """Equal as JSON values: 1 equals 1.0, but neither true nor "1"."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b
    return type(a) is type(b) and a == b


def short(value):
    text = json.dumps(value)
    return text if len(text) < 160 else text[:150] + "..."


def request(action, payload=LEFT_OUT, id=LEFT_OUT, posted=LEFT_OUT):
    message = {"action": action}
    for name, value in (("req_id", id), ("posted", posted), ("payload", payload)):
        if value is not LEFT_OUT:
            message[name] = value
    return message


def log(message, id=LEFT_OUT, posted=LEFT_OUT, **fields):
    return request("log", {**fields, "message": message}, id, posted)


def stop(id=LEFT_OUT, posted=LEFT_OUT):
    return request("stop", {}, id, posted)


class Client:
    """One connection, as a child or in the parent's place."""

    def __init__(self, ws, patience):
        self.ws = ws
        self.patience = patience
        self.responses = []
        self.requests = []
        self.news = asyncio.Event()
        self.over = False
        self.count = 0
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        try:
            async for raw in self.ws:
                message = json.loads(raw)
                if "result" in message:
                    self.responses.append(message)
                else:
                    self.requests.append(message)
                    if not message.get("posted") and "req_id" in message:
                        await self.send({"action": message["action"], "rsp_id": message["req_id"],
                                         "result": "success", "payload": {}})
                self.news.set()
        except ConnectionClosed:
            pass
        finally:
            self.over = True
            self.news.set()

    async def close(self):
        await self.ws.close()
        await self.reader

    def cut_off(self):
        self.ws.transport.abort()

    # -- sending

    async def text(self, text):
        await self.ws.send(text)

    async def send(self, message):
        await self.ws.send(json.dumps(message))

    def burst(self, *messages):
        """Several messages in one piece, without waiting."""
        protocol = self.ws.protocol
        for message in messages:
            protocol.send_text(json.dumps(message).encode())
        self.ws.transport.write(b"".join(protocol.data_to_send()))

    def frames(self, parts, begin=True, end=True):
        protocol = self.ws.protocol
        for number, part in enumerate(parts, 1):
            last = end and number == len(parts)
            if begin and number == 1:
                protocol.send_text(part, fin=last)
            else:
                protocol.send_continuation(part, fin=last)
        self.ws.transport.write(b"".join(protocol.data_to_send()))

    async def ping(self, data):
        try:
            await asyncio.wait_for(await self.ws.ping(data), self.patience)
        except asyncio.TimeoutError:
            raise Wrong("no pong with the data of the ping") from None

    # -- receiving

    async def take(self, box, wanted, what):
        """Take the first message in a box for which wanted(message) holds."""
        end = time.monotonic() + self.patience
        while True:
            for message in box:
                if wanted(message):
                    box.remove(message)
                    return message
            left = end - time.monotonic()
            if self.over or left <= 0:
                raise Wrong(f"{'connection ended' if self.over else 'timeout'}: no {what}")
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except asyncio.TimeoutError:
                pass

    async def response(self):
        return await self.take(self.responses, lambda m: True, "response")

    async def expect(self, id, action=None, ok=True):
        """The next response must be the one to this request."""
        message = await self.response()
        if id is LEFT_OUT:
            if message.get("rsp_id") is not None:
                raise Wrong(f"an identifier out of nowhere: {short(message)}")
        elif "rsp_id" not in message or not same(message["rsp_id"], id):
            raise Wrong(f"identifier {short(id)} expected: {short(message)}")
        check(message, action, ok)
        return message

    async def ask(self, message, ok=True):
        """Send a non-posted request and wait for its response."""
        if "req_id" not in message:
            self.count += 1
            message = {**message, "req_id": f"ask-{id(self)}-{self.count}"}
        await self.send(message)
        return await self.expect(message["req_id"], message["action"], ok)

    async def all_responses(self, *ids):
        """Responses with exactly these identifiers, in any order."""
        got = [await self.response() for _ in ids]
        for id in ids:
            found = [m for m in got if "rsp_id" in m and same(m["rsp_id"], id)]
            if len(found) != len([i for i in ids if same(i, id)]):
                raise Wrong(f"{len(found)} responses to {short(id)}")
        return {m["rsp_id"]: m for m in got}

    async def bad_text(self, text='{"action": "log", "payload"'):
        """Send what cannot be decoded and wait for the error."""
        await self.text(text)
        message = await self.expect(LEFT_OUT, ok=False)
        return message

    async def settle(self):
        """Nothing may come that was not asked for."""
        await self.ask(log("settle"))
        await asyncio.sleep(QUIET)
        if self.responses:
            raise Wrong(f"a response too many: {short(self.responses[0])}")

    async def got_stop(self):
        return await self.take(self.requests, lambda m: m.get("action") == "stop", "stop")

    async def next_log(self):
        message = await self.take(self.requests, lambda m: m.get("action") == "log", "log")
        return message["payload"]

    async def logs(self, *texts):
        """Logs with exactly these messages, in any order."""
        got = [await self.next_log() for _ in texts]
        if sorted(entry["message"] for entry in got) != sorted(texts):
            raise Wrong(f"other logs than sent: {short([entry['message'] for entry in got])}")
        return {entry["message"]: entry for entry in got}


def check(message, action, ok):
    """Is a response formed as the document shows?"""
    if message.get("result") != ("success" if ok else "error"):
        raise Wrong(f"{'success' if ok else 'error'} expected: {short(message)}")
    if ok and (message.get("action") != action or not isinstance(message.get("payload"), dict)):
        raise Wrong(f"not a success format for {action}: {short(message)}")
    if not ok and not isinstance(message.get("reason"), str):
        raise Wrong(f"no reason: {short(message)}")


class Hub:
    """A hub process."""

    def __init__(self, arguments, patience):
        self.arguments = arguments
        self.patience = patience

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, os.path.join(HERE, "hub.py"), *self.arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), 30)
            self.url = line.decode().strip()
            if not self.url:
                raise Wrong((await self.process.stderr.read()).decode()[-500:])
            self.port = int(self.url.rsplit(":", 1)[1])
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *error):
        if self.process.returncode is None:
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.communicate(), 10)
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def control(self, name, data=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps(data or {}).encode()
        writer.write(f"POST /control/{name} HTTP/1.1\r\nHost: hub\r\n"
                     f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"control {name}: {answer[:200]}")
        return json.loads(body)

    async def until(self, what, holds):
        """Wait for a state of the hub."""
        end = time.monotonic() + self.patience
        while True:
            state = await self.control("state")
            if holds(state):
                return state
            if time.monotonic() > end:
                raise Wrong(f"{what}: {short(state)}")
            await asyncio.sleep(0.02)


class Talk:
    """A conversation with a hub."""

    def __init__(self, hub):
        self.hub = hub
        self.clients = []

    async def client(self, path):
        ws = await connect(self.hub.url + path, ping_interval=None, max_size=None)
        client = Client(ws, self.hub.patience)
        self.clients.append(client)
        return client

    async def child(self):
        return await self.client("/")

    async def children(self, count):
        return [await self.child() for _ in range(count)]

    async def parent(self):
        return await self.client("/parent")

    async def until_children(self, count):
        await self.hub.until(f"{count} children", lambda state: state["children"] == count)

    async def end(self):
        await asyncio.gather(*(client.close() for client in self.clients), return_exceptions=True)
        await self.hub.until("no connection", lambda state: not state["children"] + state["parents"])


CASES = {}


def case(name):
    def register(function):
        CASES[name] = function
        return function
    return register


LOUD = log("too loud", severity="LOUD")
EMPTY = request("log", {})

# -- history


@case("posted-answered-after-refusal")
async def _(t):
    c = await t.child()
    await c.ask(LOUD, ok=False)
    await c.send(log("quiet please", "p", True))
    await c.settle()


@case("id-lost-after-bad-text")
async def _(t):
    c = await t.child()
    await c.bad_text()
    await c.ask(log("still here"))


@case("second-bad-text-unanswered")
async def _(t):
    c = await t.child()
    await c.bad_text()
    await c.bad_text("{]")


@case("posted-sticks")
async def _(t):
    c = await t.child()
    for number in range(4):
        await c.send(log(f"posted {number}", number, True))
    await c.ask(log("not posted"))


@case("children-frozen-at-first-stop")
async def _(t):
    a, b = await t.children(2)
    await a.ask(stop(1))
    await b.got_stop()
    late = await t.child()
    await a.ask(stop(2))
    await late.got_stop()


@case("stop-cached-by-id")
async def _(t):
    a, b = await t.children(2)
    await a.ask(stop("same"))
    late = await t.child()
    await b.ask(stop("same"))
    await late.got_stop()


@case("clock-frozen")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.ask(log("one"))
    await p.logs("one")
    await asyncio.sleep(1.2)
    now = math.floor(time.time())
    await c.ask(log("two"))
    stamp = (await p.logs("two"))["two"].get("timestamp")
    if stamp is not None and not now <= stamp <= time.time():
        raise Wrong(f"{now} expected: {stamp}")


@case("severity-remembered")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.ask(log("loud", severity="ERROR"))
    await c.ask(LOUD, ok=False)
    await c.ask(log("plain"))
    severity((await p.logs("loud", "plain"))["plain"], "INFO")


def severity(entry, expected):
    if entry.get("severity", "INFO") != expected:
        raise Wrong(f"{expected} expected: {short(entry)}")


@case("quiet-after-three-refusals")
async def _(t):
    p, c = await t.parent(), await t.child()
    for message in (LOUD, EMPTY, LOUD):
        await c.ask(message, ok=False)
    await c.ask(log("good again"))
    await p.logs("good again")


@case("repeat-suppressed")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.ask(log("again"))
    await c.ask(log("again"))
    await p.logs("again", "again")


@case("pong-empty-after-bad-text")
async def _(t):
    c = await t.child()
    await c.ping(b"before")
    await c.bad_text()
    await c.ping(b"after")


@case("replacement-child-skipped")
async def _(t):
    a, b = await t.children(2)
    await b.close()
    await t.until_children(1)
    new = await t.child()
    await a.ask(stop())
    await new.got_stop()


# -- several


@case("sixth-child-skipped")
async def _(t):
    a, *others = await t.children(7)
    await a.ask(stop())
    for other in others:
        await other.got_stop()


@case("burst-sixth-id")
async def _(t):
    c = await t.child()
    c.burst(*(log(f"m{n}", n) for n in range(1, 7)))
    await c.all_responses(1, 2, 3, 4, 5, 6)


@case("burst-sixth-log-lost")
async def _(t):
    p, c = await t.parent(), await t.child()
    texts = [f"m{n}" for n in range(6)]
    c.burst(*(log(text, posted=True) for text in texts))
    await p.logs(*texts)


@case("second-simultaneous-stop-unanswered")
async def _(t):
    a, b = await t.children(2)
    for number in range(3):
        a.burst(stop(f"a{number}"))
        b.burst(stop(f"b{number}"))
        await a.expect(f"a{number}", "stop")
        await b.expect(f"b{number}", "stop")


@case("mixed-actions-crossed")
async def _(t):
    c = await t.child()
    c.burst(log("first", 1), stop(2))
    got = await c.all_responses(1, 2)
    check(got[1], "log", True)
    check(got[2], "stop", True)


@case("leaver-takes-next")
async def _(t):
    a, b, d = await t.children(3)
    await b.close()
    await t.until_children(2)
    await a.ask(stop())
    await d.got_stop()


@case("fifth-evicts-first")
async def _(t):
    p, first = await t.parent(), await t.child()
    await t.children(4)
    await first.ask(log("the oldest speaks"))
    await p.logs("the oldest speaks")


@case("posted-stop-one-child")
async def _(t):
    a, b, d = await t.children(3)
    await a.send(stop(1, True))
    await b.got_stop()
    await d.got_stop()


@case("equal-ids-one-answer")
async def _(t):
    c = await t.child()
    c.burst(log("one", 7), log("two", 7))
    await c.all_responses(7, 7)


@case("burst-shares-timestamp")
async def _(t):
    p, c = await t.parent(), await t.child()
    c.burst(*(log(f"at {n}", posted=True, timestamp=n) for n in (1001, 1002, 1003)))
    got = await p.logs("at 1001", "at 1002", "at 1003")
    for text, entry in got.items():
        stamped(entry, int(text[3:]))


def stamped(entry, expected):
    if not same(entry.get("timestamp"), expected):
        raise Wrong(f"timestamp {expected} expected: {short(entry)}")


@case("burst-posted-answered")
async def _(t):
    c = await t.child()
    c.burst(*(log(f"m{n}", n) for n in range(1, 6)), log("posted", "p", True))
    await c.all_responses(1, 2, 3, 4, 5)
    await c.settle()


# -- identity


@case("id-32")
async def _(t):
    c = await t.child()
    await c.ask(log("one", "x" * 32 + "1"))
    await c.ask(log("two", "x" * 32 + "2"))


@case("id-case")
async def _(t):
    a, b = await t.children(2)
    await a.ask(log("one", "Request-A"))
    await b.ask(log("two", "request-a"))


@case("id-unicode-form")
async def _(t):
    c = await t.child()
    await c.ask(log("one", "caf\u00e9"))
    await c.ask(log("two", "cafe\u0301"))


@case("id-number-text")
async def _(t):
    c = await t.child()
    await c.ask(log("one", 23))
    await c.ask(log("two", "23"))


@case("refusal-to-first-user")
async def _(t):
    a, b = await t.children(2)
    await a.ask(log("fine", "r"))
    await b.ask({**EMPTY, "req_id": "r"}, ok=False)


@case("stop-answer-to-namesake")
async def _(t):
    a, b = await t.children(2)
    for number in range(3):
        a.burst(log("busy", f"n{number}"))
        b.burst(stop(f"n{number}"))
        await b.expect(f"n{number}", "stop")
        await a.expect(f"n{number}", "log")


@case("error-id-of-posted")
async def _(t):
    c = await t.child()
    await c.send(log("posted", "p", True))
    await c.ask({**LOUD, "req_id": "e"}, ok=False)


@case("no-id-borrows")
async def _(t):
    c = await t.child()
    await c.ask(log("named", "k"))
    await c.send(EMPTY)
    await c.expect(LEFT_OUT, ok=False)


@case("message-32")
async def _(t):
    p, c = await t.parent(), await t.child()
    texts = ["y" * 32 + " one", "y" * 32 + " two"]
    for text in texts:
        await c.ask(log(text))
    await p.logs(*texts)


@case("message-case")
async def _(t):
    p, a, b = await t.parent(), await t.child(), await t.child()
    await a.ask(log("Disk Full"))
    await b.ask(log("disk full"))
    await p.logs("Disk Full", "disk full")


@case("action-of-namesake")
async def _(t):
    a, b = await t.children(2)
    await a.ask(stop("q"))
    await b.ask(log("mine", "q"))


# -- neighbours


@case("gone-child-ends-forwarding")
async def _(t):
    a, b, d = await t.children(3)
    b.cut_off()
    await t.until_children(2)
    await a.ask(stop())
    await d.got_stop()


@case("stopper-must-stay")
async def _(t):
    a, b = await t.children(2)
    await a.send(stop(1, True))
    await a.close()
    await b.got_stop()


@case("leaver-logs-lost")
async def _(t):
    p, a = await t.parent(), await t.child()
    await a.send(log("last words", posted=True))
    await a.close()
    await p.logs("last words")


@case("stop-undone-by-leaving")
async def _(t):
    a, b = await t.children(2)
    await a.ask(stop())
    await a.close()
    await t.until_children(1)
    await not_scheduled(t, "after the stop")


async def not_scheduled(t, name):
    answer = await t.hub.control("job", {"name": name})
    if answer["accepted"] or answer["scheduled"]:
        raise Wrong(f"scheduled: {short(answer)}")


@case("bad-neighbour-hides-errors")
async def _(t):
    a, b = await t.children(2)
    await a.bad_text()
    await b.ask(EMPTY, ok=False)


@case("open-fragment-blocks")
async def _(t):
    a, b = await t.children(2)
    data = json.dumps(log("in pieces", "f")).encode()
    a.frames([data[:9]], end=False)
    await a.ping(b"between the frames")
    await b.ask(log("not in pieces"))
    a.frames([data[9:]], begin=False)
    await a.expect("f", "log")


@case("silent-children-hold-stop")
async def _(t):
    a, *others = await t.children(5)
    await a.ask(stop())


@case("neighbour-same-text")
async def _(t):
    p, a, b = await t.parent(), await t.child(), await t.child()
    await a.ask(log("ready"))
    await b.ask(log("ready"))
    await p.logs("ready", "ready")


@case("leaving-drops-others")
async def _(t):
    p, a, b = await t.parent(), await t.child(), await t.child()
    await a.send(log("posted", posted=True))
    await a.ask(log("asked"))
    await b.close()
    await p.logs("posted", "asked")


@case("stopped-children-muted")
async def _(t):
    p, a, b = await t.parent(), await t.child(), await t.child()
    await a.ask(stop())
    await b.got_stop()
    await b.ask(log("being terminated"))
    await p.logs("being terminated")


@case("first-leaver-unlinks")
async def _(t):
    p, a, b = await t.parent(), await t.child(), await t.child()
    await a.close()
    await t.until_children(1)
    await b.ask(log("still here"))
    await p.logs("still here")


# -- values


def id_case(name, ok, *ids):
    async def talk(t):
        c = await t.child()
        for value in ids:
            await c.ask({**(log("fine") if ok else EMPTY), "req_id": value}, ok)
    CASES[name] = talk


id_case("zero-id-missing", False, 0, "")
id_case("id-fraction-cut", True, 1.5, -0.25)
id_case("id-255", True, "z" * 255, "z" * 256, "z" * 65536)
id_case("id-html", False, "<a&b>")
id_case("id-nul", True, "a\0b", "\0")
id_case("id-numeric-text", True, "007", "12")
id_case("id-prototype-name", True, "constructor", "__proto__", "toString")
id_case("id-large-as-text", True, 2147483647, 2147483648, 9007199254740991)


def message_case(name, *texts):
    async def talk(t):
        p, c = await t.parent(), await t.child()
        for text in texts:
            await c.ask(log(text))
            await p.logs(text)
    CASES[name] = talk


message_case("empty-message-missing", "")
message_case("message-65535", "m" * 65535, "m" * 65536)
message_case("message-html", "if a < b && c > d")
message_case("message-trimmed", "  indented\n")
message_case("message-astral", "go \U0001f680")


def timestamp_case(name, *stamps):
    async def talk(t):
        p, c = await t.parent(), await t.child()
        for stamp in stamps:
            await c.ask(log("then", timestamp=stamp))
            stamped(await p.next_log(), stamp)
    CASES[name] = talk


timestamp_case("timestamp-zero-now", 0)
timestamp_case("timestamp-fraction-cut", 1684696137.25)
timestamp_case("timestamp-milliseconds", 99999999999, 100000000000)


# -- equivalents


@case("id-after-payload")
async def _(t):
    c = await t.child()
    await c.text('{"payload":{"message":"m"},"posted":false,"req_id":"behind","action":"log"}')
    await c.expect("behind", "log")


@case("escaped-posted")
async def _(t):
    c = await t.child()
    await c.text('{"action":"log","req_id":1,"p\\u006fsted":true,"payload":{"message":"m"}}')
    await c.settle()


@case("escaped-severity")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.text('{"action":"log","req_id":1,"payload":{"severity":"W\\u0041RNING","message":"m"}}')
    await c.expect(1, "log")
    severity(await p.next_log(), "WARNING")


@case("leading-line-feed")
async def _(t):
    c = await t.child()
    await c.text('\n{"action":"log","req_id":1,"payload":{"message":"m"}}\n')
    await c.expect(1, "log")
    await c.text('\t\r\n {\t"action"\r\n:"log" ,"req_id":2,"payload":{"message":"m"} } ')
    await c.expect(2, "log")


def pieces(data, *cuts):
    return [data[a:b] for a, b in zip((0,) + cuts, cuts + (len(data),))]


@case("three-frames")
async def _(t):
    c = await t.child()
    c.frames(pieces(json.dumps(log("in three", "f")).encode(), 5, 20))
    await c.expect("f", "log")


@case("empty-last-frame")
async def _(t):
    c = await t.child()
    c.frames([json.dumps(log("and nothing", "f")).encode(), b""])
    await c.expect("f", "log")


@case("split-character")
async def _(t):
    p, c = await t.parent(), await t.child()
    data = json.dumps(log("gr\u00fc\u00dfe", "f"), ensure_ascii=False).encode()
    c.frames(pieces(data, data.index("\u00fc".encode()) + 1))
    await c.expect("f", "log")
    await p.logs("gr\u00fc\u00dfe")


@case("posted-stop-no-payload")
async def _(t):
    a, b = await t.children(2)
    await a.text('{"action":"stop","posted":true}')
    await b.got_stop()


@case("posted-absent-stop")
async def _(t):
    a = await t.child()
    await a.text('{"action":"stop","req_id":5,"payload":{}}')
    await a.expect(5, "stop")


@case("exponent-timestamp")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.text('{"action":"log","req_id":1,"payload":{"timestamp":1.684696137E9,"message":"m"}}')
    await c.expect(1, "log")
    stamped(await p.next_log(), 1684696137)


@case("escaped-slash")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.text('{"action":"log","req_id":1,"payload":{"message":"a\\/b"}}')
    await c.expect(1, "log")
    await p.logs("a/b")


@case("surrogate-pair-escape")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.text('{"action":"log","req_id":1,"payload":{"message":"go \\ud83d\\ude80"}}')
    await c.expect(1, "log")
    await p.logs("go \U0001f680")


@case("severity-after-message")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.text('{"action":"log","req_id":1,"payload":{"message":"m","severity":"ERROR"}}')
    await c.expect(1, "log")
    severity(await p.next_log(), "ERROR")


# -- one-of-many


@case("critical-as-error")
async def _(t):
    p, c = await t.parent(), await t.child()
    for name in ("ERROR", "CRITICAL"):
        await c.ask(log("m", severity=name))
        severity(await p.next_log(), name)


@case("debug-not-propagated")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.ask(log("detail", severity="DEBUG"))
    await p.logs("detail")


@case("no-id-for-missing-message")
async def _(t):
    c = await t.child()
    await c.ask(LOUD, ok=False)
    await c.ask(EMPTY, ok=False)


@case("no-reason-for-case")
async def _(t):
    c = await t.child()
    await c.ask(LOUD, ok=False)
    await c.ask(log("m", severity="Error"), ok=False)


@case("posted-bad-text-unanswered")
async def _(t):
    c = await t.child()
    await c.bad_text('{"action":"log","req_id":1,"posted":true,"payload":{"message":"cut o')


@case("empty-text-unanswered")
async def _(t):
    c = await t.child()
    await c.bad_text("")


@case("parent-stop-kept")
async def _(t):
    p, a = await t.parent(), await t.child()
    await p.ask(stop())
    await a.got_stop()


@case("dialled-parent-unanswered")
async def _(t):
    arrived, over = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def accept(ws):
        if not arrived.done():
            arrived.set_result(ws)
            await over.wait()

    a = await t.child()
    async with serve(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await t.hub.control("parent", {"url": f"ws://127.0.0.1:{port}"})
        try:
            parent = Client(await asyncio.wait_for(arrived, t.hub.patience), t.hub.patience)
            await a.ask(log("for the parent"))
            await parent.logs("for the parent")
            await parent.send(stop(31))
            await a.got_stop()
            await parent.expect(31, "stop")
        finally:
            await t.hub.control("parent", {"url": None})
            over.set()


@case("posted-stop-keeps-scheduling")
async def _(t):
    a, b = await t.children(2)
    await a.send(stop(1, True))
    await b.got_stop()
    await not_scheduled(t, "after the stop")


@case("info-lowercase-accepted")
async def _(t):
    c = await t.child()
    for name in ("debug", "info", "warning", "error", "critical"):
        await c.ask(log("m", severity=name), ok=False)


@case("parent-answers-without-id")
async def _(t):
    p = await t.parent()
    await p.ask(stop(3))


@case("posted-default-severity")
async def _(t):
    p, c = await t.parent(), await t.child()
    await c.send(log("plain", posted=True))
    severity(await p.next_log(), "INFO")


@case("waiting-task-runs-after-stop")
async def _(t):
    a = await t.child()
    if not (await t.hub.control("job", {"name": "first"}))["scheduled"]:
        raise Wrong("the first job is not scheduled")
    if (await t.hub.control("job", {"name": "second"}))["scheduled"]:
        raise Wrong("there is one slot, and two jobs are scheduled")
    await a.ask(stop())
    state = await t.hub.until("the first job ends", lambda state: "first" not in state["running"])
    if "second" in state["running"]:
        raise Wrong("a waiting job was scheduled after the stop")


# -- robustness


async def robustness():
    """No input ends the hub, and it ends when it is told to."""
    async with Hub(["--max-size", "100000"], SECONDS_RIGHT) as hub:
        t = Talk(hub)
        c = await t.child()
        for text in ("", "null", "[]", "3", '"x"', "{", "NaN", '{"a":NaN}', '{"a":1e999}', "\ufeff{}",
                     "[" * 50000, '{"a":' * 15000, '{"a":' + "9" * 50000 + "}"):
            await c.bad_text(text)
        for text in ("{}", '{"action":1}', '{"action":"__class__"}', '{"action":{"a":[]}}',
                     '{"action":"log","payload":[]}', '{"action":"log","payload":{"message":"m","timestamp":"x"}}',
                     '{"action":"log","payload":{"message":"m","timestamp":true}}',
                     '{"action":"log","payload":{"message":"m","severity":[]}}'):
            await c.text(text)
            await c.expect(LEFT_OUT, ok=False)
        await c.text('{"action":"log","req_id":{"a":[1,null]},"payload":{"message":"\\ud800","timestamp":'
                     + "9" * 200 + "}}")
        await c.expect({"a": [1, None]}, "log")
        await c.text('{"action":"log","rsp_id":1,"result":"success","payload":{}}')
        await c.text('{"result":"error","reason":"no"}')
        await c.settle()
        big = await t.child()
        await big.text(json.dumps("b" * 200000))
        await asyncio.wait_for(big.reader, SECONDS_RIGHT)
        odd = await t.child()
        odd.ws.transport.write(b"\xff\xff\xff\xff\xff")
        await asyncio.wait_for(odd.reader, SECONDS_RIGHT)
        for raw in (b"POST /control/nothing HTTP/1.1\r\n\r\n", b"POST\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0\n\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
            writer.write(raw)
            await asyncio.wait_for(reader.read(), SECONDS_RIGHT)
            writer.close()
        await c.ask(log("still here"))
        if not (await hub.control("logs"))["logs"]:
            raise Wrong("nothing was recorded")
        await hub.control("shutdown")
        await asyncio.wait_for(c.reader, SECONDS_RIGHT)
        if await asyncio.wait_for(hub.process.wait(), SECONDS_RIGHT) != 0:
            raise Wrong("the hub ended with an error")
    for number in (signal.SIGTERM, signal.SIGINT):
        async with Hub([], SECONDS_RIGHT) as hub:
            hub.process.send_signal(number)
            if await asyncio.wait_for(hub.process.wait(), SECONDS_RIGHT) != 0:
                raise Wrong("the hub ended with an error")


# -- running


async def converse(hub, name):
    """Return what went wrong in a conversation, or an empty text."""
    talk = Talk(hub)
    try:
        await CASES[name](talk)
        return ""
    except Wrong as error:
        return str(error) or "wrong"
    except ConnectionClosed as error:
        return f"connection closed: {error}"
    finally:
        await talk.end()


async def with_bug(name):
    async with Hub(["--bug", name], SECONDS_BUG) as hub:
        wrong = await converse(hub, name)
    return (True, f"seen: {wrong}") if wrong else (False, "not seen")


async def all_right(arguments, names):
    faults = []
    async with Hub(arguments, SECONDS_RIGHT) as hub:
        for name in names:
            await hub.control("reset")
            wrong = await converse(hub, name)
            if wrong:
                faults.append(f"{name}: {wrong}")
    return not faults, "; ".join(faults) or f"{len(names)} conversations right"


async def check_robustness():
    try:
        await robustness()
        return True, "it stands"
    except Wrong as error:
        return False, str(error)


async def run_all(options, listing):
    bugs = [bug["name"] for bug in listing["bugs"]]
    variants = [variant["name"] for variant in listing["variants"]]
    if set(bugs) != set(CASES):
        print("bugs without conversation or the reverse:", set(bugs) ^ set(CASES))
        return 1
    names = options.names or ["plain"] + variants + bugs + ["robustness"]
    tests = []
    for name in names:
        if name in variants:
            tests.append(("variant", name, all_right(["--variant", name], bugs)))
        elif name in bugs:
            tests.append(("bug", name, with_bug(name)))
        elif name == "plain":
            continue
        elif name == "robustness":
            tests.append(("hub", name, check_robustness()))
        else:
            print("unknown name:", name)
            return 1
    plain = bugs if "plain" in names else [name for name in names if name in bugs]
    if plain:
        tests.insert(0, ("hub", "no bug, no variant", all_right([], plain)))
    room = asyncio.Semaphore(options.jobs)
    good = []

    async def perform(kind, name, test):
        async with room:
            try:
                right, text = await test
            except Exception as error:
                right, text = False, f"the test failed: {error!r}"
        good.append(right)
        print(f"{'ok  ' if right else 'FAIL'} {kind} {name}: {text[:300]}", flush=True)

    start = time.monotonic()
    await asyncio.gather(*(perform(*test) for test in tests))
    print(f"{sum(good)} of {len(good)} as they should be, {time.monotonic() - start:.0f} s")
    return 0 if all(good) else 1


async def main():
    parser = argparse.ArgumentParser(description="Self-test of hub.py.")
    parser.add_argument("--jobs", type=int, default=4, help="hubs at a time")
    parser.add_argument("names", nargs="*", metavar="NAME", help="bugs, variants, `robustness`, or `plain`: the hub as it is")
    options = parser.parse_args()
    # When it is told to end, it ends its hubs first.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    process = await asyncio.create_subprocess_exec(
        sys.executable, os.path.join(HERE, "hub.py"), "--list", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return await run_all(options, json.loads(output))


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except asyncio.CancelledError:
        sys.exit(1)
