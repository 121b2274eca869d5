#!/usr/bin/env python3
"""Self-test of hub.py: one conversation for each bug, all of them for each variant.

selftest.py [--jobs N] [--patience S] [NAME...]     NAME: a bug, a variant, or `correct`
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

HERE = os.path.dirname(os.path.abspath(__file__))
HUB = os.path.join(HERE, "hub.py")
SHORT = 0.5     # identify timeout of the hub that serves the timing conversations
LONG = 600      # identify timeout of the other hubs, and the limit of a conversation
PATIENCE = 10   # seconds to wait for what a hub must send (option --patience)


class Wrong(Exception):
    """The hub did something that the document does not allow."""


def check(condition, text):
    if not condition:
        raise Wrong(text)


# --------------------------------------------------------------------------------------
# Hub process and client
# --------------------------------------------------------------------------------------


class HubProcess:
    def __init__(self, *arguments):
        self.arguments = arguments
        self.base = 1
        self.patience = PATIENCE

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, HUB, "--open-timeout", str(LONG), *self.arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), LONG)
            self.url = line.decode().strip()
            check(re.fullmatch(r"ws://127\.0\.0\.1:\d+", self.url), "the hub did not print its address")
        except BaseException:
            self.process.kill()
            raise
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    async def __aexit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), 60)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        errors = (await self.process.stderr.read()).decode().strip()
        if errors:
            print("hub says: " + errors, file=sys.stderr)

    async def control(self, name, wish):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps(wish).encode()
        writer.write(f"POST /control/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        check(b" 200 " in head.split(b"\r\n")[0], "the control was not answered with 200")
        return json.loads(body)


class Client:
    def __init__(self, hub):
        self.hub = hub
        self.sent = 0
        self.inbox = []
        self.news = asyncio.Event()
        self.closed = False
        self.name = self.uuid = None

    async def open(self):
        compression = "deflate" if "deflate" in self.hub.arguments else None
        self.ws = await connect(self.hub.url, subprotocols=["ert-concierge"], compression=compression,
                                ping_interval=None, max_size=None, close_timeout=2, open_timeout=LONG, proxy=None)
        check(self.ws.subprotocol == "ert-concierge", "subprotocol not selected")
        self.reader = asyncio.create_task(self.read())
        return self

    async def read(self):
        try:
            async for text in self.ws:
                self.inbox.append(json.loads(text))
                self.news.set()
        except ConnectionClosed:
            pass
        self.closed = True
        self.news.set()

    async def send(self, payload):
        """Sends a payload, a text or a list of frames; returns its number."""
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        if not isinstance(payload, bytes):
            self.sent += 1
        await self.ws.send(payload)
        return self.sent

    async def wait(self, wanted, text, patience=None):
        """Takes the first payload that `wanted` accepts out of the inbox."""
        deadline = time.monotonic() + (patience or self.hub.patience)
        while True:
            for index, payload in enumerate(self.inbox):
                if wanted(payload):
                    return self.inbox.pop(index)
            if self.closed:
                raise Wrong(f"connection closed ({self.ws.close_code}), missing: {text}")
            self.news.clear()
            left = deadline - time.monotonic()
            if left <= 0:
                raise Wrong(f"missing: {text}")
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except TimeoutError:
                pass

    def seq(self, number):
        return number - 1 + self.hub.base

    async def answer(self, number):
        return await self.wait(lambda p: p.get("seq") == self.seq(number) and "seq" in p, f"answer with seq {self.seq(number)}")

    async def ask(self, payload, code=None):
        """Sends a payload and returns the answer with its seq."""
        answer = await self.answer(await self.send(payload))
        if code is not None:
            got = answer.get("code", answer["type"])
            check(got == code, f"{got} instead of {code}")
        return answer

    async def identify(self, name, **members):
        await self.send({"type": "IDENTIFY", "name": name, "version": "0.1.0", **members})
        hello = await self.wait(lambda p: p["type"] == "HELLO", "HELLO")
        self.name, self.uuid = name, hello["uuid"]
        return self

    async def close_code(self, patience=None):
        deadline = time.monotonic() + (patience or self.hub.patience)
        while not self.closed:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), max(0.001, deadline - time.monotonic()))
            except TimeoutError:
                raise Wrong("the connection was not closed") from None
        return self.ws.close_code

    async def close(self):
        await self.ws.close()
        await self.reader

    def abort(self):
        self.ws.transport.abort()

    # shorthands

    def create(self, name, **members):
        return self.ask({"type": "GROUP_CREATE", "name": name, **members}, "GROUP_CREATED")

    def delete(self, name):
        return self.ask({"type": "GROUP_DELETE", "name": name}, "GROUP_DELETED")

    def subscribe(self, name):
        return self.ask({"type": "SELF_SUBSCRIBE", "name": name}, "SUBSCRIBED")

    def unsubscribe(self, name):
        return self.ask({"type": "SELF_UNSUBSCRIBE", "name": name}, "UNSUBSCRIBED")

    def fetch(self, name):
        return self.ask({"type": "GROUP_FETCH", "name": name}, "GROUP_FETCH_RESULT")

    async def subscriptions(self):
        return (await self.ask({"type": "SELF_FETCH"}, "SELF_FETCH_RESULT"))["subscriptions"]

    async def groups(self):
        answer = await self.ask({"type": "GROUP_FETCH_ALL"}, "GROUP_FETCH_ALL_RESULT")
        return {group["name"]: group for group in answer["groups"]}

    async def clients(self):
        return (await self.ask({"type": "CLIENT_FETCH_ALL"}, "CLIENT_FETCH_ALL_RESULT"))["clients"]

    async def message(self, target, data, **members):
        return await self.ask({"type": "MESSAGE", "target": target, "data": data, **members}, "MESSAGE_SENT")

    async def message_with(self, data):
        return await self.wait(lambda p: p["type"] == "MESSAGE" and p.get("data") == data, f"MESSAGE with {data!r:.60}")

    async def any_message(self):
        return await self.wait(lambda p: p["type"] == "MESSAGE", "MESSAGE")

    async def quiet(self):
        """Everything sent to this client before now has arrived; no MESSAGE is among it."""
        await self.subscriptions()
        check(not any(p["type"] == "MESSAGE" for p in self.inbox), "a message that should not arrive")

    async def notice(self, code, name):
        return await self.wait(lambda p: p.get("code") == code and p.get("name") == name, f"{code} for {name:.40}")


def NAME(name, **members):
    return {"type": "NAME", "name": name, **members}


def UUID(uuid):
    return {"type": "UUID", "uuid": uuid}


def GROUP(name, **members):
    return {"type": "GROUP", "group": name, **members}


ALL = {"type": "ALL"}


class Talk:
    """What a conversation gets: a hub, fresh names, clients that are closed afterwards."""

    counter = itertools.count(1)

    def __init__(self, hub):
        self.hub = hub
        self.mark = f"{next(self.counter)}"
        self.opened = []

    def n(self, text):
        return f"{text}.{self.mark}"

    async def connection(self):
        client = Client(self.hub)
        self.opened.append(client)
        return await client.open()

    async def client(self, name, plain=False, **members):
        client = await self.connection()
        return await client.identify(name if plain else self.n(name), **members)

    async def several(self, *names):
        return [await self.client(name) for name in names]

    async def refused(self, code, payload, what):
        client = await self.connection()
        await client.send(payload)
        got = await client.close_code()
        check(got == code, f"{what}: closed with {got} instead of {code}")

    async def gone(self, observer, client):
        """Waits until the hub no longer lists a client that has left."""
        deadline = time.monotonic() + 10
        while any(item["uuid"] == client.uuid for item in await observer.clients()):
            check(time.monotonic() < deadline, "a client that left is still listed")
            await asyncio.sleep(0.01)

    def end(self):
        for client in self.opened:
            if hasattr(client, "ws"):
                client.abort()


TALKS = {}
TIMED = set()


def talk(name, timed=False):
    def keep(function):
        TALKS[name] = function
        if timed:
            TIMED.add(name)
        return function
    return keep


# --------------------------------------------------------------------------------------
# 1. History
# --------------------------------------------------------------------------------------


@talk("seq-skips-malformed")
async def _(t):
    a = await t.client("a")
    await a.ask('{"type": "SELF_FETCH"', "PROTOCOL")
    await a.ask({"type": "SELF_FETCH"}, "SELF_FETCH_RESULT")


@talk("name-kept-after-refusal")
async def _(t):
    await t.refused(4007, {"type": "IDENTIFY", "name": t.n("a"), "version": "3.0.0"}, "version 3.0.0")
    await t.client("a")


@talk("name-kept-second-time")
async def _(t):
    observer = await t.client("o")
    for _ in range(2):
        a = await t.client("a")
        await a.close()
        await t.gone(observer, a)
    await t.client("a")


@talk("owner-stale")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    await a.delete(group)
    await b.create(group)
    await b.delete(group)


@talk("nickname-stale")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group, nickname="first")
    await a.delete(group)
    await b.create(group, nickname="second")
    check((await a.fetch(group))["nickname"] == "second", "nickname of an earlier group")


@talk("resubscribe-deaf")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    await b.subscribe(group)
    await b.unsubscribe(group)
    await b.subscribe(group)
    await a.message(GROUP(group), "again")
    await b.message_with("again")


@talk("subscriptions-return")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    await b.subscribe(group)
    await b.close()
    await t.gone(a, b)
    b = await t.client("b")
    check(await b.subscriptions() == [], "subscriptions of an earlier client")
    await a.message(GROUP(group), 1)
    await b.quiet()


@talk("delete-error-keeps-groups")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    await a.ask({"type": "GROUP_DELETE", "name": t.n("missing")}, "NO_SUCH_GROUP")
    await a.close()
    await t.gone(b, a)
    check(group not in await b.groups(), "the group outlives its owner")


@talk("client-list-stale")
async def _(t):
    a, b = await t.several("a", "b")
    check(any(item["uuid"] == b.uuid for item in await a.clients()), "a client is not listed")
    await b.close()
    deadline = time.monotonic() + a.hub.patience
    while any(item["uuid"] == b.uuid for item in await a.clients()):
        check(time.monotonic() < deadline, "a client that left is still listed")
        await asyncio.sleep(0.02)


@talk("fetch-cache-by-seq")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    check((await a.fetch(group))["subscribers"] == [], "an empty group has subscribers")
    await b.subscribe(group)
    check(len((await b.fetch(group))["subscribers"]) == 1, "an answer that another connection got earlier")


# --------------------------------------------------------------------------------------
# 2. Several
# --------------------------------------------------------------------------------------


@talk("sixth-subscriber-silent")
async def _(t):
    a = await t.client("a")
    group = t.n("g")
    await a.create(group)
    members = await t.several("m1", "m2", "m3", "m4", "m5", "m6")
    for member in members:
        await member.subscribe(group)
    await a.message(GROUP(group), "six")
    for member in members:
        await member.message_with("six")


@talk("fifth-subscription-evicts")
async def _(t):
    a, b = await t.several("a", "b")
    groups = [t.n(f"g{i}") for i in range(5)]
    for group in groups:
        await a.create(group)
        await b.subscribe(group)
    check(sorted(await b.subscriptions()) == groups, "a subscription is missing")
    await a.message(GROUP(groups[0]), 0)
    await b.message_with(0)


@talk("unsubscribe-drops-last")
async def _(t):
    a, b = await t.several("a", "b")
    groups = [t.n(f"g{i}") for i in range(3)]
    for group in groups:
        await a.create(group)
        await b.subscribe(group)
    await b.unsubscribe(groups[0])
    check(sorted(await b.subscriptions()) == groups[1:], "the wrong subscriptions are left")


@talk("leave-takes-next")
async def _(t):
    a, b, c, d = await t.several("a", "b", "c", "d")
    group = t.n("g")
    await a.create(group)
    for member in (b, c, d):
        await member.subscribe(group)
    await b.close()
    await t.gone(a, b)
    await a.message(GROUP(group), "still")
    await c.message_with("still")
    await d.message_with("still")


@talk("third-group-survives")
async def _(t):
    a, b = await t.several("a", "b")
    groups = [t.n(f"g{i}") for i in range(3)]
    for group in groups:
        await a.create(group)
        await b.subscribe(group)
    await a.close()
    await t.gone(b, a)
    listed = await b.groups()
    check(not any(group in listed for group in groups), "a group outlives its owner")


@talk("burst-of-six")
async def _(t):
    a, b = await t.several("a", "b")
    numbers = [await a.send({"type": "MESSAGE", "target": NAME(b.name), "data": i}) for i in range(6)]
    for number in numbers:
        check((await a.answer(number)).get("code") == "MESSAGE_SENT", "a message was refused")
    for i in range(6):
        await b.message_with(i)


@talk("last-subscriber-unnotified")
async def _(t):
    a, b, c, d = await t.several("a", "b", "c", "d")
    group = t.n("g")
    await a.create(group)
    for member in (b, c, d):
        await member.subscribe(group)
    await a.delete(group)
    for member in (b, c, d):
        check("seq" not in await member.notice("UNSUBSCRIBED", group), "UNSUBSCRIBED has a seq")


@talk("seq-of-latest")
async def _(t):
    a = await t.client("a")
    groups = [t.n(f"g{i}") for i in range(3)]
    for group in groups:
        await a.create(group)
    numbers = [await a.send({"type": "GROUP_FETCH", "name": group}) for group in groups]
    for number, group in zip(numbers, groups):
        check((await a.answer(number)).get("name") == group, "seq of another request")


@talk("same-tags-listed-once")
async def _(t):
    a = await t.client("a", tags=["x", t.mark])
    b = await t.client("b", tags=["x", t.mark])
    listed = {item["uuid"] for item in await a.clients()}
    check(a.uuid in listed and b.uuid in listed, "a client is not listed")


@talk("owner-skipped")
async def _(t):
    a, b, c = await t.several("a", "b", "c")
    group = t.n("g")
    await a.create(group)
    await a.subscribe(group)
    await b.subscribe(group)
    await c.message(GROUP(group), "all")
    await b.message_with("all")
    await a.message_with("all")


# --------------------------------------------------------------------------------------
# 3. Identity
# --------------------------------------------------------------------------------------


@talk("name-case-conflict")
async def _(t):
    await t.client("Robot")
    await t.client("robot")


async def distinct(t, one, other):
    """Messages to either of two similar names reach the right client."""
    sender, first, second = await t.several("s", one, other)
    await sender.message(NAME(first.name), 1)
    await sender.message(NAME(second.name), 2)
    check((await first.any_message())["data"] == 1, "a message for somebody else")
    check((await second.any_message())["data"] == 2, "a message for somebody else")
    await first.quiet()
    await second.quiet()


@talk("name-nfc")
async def _(t):
    await distinct(t, "re\u0301sume\u0301", "r\u00e9sum\u00e9")


@talk("name-first-32")
async def _(t):
    await distinct(t, "n" * 32 + "1", "n" * 32 + "2")


@talk("group-first-32")
async def _(t):
    a, b = await t.several("a", "b")
    one, other = (t.mark + "-").ljust(32, "g") + "1", (t.mark + "-").ljust(32, "g") + "2"
    await a.create(one)
    await b.create(other)
    await b.delete(other)
    check(one in await b.groups(), "the wrong group was deleted")


@talk("group-case-delete")
async def _(t):
    a = await t.client("a")
    await a.create(t.n("Data"))
    await a.create(t.n("data"))
    check((await a.delete(t.n("data")))["name"] == t.n("data"), "another group was deleted")
    listed = await a.groups()
    check(t.n("Data") in listed and t.n("data") not in listed, "the wrong group is left")


@talk("origin-of-owner")
async def _(t):
    a, b, c = await t.several("a", "b", "c")
    group = t.n("g")
    await a.create(group)
    await b.subscribe(group)
    await c.message(GROUP(group), 1)
    origin = (await b.message_with(1))["origin"]
    check(origin["uuid"] == c.uuid and origin["name"] == c.name, "origin is not the sender")


@talk("origin-tags-of-last")
async def _(t):
    a = await t.client("a", tags=["left"])
    b = await t.client("b", tags=["right"])
    c = await t.client("c")
    for i, sender in enumerate([a, b, a]):
        await sender.message(NAME(c.name), i)
        got = await c.message_with(i)
        check(got["origin"]["tags"] == (["right"] if sender is b else ["left"]), "tags of another sender")


@talk("origin-tags-accepted")
async def _(t):
    a, b = await t.several("a", "b")
    claimed = {"name": "mallory", "uuid": b.uuid, "tags": ["admin"]}
    await a.message(NAME(b.name), 1, origin=claimed)
    origin = (await b.message_with(1))["origin"]
    check(origin["name"] == a.name and origin["uuid"] == a.uuid, "a claimed origin was relayed")
    check(origin.get("tags", []) == [], "claimed tags were relayed")


@talk("uuid-first-32")
async def _(t):
    a, b = await t.several("a", "b")
    ending = b.uuid[-4:]
    other = b.uuid[:-4] + ("0000" if ending != "0000" else "1111")
    if len(other) == 32:
        other = b.uuid[:-1] + ("0" if b.uuid[-1] != "0" else "1")
    answer = await a.ask({"type": "MESSAGE", "target": UUID(other), "data": 1}, "NO_SUCH_UUID")
    check(answer["uuid"] == other, "another uuid in the status")
    await b.quiet()


@talk("owner-by-nickname")
async def _(t):
    a, b = await t.several("a", "b")
    await a.create(t.n("g1"), nickname=t.n("same"))
    await b.create(t.n("g2"), nickname=t.n("same"))
    listed = await a.groups()
    check(listed[t.n("g1")]["owner_uuid"] == a.uuid, "wrong owner")
    check(listed[t.n("g2")]["owner_uuid"] == b.uuid, "wrong owner")


# --------------------------------------------------------------------------------------
# 4. Neighbours
# --------------------------------------------------------------------------------------


@talk("sole-subscriber-leaves")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    await b.subscribe(group)
    await b.close()
    await t.gone(a, b)
    await a.message(GROUP(group), 1)


@talk("refused-twin-unlists")
async def _(t):
    a, b = await t.several("a", "b")
    await t.refused(4005, {"type": "IDENTIFY", "name": b.name, "version": "0.1.0"}, "a name in use")
    await a.message(NAME(b.name), 1)
    await b.message_with(1)


@talk("pending-holds-notice")
async def _(t):
    a, b = await t.several("a", "b")
    await t.connection()
    group = t.n("g")
    await a.create(group)
    notice = await b.notice("GROUP_CREATED", group)
    check("seq" not in notice and notice["owner_uuid"] == a.uuid, "a wrong notice")


@talk("broadcast-stops-at-dead")
async def _(t):
    a, b, c = await t.several("a", "b", "c")
    group = t.n("g")
    await a.create(group)
    await b.subscribe(group)
    await c.subscribe(group)
    b.abort()
    await t.gone(a, b)
    await a.message(GROUP(group), 1)
    await c.message_with(1)


@talk("abrupt-leave-keeps-name")
async def _(t):
    a, b = await t.several("a", "b")
    b.abort()
    await t.gone(a, b)
    b = await t.client("b")
    await a.message(NAME(b.name), 1)
    await b.message_with(1)


@talk("tag-mates-unsubscribe")
async def _(t):
    a = await t.client("a")
    b = await t.client("b", tags=["worker"])
    c = await t.client("c", tags=["worker"])
    group = t.n("g")
    await a.create(group)
    await b.subscribe(group)
    await c.subscribe(group)
    await b.unsubscribe(group)
    await a.message(GROUP(group), 1)
    await c.message_with(1)
    await b.quiet()


@talk("foreign-delete-locks")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    answer = await b.ask({"type": "GROUP_DELETE", "name": group})
    check(answer.get("code") != "GROUP_DELETED", "somebody else deleted the group")
    check(group in await b.groups(), "somebody else deleted the group")
    await a.delete(group)


@talk("malformed-next-door")
async def _(t):
    a, b = await t.several("a", "b")
    await a.ask("nonsense", "PROTOCOL")
    await b.ask({"type": "SELF_FETCH"}, "SELF_FETCH_RESULT")


@talk("quiet-clients-skipped")
async def _(t):
    a, b = await t.several("a", "b")
    await a.message(ALL, t.n("news"))
    await b.message_with(t.n("news"))


@talk("owner-unsubscribe-mutes")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    await a.subscribe(group)
    await b.subscribe(group)
    await a.unsubscribe(group)
    await a.message(GROUP(group), 1)
    await b.message_with(1)
    await a.quiet()


@talk("refused-create-renames")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group, nickname="mine")
    answer = await b.ask({"type": "GROUP_CREATE", "name": group, "nickname": "yours"}, "GROUP_ALREADY_CREATED")
    check(answer["nickname"] == "mine" and answer["owner_uuid"] == a.uuid, "the status describes another group")
    check((await a.fetch(group))["nickname"] == "mine", "the nickname was changed")


# --------------------------------------------------------------------------------------
# 5. Values
# --------------------------------------------------------------------------------------


def same(one, other):
    """Equal as JSON values, with true and 1 apart, and integers apart from near ones."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


