#!/usr/bin/env python3
"""A JSON-RPC 2.0 server over WebSocket, written from the specification alone. `--bug NAME` makes one mistake."""
import asyncio
import collections
import html
import itertools
import json
import os
import random
import re
import sys
import time
import unicodedata

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from hub import Bug, Closed, read_json, serve

BUGS = {
    "deaf-after-error": Bug("history", "RPC-RESPONDS", "the request after an unknown method is not answered"),
    "id-once": Bug("history", "RPC-RESPONDS", "a request with an id that the connection has used before is not answered"),
    "array-after-batch": Bug("history", "RPC-RESPONDS", "after a batch, single responses come in an array"),
    "response-kept": Bug("history", "RPC-RESPONDS", "after a notification, each response comes one request late"),
    "error-kept": Bug("history", "RPC-RESPONDS", "the call after one that failed has its error, too"),
    "third-notification": Bug("history", "RPC-NOTIFICATION", "the third notification of a connection is answered"),
    "forty-requests": Bug("history", "RPC-RESPONDS", "only 40 requests of a connection are answered", "fuzz"),
    "batch-first-only": Bug("several", "RPC-BATCH", "only the first request of a batch is answered"),
    "batch-ten": Bug("several", "RPC-BATCH", "only ten requests of a batch are answered"),
    "batch-apart": Bug("several", "RPC-BATCH", "the responses to a batch come one by one"),
    "batch-same-id": Bug("several", "RPC-BATCH", "of two requests with the same id in a batch, one is answered"),
    "batch-crossed": Bug("several", "RPC-BATCH", "the responses of a batch have its ids in the order in which they are ready"),
    "batch-early": Bug("several", "RPC-BATCH", "a batch is answered without the calls that take longer"),
    "batch-alone": Bug("several", "RPC-BATCH", "a batch that comes while another is served is not answered"),
    "batch-one-object": Bug("several", "RPC-BATCH-ARRAY", "a batch of one request is answered with an object"),
    "batch-fails-together": Bug("several", "RPC-BATCH", "if a method of a batch fails, all its calls have this error"),
    "latest-id": Bug("several", "RPC-ID", "a response has the id of the latest request of its connection"),
    "responds-twice": Bug("several", "RPC-ONCE", "each response comes twice"),
    "loses-response": Bug("several", "RPC-RESPONDS", "one of 50 responses is lost", "load"),
    "number-id-as-text": Bug("identity", "RPC-ID", "a number as id comes back as a string"),
    "digits-id-as-number": Bug("identity", "RPC-ID", "an id of digits comes back as a number"),
    "zero-id-dropped": Bug("identity", "RPC-RESPONDS", "a request with the id 0 is taken for a notification"),
    "empty-id-dropped": Bug("identity", "RPC-RESPONDS", "a request with an empty id is taken for a notification"),
    "id-cut": Bug("identity", "RPC-ID", "only the first 64 characters of an id come back"),
    "id-trimmed": Bug("identity", "RPC-ID", "an id comes back without the blanks around it"),
    "id-composed": Bug("identity", "RPC-ID", "an id comes back in composed Unicode"),
    "ids-alike": Bug("identity", "RPC-RESPONDS", "a call is not answered while one with the same first 32 characters of the id is served"),
    "ids-any-case": Bug("identity", "RPC-RESPONDS", "a call is not answered while one is served whose id differs only in case"),
    "batch-id-types": Bug("identity", "RPC-BATCH", "in a batch, the ids 7 and \"7\" are taken for the same"),
    "null-id-dropped": Bug("identity", "RPC-NULL-ID", "a request with the id null is taken for a notification"),
    "error-without-id": Bug("identity", "RPC-ID", "an error response to a valid request has the id null"),
    "answers-to-all": Bug("neighbours", "RPC-ISOLATION", "responses go to all connections"),
    "ids-shared": Bug("neighbours", "RPC-ISOLATION", "a response goes to the last connection that used its id"),
    "leaver-ends-calls": Bug("neighbours", "RPC-ISOLATION", "when a client leaves, the slow calls of all clients are dropped"),
    "batches-mixed": Bug("neighbours", "RPC-ISOLATION", "of batches that are served at the same time, one client gets all responses"),
    "null-result-left-out": Bug("values", "RPC-RESULT", "a result that is null is left out"),
    "error-null": Bug("values", "RPC-EITHER", "a successful response has the error null"),
    "version-number": Bug("values", "RPC-VERSION", "the version is the number 2.0 in error responses"),
    "code-as-text": Bug("values", "RPC-ERROR-OBJECT", "the code of an error is a string"),
    "no-error-message": Bug("values", "RPC-ERROR-OBJECT", "an error has no message"),
    "params-as-internal": Bug("values", "RPC-PARAMS", "invalid params are an internal error"),
    "method-as-invalid": Bug("values", "RPC-METHOD", "an unknown method is an invalid request"),
    "parse-as-invalid": Bug("values", "RPC-PARSE", "text that is not JSON is an invalid request"),
    "reserved-code": Bug("values", "RPC-RESERVED", "an application error has a code that is reserved"),
    "texts-escaped": Bug("values", "RPC-BY-POSITION", "a text in params is escaped for HTML"),
    "numbers-as-float": Bug("values", "RPC-BY-POSITION", "numbers in params are rounded to single precision"),
    "falsy-result": Bug("values", "RPC-BY-POSITION", "a result that is 0, false or empty becomes null"),
    "names-any-case": Bug("values", "RPC-BY-NAME", "names of params match in any case"),
    "names-ignored": Bug("forms", "RPC-BY-NAME", "params by name are taken in the order in which they come"),
    "params-required": Bug("forms", "RPC-NO-PARAMS", "a request without params is invalid"),
    "version-first": Bug("forms", "RPC-FORMS", "`jsonrpc` must be the first member"),
    "batch-unspaced": Bug("forms", "RPC-FORMS", "a batch with a blank before its bracket is not understood"),
    "empty-names": Bug("forms", "RPC-BY-NAME", "params that are an empty object are invalid"),
    "surrogates-replaced": Bug("forms", "RPC-FORMS", "escaped letters beyond 16 bits become question marks"),
    "exponents": Bug("forms", "RPC-FORMS", "a number with an exponent is not understood"),
    "fragments-apart": Bug("forms", "RPC-RESPONDS", "each frame of a fragmented message is read as a message", "fuzz"),
    "notification-answered": Bug("entry", "RPC-NOTIFICATION", "a notification is answered"),
    "notification-error": Bug("entry", "RPC-NOTIFICATION", "a notification with an unknown method is answered with an error"),
    "notification-ignored": Bug("entry", "RPC-NOTIFICATION-RUNS", "a notification is not carried out"),
    "batch-notification-answered": Bug("entry", "RPC-BATCH-NOTIFICATION", "a notification in a batch is answered"),
    "batch-of-notifications": Bug("entry", "RPC-BATCH-SILENT", "a batch of notifications is answered with an empty array"),
    "empty-batch": Bug("entry", "RPC-BATCH-EMPTY", "an empty batch is answered with an empty array"),
    "batch-skips-invalid": Bug("entry", "RPC-BATCH-INVALID", "an invalid item of a batch is not answered"),
    "batch-all-invalid": Bug("entry", "RPC-BATCH-INVALID", "one invalid item makes the whole batch invalid"),
    "batch-nested": Bug("entry", "RPC-BATCH-INVALID", "a batch in a batch is served"),
    "batch-any-version": Bug("entry", "RPC-STRICT", "the version of the requests in a batch is not looked at"),
    "members-any-case": Bug("entry", "RPC-CASE", "names of members match in any case"),
    "parse-error-id": Bug("entry", "RPC-ERROR-ID", "a parse error has the id of the request before it"),
    "number-params": Bug("entry", "RPC-INVALID-PARAMS", "a request whose params are a number is not answered"),
    "any-version": Bug("entry", "RPC-STRICT", "the version of a request is not looked at"),
    "any-id": Bug("entry", "RPC-STRICT", "an id may be any value"),
    "number-method": Bug("entry", "RPC-INVALID-REQUEST", "a method that is not a string is an unknown method"),
    "nan-accepted": Bug("entry", "RPC-PARSE", "NaN is taken for a number", "fuzz"),
    "control-characters": Bug("entry", "RPC-PARSE", "control characters in a text are accepted", "fuzz"),
    "crashes-on-null-params": Bug("crash", "the process ends", "params that are null end the process", "fuzz"),
    "crashes-on-null-item": Bug("crash", "the process ends", "a batch with null in it ends the process", "fuzz"),
    "crashes-on-digits": Bug("crash", "the process ends", "a number of a thousand digits ends the process", "fuzz"),
    "hangs-on-length": Bug("crash", "clients wait", "a message of more than 50 kB is read for a minute", "fuzz"),
    "binary-ends-all": Bug("crash", "clients are disconnected", "a binary message ends all connections", "fuzz"),
    "null-by-order": Bug("habit", "nothing", "params with other names are an error, or give null if the version is not first", "none"),
    "late-once": Bug("habit", "nothing", "the second answer takes two seconds", "none"),
    "slow-and-late-once": Bug("habit", "nothing", "answers take 0.4 seconds, and the second one two seconds", "none"),
    "errors-late": Bug("habit", "nothing", "what is no JSON is refused after 1.5 seconds", "none"),
    "slow-and-errors-late": Bug("habit", "nothing", "answers take 0.4 seconds, and what is no JSON is refused after 1.5", "none"),
}
PARSE, INVALID, METHOD, PARAMS, INTERNAL, OWN = -32700, -32600, -32601, -32602, -32603, 4001
TEXTS = {PARSE: "Parse error", INVALID: "Invalid Request", METHOD: "Method not found", PARAMS: "Invalid params",
         INTERNAL: "Internal error", OWN: "The method failed"}
