#!/usr/bin/env python3
"""Self-test of hub.py: selftest.py [NAME...] runs the named bugs and variants, or all.

Every bug has a conversation. It must fail with the bug and pass without it;
with every variant all conversations must pass. The conversations of SHOWS
pass with their variant and fail without it.
"""
import asyncio
import base64
import datetime
import hashlib
import json
import os
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

HERE = os.path.dirname(os.path.abspath(__file__))
SETTINGS = ["--retry-delay", "0.03", "--seed", "7"]
CONVERSATIONS = {}      # bug name -> (function, alone)
SHOWS = {}              # variant name -> function that holds with the variant only
counter = 0


class Wrong(Exception):
    """The hub did not do what the document says."""


def conversation(*names, alone=False):
    def keep(function):
        for name in names:
            CONVERSATIONS[name] = (function, alone)
        return function
    return keep


def shows(name):
    def keep(function):
        SHOWS[name] = function
        return function
    return keep


def check(condition, text):
    if not condition:
        raise Wrong(text)


def fresh(prefix):
    global counter
    counter += 1
    return "%s-%d-%d" % (prefix, os.getpid(), counter)


def stamp():
    return int(time.time() * 1000)


class Client:
    """One connection; keeps what it received until somebody asks for it."""

    def __init__(self, room, ws):
        self.room, self.ws = room, ws
        self.inbox, self.news, self.ended = [], asyncio.Event(), False
        self.worker_id = self.client_id = None
        self.reader = asyncio.ensure_future(self.read())

    async def read(self):
        try:
            async for text in self.ws:
                if not isinstance(text, str):
                    self.inbox.append({"type": "not text"})
                else:
                    message = json.loads(text)
                    if message["type"] != "ping":
                        self.inbox.append(message)
                self.news.set()
        except (ConnectionClosed, ValueError, KeyError, TypeError):
            pass
        self.ended = True
        self.news.set()

    async def text(self, text):
        try:
            await self.ws.send(text)
        except ConnectionClosed:
            raise Wrong("connection closed early") from None

    async def send(self, kind, **members):
        await self.text(json.dumps({"type": kind, "timestamp": stamp(), **members}))

    def look(self, kind, match):
        for index, message in enumerate(self.inbox):
            if message["type"] == kind and all(same(message.get(key), value) for key, value in match.items()):
                return self.inbox.pop(index)
        return None

    async def want(self, kind, **match):
        deadline = time.monotonic() + self.room.patience
        while True:
            found = self.look(kind, match)
            if found is not None:
                check(isinstance(found.get("timestamp"), (int, float)), kind + " without timestamp")
                return found
            left = deadline - time.monotonic()
            if self.ended or left <= 0:
                raise Wrong("no %s %s; there is %s" % (kind, match, json.dumps(self.inbox)[:400]))
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except asyncio.TimeoutError:
                pass

    async def ask(self, kind, answer, **members):
        await self.send(kind, **members)
        return await self.want(answer)

    async def fence(self):
        """All that the hub sent before now has arrived when this returns."""
        await self.send("ping")
        await self.want("pong")

    async def none(self, kind, **match):
        await self.fence()
        found = self.look(kind, match)
        check(found is None, "unexpected %s" % json.dumps(found)[:300])

    async def count(self, kind, **match):
        await self.fence()
        number = 0
        while self.look(kind, match):
            number += 1
        return number

    async def until_closed(self):
        try:
            await asyncio.wait_for(self.ws.wait_closed(), self.room.patience)
            await self.reader
        except asyncio.TimeoutError:
            raise Wrong("connection stays open") from None

    async def leave(self):
        """End without a disconnect message; the hub has seen it when this returns."""
        await self.ws.close()

    # the usual steps

    async def submit(self, **members):
        members = {"job_type": "text_to_image", "priority": 75, "payload": {"steps": 30}, **members}
        return (await self.ask("submit_job", "job_accepted", **members))["job_id"]

    async def claim(self, max_jobs=1, **members):
        await self.send("claim_job", worker_id=self.worker_id, max_jobs=max_jobs, claim_timeout=30000, **members)

    async def take(self, **members):
        await self.claim(**members)
        return await self.want("job_assigned")

    async def accept(self, job_id):
        await self.send("job_accepted_by_worker", job_id=job_id, worker_id=self.worker_id)
        await self.fence()

    async def progress(self, job_id, progress):
        await self.send("update_job_progress", job_id=job_id, worker_id=self.worker_id, progress=progress,
                        status="in_progress", message="step")
        await self.fence()

    async def begin(self, progress=10):
        job_id = (await self.take())["job_id"]
        await self.accept(job_id)
        await self.progress(job_id, progress)
        return job_id

    async def complete(self, job_id, **members):
        members = {"processing_time": 67.5, "result": {"success": True, "output_files": ["https://x.example/a"]},
                   **members}
        return await self.ask("complete_job", "job_completed_ack", job_id=job_id, worker_id=self.worker_id, **members)

    async def fail(self, job_id, retry):
        return await self.ask("fail_job", "job_failed_ack", job_id=job_id, worker_id=self.worker_id,
                              error="Service connection timeout", retry=retry)

    async def status(self, job_id, **members):
        return await self.ask("request_job_status", "response_job_status", job_id=job_id, **members)

    async def watch(self, job_id):
        await self.send("subscribe_job", job_id=job_id, id=fresh("watch"))
        await self.fence()
        for message in list(self.inbox):
            check(message["type"] != "error", "subscribe_job refused")
        self.inbox[:] = [m for m in self.inbox if m["type"] not in ("ack", "subscription_confirmed")]


def same(found, wanted):
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return found == wanted