async def verbatim(t, *values, through="NAME"):
    a, b = await t.several("a", "b")
    target = {"NAME": NAME(b.name), "UUID": UUID(b.uuid), "GROUP": GROUP(t.n("g"))}[through]
    if through == "GROUP":
        await a.create(t.n("g"))
        await b.subscribe(t.n("g"))
    for value in values:
        await a.message(target, value)
        got = await b.any_message()
        check("data" in got, "data is missing")
        check(same(got["data"], value), f"data {value!r:.40} became {got['data']!r:.40}")


@talk("data-null-dropped")
async def _(t):
    await verbatim(t, None, 0, through="UUID")


@talk("data-falsy-in-group")
async def _(t):
    await verbatim(t, 0, False, "", [], {}, None, through="GROUP")


@talk("data-html")
async def _(t):
    await verbatim(t, {"plain": "<&>", "list": ["<b>&amp;</b>"]})


@talk("data-nul-cut")
async def _(t):
    await verbatim(t, {"text": "before\0after"}, "\0")


@talk("data-big-int")
async def _(t):
    await verbatim(t, [9007199254740993, -12345678901234567890])


@talk("data-65536")
async def _(t):
    await verbatim(t, "x" * 65535, "y" * 65536)


@talk("data-proto-keys")
async def _(t):
    await verbatim(t, {"inner": {"__proto__": 1, "constructor": {"a": None}, "toString": 2}})