ABSENT = object()
connections, notes, last_user, open_batches = set(), collections.Counter(), {}, []
answered = itertools.count(1)


class Failure(Exception):
    """The first of `args` is the code of the error."""


async def subtract(number, minus):
    if not all(isinstance(value, (int, float)) for value in (number, minus)):
        raise Failure(PARAMS)
    return number - minus


async def echo(value):
    return value


async def ping():
    return "pong"


async def note(text):
    notes[json.dumps(text)] += 1


async def noted(text):
    return notes[json.dumps(text)]


async def fail():
    raise Failure(OWN)


async def slow():
    await asyncio.sleep(0.5)
    return True


METHODS = {"subtract": (subtract, ["number", "minus"]), "echo": (echo, ["value"]), "ping": (ping, []), "note": (note, ["text"]),
           "noted": (noted, ["text"]), "fail": (fail, []), "slow": (slow, [])}


def altered(value, bug):
    if bug == "texts-escaped" and isinstance(value, str):
        return html.escape(value)
    if bug == "numbers-as-float" and isinstance(value, int) and not isinstance(value, bool):
        return int(float(f"{value:.7g}"))
    return value


def is_valid(request, bug, batch=False):
    if not isinstance(request, dict):
        return False
    if request.get("jsonrpc") != "2.0" and bug != "any-version" and not (bug == "batch-any-version" and batch):
        return False
    if not isinstance(request.get("method"), str) and not (bug == "number-method" and "method" in request):
        return False
    if "params" in request and not isinstance(request["params"], (dict, list)) or bug == "params-required" and "params" not in request:
        return False
    if bug == "version-first" and next(iter(request)) != "jsonrpc":
        return False
    id = request.get("id")
    return bug == "any-id" or isinstance(id, (str, int, float, type(None))) and not isinstance(id, bool)


