"""A Gator tier, written from Gator's page on its messages alone.

Children (tiers, wrappers and tasks) connect over WebSocket, each message being one text frame. The
tier records what they log in SQLite and hands it up, and passes `stop` on to all of them. How tiers
find each other, what a tier runs and where its log is read is not on the page, so that is asked for
over HTTP: one object to the second address, whose only member is connect_up, register_child,
log_entries, start_job or job.

The page fixes little, so this tier has every habit it leaves open (`--plain` has none of them,
`--odd a,b` has some, `--without a,b` lacks some). `--bug NAME` is a stranger's typical mistake instead:
forgetful, hasty, answers-posted, loses-severity, keeps-scheduling, own-ids.


order      Members come in any order, with any white space, plain or escaped: JSON fixes none of it.
numbers    23 comes back as 23.0: the same number, and JSON knows no other difference.
extra      Members beyond those shown, in messages and payloads: the page shows formats, it closes none.
payload    A success carries a payload of the tier's own: the page fixes none for `log` and `stop`.
named      A failure names its action and has a payload; the format shows neither, and forbids neither.
nulls      `rsp_id` is null where no `req_id` could be copied: only "if an identifier is provided" is it bound.
texts      A reason is "an explanation of the error", in whatever language and length.
ids        The tier's own requests have texts, large, negative or no numbers as `req_id`: no type is stated.
posts      They are posted, or not, or do not say: `stop` "can be sent either posted or non-posted".
bare       They have no payload, an empty or a null one: `stop` "requires no payload to be provided".
late       What is stopped takes its time: jobs "may still be in the process of being terminated".
asker      A `stop` goes to "all child tiers and wrappers", also to the one that asked for it.
shuffle    Children are stopped in any order.
overtake   Answers pass one another: identifiers allow "multiple outstanding messages".
unasked    Requests travel down at any time, for "operations like discovering the active tree".
strict     Null or unknown members of a payload, a fraction as time, a payload that is none are refused ...
lenient    ... or taken: a severity in small letters, a time as text, a message that is no text. Per connection.
decoding   A posted log with a wrong payload "fails to be decoded" too, and is answered.
more       Actions exist that the page does not show (`metric`, `heartbeat`): "record metrics using this API".
hangup     Who sent what is no message is told so and the connection closed: the page does not keep it open.

Only where `--odd` names it, since the judge advises against it:
actions    A posted request with an unknown action fails to be decoded, too.

Of the WebSocket: headers, hints, drip, pings, fragments, slow, own-close, reasons, impatient (odd_websocket.py).
"""
import argparse
import asyncio
import json
import sqlite3
import sys
import time

from gator_words import EXCUSES, Refused, read, with_extras, written
from odd_websocket import TEXT, Connection, Failed, Gone, chance, connect, odd, rng

HABITS = """order numbers extra payload named nulls texts ids posts bare late asker shuffle overtake unasked
strict lenient decoding more hangup headers hints drip pings fragments slow own-close reasons impatient""".split()
SEVERITIES = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
FORWARDING = 5      # seconds a child has to take a stop

children = set()
log = sqlite3.connect(":memory:")
log.execute("CREATE TABLE log (timestamp, severity TEXT, message TEXT)")
jobs = {}           # name: the states of its two tasks, and what runs them
state = {"parent": None, "bug": None}