@talk("name-numeric")
async def _(t):
    name = f"00{t.mark}"
    a = await t.client(name, plain=True)
    listed = [item for item in await a.clients() if item["uuid"] == a.uuid]
    check(listed and listed[0]["name"] == name, "the name is changed")


@talk("group-name-255")
async def _(t):
    a = await t.client("a")
    name = t.n("g").ljust(256, "g")
    await a.create(name)
    await a.subscribe(name)
    check(await a.subscriptions() == [name], "the name is changed")


@talk("empty-tag-dropped")
async def _(t):
    a = await t.client("a", tags=["", "x", ""])
    answer = await a.ask({"type": "SELF_FETCH"}, "SELF_FETCH_RESULT")
    check(answer["tags"] == ["", "x", ""], "the tags are changed")


@talk("nickname-empty")
async def _(t):
    a = await t.client("a")
    await a.create(t.n("g"), nickname="")
    check((await a.fetch(t.n("g"))).get("nickname") == "", "the nickname is changed")


# --------------------------------------------------------------------------------------
# 6. Equivalents
# --------------------------------------------------------------------------------------


@talk("target-type-first")
async def _(t):
    a, b = await t.several("a", "b")
    await a.message({"name": b.name, "type": "NAME"}, 1)
    await b.message_with(1)


