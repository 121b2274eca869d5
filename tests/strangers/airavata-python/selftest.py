#!/usr/bin/env python3
"""Checks of the hub: one conversation for each bug, all conversations for each variant.

    selftest.py                 everything
    selftest.py NAME...         only these bugs and variants ("plain": the hub without options)
    selftest.py --across NAME   a bug's hub against all conversations (information only)
"""

import asyncio
import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import os
import re
import sys
import time
import urllib.parse

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import Frame, Opcode

HERE = os.path.dirname(os.path.abspath(__file__))
HUB = os.path.join(HERE, "hub.py")
SECRET = "airavata-secret"
PATIENCE = 8.0     # for what must come
SHORT = 4.0        # for an answer whose absence is the bug (only waited for in full when it is absent)


class Wrong(Exception):
    """The hub does not do what the document says."""


def check(condition, text):
    if not condition:
        raise Wrong(text)


def token(user, seconds=3600, header=None, secret=SECRET, **claims):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    claims = {"sub": user, "exp": int(time.time()) + seconds, **claims}
    signed = part(header or {"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    mac = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def resource(message):
    """(kind, id) of the resource that an event is about."""
    data = message.get("data", {})
    for kind in ("experiment", "task", "worker"):
        if message["type"].startswith(kind + "_"):
            if message["type"].endswith("_progress"):
                return kind, data.get(kind + "Id")
            return kind, data.get(kind, {}).get("id")
    return "system", None


# ---------------------------------------------------------------------------
# The client

class Client:
    pings = 0

    def __init__(self, ws):
        self.ws = ws
        self.messages = []
        self.faults = []
        self.ids = set()
        self.closed = False
        self.news = asyncio.Event()
        self.answer_pings = True
        self.reader = asyncio.get_running_loop().create_task(self.read())

    async def read(self):
        try:
            async for text in self.ws:
                message = self.judge(text)
                if message is not None:
                    self.messages.append(message)
                    if message["type"] == "ping" and self.answer_pings:
                        await self.send({"type": "pong", "id": "pong-" + message["id"], "timestamp": now()})
                self.news.set()
        except ConnectionClosed:
            pass
        finally:
            self.closed = True
            self.news.set()

    def judge(self, text):
        """Checks what lines 119-141 say about every message."""
        if not isinstance(text, str):
            self.faults.append("a message is not text")
            return None
        message = json.loads(text)
        for name in ("type", "id", "timestamp"):
            if not isinstance(message.get(name), str):
                self.faults.append(f"{name} is missing in {text[:200]}")
                return None
        try:
            datetime.datetime.fromisoformat(message["timestamp"])
        except ValueError:
            self.faults.append(f"timestamp {message['timestamp']}")
        if message["id"] in self.ids:
            self.faults.append(f"id {message['id'][:100]} is not unique")
        self.ids.add(message["id"])
        if not isinstance(message.get("data", {}), dict) or not isinstance(message.get("error", ""), str):
            self.faults.append(f"data or error: {text[:200]}")
        return message

    async def wait(self, test, patience=PATIENCE, what="message"):
        """The first message from now on or before that passes the test."""
        deadline = time.monotonic() + patience
        seen = 0
        while True:
            self.news.clear()
            if self.faults:
                raise Wrong(self.faults[0])
            for message in self.messages[seen:]:
                if test(message):
                    return message
            seen = len(self.messages)
            if self.closed:
                raise Wrong(f"closed while waiting for {what}")
            try:
                await asyncio.wait_for(self.news.wait(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise Wrong(f"no {what}") from None

    async def send(self, message):
        with contextlib.suppress(ConnectionClosed):
            await self.ws.send(message if isinstance(message, (str, list, bytes)) else json.dumps(message))

    def frames(self, *frames):
        """Writes frames (opcode, data, fin) as they are."""
        self.ws.transport.write(b"".join(
            Frame(op, data, fin).serialize(mask=True, extensions=[]) for op, data, fin in frames))

    async def answer(self, message, test, what, patience=SHORT):
        """Sends a message; the first message after that which passes the test."""
        start = len(self.messages)
        if callable(message):
            message()
        else:
            await self.send(message)
        old = {id(m) for m in self.messages[:start]}
        return await self.wait(lambda m: id(m) not in old and test(m), patience, what)

    async def subscribe(self, kind, name, message=None, **more):
        """Subscribes, and checks the response."""
        if message is None:
            message = {"type": "system_status",
                       "data": {"action": "subscribe", "resourceType": kind, "resourceId": name}, **more}
        answer = await self.answer(
            message, lambda m: m["type"] == "error" or m.get("data", {}).get("action") == "subscribed", "response")
        check(answer["type"] == "system_status", f"error {answer.get('error')}")
        data = answer["data"]
        check(isinstance(data.get("resourceId"), str) and data["resourceId"] == name
              and data.get("resourceType") == kind and data.get("status") == "success",
              f"response {str(data)[:200]}")
        return answer

    async def unsubscribe(self, kind, name):
        """Unsubscribes; the pong that follows shows that the hub has read it."""
        await self.send({"type": "system_status",
                         "data": {"action": "unsubscribe", "resourceType": kind, "resourceId": name}})
        await self.ping()

    async def ping(self, ident=None, patience=SHORT):
        Client.pings += 1
        return await self.answer({"type": "ping", "id": ident or f"ping-{Client.pings}", "timestamp": now()},
                                 lambda m: m["type"] == "pong", "pong", patience)

    async def error(self, message, text):
        answer = await self.answer(message, lambda m: m["type"] == "error", f"error {text}")
        check(answer.get("error") == text, f"error {answer.get('error')}")

    def events(self, kind=None, name=None, event=None):
        """The events received: about this resource, of this type."""
        return [m for m in self.messages if resource(m)[0] != "system"
                and (kind is None or resource(m) == (kind, name)) and event in (None, m["type"])]

    def abort(self):
        self.ws.transport.abort()

    async def close(self):
        await self.ws.close()


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---------------------------------------------------------------------------
# The hub's process, and a place for one conversation

class HubProcess:
    def __init__(self, *arguments):
        self.arguments = arguments

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, HUB, *self.arguments, stdout=asyncio.subprocess.PIPE)
        line = (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().strip()
        self.url = line
        self.port = int(line.rpartition(":")[2])
        return self

    async def __aexit__(self, *exc):
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 10)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()


class Place:
    """One conversation: its own address, users and resource names."""
    count = 0

    def __init__(self, hub):
        Place.count += 1
        self.number = Place.count
        self.hub = hub
        self.address = f"127.1.{self.number // 250}.{self.number % 250 + 1}"
        self.clients = []
        self.names = 0
        self.marks = 0

    def name(self, prefix="x"):
        self.names += 1
        return f"{prefix}{self.number}n{self.names}"

    async def control(self, name, body):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.hub.port)
        data = json.dumps(body).encode()
        writer.write(f"POST /control/{name} HTTP/1.1\r\nHost: hub\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"control {name}: {answer[:300]}")
        return json.loads(body)

    async def connect(self, user=None, path="/ws/experiments/none", query=None, header=None, address=None, tok=None):
        """A connection as the hub leaves it; None when the handshake is refused."""
        if query is None and header is None:
            query = "token=" + (tok or token(user))
        url = self.hub.url + path + ("?" + query if query else "")
        try:
            ws = await connect(url, additional_headers={"Authorization": header} if header else None,
                               local_addr=(address or self.address, 0), open_timeout=SHORT, close_timeout=3,
                               ping_interval=None, proxy=None, max_size=None)
        except InvalidHandshake:
            return None
        except (TimeoutError, asyncio.TimeoutError):
            raise Wrong("no answer to the handshake") from None
        client = Client(ws)
        self.clients.append(client)
        return client

    async def client(self, user=None, path="/ws/experiments/none", **more):
        """A connection that must be established, with one subscription that keeps it a subscriber."""
        client = await self.connect(user or self.name("user"), path, **more)
        check(client is not None, "handshake refused")
        await client.subscribe("experiment", self.name("keep"))
        return client

    async def refused(self, user=None, path="/ws/experiments/none", error=None, **more):
        """Whether a connection is refused; with the error text, if one is given."""
        client = await self.connect(user, path, **more)
        if client is None:
            return True
        name = self.name("probe")
        await client.send({"type": "system_status",
                           "data": {"action": "subscribe", "resourceType": "experiment", "resourceId": name}})
        try:
            await client.wait(lambda m: m.get("data", {}).get("action") == "subscribed", PATIENCE, "response")
            return False
        except Wrong:
            check(client.closed, "neither refused nor served")
        check(error is None or any(m.get("error") == error for m in client.messages), f"no error {error}")
        return True

    async def sync(self, *clients, patience=SHORT):
        """Waits until all events so far have arrived: events come in order, and a system event to all."""
        self.marks += 1
        mark = self.number * 1000 + self.marks
        await self.control("system_status", {"totalMessages": mark})
        for client in clients:
            await client.wait(lambda m: m["type"] == "system_status" and m.get("data", {}).get("totalMessages") == mark,
                              patience, "system event")
            if client.faults:
                raise Wrong(client.faults[0])

    async def experiment(self, name, /, event="updated", project=None, owner=None, **more):
        body = {"id": name, "name": "Parameter Sweep", "status": "RUNNING",
                "ownerId": owner or "owner-" + name, "projectId": project or "project-" + name, **more}
        await self.control("experiment_" + event, body)
        return body

    async def task(self, name, /, experiment=None, event="updated", **more):
        body = {"id": name, "experimentId": experiment or "of-" + name, "status": "RUNNING",
                "command": "python script.py", "workerId": "worker-789", **more}
        await self.control("task_" + event, body)
        return body

    async def progress(self, name, /, event="experiment", **more):
        body = {event + "Id": name, "totalTasks": 100, "completedTasks": 45, "failedTasks": 5, "runningTasks": 10,
                "progressPercent": 45.0, **more}
        await self.control(event + "_progress", body)
        return body

    async def worker(self, name, /, event="updated", **more):
        await self.control("worker_" + event, {"id": name, "computeResourceId": "compute-123", "experimentId": "exp-123",
                                               "status": "RUNNING", "currentTaskId": None, **more})

    async def end(self):
        for client in self.clients:
            client.abort()
            client.reader.cancel()
        await asyncio.gather(*(c.reader for c in self.clients), return_exceptions=True)


TESTS = {}


def conversation(function):
    TESTS[function.__name__.replace("_", "-")] = function
    return function


async def expect(place, client, kind, name, event=None, count=1):
    """After a sync: the client has got exactly this number of events."""
    await place.sync(client)
    got = client.events(kind, name, event)
    check(len(got) == count, f"{len(got)} events instead of {count}")
    return got


# ---------------------------------------------------------------------------
# history

@conversation
async def resubscribe_mute(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    await c.unsubscribe("experiment", x)
    await c.subscribe("experiment", x)
    await p.experiment(x)
    await expect(p, c, "experiment", x)


@conversation
async def error_drops_subscriptions(p):
    c, x, other = await p.client(), p.name(), p.name()
    await c.subscribe("task", x)
    await c.error("{broken", "Invalid message format")
    await c.subscribe("task", other)
    await p.task(x)
    await expect(p, c, "task", x)


@conversation
async def second_unknown_silent(p):
    c = await p.client()
    await c.error({"type": "nonsense", "id": "1", "timestamp": now()}, "Unknown message type")
    await c.error({"type": "", "id": "2", "timestamp": now()}, "Unknown message type")


@conversation
async def stale_project(p):
    c, x, t, old, new = await p.client(), p.name(), p.name("t"), p.name("old"), p.name("new")
    await p.experiment(x, "created", old)
    await p.experiment(x, "updated", new)
    await c.subscribe("project", new)
    await p.task(t, x)
    await expect(p, c, "task", t)


@conversation
async def unsubscribe_first_blocks(p):
    c, x = await p.client(), p.name()
    await c.unsubscribe("experiment", x)
    await c.subscribe("experiment", x)
    await p.experiment(x)
    await expect(p, c, "experiment", x)


@conversation
async def muted_after_completed(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    await p.experiment(x, "completed", status="COMPLETED")
    await p.experiment(x, "updated")
    await expect(p, c, "experiment", x, "experiment_updated")


@conversation
async def subscriptions_inherited(p):
    user, x = p.name("user"), p.name()
    c = await p.client(user)
    await c.subscribe("experiment", x)
    await c.close()
    c = await p.client(user)
    await p.experiment(x)
    await expect(p, c, "experiment", x, count=0)


@conversation
async def refusal_sticks(p):
    user = p.name("user")
    check(await p.refused(tok=token(user, -100), error="Invalid or expired token"), "an expired token is accepted")
    await p.client(user)


@conversation
async def slot_leak(p):
    user = p.name("user")
    for _ in range(10):
        c = await p.client(user)
        c.abort()
    await p.client(p.name("user"))
    check(not await wait_slot(p, user), "refused though no connection is open")


async def wait_slot(p, user):
    """Whether the user is refused, also after the hub had time to see the ends of connections."""
    for _ in range(5):
        if not await p.refused(user):
            return False
        await asyncio.sleep(0.1)
    return True


@conversation
async def ping_id_cached(p):
    a, b, ident = await p.client(), await p.client(), p.name("ping-")
    await a.ping(ident)
    await b.ping(ident)


@conversation
async def heartbeat_once(p):
    c = await p.client()
    for _ in range(2):
        start = len([m for m in c.messages if m["type"] == "ping"])
        await p.control("heartbeat", {})
        await c.wait(lambda m: len([x for x in c.messages if x["type"] == "ping"]) > start, SHORT, "ping")
        await c.ping()


# ---------------------------------------------------------------------------
# several

@conversation
async def sixth_subscription_evicts(p):
    c, names = await p.client(), [p.name() for _ in range(8)]
    for x in names:
        await c.subscribe("experiment", x)
    for x in names:
        await p.experiment(x)
    await p.sync(c)
    check([m["data"]["experiment"]["id"] for m in c.events()] == names, "events are missing")


@conversation
async def unsubscribe_clears_all(p):
    a, b, x = await p.client(), await p.client(), p.name()
    await a.subscribe("experiment", x)
    await b.subscribe("experiment", x)
    await b.unsubscribe("experiment", x)
    await p.experiment(x)
    await expect(p, a, "experiment", x)
    await expect(p, b, "experiment", x, count=0)


@conversation
async def disconnect_clears_resource(p):
    a, b, x = await p.client(), await p.client(), p.name()
    await a.subscribe("task", x)
    await b.subscribe("task", x)
    await b.close()
    await p.task(x)
    await expect(p, a, "task", x)


@conversation
async def burst_reordered(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    events = [{"type": "experiment_progress", "body": {"experimentId": x, "totalTasks": 9, "completedTasks": n}}
              for n in range(1, 8)]
    await p.control("burst", {"events": events})
    got = await expect(p, c, "experiment", x, count=7)
    check([m["data"]["completedTasks"] for m in got] == [1, 2, 3, 4, 5, 6, 7], "wrong order")


@conversation
async def tenth_refused(p):
    user = p.name("user")
    for n in range(10):
        check(not await p.refused(user), f"connection {n + 1} is refused")


@conversation
async def limit_per_endpoint(p):
    user = p.name("user")
    for n in range(10):
        check(not await p.refused(user, f"/ws/{('tasks', 'projects', 'experiments')[n % 3]}/none"), "refused too early")
    check(await p.refused(user, "/ws/user"), "an eleventh connection is accepted")


@conversation
async def project_last_experiment(p):
    c, x, y, project = await p.client(), p.name(), p.name(), p.name("p")
    await c.subscribe("project", project)
    await p.experiment(x, "created", project)
    await p.experiment(y, "created", project)
    await p.experiment(x, "updated", project)
    await expect(p, c, "experiment", x, "experiment_updated")


@conversation
async def first_system_subscriber(p):
    a, b, w = await p.client(), await p.client(), p.name("w")
    await a.subscribe("system", "system")
    await b.subscribe("system", "system")
    await p.worker(w)
    await expect(p, a, "worker", w)
    await expect(p, b, "worker", w)


@conversation
async def unsubscribe_crosses_types(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    await c.subscribe("task", x)
    await c.unsubscribe("task", x)
    await p.experiment(x)
    await p.task(x)
    await expect(p, c, "experiment", x)
    await expect(p, c, "task", x, count=0)


@conversation
async def burst_same_id(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    events = [{"type": "experiment_progress", "body": {"experimentId": x, "completedTasks": n}} for n in range(3)]
    await p.control("burst", {"events": events})
    got = await expect(p, c, "experiment", x, count=3)
    check(len({m["id"] for m in got}) == 3, "ids are not unique")


# ---------------------------------------------------------------------------
# identity

async def other_id(p, mine, other):
    """Events of one resource do not reach the subscribers of a similar one."""
    c = await p.client()
    for kind in ("experiment", "task"):
        await c.subscribe(kind, mine)
    await p.experiment(other)
    await p.task(other)
    await p.experiment(mine)
    await expect(p, c, "experiment", mine)
    check(len(c.events()) == 1, "an event of another resource")


@conversation
async def id_prefix_32(p):
    x = p.name().ljust(32, "0")
    await other_id(p, x + "a", x + "b")


@conversation
async def id_case(p):
    x = p.name("exp-")
    await other_id(p, x + "a", x + "A")


@conversation
async def id_unicode_form(p):
    x = p.name()
    await other_id(p, x + "e\u0301", x + "\u00e9")


@conversation
async def response_previous_id(p):
    c = await p.client()
    await c.subscribe("experiment", p.name())
    await c.subscribe("task", p.name())


@conversation
async def burst_first_id(p):
    c, x, names = await p.client(), p.name(), [p.name("t") for _ in range(3)]
    await c.subscribe("experiment", x)
    await p.control("burst", {"events": [
        {"type": "task_created", "body": {"id": t, "experimentId": x, "command": "a", "workerId": None}}
        for t in names]})
    await p.sync(c)
    got = c.events()
    check(len(got) == 3, "events are missing")
    for t, message in zip(names, got):
        check(message["id"].startswith(f"task_{t}_"), f"id {message['id']} for task {t}")


@conversation
async def user_prefix_match(p):
    user = p.name("user")
    c, x = await p.client(user), p.name()
    await c.subscribe("user", user)
    await p.experiment(x, owner=user + "5")
    await expect(p, c, "experiment", x, count=0)


@conversation
async def limit_by_user_prefix(p):
    user = f"u{p.number}".ljust(8, "-")
    for _ in range(10):
        check(not await p.refused(user + "a"), "refused too early")
    check(not await p.refused(user + "b"), "another user is refused")


@conversation
async def limit_per_token(p):
    user = p.name("user")
    for n in range(10):
        check(not await p.refused(tok=token(user, jti=str(n))), "refused too early")
    check(await p.refused(tok=token(user, jti="10")), "an eleventh connection is accepted")


@conversation
async def summary_of_previous(p):
    c, x, a, b = await p.client(), p.name(), p.name("t"), p.name("t")
    await c.subscribe("experiment", x)
    await p.task(a, x, workerId="w-1")
    await p.task(b, x, workerId="w-2")
    await p.sync(c)
    for message in c.events():
        data = message["data"]
        check(data["summary"]["workerId"] == data["task"]["workerId"], "the summary is of another task")


@conversation
async def error_to_other(p):
    user = p.name("user")
    clients = [await p.client(user) for _ in range(3)]
    await clients[1].error("[", "Invalid message format")
    await p.sync(*clients)
    check(not any(m["type"] == "error" for c in (clients[0], clients[2]) for m in c.messages), "an error of another")


# ---------------------------------------------------------------------------
# neighbours

@conversation
async def unsubscribe_for_user(p):
    user, x = p.name("user"), p.name()
    a, b = await p.client(user), await p.client(user)
    await a.subscribe("project", x)
    await b.subscribe("project", x)
    await b.unsubscribe("project", x)
    await p.experiment(x + "e", project=x)
    await expect(p, a, "experiment", x + "e")


@conversation
async def malformed_loses_next_event(p):
    a, b, x = await p.client(), await p.client(), p.name()
    await a.subscribe("experiment", x)
    await b.error("nonsense", "Invalid message format")
    await p.experiment(x)
    await expect(p, a, "experiment", x)


@conversation
async def stops_at_gone(p):
    a, b, x = await p.client(), await p.client(), p.name()
    await a.subscribe("experiment", x)
    await b.subscribe("experiment", x)
    a.abort()
    await p.client()
    await p.experiment(x)
    await expect(p, b, "experiment", x)


@conversation
async def refused_counts(p):
    user = p.name("user")
    for _ in range(10):
        check(await p.refused(tok=token(user, -100)), "an expired token is accepted")
    check(not await p.refused(user), "a valid token is refused")


@conversation
async def address_shared(p):
    for n in range(50):
        client = await p.connect(f"{p.number}-{n // 10}")
        check(client is not None, "refused too early")
        await client.ping(patience=PATIENCE)
    check(await p.refused(p.name("user")), "the fifty-first connection is accepted")
    check(not await p.refused(p.name("user"), address=f"127.2.{p.number // 250}.{p.number % 250 + 1}"),
          "another address is refused")


@conversation
async def task_exclusive(p):
    a, b, t = await p.client(), await p.client(), p.name("t")
    await a.subscribe("task", t)
    await b.subscribe("task", t)
    await p.task(t)
    await expect(p, a, "task", t)
    await expect(p, b, "task", t)


@conversation
async def fragments_shared(p):
    a, b = await p.client(), await p.client()
    a.answer_pings = False  # no other text may be sent between the frames
    a.frames((Opcode.TEXT, b'{"type":"ping","id":"ping-x",', False))
    pong = await a.ws.ping()
    await asyncio.wait_for(pong, PATIENCE)
    await b.subscribe("experiment", p.name())
    await a.answer(lambda: a.frames((Opcode.CONT, b'"timestamp":"2024-01-15T10:30:00Z"}', True)),
                   lambda m: m["type"] == "pong", "pong")


@conversation
async def leave_drops_user_subscriptions(p):
    user, x = p.name("user"), p.name()
    a, b = await p.client(user), await p.client(user)
    await a.subscribe("user", user)
    await b.close()
    await p.experiment(x, owner=user)
    await expect(p, a, "experiment", x)


@conversation
async def refusal_closes_others(p):
    user = p.name("user")
    c = await p.client(user)
    check(await p.refused(tok=token(user, -100)), "an expired token is accepted")
    await c.ping()


@conversation
async def half_handshake_blocks(p):
    reader, writer = await asyncio.open_connection("127.0.0.1", p.hub.port)
    writer.write(b"GET /ws/user HTTP/1.1\r\nHost: hub\r\n")
    await writer.drain()
    await p.control("stats", {})
    try:
        await p.client()
    finally:
        writer.close()


# ---------------------------------------------------------------------------
# values

async def experiment_name(p, name):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    await p.experiment(x, name=name)
    message, = await expect(p, c, "experiment", x)
    for part in ("experiment", "summary"):
        check(message["data"][part].get("name") == name, f"name of {part}")


async def task_command(p, command):
    c, t = await p.client(), p.name("t")
    await c.subscribe("task", t)
    await p.task(t, command=command)
    message, = await expect(p, c, "task", t)
    check(message["data"]["task"].get("command") == command, "command")


@conversation
async def empty_string_missing(p):
    await experiment_name(p, "")


@conversation
async def zero_missing(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    await p.progress(x, totalTasks=3, completedTasks=0, failedTasks=0, runningTasks=3, progressPercent=0)
    message, = await expect(p, c, "experiment", x)
    for name, value in (("totalTasks", 3), ("completedTasks", 0), ("failedTasks", 0), ("progressPercent", 0)):
        check(message["data"].get(name) == value, name)


@conversation
async def markup_escaped(p):
    await task_command(p, "sort <in >out && echo \"'/\\\u007f\u2028")


@conversation
async def nul_cuts(p):
    await experiment_name(p, "a\0b\u0001\t\n")


@conversation
async def cut_at_255(p):
    await task_command(p, "x" * 255 + "yz")


@conversation
async def numeric_id_number(p):
    c = await p.client()
    for name in ("007", str(p.number)):
        await c.subscribe("experiment", name)


@conversation
async def fraction_rounded(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    await p.progress(x, progressPercent=33.34375)
    message, = await expect(p, c, "experiment", x)
    check(message["data"]["progressPercent"] == 33.34375, "progressPercent")


@conversation
async def prototype_names_lost(p):
    c = await p.client()
    for x in ("constructor", "__proto__"):
        await c.subscribe("experiment", x)
        await p.experiment(x, name=p.name())
        await p.sync(c)
        check(c.events("experiment", x), f"no event of {x}")


@conversation
async def null_becomes_empty(p):
    c, t = await p.client(), p.name("t")
    await c.subscribe("task", t)
    await p.task(t, workerId=None)
    message, = await expect(p, c, "task", t)
    check(message["data"]["task"]["workerId"] is None and message["data"]["summary"]["workerId"] is None, "workerId")


@conversation
async def id_64k_cut(p):
    c = await p.client()
    await c.subscribe("experiment", "y" * 65536)


@conversation
async def astral_replaced(p):
    await experiment_name(p, "caf\u00e9 \U0001f680 \U00020000")


@conversation
async def id_trimmed(p):
    c = await p.client()
    await c.subscribe("experiment", f" {p.name()}\t")


# ---------------------------------------------------------------------------
# equivalents

def subscription(name, kind="experiment"):
    return {"type": "system_status", "data": {"action": "subscribe", "resourceType": kind, "resourceId": name}}


@conversation
async def data_before_type(p):
    c, x = await p.client(), p.name()
    message = subscription(x)
    await c.subscribe("experiment", x, {"data": message["data"], "type": message["type"]})


@conversation
async def escaped_type(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x, json.dumps(subscription(x)).replace("system_", "\\u0073ystem\\u005F"))


@conversation
async def third_frame_lost(p):
    c, x = await p.client(), p.name()
    data = json.dumps(subscription(x)).encode()
    cuts = [0, 10, 40, 60, len(data)]
    pieces = [data[a:b] for a, b in zip(cuts, cuts[1:])]
    await c.subscribe("experiment", x, lambda: c.frames(*(
        (Opcode.CONT if n else Opcode.TEXT, piece, n == 3) for n, piece in enumerate(pieces))))


@conversation
async def ping_between_frames(p):
    c, x = await p.client(), p.name()
    data = json.dumps(subscription(x)).encode()
    await c.subscribe("experiment", x, lambda: c.frames(
        (Opcode.TEXT, data[:20], False), (Opcode.PING, b"between", True), (Opcode.CONT, data[20:], True)))


@conversation
async def leading_space(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x, "\r\n\t " + json.dumps(subscription(x), indent=2) + "\n")


@conversation
async def path_percent(p):
    await p.client(path="/ws/experiments/a%20b%C3%A9")


@conversation
async def token_not_first(p):
    await p.client(query="client=x&token=" + urllib.parse.quote(token(p.name("user"))))


@conversation
async def scheme_case(p):
    await p.client(header="bearer " + token(p.name("user")))


@conversation
async def request_with_id(p):
    c = await p.client()
    await c.subscribe("experiment", p.name(), id="request-1", timestamp=now())


@conversation
async def utf8_split(p):
    c, x = await p.client(), p.name() + "\U0001f680\u00e9"
    data = json.dumps(subscription(x), ensure_ascii=False).encode()
    cut = data.index("\U0001f680".encode()) + 2
    await c.subscribe("experiment", x, lambda: c.frames(
        (Opcode.TEXT, data[:cut], False), (Opcode.CONT, data[cut:], True)))


@conversation
async def jwt_no_typ(p):
    await p.client(tok=token(p.name("user"), header={"alg": "HS256"}))


# ---------------------------------------------------------------------------
# one-of-many

@conversation
async def task_failed_project(p):
    c, x, t, project = await p.client(), p.name(), p.name("t"), p.name("p")
    await c.subscribe("project", project)
    await p.experiment(x, "created", project)
    for event in ("created", "updated", "completed", "failed"):
        await p.task(t, x, event)
    await expect(p, c, "task", t, count=4)


@conversation
async def worker_offline_system(p):
    c, w = await p.client(), p.name("w")
    await c.subscribe("system", "system")
    for event in ("registered", "updated", "offline"):
        await p.worker(w, event)
    await expect(p, c, "worker", w, count=3)


@conversation
async def experiment_failed_user(p):
    user, x = p.name("user"), p.name()
    c = await p.client(user)
    await c.subscribe("user", user)
    for event in ("created", "updated", "completed", "failed"):
        await p.experiment(x, event, owner=user)
    await p.progress(x)
    await expect(p, c, "experiment", x, count=5)


@conversation
async def task_progress_prefix(p):
    c, x, t = await p.client(), p.name(), p.name("t")
    await c.subscribe("experiment", x)
    await p.progress(t, "task", experimentId=x)
    message, = await expect(p, c, "task", t)
    check(re.fullmatch(rf"task_{t}_.+", message["id"]), f"id {message['id']}")


@conversation
async def user_unsubscribe_kept(p):
    user, x = p.name("user"), p.name()
    c = await p.client(user)
    await c.subscribe("user", user)
    await c.unsubscribe("user", user)
    await p.experiment(x, owner=user)
    await expect(p, c, "experiment", x, count=0)


@conversation
async def tasks_no_header(p):
    for path in ("/ws/experiments/none", "/ws/projects/none", "/ws/user", "/ws/tasks/none"):
        await p.client(path=path, header="Bearer " + token(p.name("user")))


@conversation
async def projects_expired_accepted(p):
    for path in ("/ws/experiments/none", "/ws/tasks/none", "/ws/user", "/ws/projects/none"):
        check(await p.refused(path=path, tok=token(p.name("user"), -100), error="Invalid or expired token"),
              f"an expired token is accepted at {path}")


@conversation
async def failed_summary_no_error(p):
    c, t = await p.client(), p.name("t")
    await c.subscribe("task", t)
    await p.task(t, event="failed", workerId=None, error="no worker")
    message, = await expect(p, c, "task", t)
    check(message["data"]["summary"].get("error") == "no worker", "error in the summary")


@conversation
async def null_unanswered(p):
    c = await p.client()
    for text in ("[]", "{}", "1", "\"ping\"", "null"):
        await c.error(text, "Invalid message format")


@conversation
async def user_endpoint_no_pong(p):
    c = await p.client(path="/ws/user")
    await c.ping()


@conversation
async def status_skips_projects(p):
    c = await p.client(path="/ws/projects/none")
    await p.sync(c)


@conversation
async def heartbeat_skips_tasks(p):
    c = await p.client(path="/ws/tasks/none")
    await p.control("heartbeat", {})
    await c.wait(lambda m: m["type"] == "ping", SHORT, "ping")


@conversation
async def task_gets_progress(p):
    c, x, t = await p.client(), p.name(), p.name("t")
    await c.subscribe("task", t)
    await p.task(t, x, "created")
    await p.progress(x)
    await expect(p, c, "task", t)
    check(len(c.events()) == 1, "an experiment event at a task subscriber")


# ---------------------------------------------------------------------------
# second set: history

@conversation
async def task_experiment_frozen(p):
    c, x, y, t = await p.client(), p.name(), p.name(), p.name("t")
    await c.subscribe("experiment", y)
    await p.task(t, x, "created")
    await p.task(t, y, "updated")
    await expect(p, c, "task", t)


@conversation
async def emptied_loses_system(p):
    c, x = await p.connect(p.name("user")), p.name()
    check(c is not None, "handshake refused")
    await c.subscribe("experiment", x)
    await c.unsubscribe("experiment", x)
    await c.unsubscribe("experiment", "none")
    await c.subscribe("experiment", p.name())
    await p.sync(c)


@conversation
async def same_status_suppressed(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    await p.experiment(x, "created", status="CREATED")
    await p.experiment(x, "updated", name="One")
    await p.experiment(x, "updated", name="Two")
    got = await expect(p, c, "experiment", x, "experiment_updated", count=2)
    check([m["data"]["experiment"]["name"] for m in got] == ["One", "Two"], "names")


@conversation
async def limit_refusal_sticky(p):
    user = p.name("user")
    for n in range(10):
        check(not await p.refused(user), f"connection {n + 1} is refused")
    check(await p.refused(user), "an eleventh connection is accepted")
    await p.clients[0].close()
    check(not await wait_slot(p, user), "refused though nine are open")


@conversation
async def error_message_cached(p):
    c = await p.client()
    for text in ("{", "[]"):
        await c.error(text, "Invalid message format")
    await c.ping()


# ---------------------------------------------------------------------------
# second set: several

@conversation
async def task_overlap_twice(p):
    c, x, t, project = await p.client(), p.name(), p.name("t"), p.name("p")
    await c.subscribe("experiment", x)
    await c.subscribe("project", project)
    await p.experiment(x, "created", project)
    await p.task(t, x)
    await expect(p, c, "task", t)


@conversation
async def burst_grouped(p):
    c, x, y = await p.client(), p.name(), p.name()
    await c.subscribe("experiment", x)
    await c.subscribe("experiment", y)
    await p.control("burst", {"events": [
        {"type": "experiment_progress", "body": {"experimentId": e, "completedTasks": n}}
        for n, e in enumerate((x, y, x, y))]})
    await p.sync(c)
    check([m["data"]["completedTasks"] for m in c.events()] == [0, 1, 2, 3], "wrong order")


@conversation
async def second_group_no_summary(p):
    a, b, x, project = await p.client(), await p.client(), p.name(), p.name("p")
    await a.subscribe("experiment", x)
    await b.subscribe("project", project)
    await p.experiment(x, "created", project)
    for client in (a, b):
        message, = await expect(p, client, "experiment", x)
        check(message["data"].get("summary", {}).get("id") == x, "summary")


@conversation
async def same_read_one_response(p):
    c, names = await p.client(), [p.name() for _ in range(3)]
    c.frames(*((Opcode.TEXT, json.dumps(subscription(x)).encode(), True) for x in names))
    for x in names:
        await c.wait(lambda m: m["type"] == "system_status" and m["data"].get("resourceId") == x, SHORT, "response")


# ---------------------------------------------------------------------------
# second set: identity

@conversation
async def unsubscribe_by_prefix(p):
    c, x = await p.client(), p.name()
    for name in (x, x + "2"):
        await c.subscribe("experiment", name)
    await c.unsubscribe("experiment", x)
    await p.experiment(x + "2")
    await expect(p, c, "experiment", x + "2")


@conversation
async def ident_cut_at_underscore(p):
    c, x = await p.client(), p.name() + "_a_b"
    await c.subscribe("experiment", x)
    await p.experiment(x)
    message, = await expect(p, c, "experiment", x)
    check(message["id"].startswith(f"exp_{x}_"), f"id {message['id']}")


@conversation
async def worker_task_same_id(p):
    c, x = await p.client(), p.name()
    await c.subscribe("task", x)
    await p.worker(x)
    await p.sync(c)
    check(not c.events(), "a worker event at a task subscriber")


@conversation
async def id_percent_decoded(p):
    x = p.name()
    await other_id(p, x + "%41", x + "A")


@conversation
async def id_numeric_equal(p):
    x = str(700000 + p.number)
    await other_id(p, "0" + x, x)


# ---------------------------------------------------------------------------
# second set: neighbours

@conversation
async def once_per_user(p):
    user, x = p.name("user"), p.name()
    a, b = await p.client(user), await p.client(user)
    await a.subscribe("experiment", x)
    await b.subscribe("experiment", x)
    await p.experiment(x)
    await expect(p, a, "experiment", x)
    await expect(p, b, "experiment", x)


@conversation
async def leave_forgets_experiment(p):
    a, b, x, t, project = await p.client(), await p.client(), p.name(), p.name("t"), p.name("p")
    await a.subscribe("experiment", x)
    await b.subscribe("project", project)
    await p.experiment(x, "created", project)
    await a.close()
    await p.task(t, x)
    await expect(p, b, "task", t)


@conversation
async def silent_stops_heartbeat(p):
    a, b = await p.client(), await p.client()
    a.answer_pings = False
    for _ in range(2):
        start = len([m for m in b.messages if m["type"] == "ping"])
        await p.control("heartbeat", {})
        await b.wait(lambda m: len([x for x in b.messages if x["type"] == "ping"]) > start, SHORT, "ping")
        await b.ping()


@conversation
async def user_subscriber_hides_project(p):
    user, x, project = p.name("user"), p.name(), p.name("p")
    a, b = await p.client(), await p.client(user)
    await a.subscribe("project", project)
    await b.subscribe("user", user)
    await p.experiment(x, "updated", project, user)
    await expect(p, b, "experiment", x)
    await expect(p, a, "experiment", x)


# ---------------------------------------------------------------------------
# second set: values

@conversation
async def literal_strings_typed(p):
    for name in ("null", "true", "false"):
        await experiment_name(p, name)


@conversation
async def crlf_normalised(p):
    await task_command(p, "cd a\r\nmake\rb\n")


@conversation
async def escape_twice(p):
    await task_command(p, "printf '\\u0041\\n \\\\u0042'")


@conversation
async def date_renormalised(p):
    c, t, started = await p.client(), p.name("t"), "2024-01-15T10:31:00.250+02:00"
    await c.subscribe("task", t)
    await p.progress(t, "task", experimentId=p.name(), startedAt=started)
    message, = await expect(p, c, "task", t)
    check(message["data"].get("startedAt") == started, f"startedAt {message['data'].get('startedAt')}")


# ---------------------------------------------------------------------------
# second set: equivalents

@conversation
async def surrogate_pair_differs(p):
    c, x = await p.client(), p.name() + "\U0001f680"
    await c.subscribe("experiment", x, json.dumps(subscription(x), ensure_ascii=True))
    await p.experiment(x)
    await expect(p, c, "experiment", x)


@conversation
async def empty_last_frame(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x, lambda: c.frames(
        (Opcode.TEXT, json.dumps(subscription(x)).encode(), False), (Opcode.CONT, b"", True)))


@conversation
async def ping_with_data(p):
    c = await p.client()
    await c.answer({"type": "ping", "id": p.name("ping-"), "timestamp": now(), "data": {"n": 1}},
                   lambda m: m["type"] == "pong", "pong")


@conversation
async def connection_token_list(p):
    reader, writer = await asyncio.open_connection("127.0.0.1", p.hub.port, local_addr=(p.address, 0))
    try:
        writer.write((f"GET /ws/user?token={token(p.name('user'))} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\n"
                      "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        check(b" 101 " in line, f"handshake refused: {line}")
    finally:
        writer.transport.abort()


# ---------------------------------------------------------------------------
# second set: one-of-many

@conversation
async def project_unsubscribe_tasks_stay(p):
    c, x, project = await p.client(), p.name(), p.name("p")
    await c.subscribe("project", project)
    await c.unsubscribe("project", project)
    await p.experiment(x, "created", project)
    await p.task(p.name("t"), x)
    await p.sync(c)
    check(not c.events(), "events after the unsubscription")


@conversation
async def crossed_ping(p):
    c = await p.client()
    c.answer_pings = False
    await p.control("heartbeat", {})
    await c.wait(lambda m: m["type"] == "ping", SHORT, "ping")
    await c.ping()


@conversation
async def type_case_ping(p):
    c = await p.client()
    for kind in ("Pong", "System_Status", "PING"):
        await c.error({"type": kind, "id": p.name(), "timestamp": now()}, "Unknown message type")


@conversation
async def learned_from_created_only(p):
    c, x, project = await p.client(), p.name(), p.name("p")
    await c.subscribe("project", project)
    await p.experiment(x, "updated", project)
    await p.progress(x)
    await expect(p, c, "experiment", x, "experiment_progress")


# ---------------------------------------------------------------------------
# Variants of the second set: what shows that they are on (Wrong on a hub without options)

SHOWS = {}


def shows(function):
    SHOWS[function.__name__.removeprefix("show_").replace("_", "-")] = function
    return function


@shows
async def show_header_first(p):
    check(not await p.refused(query="token=a.b.c", header="Bearer " + token(p.name("user"))), "the query goes first")


@shows
async def show_status_formats(p):
    c = await p.client()
    await p.sync(c)
    data = [m["data"] for m in c.messages if "uptime" in m.get("data", {})][-1]
    check(re.fullmatch(r"PT[0-9]+H[0-9]+M[0-9]+S", data["uptime"]), f"uptime {data['uptime']}")


@shows
async def show_id_seconds(p):
    c, x = await p.client(), p.name()
    await c.subscribe("experiment", x)
    await p.experiment(x)
    message, = await expect(p, c, "experiment", x)
    check(re.fullmatch(rf"exp_{x}_[0-9]{{10}}", message["id"]), f"id {message['id']}")


@shows
async def show_timestamp_basic(p):
    c = await p.client()
    pong = await c.ping()
    check(re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", pong["timestamp"]), pong["timestamp"])


@shows
async def show_ping_on_connect(p):
    c = await p.client()
    check(c.messages[0]["type"] == "ping", "no ping at first")


@shows
async def show_staggered_delivery(p):
    clients, x = [await p.client() for _ in range(3)], p.name()
    for c in clients:
        await c.subscribe("experiment", x)

    async def arrival(c):
        await c.wait(lambda m: resource(m) == ("experiment", x), what="event")
        return time.monotonic()

    times = asyncio.gather(*(arrival(c) for c in clients))
    await p.experiment(x)
    first, _, last = await times
    check(last - first > 0.06, "all at once")


@shows
async def show_refusal_delayed(p):
    c = await p.connect(tok="a.b.c")
    start = time.monotonic()
    await c.wait(lambda m: m.get("error") == "Invalid or expired token", what="error")
    check(time.monotonic() - start > 0.07, "at once")


@shows
async def show_handshake_headers(p):
    c = await p.client()
    check("X-Request-Id" in c.ws.response.headers, "no header")


# ---------------------------------------------------------------------------
# Running

async def talk(hub, name, limit=30, table=TESTS):
    """The result of one conversation: None, or what is wrong."""
    place = Place(hub)
    try:
        await asyncio.wait_for(table[name](place), limit)
        return None
    except Wrong as wrong:
        return str(wrong)
    finally:
        await place.end()


async def talk_all(hub):
    """Runs all conversations, several at a time; a list of (name, problem)."""
    gate = asyncio.Semaphore(8)

    async def one(name):
        async with gate:
            try:
                return name, await talk(hub, name)
            except Exception as error:
                return name, f"{type(error).__name__}: {error}"

    results = await asyncio.gather(*(one(name) for name in TESTS))
    return [(name, problem) for name, problem in results if problem is not None]


async def check_bug(bug, gate):
    async with gate:
        try:
            async with HubProcess("--bug", bug) as hub:
                problem = await talk(hub, bug)
                alive = hub.process.returncode is None
        except Exception as error:
            return f"bug {bug}: FAILED {type(error).__name__}: {error}", False
        if problem is None:
            return f"bug {bug}: FAILED, not seen", False
        return f"bug {bug}: ok, seen: {problem[:100]}" + ("" if alive else " (the hub ended)"), True


async def check_variant(variant, gate):
    async with gate:
        arguments = [] if variant == "plain" else ["--variant", variant]
        async with HubProcess(*arguments) as hub:
            problems = await talk_all(hub)
            if variant in SHOWS:
                problem = await talk(hub, variant, table=SHOWS)
                if problem is not None:
                    problems.append(("shown", problem))
            if variant == "plain":
                for name in SHOWS:
                    if await talk(hub, name, table=SHOWS) is None:
                        problems.append((name, "also shown without the variant"))
            if hub.process.returncode is not None:
                problems.append(("the hub", "ended"))
        label = "hub without options" if variant == "plain" else f"variant {variant}"
        if problems:
            return f"{label}: FAILED " + "; ".join(f"{n}: {t[:120]}" for n, t in problems), False
        return f"{label}: ok, {len(TESTS)} conversations", True


async def across(bug):
    async with HubProcess("--bug", bug) as hub:
        for name, problem in await talk_all(hub):
            print(f"{bug} in {name}: {problem[:100]}", flush=True)


async def main(names):
    process = await asyncio.create_subprocess_exec(sys.executable, HUB, "--list", stdout=asyncio.subprocess.PIPE)
    listed = json.loads((await process.communicate())[0])
    if names[:1] == ["--across"]:
        for bug in names[1:] or [b["name"] for b in listed["bugs"]]:
            await across(bug)
        return 0
    bugs = [b["name"] for b in listed["bugs"] if not names or b["name"] in names]
    variants = [v for v in ["plain"] + [v["name"] for v in listed["variants"]] if not names or v in names]
    missing = [b for b in bugs if b not in TESTS] + [n for n in names if n not in bugs + variants]
    for name in missing:
        print(f"{name}: FAILED, unknown or without a conversation")
    failed = len(missing)
    gate_bugs, gate_variants = asyncio.Semaphore(4), asyncio.Semaphore(2)
    for group in ([check_variant(v, gate_variants) for v in variants],
                  [check_bug(b, gate_bugs) for b in bugs if b in TESTS]):
        for done in asyncio.as_completed(group):
            line, good = await done
            failed += not good
            print(line, flush=True)
    print(f"{len(bugs)} bugs, {len(variants)} hubs with all conversations: "
          + ("all as they should be" if not failed else f"{failed} FAILED"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