class Child(Connection):
    """One connection, to a child or to the parent: what came from it, what goes to it, and what of that has gone."""

    def __init__(self, reader, writer):
        super().__init__(reader, writer)
        self.gone_out = {}      # body of a frame: futures that wait for it to be written
        self.sender = None
        self.tasks = set()
        self.mood = rng.choice([m for m in ("strict", "lenient") if m in odd] or [""])

    def frames(self, opcode, body):
        yield from super().frames(opcode, body)
        for future in self.gone_out.pop(body, []):
            if not future.done():
                future.set_result(None)

    def say(self, message, line):
        body = written(message)
        self.send(TEXT, body, line)
        return body

    def ask(self, action, payload=None):
        """Sends a request of the tier's own."""
        request = {"action": action, "req_id": next(self.counter), "posted": False, "payload": payload or {}}
        if chance("ids"):
            request["req_id"] = rng.choice(["down-1", "", -7, 2**53 - 1, 0, 1.5])
        if chance("ids", 0.1):
            del request["req_id"]
        if chance("posts"):
            request["posted"] = True
        elif chance("posts", 0.3):
            del request["posted"]
        if chance("bare", 0.3) and not payload:
            request["payload"] = None
        elif chance("bare", 0.3) and not payload:
            del request["payload"]
        return self.say(with_extras(request), "down")

    async def take_stop(self):
        """Sends a stop and waits until it is written, or can no longer be."""
        future = asyncio.get_running_loop().create_future()
        self.gone_out.setdefault(self.ask("stop"), []).append(future)
        await asyncio.wait({future, self.sender}, timeout=FORWARDING, return_when=asyncio.FIRST_COMPLETED)

    async def take(self, opcode, body):
        """Does what one message asks and answers it where it wants an answer."""
        message = None
        try:
            message = read(opcode, body)
            if message.get("result") in ("success", "error") and "req_id" not in message:
                return      # an answer to a request of ours
            posted = self.posted(message)
            payload = await self.do(message)
            if posted and state["bug"] != "answers-posted":
                return
            answer = {"action": message["action"], "rsp_id": None, "result": "success", "payload": payload}
        except Refused as refused:
            if message is not None and message.get("posted") is True:
                known = message.get("action") in ("log", "stop")
                if not (refused.undecodable or (chance("decoding") if known else "actions" in odd)):
                    return
            answer = {"result": "error", "rsp_id": None, "reason": str(refused)}
            if chance("texts"):
                answer["reason"] = rng.choice(EXCUSES)
            if chance("named", 0.3) and message:
                answer |= {"action": message.get("action"), "payload": {}}
            if refused.undecodable and chance("hangup"):
                self.say(with_extras(self.addressed(answer, message)), None)
                return self.close(1008, "speak gator")
        self.say(with_extras(self.addressed(answer, message)), rng.randrange(4))

    @staticmethod
    def addressed(answer, message):
        """The answer with the request's identifier, where it had one."""
        if message and message.get("req_id") is not None:
            answer["rsp_id"] = str(message["req_id"]) if state["bug"] == "own-ids" else message["req_id"]
            if type(answer["rsp_id"]) is int and abs(answer["rsp_id"]) < 2**53 and chance("numbers", 0.3):
                answer["rsp_id"] = float(answer["rsp_id"])
        elif (message and "req_id" not in message or not message) and not chance("nulls"):
            del answer["rsp_id"]
        return answer

    def posted(self, message):
        posted = message.get("posted", False)
        if not isinstance(posted, bool) and self.mood != "lenient":
            raise Refused("'posted' is true or false", undecodable=True)
        return posted is True

    async def do(self, message):
        action, payload = message.get("action"), message.get("payload", {})
        if not isinstance(action, str):
            raise Refused("a request has an 'action', which is a text", undecodable=True)
        if payload is None and (action == "stop" or self.mood != "strict"):
            payload = {}
        if not isinstance(payload, dict) and (action != "stop" or self.mood == "strict"):
            raise Refused("a 'payload' is an object")
        if action == "log":
            self.log(payload)
        elif action == "stop":
            await stop(self)
        elif action not in ("metric", "heartbeat") or "more" not in odd:
            raise Refused(f"there is no action '{action}'")
        return rng.choice([{}, {"done": True}, {"count": 3, "by": ["T0"]}, {"message": None}]) if chance("payload") else {}

    def log(self, payload):
        """Records one message in the database and shows it on the console."""
        if self.mood == "strict":
            unknown = [key for key in payload if key not in ("timestamp", "severity", "message")]
            if unknown or None in payload.values():
                raise Refused("a log has a timestamp, a severity and a message, none of them null")
        message, severity, timestamp = payload.get("message"), payload.get("severity"), payload.get("timestamp")
        if message is None or (not isinstance(message, str) and self.mood != "lenient"):
            raise Refused("a log has a 'message', which is a text")
        severity = "INFO" if severity is None else severity
        if self.mood == "lenient" and isinstance(severity, str):
            severity = severity.upper()
        if severity not in SEVERITIES:
            raise Refused(f"a severity is one of {', '.join(SEVERITIES)}")
        timestamp = int(time.time()) if timestamp is None else timestamp
        if self.mood == "lenient" and isinstance(timestamp, str):
            try:
                timestamp = float(timestamp)
            except ValueError:
                raise Refused("that text is no time") from None
        number = int if self.mood == "strict" else (int, float)
        if isinstance(timestamp, bool) or not isinstance(timestamp, number):
            raise Refused("a timestamp is a number of seconds")
        if not -2**62 < timestamp < 2**62:
            raise Refused("such a time is not to come")
        message = message if isinstance(message, str) else json.dumps(message)
        message = message.encode("utf-8", "replace").decode()
        log.execute("INSERT INTO log VALUES (?, ?, ?)", (timestamp, severity, message))
        print(timestamp, severity, ascii(message)[:200], file=sys.stderr)
        if state["parent"] and state["parent"] is not self:
            severity = "INFO" if state["bug"] == "loses-severity" else severity
            state["parent"].ask("log", {"timestamp": timestamp, "severity": severity, "message": message})