@talk("trailing-newline")
async def _(t):
    a = await t.client("a")
    await a.ask(' \r\n{"type": "SELF_FETCH"}\r\n', "SELF_FETCH_RESULT")


@talk("escaped-type")
async def _(t):
    a = await t.client("a")
    await a.ask('{"type": "SELF\\u005fFETCH"}', "SELF_FETCH_RESULT")
    await a.ask('{"t\\u0079pe": "SELF_FETCH"}', "SELF_FETCH_RESULT")


@talk("fragments-counted")
async def _(t):
    a = await t.client("a")
    await a.ask(['{"type": ', '"SELF_FETCH"}'], "SELF_FETCH_RESULT")
    await a.ask({"type": "SELF_FETCH"}, "SELF_FETCH_RESULT")


@talk("fragments-three")
async def _(t):
    a = await t.client("a")
    await a.ask(['{"type": ', '"SELF_FE', 'TCH"', "}"], "SELF_FETCH_RESULT")


@talk("version-build-metadata")
async def _(t):
    await t.client("a", version="0.1.0+linux.7")


@talk("self-by-uuid")
async def _(t):
    a = await t.client("a")
    await a.message(NAME(a.name), 1)
    await a.message_with(1)
    await a.message(UUID(a.uuid), 2)
    await a.message_with(2)