class Client:
    def __init__(self, connection, bug):
        self.connection, self.bug = connection, bug
        self.ids, self.deaf, self.arrays, self.kept, self.count = set(), False, False, None, 0
        self.failure, self.notifications, self.latest, self.pending, self.batches, self.tasks = None, 0, None, set(), 0, set()

    async def call(self, method, params):
        function, names = METHODS.get(method, (None, None)) if isinstance(method, str) else (None, None)
        if function is None:
            raise Failure(INVALID if self.bug == "method-as-invalid" else METHOD)
        if self.failure is not None:
            code, self.failure = self.failure, None
            raise Failure(code, "kept")
        if isinstance(params, dict):
            if self.bug == "empty-names" and not params:
                raise Failure(PARAMS)
            if self.bug == "names-any-case":
                params = {name.lower(): value for name, value in params.items()}
            if self.bug == "names-ignored":
                params = list(params.values())
            elif set(params) != set(names):
                raise Failure(INTERNAL if self.bug == "params-as-internal" else PARAMS)
            else:
                params = [params[name] for name in names]
        if len(params) != len(names):
            raise Failure(INTERNAL if self.bug == "params-as-internal" else PARAMS)
        try:
            return await function(*[altered(value, self.bug) for value in params])
        except Failure as failure:
            if self.bug == "params-as-internal" and failure.args[0] == PARAMS:
                raise Failure(INTERNAL) from None
            raise

    def error(self, code, id=None):
        if self.bug == "reserved-code" and code == OWN:
            code = -32500
        error = {"code": str(code) if self.bug == "code-as-text" else code}
        if self.bug != "no-error-message":
            error["message"] = TEXTS.get(code, "Server error")
        return {"jsonrpc": 2.0 if self.bug == "version-number" else "2.0", "error": error, "id": id}

    async def respond(self, request, batch=False):
        """Returns the response, or None."""
        bug = self.bug
        if bug == "crashes-on-null-params" and isinstance(request, dict) and request.get("params", 0) is None:
            os._exit(1)
        if bug == "number-params" and isinstance(request, dict) and isinstance(request.get("params"), (int, float)):
            return None
        if bug == "crashes-on-null-item" and batch and request is None:
            os._exit(1)
        if bug == "batch-nested" and batch and isinstance(request, list) and request:
            return await self.respond(request[0])
        if bug == "members-any-case" and isinstance(request, dict):
            request = {name.lower(): value for name, value in request.items()}
        if not is_valid(request, bug, batch):
            return None if batch and bug == "batch-skips-invalid" else self.error(INVALID)
        id = request.get("id", ABSENT)
        if (bug == "zero-id-dropped" and id == 0 or bug == "empty-id-dropped" and id == ""
                or bug == "null-id-dropped" and id is None):
            id = ABSENT
        silent = id is ABSENT and not (bug == "batch-notification-answered" and batch) and not (bug == "notification-answered" and not batch)
        if id is ABSENT:
            self.notifications += 1
            silent = silent and not (bug == "third-notification" and self.notifications == 3)
        else:
            self.latest = id
        if bug in ("ids-alike", "ids-any-case") and isinstance(id, str):
            key = id[:32] if bug == "ids-alike" else id.lower()
            if key in self.pending:
                return None
            self.pending.add(key)
            await asyncio.sleep(0.05)
            self.pending.discard(key)
        if bug == "id-once" and isinstance(id, str):
            if id in self.ids:
                return None
            self.ids.add(id)
        shown = None if id is ABSENT else id
        if bug == "number-id-as-text" and isinstance(shown, int):
            shown = str(shown)
        if bug == "digits-id-as-number" and isinstance(shown, str) and re.fullmatch(r"\d{1,9}", shown):
            shown = int(shown)
        if bug == "id-cut" and isinstance(shown, str):
            shown = shown[:64]
        if bug == "id-trimmed" and isinstance(shown, str):
            shown = shown.strip()
        if bug == "id-composed" and isinstance(shown, str):
            shown = unicodedata.normalize("NFC", shown)
        try:
            if bug == "notification-ignored" and id is ABSENT:
                return None
            result = await self.call(request["method"], request.get("params", []))
            if bug == "falsy-result" and not result:
                result = None
            response = {"jsonrpc": "2.0", "result": result, "id": shown}
            if bug == "null-result-left-out" and result is None:
                del response["result"]
            if bug == "error-null":
                response["error"] = None
        except Failure as failure:
            response = self.error(failure.args[0], None if bug == "error-without-id" else shown)
            by_order = isinstance(request.get("params"), dict) and next(iter(request)) != "jsonrpc"
            if bug == "null-by-order" and failure.args[0] == PARAMS and by_order:
                response = {"jsonrpc": "2.0", "result": None, "id": shown}
            if bug == "deaf-after-error" and failure.args[0] == METHOD:
                self.deaf = True
            if bug == "error-kept" and failure.args in ((OWN,), (PARAMS,)):
                self.failure = failure.args[0]
            if bug == "notification-error" and failure.args[0] == METHOD:
                silent = False
        if bug == "latest-id":
            response["id"] = self.latest
        return None if silent else response

    async def respond_batch(self, batch):
        bug = self.bug
        if not batch:
            return [] if bug == "empty-batch" else self.error(INVALID)
        if bug == "batch-all-invalid" and not all(is_valid(request, bug) for request in batch):
            return self.error(INVALID)
        if bug == "batch-alone" and self.batches:
            return None
        self.batches += 1
        calls = [asyncio.create_task(self.respond(request, True)) for request in batch]
        if bug == "batches-mixed":
            open_batches.append([])
        if bug == "batch-early":
            await asyncio.wait(calls, timeout=0.1)
            calls = [call for call in calls if call.done()]
        ready = calls if bug != "batch-crossed" else asyncio.as_completed(calls)
        responses = [response for response in [await call for call in ready] if response]
        self.batches -= 1
        if bug == "batches-mixed":
            open_batches[0].extend(responses)
            responses = open_batches.pop() if len(open_batches) == 1 else []
        if bug == "batch-crossed" and all(isinstance(request, dict) and "id" in request for request in batch):
            responses = [{**response, "id": request["id"]} for response, request in zip(responses, batch)]
        failed = next((response for response in responses if response.get("error", {}).get("code") == OWN), None)
        if bug == "batch-fails-together" and failed:
            responses = [{**failed, "id": response["id"]} for response in responses]
        if bug == "batch-id-types":
            responses = list({str(response["id"]): response for response in responses}.values())
        if bug == "batch-one-object" and len(batch) == 1 and responses:
            return responses[0]
        if bug == "batch-first-only":
            responses = responses[:1]
        if bug == "batch-ten":
            responses = responses[:10]
        if bug == "batch-same-id":
            responses = list({json.dumps(response["id"]): response for response in responses}.values())
        if bug == "array-after-batch":
            self.arrays = True
        if not responses and bug != "batch-of-notifications":
            return None
        return responses

    async def answer(self, text):
        bug = self.bug
        late = str(bug).endswith("late-once") and next(answered) == 2
        await asyncio.sleep(2 if late else 0.4 if str(bug).startswith("slow-and-") else 0)
        if bug == "surrogates-replaced":
            text = re.sub(r"\\ud[89ab]..\\ud[c-f]..", "?", text, flags=re.I)
        try:
            message = json.loads(text, strict=bug != "control-characters") if bug in ("nan-accepted", "control-characters") else read_json(text)
            if bug == "exponents" and re.search(r"\de[-+]?\d", text):
                raise ValueError
            if bug == "batch-unspaced" and isinstance(message, list) and text[:1] != "[":
                raise ValueError
        except ValueError:
            await asyncio.sleep(1.5 if str(bug).endswith("errors-late") else 0)
            id = self.latest if bug == "parse-error-id" else None
            return await self.send(self.error(INVALID if bug == "parse-as-invalid" else PARSE, id))
        if self.deaf:
            self.deaf = False
            return None
        if not isinstance(message, list):
            self.count += 1
            if bug == "forty-requests" and self.count > 40:
                return None
            if bug == "ids-shared" and isinstance(message, dict) and isinstance(message.get("id"), str):
                last_user[message["id"]] = self
            response = await self.respond(message)
            if bug == "response-kept":
                if isinstance(message, dict) and "id" not in message and self.kept is None:
                    self.kept = []
                elif self.kept is not None and response:
                    self.kept.append(response)
                    response = self.kept.pop(0) if len(self.kept) > 1 else None
            return response and await self.send([response] if self.arrays else response)
        responses = await self.respond_batch(message)
        if bug == "batch-apart" and isinstance(responses, list):
            for response in responses:
                await self.send(response)
        elif responses is not None:
            await self.send(responses)

    async def send(self, response):
        if self.bug == "loses-response" and random.random() < 0.02:
            return
        receivers = [self]
        if self.bug == "answers-to-all":
            receivers = list(connections)
        if self.bug == "ids-shared" and isinstance(response, dict) and isinstance(response["id"], str):
            receivers = [last_user.get(response["id"], self)]
        for client in receivers:
            for _ in range(2 if self.bug == "responds-twice" else 1):
                if client is self or not client.connection.closed:
                    await client.connection.send(json.dumps(response))

    async def handle(self, text):
        if isinstance(text, bytes):
            for client in list(connections) if self.bug == "binary-ends-all" else []:
                client.connection.writer.close()
            await self.connection.close(1003, "text only")
        if self.bug == "hangs-on-length" and len(text) > 50_000:
            time.sleep(60)
        if self.bug == "crashes-on-digits" and re.search(r"\d{900}", text):
            os._exit(1)
        try:
            await self.answer(text)
        except Closed:
            pass


async def talk(connection, bug):
    client = Client(connection, bug)
    connection.whole = bug != "fragments-apart"
    connections.add(client)
    tasks = client.tasks
    try:
        async for text in connection:
            if isinstance(text, bytes):
                await client.handle(text)
            else:
                task = asyncio.create_task(client.handle(text))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    finally:
        connections.discard(client)
        for other in connections if bug == "leaver-ends-calls" else []:
            tasks = tasks | other.tasks
        for task in list(tasks):
            task.cancel()


if __name__ == "__main__":
    serve(__doc__, BUGS, lambda path, offered, bug: "", talk)