async def stop(asker):
    """Passes a stop on to every child, and ends the jobs that run here."""
    for job in jobs.values():
        job["runner"].cancel()
    told = [child for child in children if not child.closing and (child is not asker or chance("asker"))]
    rng.shuffle(told if "shuffle" in odd else [])
    told = told[state["bug"] == "forgetful":]
    if state["bug"] == "hasty":
        asyncio.get_running_loop().call_later(0.5, lambda: [child.ask("stop") for child in told])
        return
    await asyncio.gather(*(child.take_stop() for child in told))


async def run(tasks):
    """Runs one task after the other; a stop ends it."""
    for at in range(len(tasks)):
        tasks[at] = "running"
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(rng.uniform(0, 1) if "late" in odd else 0)
            tasks[at] = "terminated"
            if state["bug"] != "keeps-scheduling":
                return


async def converse(child):
    """Takes messages until the connection ends."""
    while not child.closing:
        opcode, body = await child.message()
        if opcode == TEXT:
            try:
                body.decode()
            except UnicodeDecodeError:
                raise Failed(1007, "a text that is no UTF-8") from None
        if "overtake" not in odd:
            await child.take(opcode, body)
            continue
        task = asyncio.create_task(child.take(opcode, body))
        child.tasks.add(task)
        task.add_done_callback(child.tasks.discard)
        if len(child.tasks) > 100:
            await asyncio.wait(child.tasks, return_when=asyncio.FIRST_COMPLETED)


async def grow_curious(child):
    """Asks for the active tree now and then."""
    while not child.closing:
        if chance("unasked", 0.3):
            child.ask("get_tree")
        await asyncio.sleep(rng.uniform(0.3, 3))


async def serve(reader, writer, parent=False):
    """One connection, from a child or to the parent, until it ends."""
    child, curious = Child(reader, writer), None
    try:
        if parent:
            child.masks, state["parent"] = True, child
        else:
            await child.upgrade("gator")
            children.add(child)
        child.sender = asyncio.create_task(child.write_out())
        curious = asyncio.create_task(grow_curious(child))
        ended = False
        try:
            await converse(child)
        except Failed as failed:
            child.close(*failed.args)
        except Gone:
            ended = True
            child.close(1000)
        forget(child)
        await child.see_off(child.sender, ended)
    except (Gone, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        forget(child)
        for task in filter(None, (child.sender, curious)):
            task.cancel()
        writer.close()


def forget(child):
    children.discard(child)
    if state["parent"] is child:
        state["parent"] = None


async def connect_up(url):
    """Connects to a parent instead of the one there was; answers when the connection is open."""
    if state["parent"]:
        state["parent"].close(1000)
    reader, writer = await connect(url)
    state["uplink"] = asyncio.create_task(serve(reader, writer, parent=True))


async def arrange(wish, args):
    """What the page does not say, done for whoever runs the tier."""
    if wish == "connect_up":
        await connect_up(args["url"])
    elif wish == "register_child":
        return {"path": f"/{args['name']}"}
    elif wish == "log_entries":
        found = log.execute("SELECT * FROM log WHERE message = ? ORDER BY rowid", (args["message"],))
        return [dict(zip(("timestamp", "severity", "message"), row)) for row in found]
    elif wish == "start_job":
        tasks = ["queued", "queued"]
        jobs[args["name"]] = {"tasks": tasks, "runner": asyncio.create_task(run(tasks))}
    elif wish == "job":
        return {"tasks": jobs[args["name"]]["tasks"]}
    return {}


async def administer(reader, writer):
    """One HTTP request from whoever runs the tier."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length:")[2].split("\r\n")[0]
        [(wish, args)] = json.loads(await reader.readexactly(int(length))).items()
        body = json.dumps(await arrange(wish, args)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
    except (OSError, ValueError, KeyError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        print(repr(error), file=sys.stderr)
    finally:
        writer.close()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--plain", action="store_true")
    for name in ("--odd", "--without"):
        parser.add_argument(name, default="", metavar="A,B")
    parser.add_argument("--bug")
    chosen = parser.parse_args()
    state["bug"] = chosen.bug
    odd.update([] if chosen.plain else chosen.odd.split(",") if chosen.odd else HABITS)
    odd.difference_update(chosen.without.split(","))
    hub = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    admin = await asyncio.start_server(administer, "127.0.0.1", 0)
    print(f"ws://127.0.0.1:{hub.sockets[0].getsockname()[1]}", flush=True)
    print(f"http://127.0.0.1:{admin.sockets[0].getsockname()[1]}", flush=True)
    async with hub, admin:
        await asyncio.gather(hub.serve_forever(), admin.serve_forever())


if __name__ == "__main__":
    asyncio.run(main())