@talk("tabs-refused")
async def _(t):
    a = await t.client("a")
    await a.ask('{\t"type"\t:\t"SELF_FETCH"\t}', "SELF_FETCH_RESULT")


@talk("surrogate-escapes-apart")
async def _(t):
    a = await t.client("a")
    name = t.n("\U0001f600")
    await a.ask(json.dumps({"type": "GROUP_CREATE", "name": name}, ensure_ascii=False), "GROUP_CREATED")
    answer = await a.ask(json.dumps({"type": "SELF_SUBSCRIBE", "name": name}), "SUBSCRIBED")
    check(answer["name"] == name, "the name is changed")


@talk("data-first")
async def _(t):
    a, b = await t.several("a", "b")
    await a.ask({"data": {"target": "t", "type": "HELLO"}, "target": NAME(b.name), "type": "MESSAGE"}, "MESSAGE_SENT")
    check((await b.any_message()).get("data") == {"target": "t", "type": "HELLO"}, "data is changed")


@talk("target-extra-refused")
async def _(t):
    a = await t.client("a")
    await a.create(t.n("g"))
    await a.subscribe(t.n("g"))
    await a.message(NAME(a.name, tags=["babylon"]), 1)
    await a.message(GROUP(t.n("g"), tags=["babylon"]), 2)
    await a.message_with(2)