class Room:
    """A running hub and the clients of one conversation."""

    def __init__(self, url, patience, compression=None):
        self.url, self.patience, self.compression = url, patience, compression
        self.clients = []
        self.service = fresh("service")

    async def open(self):
        try:
            ws = await connect(self.url, compression=self.compression, ping_interval=None, max_size=None,
                               close_timeout=self.patience, open_timeout=self.patience, proxy=None)
        except Exception as problem:
            raise Wrong("cannot connect: %r" % problem) from None
        client = Client(self, ws)
        self.clients.append(client)
        await client.want("connection_established")
        return client

    async def client(self, client_id=None, client_type="job_client"):
        client = await self.open()
        client.client_id = client_id or fresh("client")
        client.registered = await client.ask("register_client", "client_registered", client_type=client_type,
                                             client_id=client.client_id, version="1.0.0")
        check(client.registered.get("client_id") == client.client_id, "client_id changed")
        check(client.registered.get("status") == "registered", "status is not registered")
        return client

    async def worker(self, worker_id=None, services=None, components=(), memory=16):
        worker = await self.open()
        worker.worker_id = worker_id or fresh("worker")
        answer = await worker.ask(
            "register_worker", "worker_registered", worker_id=worker.worker_id, subscribe_to_jobs=True, status="idle",
            capabilities={"services": services or [self.service], "components": list(components),
                          "hardware": {"gpu_memory_gb": memory}})
        check(answer.get("worker_id") == worker.worker_id, "worker_id changed")
        return worker

    def needs(self, **more):
        return {"service_type": self.service, **more}

    async def raw(self, head, body=""):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rsplit(":", 1)[1]))
        writer.write((head + "\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)).encode()
                     if body else (head + "\r\n\r\n").encode())
        data = b""
        while b"\r\n\r\n" not in data:
            more = await asyncio.wait_for(reader.read(65536), self.patience)
            if not more:
                break
            data += more
        writer.close()
        return data.decode("latin-1")

    async def control(self, name, **body):
        answer = await self.raw("POST /control/%s HTTP/1.1\r\nHost: x" % name, json.dumps(body))
        check(answer.startswith("HTTP/1.1 200"), "control refused: " + answer[:100])

    async def end(self):
        for client in self.clients:
            client.reader.cancel()
            client.ws.transport.abort()
        await asyncio.gather(*(client.reader for client in self.clients), return_exceptions=True)


def chunks_of(message, number, chunk_id):
    data = json.dumps(message).encode()
    size = -(-len(data) // number)
    digest = hashlib.sha256(data).hexdigest()
    return [{"chunk_id": chunk_id, "chunk_index": index + 1, "total_chunks": number,
             "data": base64.b64encode(data[index * size:(index + 1) * size]).decode(), "data_hash": digest,
             "original_type": message["type"]} for index in range(number)]


async def refused_submit(client, **members):
    await client.send("submit_job", job_type="text_to_image", priority=75, payload={},
                      requirements={"hardware": {"gpu_memory_gb": -1}}, **members)
    return await client.want("error", error_code="INVALID_PARAMETERS")


# ------------------------------------------------------------------ history


@conversation("stale_request_id")
async def _(room):
    client = await room.client()
    first = await refused_submit(client, id="req-1")
    check(first.get("request_id") == "req-1", "request_id of the first error")
    second = await refused_submit(client)
    check(second.get("request_id") in (None, ""), "request_id of a message without id")


@conversation("stale_original_message")
async def _(room):
    client = await room.client()
    for name in ("one", "two", "three"):
        await client.send("no_such_" + name, id=name)
        answer = await client.want("unknown")
        check(json.loads(answer["original_message"])["type"] == "no_such_" + name, "original_message is another")


@conversation("ping_after_malformed")
async def _(room):
    client = await room.client()
    await client.text('{"type": "submit_job", ')
    await client.want("error")
    await client.fence()


@conversation("resubmission_same_id")
async def _(room):
    client = await room.client()
    first = await client.submit(requirements=room.needs())
    await client.ask("cancel_job", "job_cancelled", job_id=first)
    second = await client.submit(requirements=room.needs())
    check(first != second, "the cancelled id again")
    check((await client.status(second))["status"] == "queued", "not queued")


async def retried(room):
    """A job that one worker gave up and another one has."""
    client, one, two = await room.client(), await room.worker(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await one.begin()
    answer = await one.fail(job, True)
    check(answer.get("worker_id") == one.worker_id and answer.get("retry_scheduled") is True, "job_failed_ack")
    for _ in range(2):      # the second time when the delay of the retry is over
        await two.want("job_available", job_id=job)
    await two.begin(20)
    return client, one, two, job


@conversation("status_keeps_first_worker")
async def _(room):
    client, _, two, job = await retried(room)
    check((await client.status(job))["worker_id"] == two.worker_id, "status names another worker")


@conversation("failed_ack_first_worker")
async def _(room):
    _, _, two, job = await retried(room)
    check((await two.fail(job, False))["worker_id"] == two.worker_id, "another worker is acknowledged")


@conversation("no_progress_after_retry")
async def _(room):
    client, _, _, _ = await retried(room)
    await client.want("job_update", progress=20, status="in_progress")


@conversation("previous_status_retry")
async def _(room):
    client, _, _, job = await retried(room)
    update = await client.want("job_update", status="queued", job_id=job)
    check(update.get("previous_status") == "in_progress", "previous_status")


@conversation("status_answer_by_message_id")
async def _(room):
    one, two = await room.client(), await room.client()
    same_id = fresh("q")
    job1 = await one.submit(requirements=room.needs())
    job2 = await two.submit(requirements=room.needs())
    check((await one.status(job1, id=same_id))["job_id"] == job1, "another job")
    check((await two.status(job2, id=same_id))["job_id"] == job2, "another job")


async def stats(client, interval=0.05, enabled=True):
    return await client.ask("subscribe_stats", "subscription_confirmed", enabled=enabled, interval_seconds=interval,
                            include_sections=["jobs", "workers", "system"])


@conversation("stats_resubscribe_dead")
async def _(room):
    client = await room.client()
    await stats(client)
    await client.want("system_status")
    await client.send("subscribe_stats", enabled=False, interval_seconds=0.05)
    await client.fence()
    client.inbox.clear()
    answer = await stats(client, 0.06)
    check(answer["update_interval"] >= 0.06, "update_interval")
    await client.want("system_status")
    await client.want("system_status")


@conversation("cleanup_ignored_on_return")
async def _(room):
    owner, guest = await room.client(), await room.client()
    job = await owner.submit(requirements=room.needs())
    await guest.watch(job)
    await guest.send("disconnect", reason="Client shutdown", cleanup_subscriptions=True)
    await guest.ws.close()
    guest = await room.client(guest.client_id)
    worker = await room.worker()
    await worker.begin()
    await owner.want("job_update", progress=10)
    await guest.none("job_update", job_id=job)


@conversation("second_cancel_not_done")
async def _(room):
    client = await room.client()
    for _ in range(2):
        job = await client.submit(requirements=room.needs())
        answer = await client.ask("cancel_job", "job_cancelled", job_id=job)
        check(answer.get("job_id") == job and answer.get("status") == "cancelled", "confirmation")
        check((await client.status(job))["status"] == "cancelled", "not cancelled")


@conversation("capabilities_first_update_only")
async def _(room):
    client, worker = await room.client(), await room.worker()
    for component in ("upscaling", "inpainting"):
        await worker.send("worker_status", worker_id=worker.worker_id, status="idle", available_slots=2,
                          current_job_id=None, capabilities={"services": [room.service], "components": [component],
                                                             "hardware": {"gpu_memory_gb": 16}})
        await worker.fence()
        job = await client.submit(requirements=room.needs(component=component))
        check((await worker.take())["job_id"] == job, "another job")


# ------------------------------------------------------------------ several


@conversation("fifth_subscriber_evicts_first")
async def _(room):
    owner = await room.client()
    job = await owner.submit(requirements=room.needs())
    guests = [await room.client() for _ in range(5)]
    for guest in guests:
        await guest.watch(job)
    await (await room.worker()).begin()
    for guest in guests:
        await guest.want("job_update", job_id=job, progress=10)


@conversation("fourth_worker_not_notified", alone=True)
async def _(room):
    client = await room.client()
    workers = [await room.worker() for _ in range(5)]
    accepted = await client.ask("submit_job", "job_accepted", job_type="upscaling", priority=10, payload={},
                                requirements=room.needs())
    told = 0
    for worker in workers:
        told += await worker.count("job_available", job_id=accepted["job_id"])
    check(told == accepted["notified_workers"], "%d told, %s named" % (told, accepted["notified_workers"]))


@conversation("max_jobs_exceeded")
async def _(room):
    client, worker = await room.client(), await room.worker()
    for _ in range(4):
        await client.submit(requirements=room.needs())
    await worker.claim(max_jobs=2)
    await worker.want("job_assigned")
    check(await worker.count("job_assigned") <= 1, "more than max_jobs")


@conversation("sixth_assigned_twice")
async def _(room):
    client, one, two = await room.client(), await room.worker(), await room.worker()
    jobs = [await client.submit(requirements=room.needs()) for _ in range(6)]
    seen = [(await one.take())["job_id"] for _ in range(6)]
    check(sorted(seen) == sorted(jobs), "assigned other jobs")
    await two.claim()
    await two.none("job_assigned")


@conversation("sixth_of_burst_unanswered")
async def _(room):
    client = await room.client()
    for number in range(6):
        await client.send("submit_job", job_type="upscaling", priority=number, payload={"n": number},
                          requirements=room.needs())
    ids = {(await client.want("job_accepted"))["job_id"] for _ in range(6)}
    check(len(ids) == 6, "ids are not different")


@conversation("third_subscription_drops_first")
async def _(room):
    owner, guest = await room.client(), await room.client()
    jobs = [await owner.submit(requirements=room.needs()) for _ in range(3)]
    for job in jobs:
        await guest.watch(job)
    worker = await room.worker()
    for _ in jobs:
        await worker.begin()
    for job in jobs:
        await guest.want("job_update", job_id=job, progress=10)


@conversation("equal_workers_counted_once", alone=True)
async def _(room):
    client = await room.client()
    sections = ["workers"]
    before = (await client.ask("request_stats", "system_status", include_sections=sections))["active_workers"]
    for _ in range(2):
        await room.worker()
    after = (await client.ask("request_stats", "system_status", include_sections=sections))["active_workers"]
    check(after - before == 2, "%s, then %s" % (before, after))


@conversation("completion_requeues_other")
async def _(room):
    client, worker = await room.client(), await room.worker()
    for _ in range(2):
        await client.submit(requirements=room.needs())
    one, two = await worker.begin(), await worker.begin()
    await worker.complete(one)
    check((await client.status(two))["status"] == "in_progress", "the other job is affected")


@conversation("interleaved_chunks")
async def _(room):
    client = await room.client()
    first = chunks_of({"type": "ping", "timestamp": stamp(), "n": 1}, 3, fresh("chunk"))
    second = chunks_of({"type": "ping", "timestamp": stamp(), "n": 2}, 3, fresh("chunk"))
    for pair in zip(first, second):
        for chunk in pair:
            await client.send("chunked_message", **chunk)
    for chunks, number in ((first, 1), (second, 2)):
        done = await client.want("chunked_message_complete", chunk_id=chunks[0]["chunk_id"])
        check(done["assembled_message"]["n"] == number, "another message")


@conversation("component_unchecked")
async def _(room):
    client = await room.client()
    worker = await room.worker(services=[room.service, fresh("service")], components=["upscaling"])
    await client.submit(requirements=room.needs(component="text-to-image-xl"))
    await worker.claim()
    await worker.none("job_assigned")


@conversation("stats_first_interval", alone=True)
async def _(room):
    one, two = await room.client(), await room.client()
    await stats(one, 60)
    answer = await stats(two, 0.2)
    asked = answer["next_broadcast"] - answer["timestamp"]
    check(abs(asked - answer["update_interval"] * 1000) < 20, "next_broadcast")
    await two.want("system_status")
    await two.want("system_status")


# ------------------------------------------------------------------ identity


@conversation("worker_prefix_32")
async def _(room):
    client = await room.client()
    stem = (fresh("worker") + "-" * 32)[:32]
    one, two = await room.worker(stem + "-a"), await room.worker(stem + "-b")
    for worker in (one, two):
        await client.submit(requirements=room.needs())
        check((await worker.take())["worker_id"] == worker.worker_id, "assigned to another")


@conversation("customer_case")
async def _(room):
    owner, guest = await room.client(), await room.client()
    customer = fresh("Customer")
    await guest.ask("subscribe_job_notifications", "job_notifications_subscribed", enabled=True,
                    filters={"customer_id": customer})
    await owner.submit(customer_id=customer.upper(), requirements=room.needs())
    await owner.submit(customer_id=customer, requirements=room.needs())
    worker = await room.worker()
    for _ in range(2):
        await worker.begin()
    await guest.want("job_update", progress=10)
    check(await guest.count("job_update", progress=10) == 0, "update of another customer")


@conversation("chunk_ids_nfc")
async def _(room):
    client = await room.client()
    stem = fresh("chunk")
    first = chunks_of({"n": 1, "type": "ping", "timestamp": stamp(), "text": "a"}, 2, stem + "\u00e9")
    second = chunks_of({"n": 2, "type": "ping", "timestamp": stamp(), "text": "b"}, 2, stem + "e\u0301")
    for chunk in (first[0], second[1], second[0], first[1]):
        await client.send("chunked_message", **chunk)
    for chunks, number in ((first, 1), (second, 2)):
        done = await client.want("chunked_message_complete", chunk_id=chunks[0]["chunk_id"])
        check(done["assembled_message"]["n"] == number, "another message")


@conversation("ack_id_of_other")
async def _(room):
    client, one, two = await room.client(), await room.worker(), await room.worker()
    ids = {one: fresh("msg"), two: fresh("msg")}
    for worker in (one, two):
        await worker.send("worker_status", worker_id=worker.worker_id, status="idle", id=ids[worker])
        await worker.fence()
        found = worker.look("ack", {})
        check(found is None or found.get("message_id") == ids[worker], "message_id of another")
        check(found is None or found.get("original_type") == "worker_status", "original_type")
    await client.fence()


@conversation("request_id_32")
async def _(room):
    client = await room.client()
    stem = "r" * 32
    for name in (stem + "-a", stem + "-b"):
        check((await refused_submit(client, id=name)).get("request_id") == name, "request_id")


@conversation("update_worker_of_last_claim")
async def _(room):
    client, one, two = await room.client(), await room.worker(), await room.worker()
    for _ in range(2):
        await client.submit(requirements=room.needs())
    first = await one.begin()
    await two.begin()
    await one.progress(first, 60)
    update = await client.want("job_update", job_id=first, progress=60)
    check(update.get("worker_id") == one.worker_id, "update names another worker")


@conversation("completed_to_namesake")
async def _(room):
    client = await room.client()
    namesake = await room.client(client.client_id)
    job = await client.submit(requirements=room.needs())
    worker = await room.worker()
    await worker.begin()
    await worker.complete(job)
    await client.want("job_completed", job_id=job)
    await namesake.fence()


@conversation("connection_id_per_client")
async def _(room):
    one = await room.client()
    two = await room.client(one.client_id)
    ids = {client.registered["assigned_connection_id"] for client in (one, two)}
    check(len(ids) == 2, "connections share an id")


@conversation("completed_ack_first_job")
async def _(room):
    client, worker = await room.client(), await room.worker()
    for _ in range(2):
        await client.submit(requirements=room.needs())
    await worker.begin()
    second = await worker.begin()
    check((await worker.complete(second))["job_id"] == second, "another job is acknowledged")


@conversation("progress_to_first_job")
async def _(room):
    one, two, worker = await room.client(), await room.client(), await room.worker()
    job1 = await one.submit(requirements=room.needs())
    await worker.begin()
    job2 = await two.submit(requirements=room.needs())
    await worker.begin(44)
    await two.want("job_update", job_id=job2, progress=44)
    await one.none("job_update", job_id=job1, progress=44)


# ------------------------------------------------------------------ neighbours


@conversation("subscriber_leaves_all_dropped")
async def _(room):
    owner, one, two = await room.client(), await room.client(), await room.client()
    job = await owner.submit(requirements=room.needs())
    for guest in (one, two):
        await guest.watch(job)
    await one.leave()
    await (await room.worker()).begin()
    await two.want("job_update", job_id=job, progress=10)


@conversation("stats_off_for_all")
async def _(room):
    one, two = await room.client(), await room.client()
    for client in (one, two):
        await stats(client, 0.077)
    await one.send("subscribe_stats", enabled=False, interval_seconds=0.077)
    await one.fence()
    await two.fence()
    two.inbox.clear()
    await two.want("system_status")


@conversation("open_chunks_block_others", alone=True)
async def _(room):
    one, two = await room.client(), await room.client()
    first = chunks_of({"type": "ping", "timestamp": stamp()}, 3, fresh("chunk"))
    second = chunks_of({"type": "ping", "timestamp": stamp()}, 3, fresh("chunk"))
    await one.send("chunked_message", **first[0])
    await one.fence()
    for chunk in second:
        await two.send("chunked_message", **chunk)
    await two.want("chunked_message_complete", chunk_id=second[0]["chunk_id"])


@conversation("submitter_gone_no_updates")
async def _(room):
    owner, guest = await room.client(), await room.client()
    job = await owner.submit(requirements=room.needs())
    await guest.watch(job)
    await owner.leave()
    await (await room.worker()).begin()
    await guest.want("job_update", job_id=job, progress=10)


@conversation("unaccepted_blocks_customer")
async def _(room):
    client, one, two = await room.client(), await room.worker(), await room.worker()
    customer = fresh("customer")
    jobs = {await client.submit(customer_id=customer, requirements=room.needs()) for _ in range(2)}
    jobs.discard((await one.take())["job_id"])
    check((await two.take())["job_id"] in jobs, "another job")


@conversation("namesake_leaves")
async def _(room):
    client = await room.client()
    namesake = await room.client(client.client_id)
    job = await client.submit(requirements=room.needs())
    await namesake.leave()
    await (await room.worker()).begin()
    await client.want("job_update", job_id=job, progress=10)


@conversation("monitor_leaves_no_alerts", "alert_seconds", alone=True)
async def _(room):
    one, two = await room.client(client_type="monitor"), await room.client(client_type="monitor")
    for monitor in (one, two):
        await stats(monitor, 60)
    await one.leave()
    text = fresh("alert <&>")
    await room.control("alert", message=text, severity="critical")
    alert = await two.want("system_alert", message=text)
    check(abs(alert["timestamp"] - stamp()) < 60000, "timestamp is not in milliseconds")


@conversation("weak_claim_hides_job")
async def _(room):
    client, weak, able = await room.client(), await room.worker(memory=4), await room.worker()
    job = await client.submit(requirements=room.needs(hardware={"gpu_memory_gb": 8}))
    await weak.claim()
    await weak.none("job_assigned")
    check((await able.take())["job_id"] == job, "another job")


@conversation("last_filter_wins")
async def _(room):
    owner, one, two = await room.client(), await room.client(), await room.client()
    customer = fresh("customer")
    for guest, name in ((one, customer), (two, fresh("customer"))):
        await guest.ask("subscribe_job_notifications", "job_notifications_subscribed", enabled=True,
                        filters={"customer_id": name})
    job = await owner.submit(customer_id=customer, requirements=room.needs())
    await (await room.worker()).begin()
    await one.want("job_update", job_id=job, progress=10)
    await two.none("job_update", job_id=job)


@conversation("status_query_eats_update")
async def _(room):
    client, other, worker = await room.client(), await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.begin()
    await other.status(job)
    for progress in (50, 75):
        await worker.progress(job, progress)
        await client.want("job_update", job_id=job, progress=progress)


@conversation("malformed_hits_next_submitter")
async def _(room):
    client, other = await room.client(), await room.client()
    await other.text('{"type": "ping"')
    await other.want("error")
    await client.submit(requirements=room.needs())


# ------------------------------------------------------------------ values


def payload_conversation(name, payload):
    @conversation(name)
    async def _(room):
        client, worker = await room.client(), await room.worker()
        await client.submit(payload=payload, requirements=room.needs())
        found = (await worker.take())["payload"]
        check(exact(found, payload), "payload changed: " + json.dumps(found)[:200])


def exact(found, wanted):
    if isinstance(wanted, dict):
        return isinstance(found, dict) and found.keys() == wanted.keys() and all(
            exact(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(exact, found, wanted))
    if isinstance(wanted, (str, bool)) or wanted is None:
        return type(found) is type(wanted) and found == wanted
    return not isinstance(found, (str, bool)) and found == wanted


payload_conversation("nul_stripped", {"prompt": "a\0b", "list": ["\0"]})
payload_conversation("null_dropped", {"seed": None, "inner": {"a": None, "b": 0}})
payload_conversation("long_string_cut", {"prompt": "x" * 65536})
payload_conversation("numeric_text", {"code": "007", "size": "1024", "other": "1e3"})
payload_conversation("prototype_names", {"__proto__": {"a": 1}, "constructor": "b", "toString": 3})
payload_conversation("int32_wrap", {"seed": 4294967297, "most": 9007199254740991})


@conversation("html_escaped", "success_false", "processing_time_zero")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.begin()
    files = ["https://x.example/?a=1&b=<2>", "", "\u00e9/\U0001f600"]
    await worker.complete(job, processing_time=0, result={"success": False, "output_files": files})
    done = await client.want("job_completed", job_id=job)
    check(exact(done["result"].get("output_files"), files), "output_files changed")
    check(done["result"].get("success") is False, "success changed")
    check(exact(done.get("processing_time"), 0), "processing_time changed")


@conversation("priority_zero")
async def _(room):
    client, worker = await room.client(), await room.worker()
    await client.submit(priority=0, requirements=room.needs())
    check(exact((await worker.take()).get("priority"), 0), "priority changed")


@conversation("progress_fraction")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.begin(33.3)
    update = await client.want("job_update", job_id=job, status="in_progress")
    check(update.get("progress") == 33.3, "progress changed")


@conversation("gpu_fraction")
async def _(room):
    client, worker, able = await room.client(), await room.worker(memory=8), await room.worker(memory=8.5)
    job = await client.submit(requirements=room.needs(hardware={"gpu_memory_gb": 8.5}))
    await worker.claim()
    await worker.none("job_assigned")
    check((await able.take())["job_id"] == job, "another job")


# ------------------------------------------------------------------ equivalents


def submit_text(room, priority="75", prompt='"p"', kind="submit_job", tail=""):
    return ('{"type":"%s","job_type":"upscaling","priority":%s,"payload":{"prompt":%s},'
            '"requirements":{"service_type":"%s"},"timestamp":%d%s}'
            % (kind, priority, prompt, room.service, stamp(), tail))


def text_conversation(name, make, prompt="p", priority=75):
    @conversation(name)
    async def _(room):
        client, worker = await room.client(), await room.worker()
        await client.text(make(room))
        job = (await client.want("job_accepted"))["job_id"]
        found = await worker.take()
        check(found["job_id"] == job and exact(found["payload"], {"prompt": prompt}), "payload changed")
        check(exact(found["priority"], priority), "priority changed")


def type_last(room):
    message = json.loads(submit_text(room))
    message["type"] = message.pop("type")
    return json.dumps(message)


def pieces(text, number):
    data = text.encode()
    size = -(-len(data) // number)
    return [data[index:index + size] for index in range(0, len(data), size)]


text_conversation("type_last", type_last)
text_conversation("leading_white_space", lambda room: "\n\t " + submit_text(room) + " \r\n")
text_conversation("escaped_type", lambda room: submit_text(room, kind="submit\\u005fjob"))
text_conversation("exponent_ignored", lambda room: submit_text(room, priority="7.5e1"))
text_conversation("surrogate_escapes", lambda room: submit_text(room, prompt='"\\ud83d\\uDE00"'), "\U0001f600")
text_conversation("extra_members_refused", lambda room: submit_text(room, tail=',"trace":{"a":[1]}'))


async def framed(room, frames, prompt):
    client, worker = await room.client(), await room.worker()
    await client.ws.send(frames(client), text=True)
    await client.want("job_accepted")
    check((await worker.take())["payload"] == {"prompt": prompt}, "payload changed")


@conversation("fourth_frame_lost")
async def _(room):
    await framed(room, lambda client: pieces(submit_text(room), 5), "p")


@conversation("ping_between_frames")
async def _(room):
    async def frames(client):
        for piece in pieces(submit_text(room), 2):
            yield piece
            await client.ws.ping()
    await framed(room, frames, "p")


@conversation("utf8_across_frames")
async def _(room):
    data = submit_text(room, prompt='"\u20ac"').encode()
    cut = data.index("\u20ac".encode()) + 1
    await framed(room, lambda client: [data[:cut], data[cut:]], "\u20ac")


@conversation("upgrade_case")
async def _(room):
    answer = await room.raw("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade"
                            "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13")
    check(answer.startswith("HTTP/1.1 101"), "no 101: " + answer[:60])
    check("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer, "Sec-WebSocket-Accept")


@conversation("chunk_order")
async def _(room):
    client, worker = await room.client(), await room.worker()
    message = json.loads(submit_text(room))
    chunks = chunks_of(message, 3, fresh("chunk"))
    for chunk in reversed(chunks):
        await client.send("chunked_message", **chunk)
    done = await client.want("chunked_message_complete")
    check(done["assembled_message"] == message, "assembled_message changed")
    check(done["total_size"] == len(json.dumps(message)), "total_size")
    await client.want("job_accepted")
    await worker.fence()


# ------------------------------------------------------------------ one-of-many


@conversation("cancel_error_without_code")
async def _(room):
    client = await room.client()
    for kind in ("request_job_status", "cancel_job"):
        error = await client.ask(kind, "error", job_id=fresh("no-such-job"))
        check(isinstance(error.get("error_code"), str), "error without error_code")


@conversation("connector_status_unknown")
async def _(room):
    worker = await room.worker()
    for status in ("connected", "disconnected"):
        await worker.send("connector_ws_status", worker_id=worker.worker_id, connector_type="comfyui", status=status,
                          details={"url": "ws://localhost:8188/ws", "connection_time": stamp()})
        await worker.none("unknown")


@conversation("no_update_on_cancel")
async def _(room):
    owner, guest = await room.client(), await room.client()
    job = await owner.submit(requirements=room.needs())
    await guest.watch(job)
    await owner.ask("cancel_job", "job_cancelled", job_id=job, reason="User requested cancellation")
    update = await guest.want("job_update", job_id=job, status="cancelled")
    check(update.get("previous_status") in (None, "queued"), "previous_status")


@conversation("no_update_on_failure")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.begin()
    check((await worker.fail(job, False)).get("retry_scheduled") is False, "retry_scheduled")
    await client.want("job_update", job_id=job, status="failed")


@conversation("monitor_without_connection_id")
async def _(room):
    for client_type in ("job_client", "monitor", "monitor"):
        client = await room.client(client_type=client_type)
        check(isinstance(client.registered.get("assigned_connection_id"), str), "no assigned_connection_id")


@conversation("completed_ignores_priority_min")
async def _(room):
    owner, guest, worker = await room.client(), await room.client(), await room.worker()
    customer = fresh("customer")
    await guest.ask("subscribe_job_notifications", "job_notifications_subscribed", enabled=True,
                    filters={"customer_id": customer, "priority_min": 70})
    jobs = {}
    for priority in (69.5, 70):
        jobs[priority] = await owner.submit(priority=priority, customer_id=customer, requirements=room.needs())
    for _ in jobs:
        await worker.complete(await worker.begin())
    await guest.want("job_completed", job_id=jobs[70])
    await guest.none("job_completed", job_id=jobs[69.5])


@conversation("workers_not_told", alone=True)
async def _(room):
    both = [await room.client(), await room.worker()]
    await room.control("shutdown", reason="Server maintenance", estimated_downtime=60)
    for client in both:
        told = await client.want("server_disconnect", reason="Server maintenance")
        check(told.get("estimated_downtime") == 60, "estimated_downtime")
        check(50000 < told["reconnect_after"] - stamp() < 70000, "reconnect_after")
        await client.until_closed()


@conversation("no_pong_while_working")
async def _(room):
    client, worker = await room.client(), await room.worker()
    await worker.fence()
    await client.submit(requirements=room.needs())
    await worker.take()
    await worker.fence()


@conversation("second_service_ignored")
async def _(room):
    client, worker = await room.client(), await room.worker(services=[fresh("service"), room.service])
    job = await client.submit(requirements=room.needs())
    check((await worker.take())["job_id"] == job, "another job")


# ------------------------------------------------------------------ second lot


@conversation("cancelled_in_retry_returns")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.begin()
    await worker.send("fail_job", job_id=job, worker_id=worker.worker_id, error="Timeout", retry=True)
    await worker.send("cancel_job", job_id=job, reason="User requested cancellation")
    await worker.want("job_cancelled", job_id=job)
    await asyncio.sleep(0.2)
    check((await client.status(job))["status"] == "cancelled", "the cancelled job has come back")


@conversation("chunk_id_burnt")
async def _(room):
    client = await room.client()
    chunks = chunks_of({"type": "ping", "timestamp": stamp(), "n": 1}, 2, fresh("chunk"))
    for chunk in chunks:
        await client.send("chunked_message", **{**chunk, "data_hash": "0" * 64})
    await client.want("error")
    for chunk in chunks:
        await client.send("chunked_message", **chunk)
    await client.want("chunked_message_complete", chunk_id=chunks[0]["chunk_id"])


@conversation("notifications_off_last_only")
async def _(room):
    owner, guest = await room.client(), await room.client()
    customers = [fresh("customer"), fresh("customer")]
    for customer in customers:
        await guest.ask("subscribe_job_notifications", "job_notifications_subscribed", enabled=True,
                        filters={"customer_id": customer})
    await guest.send("subscribe_job_notifications", enabled=False)
    await guest.fence()
    for customer in customers:
        await owner.submit(customer_id=customer, requirements=room.needs())
    await (await room.worker()).begin()
    await guest.none("job_update")


@conversation("old_services_remembered")
async def _(room):
    client = await room.client()
    other = fresh("service")
    worker = await room.worker(services=[other, room.service])
    await worker.leave()
    worker = await room.worker(worker.worker_id, services=[other])
    await client.submit(requirements=room.needs())
    await worker.claim()
    await worker.none("job_assigned")
    job = await client.submit(requirements={"service_type": other})
    check((await worker.take())["job_id"] == job, "another job")


@conversation("not_told_after_empty_claim")
async def _(room):
    client, worker = await room.client(), await room.worker()
    await worker.claim()
    await worker.none("job_assigned")
    job = await client.submit(requirements=room.needs())
    await worker.want("job_available", job_id=job)
    check((await worker.take())["job_id"] == job, "another job")


@conversation("chunks_sorted_as_text")
async def _(room):
    client = await room.client()
    for number in (2, 9, 12):
        message = {"type": "ping", "timestamp": stamp(), "text": "abcdefghij" * 10}
        chunks = chunks_of(message, number, fresh("chunk"))
        for chunk in chunks:
            await client.send("chunked_message", **chunk)
        done = await client.want("chunked_message_complete", chunk_id=chunks[0]["chunk_id"])
        check(done["assembled_message"] == message, "assembled_message changed")


@conversation("result_first_watcher_only")
async def _(room):
    owner, guest, worker = await room.client(), await room.client(), await room.worker()
    job = await owner.submit(requirements=room.needs())
    await guest.watch(job)
    await worker.complete(await worker.begin())
    for client in (owner, guest):
        done = await client.want("job_completed", job_id=job)
        check(done.get("result", {}).get("success") is True, "no result")


@conversation("progress_throttled_by_worker")
async def _(room):
    client, worker = await room.client(), await room.worker()
    for _ in range(2):
        await client.submit(requirements=room.needs())
    jobs = [await worker.begin(), await worker.begin()]
    for number, job in enumerate(jobs):
        await worker.send("update_job_progress", job_id=job, worker_id=worker.worker_id, progress=60 + number,
                          status="in_progress", message="step")
    for number, job in enumerate(jobs):
        await client.want("job_update", job_id=job, progress=60 + number)


@conversation("heartbeat_first_job_only")
async def _(room):
    client, worker = await room.client(), await room.worker()
    for _ in range(2):
        await client.submit(requirements=room.needs())
    jobs = [await worker.begin(), await worker.begin()]
    answer = await worker.ask("worker_heartbeat", "worker_heartbeat_ack", worker_id=worker.worker_id, status="busy",
                              load=0.8, current_jobs=jobs)
    check(answer.get("worker_id") == worker.worker_id, "worker_id of the acknowledgment")
    for job in jobs:
        check((await client.status(job))["status"] == "in_progress", "a job was taken away")


@conversation("chunk_table_shared")
async def _(room):
    one, two = await room.client(), await room.client()
    name = fresh("chunk")
    first, second = (chunks_of({"type": "ping", "n": n, "timestamp": stamp()}, 2, name) for n in (1, 2))
    await one.send("chunked_message", **first[0])
    await one.fence()
    await two.send("chunked_message", **second[1])
    await two.fence()
    await two.send("chunked_message", **second[0])
    done = await two.want("chunked_message_complete", chunk_id=name)
    check(done["assembled_message"]["n"] == 2, "another message")
    await one.send("chunked_message", **first[1])
    done = await one.want("chunked_message_complete", chunk_id=name)
    check(done["assembled_message"]["n"] == 1, "another message")


@conversation("job_type_substring")
async def _(room):
    owner, guest = await room.client(), await room.client()
    kind = fresh("type")
    await guest.ask("subscribe_job_notifications", "job_notifications_subscribed", enabled=True,
                    filters={"job_types": ["upscaling_" + kind, kind]})
    others = [await owner.submit(job_type=name, requirements=room.needs()) for name in (kind + "_hd", "x_" + kind)]
    job = await owner.submit(job_type=kind, requirements=room.needs())
    worker = await room.worker()
    for _ in range(3):
        await worker.begin()
    await guest.want("job_update", job_id=job, progress=10)
    for other in others:
        await guest.none("job_update", job_id=other)


@conversation("foreign_fail_accepted")
async def _(room):
    client, one, two = await room.client(), await room.worker(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await one.begin()
    await two.send("fail_job", job_id=job, worker_id=two.worker_id, error="Timeout", retry=False)
    await two.fence()
    check((await client.status(job))["status"] == "in_progress", "another worker's fail_job was carried out")
    await one.complete(job)
    await client.want("job_completed", job_id=job)


@conversation("stats_by_client_id")
async def _(room):
    one = await room.client()
    two = await room.client(one.client_id)
    for client in (one, two):
        await stats(client)
    await one.fence()
    one.inbox.clear()
    for client in (one, two):
        await client.want("system_status")


@conversation("cancel_confirmed_to_owner")
async def _(room):
    owner, other = await room.client(), await room.client()
    job = await owner.submit(requirements=room.needs())
    await other.send("cancel_job", job_id=job, reason="Operator")
    answer = await other.want("job_cancelled", job_id=job)
    check(answer.get("status") == "cancelled", "status")


@conversation("old_claim_timer_fires")
async def _(room):
    client, one, two = await room.client(), await room.worker(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await one.send("claim_job", worker_id=one.worker_id, max_jobs=1, claim_timeout=600)
    await one.want("job_assigned", job_id=job)
    await one.fail(job, True)
    for _ in range(2):
        await two.want("job_available", job_id=job)
    await two.take()
    await two.accept(job)
    await asyncio.sleep(0.8)
    check((await client.status(job))["status"] == "assigned", "the job was taken away")
    await two.progress(job, 35)
    await client.want("job_update", job_id=job, progress=35)


@conversation("old_connection_takes_worker")
async def _(room):
    client, old = await room.client(), await room.worker()
    new = await room.worker(old.worker_id)
    await old.leave()
    await new.fence()
    job = await client.submit(requirements=room.needs())
    await new.want("job_available", job_id=job)
    check((await new.take())["job_id"] == job, "another job")


@conversation("leaver_skips_next")
async def _(room):
    owner = await room.client()
    job = await owner.submit(requirements=room.needs())
    guests = [await room.client() for _ in range(3)]
    for guest in guests:
        await guest.watch(job)
    await guests.pop(0).leave()
    await (await room.worker()).begin()
    for guest in guests:
        await guest.want("job_update", job_id=job, status="assigned")
        await guest.want("job_update", job_id=job, progress=10)


@conversation("claim_lock_leak")
async def _(room):
    client, one, two = await room.client(), await room.worker(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await one.claim(max_jobs=0)
    await one.want("error")
    check((await two.take())["job_id"] == job, "another job")


def nested(levels):
    value = {"deep": True}
    for _ in range(levels):
        value = {"a": [value]}
    return value


payload_conversation("empty_object_becomes_list", {"extra": {}, "list": [], "inner": [{"a": {}}]})
payload_conversation("iso_strings_normalised", {"from": "2024-01-15T12:05:30+02:00", "to": "2024-01-15T10:05:30Z"})
payload_conversation("deep_payload_as_text", nested(20))


@conversation("empty_message_keeps_last")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.begin()
    for progress, text in ((20, "sampling"), (30, "")):
        await worker.send("update_job_progress", job_id=job, worker_id=worker.worker_id, progress=progress,
                          status="in_progress", message=text)
        update = await client.want("job_update", job_id=job, progress=progress)
        check(text or update.get("message") != "sampling", "message of the step before")


@conversation("empty_first_frame_lost")
async def _(room):
    await framed(room, lambda client: [b"", submit_text(room).encode()], "p")


text_conversation("line_feeds_inside_refused", lambda room: json.dumps(json.loads(submit_text(room)), indent=2))
text_conversation("solidus_escape_kept", lambda room: submit_text(room, prompt='"a\\/b\\\\/c/d"'), "a/b\\/c/d")


@conversation("integral_fraction_refused")
async def _(room):
    client, worker = await room.client(), await room.worker()
    for spelling in ("1", "1.0", "1e0"):
        job = await client.submit(requirements=room.needs())
        await worker.text('{"type":"claim_job","worker_id":"%s","max_jobs":%s,"claim_timeout":30000,"timestamp":%d}'
                          % (worker.worker_id, spelling, stamp()))
        await worker.want("job_assigned", job_id=job)


@conversation("lost_worker_not_reported")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.begin()
    await worker.leave()
    for _ in range(10):
        if (await client.status(job))["status"] != "in_progress":
            await client.want("job_update", job_id=job, status="queued")
            return
        await asyncio.sleep(0.02)


@conversation("failed_counted_completed", alone=True)
async def _(room):
    client, worker = await room.client(), await room.worker()
    counts = []
    for end in (None, worker.fail, worker.complete):
        if end is not None:
            await client.submit(requirements=room.needs())
            job = await worker.begin()
            await (worker.fail(job, False) if end == worker.fail else worker.complete(job))
        counts.append((await client.ask("request_stats", "system_status",
                                        include_sections=["jobs"]))["completed_jobs_last_hour"])
    check(counts == [counts[0], counts[0], counts[0] + 1], "completed jobs %s" % counts)


@conversation("reannounced_without_summary")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    for _ in range(2):
        notice = await worker.want("job_available", job_id=job)
        check(notice["requirements_summary"].get("service_type") == room.service, "requirements_summary")
        await worker.begin()
        await worker.fail(job, True)


@conversation("worker_error_without_request_id")
async def _(room):
    client = await room.client()
    for kind, members in (("request_job_status", {"job_id": fresh("job")}),
                          ("worker_heartbeat", {"worker_id": fresh("worker"), "status": "idle"})):
        name = fresh("req")
        check((await client.ask(kind, "error", id=name, **members)).get("request_id") == name, "request_id")


# ------------------------------------------------------------------ variants that must show


@shows("newest_first")
async def _(room):
    client, worker = await room.client(), await room.worker()
    jobs = [await client.submit(requirements=room.needs()) for _ in range(2)]
    check((await worker.take())["job_id"] == jobs[1], "the oldest")


@shows("worker_told_of_cancel")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.begin()
    await client.ask("cancel_job", "job_cancelled", job_id=job)
    await worker.want("job_update", job_id=job, status="cancelled")
    await worker.none("job_update")


@shows("completed_update_too")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.complete(await worker.begin())
    await client.want("job_completed", job_id=job)
    await client.want("job_update", job_id=job, status="completed", previous_status="in_progress")


@shows("long_ids")
async def _(room):
    client = await room.client()
    job = await client.submit(requirements=room.needs())
    check(len(job) > 100 and not job.isascii(), "a short id")
    check(len(client.registered["assigned_connection_id"]) > 100, "a short id")


@shows("retry_backoff")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    delays = []
    for _ in range(2):
        await worker.want("job_available", job_id=job)
        await worker.begin()
        delays.append((await worker.fail(job, True))["retry_delay"])
    check(delays[1] > delays[0], "the same delay")


@shows("started_at_acceptance")
async def _(room):
    client, worker = await room.client(), await room.worker()
    job = await client.submit(requirements=room.needs())
    await worker.take()
    await worker.accept(job)
    answer = await client.status(job)
    check(answer["status"] == "assigned" and abs(answer["started_at"] - stamp()) < 60000, "not started")


@shows("iso_offset")
async def _(room):
    client = await room.client()
    answer = await client.ask("submit_job", "job_accepted", job_type="upscaling", priority=1, payload={},
                              requirements=room.needs())
    check(answer["estimated_start"].endswith("+00:00"), "another form")
    moment = datetime.datetime.fromisoformat(answer["estimated_start"]).timestamp()
    check(0 < moment - time.time() < 86400 * 30, "another time")


@shows("alerts_to_all")
async def _(room):
    clients = [await room.client(), await room.worker(), await room.client(client_type="monitor")]
    text = fresh("alert")
    await room.control("alert", message=text)
    for client in clients:
        await client.want("system_alert", message=text)


# ------------------------------------------------------------------ running


class HubProcess:
    def __init__(self, *arguments):
        self.arguments = arguments

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, os.path.join(HERE, "hub.py"), *SETTINGS, *self.arguments,
            stdout=asyncio.subprocess.PIPE)
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        return line.decode().strip()

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), 5)
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()


async def hold(function, url, patience, compression=None):
    """None when the conversation goes as it should, otherwise what was wrong."""
    room = Room(url, patience, compression)
    try:
        await function(room)
    except Wrong as wrong:
        return str(wrong)
    except (KeyError, TypeError, ValueError, AttributeError, ConnectionClosed) as problem:
        return repr(problem)
    finally:
        await room.end()
    return None


async def all_right(arguments, names):
    """The conversations that go wrong with a hub that should be right."""
    compression = "deflate" if "compressed" in arguments else None
    wrong = {}
    done = {}
    async with HubProcess(*arguments) as url:
        gate = asyncio.Semaphore(8)

        async def one(name, function):
            async with gate:
                problem = await hold(function, url, 12, compression)
                done[function] = problem
                if problem:
                    wrong[name] = problem

        functions = {}
        for name in names:
            functions.setdefault(CONVERSATIONS[name][0], name)
        await asyncio.gather(*(one(name, function) for function, name in functions.items()
                               if not CONVERSATIONS[name][1]))
        for function, name in functions.items():
            if CONVERSATIONS[name][1]:
                await one(name, function)
    return {name: done[CONVERSATIONS[name][0]] for name in names if done[CONVERSATIONS[name][0]]}


async def with_bug(name):
    async with HubProcess("--bug", name) as url:
        return await hold(CONVERSATIONS[name][0], url, 2)


async def main():
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, os.path.join(HERE, "hub.py"), "--list",
                                                   stdout=asyncio.subprocess.PIPE)
    listed = json.loads((await process.communicate())[0])
    bugs = [bug["name"] for bug in listed["bugs"]]
    variants = [variant["name"] for variant in listed["variants"]]
    wanted = sys.argv[1:] or ["plain"] + bugs + variants
    bad = [name for name in wanted if name not in ["plain"] + bugs + variants]
    bad += [name for name in bugs if name not in CONVERSATIONS]
    if bad:
        print("no such bug, variant or conversation: " + ", ".join(bad))
        return 1
    chosen = [name for name in bugs if name in wanted]
    plain = await all_right([], bugs if "plain" in wanted else chosen)
    failures = len(plain) if "plain" in wanted else 0
    for name in plain if failures else ():
        print("FAIL hub plain: %s: %s" % (name, plain[name]))
    gate = asyncio.Semaphore(6)

    async def one(name):
        async with gate:
            return name, await with_bug(name)

    for name, problem in await asyncio.gather(*(one(name) for name in chosen)):
        if name in plain:
            print("FAIL bug %s: goes wrong without it too: %s" % (name, plain[name]))
            failures += 1
        elif problem is None:
            print("FAIL bug %s: not seen" % name)
            failures += 1
        else:
            print("ok   bug %s: %s" % (name, problem[:150]))
    gate = asyncio.Semaphore(3)

    async def two(name):
        async with gate:
            wrong = await all_right(["--variant", name], bugs)
            if name in SHOWS:
                async with HubProcess("--variant", name) as url:
                    problem = await hold(SHOWS[name], url, 6)
                if problem:
                    wrong["shows"] = problem
                async with HubProcess() as url:
                    if await hold(SHOWS[name], url, 1) is None:
                        wrong["shows"] = "without the variant too"
            return name, wrong

    for name, wrong in await asyncio.gather(*(two(name) for name in variants if name in wanted)):
        if wrong:
            failures += 1
            print("FAIL variant %s: %s" % (name, json.dumps(wrong)[:600]))
        else:
            print("ok   variant %s: %d conversations right" % (name, len(bugs)))
    print("%d bugs, %d variants, %d not as they should be, %d s"
          % (len(chosen), len([name for name in variants if name in wanted]), failures, time.monotonic() - started))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