# --------------------------------------------------------------------------------------
# 7. One of many
# --------------------------------------------------------------------------------------


@talk("status-from-client-ignored")
async def _(t):
    a = await t.client("a")
    await a.ask({"type": "HELLO", "uuid": a.uuid, "version": "0.1.0"}, "UNSUPORTED")
    await a.ask({"type": "STATUS", "code": "OK"}, "UNSUPORTED")


@talk("unsubscribe-error-no-seq")
async def _(t):
    a = await t.client("a")
    for kind in ("SELF_SUBSCRIBE", "SELF_UNSUBSCRIBE", "GROUP_DELETE"):
        await a.ask({"type": kind, "name": t.n("missing")}, "NO_SUCH_GROUP")


@talk("delete-error-member")
async def _(t):
    a = await t.client("a")
    for kind in ("SELF_SUBSCRIBE", "SELF_UNSUBSCRIBE", "GROUP_DELETE"):
        answer = await a.ask({"type": kind, "name": t.n("missing")}, "NO_SUCH_GROUP")
        check(answer.get("group") == t.n("missing"), f"{kind}: the status does not name the group")


@talk("fetch-before-identify")
async def _(t):
    await t.refused(4003, {"type": "GROUP_FETCH_ALL"}, "GROUP_FETCH_ALL before IDENTIFY")


@talk("ping-extends", timed=True)
async def _(t):
    a = await t.connection()
    await a.ws.ping()
    code = await a.close_code(patience=SHORT + 2 * t.hub.patience)
    check(code == 4004, f"closed with {code} instead of 4004")


@talk("uuid-origin-trusted")
async def _(t):
    a, b = await t.several("a", "b")
    await a.message(UUID(b.uuid), 1, origin={"name": "mallory", "uuid": b.uuid})
    origin = (await b.message_with(1))["origin"]
    check(origin["name"] == a.name and origin["uuid"] == a.uuid, "a claimed origin was relayed")


@talk("deleted-notice-with-seq")
async def _(t):
    a, b = await t.several("a", "b")
    await a.create(t.n("g"))
    await a.delete(t.n("g"))
    check("seq" not in await b.notice("GROUP_DELETED", t.n("g")), "a notice with seq")


@talk("seq-text-from-ten")
async def _(t):
    a = await t.client("a")
    numbers = [await a.send({"type": "CLIENT_FETCH_ALL"}) for _ in range(10)]
    for number in numbers:
        await a.answer(number)


@talk("empty-text-ignored")
async def _(t):
    await t.refused(4002, "", "an empty text before IDENTIFY")


@talk("seq-counts-binary")
async def _(t):
    a = await t.client("a")
    await a.send(b"\x00\x01")
    number = await a.send({"type": "SELF_FETCH"})
    try:
        await a.answer(number)
    except (Wrong, ConnectionClosed):
        if a.ws.close_code != 1003:     # RFC 6455: a type of data that it cannot accept
            raise


@talk("kick-keeps-groups")
async def _(t):
    a, b = await t.several("a", "b")
    group = t.n("g")
    await a.create(group)
    check((await t.hub.control("kick", {"name": a.name}))["ok"], "the control refused")
    await t.gone(b, a)
    check(group not in await b.groups(), "the group outlives its owner")


# --------------------------------------------------------------------------------------
# Running
# --------------------------------------------------------------------------------------


async def learn_base(hub):
    """Learns whether the hub counts the first text payload as 0 or as 1."""
    t = Talk(hub)
    try:
        client = await t.client("base")
        await client.send({"type": "SELF_FETCH"})
        answer = await client.wait(lambda p: p["type"] == "SELF_FETCH_RESULT", "SELF_FETCH_RESULT")
        hub.base = answer["seq"] - 1
        check(hub.base in (0, 1), "seq of the second payload is neither 1 nor 2")
    finally:
        t.end()


async def converse(hub, name):
    """Returns None if the hub was right, else what was wrong."""
    t = Talk(hub)
    try:
        async with asyncio.timeout(LONG):
            await TALKS[name](t)
        return None
    except Wrong as wrong:
        return str(wrong)
    except ConnectionClosed as closed:
        return f"connection closed: {closed}"
    except TimeoutError:
        return "the conversation took too long"
    finally:
        t.end()


async def try_bug(name, lists):
    limit = SHORT if name in TIMED else LONG
    async with HubProcess("--bug", name, "--identify-timeout", str(limit)) as hub:
        await learn_base(hub)
        hub.patience = 1.0
        found = await converse(hub, name)
        alive = hub.process.returncode is None
    if found is None:
        return False, "not seen"
    return alive, found if alive else "the hub ended: " + found


async def try_variant(name, lists):
    options = [] if name == "plain" else ["--variant", name]
    problems = []
    async with HubProcess(*options, "--identify-timeout", str(LONG)) as hub:
        await learn_base(hub)
        for talk_name in TALKS:
            if talk_name in TIMED:
                continue
            found = await converse(hub, talk_name)
            if found is not None:
                problems.append(f"{talk_name}: {found}")
    async with HubProcess(*options, "--identify-timeout", str(SHORT)) as hub:
        for talk_name in TIMED:
            found = await converse(hub, talk_name)
            if found is not None:
                problems.append(f"{talk_name}: {found}")
    return not problems, "; ".join(problems) or f"{len(TALKS)} conversations right"


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="more on a busy machine")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    globals()["PATIENCE"] = options.patience
    process = await asyncio.create_subprocess_exec(sys.executable, HUB, "--list", stdout=asyncio.subprocess.PIPE)
    lists = json.loads((await process.communicate())[0])
    bugs = [item["name"] for item in lists["bugs"]]
    variants = ["plain"] + [item["name"] for item in lists["variants"]]
    failed = 0
    for name in bugs:
        if name not in TALKS:
            print(f"FAIL bug {name}: no conversation")
            failed += 1
    for name in set(TALKS) - set(bugs):
        print(f"FAIL conversation {name}: no such bug")
        failed += 1
    jobs = [(try_variant, "variant", name) for name in variants] + [(try_bug, "bug", name) for name in bugs if name in TALKS]
    if options.names:
        unknown = set(options.names) - {name for _, _, name in jobs}
        if unknown:
            parser.error("unknown: " + ", ".join(sorted(unknown)))
        jobs = [job for job in jobs if job[2] in options.names]
    started = time.monotonic()
    gate = asyncio.Semaphore(options.jobs)

    async def run(function, kind, name):
        nonlocal failed
        async with gate:
            try:
                good, text = await function(name, lists)
            except Exception as error:
                good, text = False, f"{type(error).__name__}: {error}"
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {kind} {name}: {text}", flush=True)

    await asyncio.gather(*(run(*job) for job in jobs))
    print(f"{len(jobs)} checked, {failed} failed, {time.monotonic() - started:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
