#!/usr/bin/env python3
"""A GraphQL server that speaks graphql-transport-ws, written from PROTOCOL.md of graphql-ws alone.

It executes a small part of GraphQL: operations whose fields have no fields of their own. `--bug NAME` makes one mistake, or
shows one habit that the document allows.
"""
import asyncio
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

INIT_TIMEOUT = 2
PROTOCOL = "graphql-transport-ws"
BUGS = {
    "id-kept-after-complete": Bug("history", "GQL-REUSE", "an id that the client has completed stays in use"),
    "id-kept-after-end": Bug("history", "GQL-REUSE", "the id of an operation that has ended stays in use"),
    "id-kept-after-error": Bug("history", "GQL-REUSE", "the id of an operation that failed stays in use"),
    "second-init-accepted": Bug("history", "GQL-INIT-TWICE", "a second ConnectionInit is acknowledged again"),
    "late-complete-refused": Bug("history", "GQL-LATE-COMPLETE", "a Complete for an operation that has ended closes the socket"),
    "forgets-ack": Bug("history", "GQL-UNAUTHORIZED", "the thirtieth operation of a connection is unauthorized"),
    "late-complete-kept": Bug("history", "GQL-LATE-COMPLETE", "a late Complete stops the next operation with its id"),
    "early-complete-lost": Bug("history", "GQL-CLIENT-COMPLETE", "a Complete that comes before the first result is lost"),
    "stale-results": Bug("history", "GQL-CLIENT-COMPLETE", "results of a completed operation come once its id is used again"),
    "one-at-a-time": Bug("several", "GQL-MULTIPLEX", "an operation waits until the one before it has ended"),
    "third-stream-silent": Bug("several", "GQL-MULTIPLEX", "the third operation at a time gets no results"),
    "loses-third-event": Bug("several", "GQL-STREAM", "every third event of a stream is lost"),
    "completes-twice": Bug("several", "GQL-COMPLETE", "Complete is sent twice"),
    "completes-after-error": Bug("several", "GQL-ERROR-ENDS", "Complete follows Error"),
    "result-twice": Bug("several", "GQL-ONE-NEXT", "a query has two Next"),
    "error-stops-others": Bug("several", "GQL-MULTIPLEX", "an operation that fails stops the others of its connection"),
    "result-under-last-id": Bug("several", "GQL-ID", "a result has the id of the latest Subscribe"),
    "streams-share-events": Bug("several", "GQL-STREAM", "streams of one query on one connection share their events"),
    "pongs-limited": Bug("several", "GQL-PONG", "of Pings that come together, one is answered"),
    "pings-wait": Bug("several", "GQL-PONG", "a Ping is not answered while an operation is active"),
    "loses-result": Bug("several", "GQL-NEXT", "one of 50 operations is never answered", "load"),
    "id-in-lower-case": Bug("identity", "GQL-ID", "messages have the id in lower case"),
    "id-cut": Bug("identity", "GQL-ID", "only the first 64 characters of an id come back"),
    "ids-alike-in-64": Bug("identity", "GQL-DUPLICATE-ID", "ids are compared by their first 64 characters"),
    "ids-alike-in-case": Bug("identity", "GQL-DUPLICATE-ID", "ids are compared without case"),
    "ids-alike-in-nfc": Bug("identity", "GQL-DUPLICATE-ID", "ids are compared in Unicode form C"),
    "ids-as-attributes": Bug("identity", "GQL-ID", "an id that every object has as an attribute counts as in use"),
    "ids-shared": Bug("identity", "GQL-ISOLATION", "an id in use on one connection is refused on another"),
    "duplicate-replaces": Bug("identity", "GQL-DUPLICATE-ID", "a second operation with an id in use replaces the first"),
    "duplicate-query": Bug("identity", "GQL-DUPLICATE-ID", "only the ids of subscriptions are checked for duplicates"),
    "results-to-all": Bug("neighbours", "GQL-ISOLATION", "results also go to the other connections"),
    "complete-stops-all": Bug("neighbours", "GQL-MULTIPLEX", "a client's Complete stops all its operations"),
    "complete-crosses": Bug("neighbours", "GQL-ISOLATION", "a client's Complete stops operations with its id of all clients"),
    "duplicate-closes-all": Bug("neighbours", "GQL-ISOLATION", "a duplicate id closes every socket that uses the id"),
    "invalid-closes-all": Bug("neighbours", "GQL-ISOLATION", "an invalid message closes every socket"),
    "close-stops-others": Bug("neighbours", "GQL-ISOLATION", "operations of other clients stop when a client leaves"),
    "complete-ignored": Bug("values", "GQL-CLIENT-COMPLETE", "a stream goes on after the client's Complete"),
    "next-without-payload": Bug("values", "GQL-NEXT", "Next has its data beside the id instead of in `payload`"),
    "error-not-a-list": Bug("values", "GQL-ERROR", "the payload of Error is one object"),
    "unauthorized-as-4400": Bug("values", "GQL-UNAUTHORIZED", "an operation before the acknowledgement closes with 4400"),
    "unauthorized-executes": Bug("values", "GQL-UNAUTHORIZED", "an operation before the acknowledgement is executed, then closes with 4401"),
    "duplicate-without-id": Bug("values", "GQL-DUPLICATE-REASON", "the reason of a close with 4409 lacks the id"),
    "rejects-with-1000": Bug("values", "GQL-REJECTS", "a rejected connection is closed with 1000"),
    "rejects-after-ack": Bug("values", "GQL-REJECTS", "a rejected connection is acknowledged, then closed with 4403"),
    "variables-ignored": Bug("values", "GQL-VARIABLES", "variables are null"),
    "texts-as-latin1": Bug("values", "GQL-VARIABLES", "characters beyond Latin-1 are replaced"),
    "operation-name-ignored": Bug("values", "GQL-OPERATION-NAME", "the first operation of a document is executed"),
    "null-payload-refused": Bug("forms", "GQL-INIT-PAYLOAD", "a ConnectionInit whose payload is null is invalid"),
    "nulls-refused": Bug("forms", "GQL-NULLS", "a Subscribe with null for variables or extensions is invalid"),
    "type-by-search": Bug("forms", "GQL-JSON", "the first `type` in the text of a message counts, wherever it is"),
    "type-first": Bug("forms", "GQL-JSON", "`type` must be the first member"),
    "fragments-apart": Bug("forms", "GQL-INVALID", "each frame of a fragmented message is read as a message", "fuzz"),
    "pong-refused": Bug("entry", "GQL-PONG-ANYTIME", "a Pong from the client is invalid"),
    "ping-before-ack": Bug("entry", "GQL-PING-ANYTIME", "a Ping before the acknowledgement is not answered"),
    "mutations-open": Bug("entry", "GQL-COMPLETE", "Complete does not follow the result of a mutation"),
    "unknown-type-ignored": Bug("entry", "GQL-INVALID", "a message of an unknown type is ignored"),
    "mutations-unauthorized": Bug("entry", "GQL-UNAUTHORIZED", "a mutation needs no acknowledgement"),
    "acks-unasked": Bug("entry", "GQL-ACK", "ConnectionAck comes when the socket opens"),
    "second-init-renews": Bug("entry", "GQL-INIT-TWICE", "a second ConnectionInit with another payload is ignored"),
    "pings-extend-timeout": Bug("entry", "GQL-INIT-TIMEOUT", "the waiting time begins again with each Ping"),
    "no-init-timeout": Bug("entry", "GQL-INIT-TIMEOUT", "a client without ConnectionInit is never closed"),
    "number-as-id": Bug("entry", "GQL-INVALID", "a number is accepted as the id of a Subscribe"),
    "ping-payload-unchecked": Bug("entry", "GQL-INVALID", "the payload of a Ping may be any value"),
    "no-payload-ignored": Bug("entry", "GQL-INVALID", "a Subscribe without payload is ignored"),
    "variables-unchecked": Bug("entry", "GQL-INVALID", "variables may be any value", "fuzz"),
    "extensions-unchecked": Bug("entry", "GQL-INVALID", "extensions may be any value", "fuzz"),
    "operation-name-unchecked": Bug("entry", "GQL-INVALID", "operationName may be any value", "fuzz"),
    "complete-number-as-id": Bug("entry", "GQL-INVALID", "a number is accepted as the id of a Complete", "fuzz"),
    "pong-payload-unchecked": Bug("entry", "GQL-INVALID", "the payload of a Pong may be any value", "fuzz"),
    "crashes-on-depth": Bug("crash", "the process ends", "a deeply nested message ends the process", "fuzz"),
    "crashes-on-surrogate": Bug("crash", "the process ends", "a lone surrogate ends the process", "fuzz"),
    "hangs-on-length": Bug("crash", "clients wait", "a message of more than 50 kB is read for a minute", "fuzz"),
    "invalid-slows-service": Bug("crash", "clients wait", "each invalid message makes later answers 5 ms slower", "fuzz"),
    "crashes-on-empty-id": Bug("crash", "the process ends", "a Subscribe with an empty id ends the process", "fuzz"),
    "binary-stops-service": Bug("crash", "clients wait", "after a binary message, no operation is executed", "fuzz"),
    "heartbeats": Bug("habit", "nothing", "Pings and Pongs come unasked, with and without payload", "none"),
    "takes-time": Bug("habit", "nothing", "acknowledgements, Pongs and results take up to 50 ms", "none"),
    "failures-as-errors": Bug("habit", "nothing", "the failure of a resolver is sent as Error", "none"),
    "unknown-id-refused": Bug("habit", "nothing", "a Complete with an id that was never used closes the socket", "none"),
}
KINDS = {"query", "mutation", "subscription"}
connections = set()
stopped = False
invalid = 0


class Refused(Exception):
    """The operation cannot be executed; `args` are the GraphQL errors."""


# GraphQL, as far as this hub has it.

TOKEN = re.compile(r'[\s,]*("(?:[^"\\]|\\.)*"|-?\d+|\$?[_A-Za-z]\w*|[{}():!=\[\]])')


def tokens_of(query):
    tokens, at, query = [], 0, query.rstrip(" \t\r\n,")
    while at < len(query):
        found = TOKEN.match(query, at)
        if not found:
            raise Refused(f"Syntax Error: unexpected character at {at}")
        tokens.append(found[1])
        at = found.end()
    return tokens


def operations_of(query):
    """Returns (kind, name, fields) for each operation; a field is (alias, name, arguments)."""
    tokens = tokens_of(query) + [""]
    at = 0

    def take(*wanted):
        nonlocal at
        token = tokens[at]
        if wanted and token not in wanted or not token:
            raise Refused(f"Syntax Error: unexpected {token or 'end'}")
        at += 1
        return token

    operations = []
    while tokens[at]:
        kind, name = "query", None
        if tokens[at] != "{":
            kind = take(*KINDS)
            if tokens[at] not in "({":
                name = take()
            if tokens[at] == "(":
                while take() != ")":
                    pass
        fields = []
        take("{")
        while tokens[at] != "}":
            alias = field = take()
            arguments = {}
            if tokens[at] == ":":
                take()
                field = take()
            if tokens[at] == "(":
                take()
                while tokens[at] != ")":
                    argument = take()
                    take(":")
                    arguments[argument] = take()
                take()
            fields.append((alias, field, arguments))
        take("}")
        if not fields:
            raise Refused("Syntax Error: no fields")
        operations.append((kind, name, fields))
    return operations


def chosen_operation(payload, bug):
    operations = operations_of(payload["query"])
    name = payload.get("operationName")
    if bug == "operation-name-ignored":
        name = operations[0][1] if operations else None
    chosen = [operation for operation in operations if name is None or operation[1] == name]
    if len(chosen) != 1:
        raise Refused(f"Unknown operation named {json.dumps(name)}." if name else "Must provide operation name.")
    kind, _, fields = chosen[0]
    known = {"query": {"__typename", "echo", "slow", "fails"}, "mutation": {"__typename", "remember"},
             "subscription": {"count", "ticks"}}[kind]
    for _, field, _ in fields:
        if field not in known:
            raise Refused(f'Cannot query field "{field}" on type "{kind.title()}".')
    return kind, fields


def arguments_of(words, variables, bug):
    values = {}
    for name, word in words.items():
        if word[0] == "$":
            value = None if bug == "variables-ignored" else (variables or {}).get(word[1:])
        else:
            value = json.loads(word)
        if bug == "texts-as-latin1" and isinstance(value, str):
            value = value.encode("latin-1", "replace").decode("latin-1")
        values[name] = value
    return values


async def resolve(kind, fields, variables, bug):
    """Returns the result of a query or mutation."""
    data, errors = {}, []
    for alias, field, words in fields:
        arguments = arguments_of(words, variables, bug)
        if field == "__typename":
            data[alias] = kind.title()
        elif field in ("echo", "remember"):
            if not isinstance(arguments.get("text"), str):
                raise Refused("Variable \"$text\" of required type \"String!\" was not provided.")
            data[alias] = arguments["text"]
        elif field == "slow":
            await asyncio.sleep(arguments["ms"] / 1000)
            data[alias] = True
        elif bug == "failures-as-errors":
            raise Refused("the resolver failed")
        else:
            data[alias] = None
            errors.append({"message": "the resolver failed", "path": [alias]})
    return {"data": data} | ({"errors": errors} if errors else {})


async def events(fields, variables, bug, counter):
    """Yields the results of a subscription; `counter` counts its events."""
    [(alias, field, words)] = fields
    arguments = arguments_of(words, variables, bug)
    while field == "ticks" or counter[0] < arguments["to"]:
        await asyncio.sleep(arguments["every"] / 1000 if field == "ticks" else 0.005)
        number = counter[0] = counter[0] + 1
        if not (bug == "loses-third-event" and number % 3 == 0):
            yield {"data": {alias: number}}


# The protocol.

def is_record(value):
    return value is None or isinstance(value, dict)


def problem(message, bug):
    """Returns what is wrong with a message, or None."""
    if not isinstance(message, dict):
        return "a message is an object"
    kind, payload = message.get("type"), message.get("payload")
    if bug == "type-first" and "type" in message and next(iter(message)) != "type":
        return "a message begins with its type"
    if kind not in ("connection_init", "ping", "pong", "subscribe", "complete"):
        return "unknown type"
    if kind in ("subscribe", "complete"):
        id, bug_of_kind = message.get("id"), {"subscribe": "number-as-id", "complete": "complete-number-as-id"}[kind]
        if not isinstance(id, str) and not (bug == bug_of_kind and isinstance(id, int)):
            return "`id` is a string"
        if kind == "subscribe":
            if not isinstance(payload, dict) or not isinstance(payload.get("query"), str):
                return "`payload` has a query"
            if not isinstance(payload.get("operationName"), (str, type(None))) and bug != "operation-name-unchecked":
                return "`operationName` is a string"
            for member in ("variables", "extensions"):
                if bug == "nulls-refused" and member in payload and payload[member] is None:
                    return f"`{member}` is an object"
                if not is_record(payload.get(member)) and bug != f"{member}-unchecked":
                    return f"`{member}` is an object"
    elif not is_record(payload) and bug != f"{kind}-payload-unchecked":
        return "`payload` is an object"
    if bug == "null-payload-refused" and kind == "connection_init" and "payload" in message and payload is None:
        return "`payload` is an object"
    return None


class Client:
    def __init__(self, connection, bug):
        self.connection, self.bug = connection, bug
        self.inits, self.acknowledged, self.count, self.pong_at = 0, False, 0, 0
        self.operations, self.finished, self.last, self.counters, self.stray = {}, set(), None, {}, []
        self.payload, self.stopped_early, self.begun, self.timeout = None, set(), set(), None
        self.turn = asyncio.Lock()

    async def send(self, **message):
        if self.bug == "id-in-lower-case" and "id" in message:
            message["id"] = message["id"].lower()
        if self.bug == "id-cut" and isinstance(message.get("id"), str):
            message["id"] = message["id"][:64]
        if self.bug == "results-to-all" and message["type"] == "next":
            for other in list(connections - {self}):
                if other.acknowledged and not other.connection.closed:
                    asyncio.create_task(ignoring_end(other.connection.send(json.dumps(message))))
        await self.connection.send(json.dumps(message))

    async def take_time(self):
        if self.bug == "takes-time":
            await asyncio.sleep(random.uniform(0, 0.05))

    async def execute(self, id, payload):
        try:
            await self.send_results(id, payload)
        except Closed:
            pass

    async def send_results(self, id, payload):
        bug, number = self.bug, len(self.operations)
        try:
            kind, fields = chosen_operation(payload, bug)
            await self.take_time()
            if bug == "loses-result" and random.random() < 0.02:
                return
            if bug == "one-at-a-time":
                await self.turn.acquire()
            try:
                if kind == "subscription":
                    counter = self.counters.setdefault(payload["query"], [0]) if bug == "streams-share-events" else [0]
                    async for event in events(fields, payload.get("variables"), bug, counter):
                        if not (bug == "third-stream-silent" and number > 2):
                            await self.send_next(id, event)
                else:
                    result = await resolve(kind, fields, payload.get("variables"), bug)
                    for _ in range(2 if bug == "result-twice" else 1):
                        await self.send_next(id, result)
            finally:
                if bug == "one-at-a-time":
                    self.turn.release()
            self.forget(id, "id-kept-after-end")
            if bug == "mutations-open" and kind == "mutation":
                return
            for _ in range(2 if bug == "completes-twice" else 1):
                await self.send(type="complete", id=id)
        except Refused as refusal:
            self.forget(id, "id-kept-after-error")
            if bug == "error-stops-others":
                for task in self.operations.values():
                    task.cancel()
            errors = [{"message": text} for text in refusal.args]
            await self.send(type="error", id=id, payload=errors[0] if bug == "error-not-a-list" else errors)
            if bug == "completes-after-error":
                await self.send(type="complete", id=id)
        except (KeyError, TypeError, ValueError):
            self.forget(id, None)
            await self.send(type="error", id=id, payload=[{"message": "bad arguments"}])

    async def send_next(self, id, result):
        if self.bug == "stale-results" and id not in self.operations:
            return
        self.begun.add(id)
        if self.bug == "result-under-last-id":
            id = self.last
        if self.bug == "next-without-payload":
            await self.send(type="next", id=id, **result)
        else:
            await self.send(type="next", id=id, payload=result)

    def forget(self, id, kept_by):
        if self.bug != kept_by:
            self.operations.pop(self.key(id), None)
        self.finished.add(id)

    def key(self, id):
        """Returns that by which two ids are compared."""
        if not isinstance(id, str):
            return json.dumps(id)
        forms = {"ids-alike-in-64": id[:64], "ids-alike-in-case": id.lower(), "ids-alike-in-nfc": unicodedata.normalize("NFC", id)}
        return forms.get(self.bug, id)

    async def subscribe(self, message):
        close, id = self.connection.close, message["id"]
        self.count += 1
        if self.bug == "crashes-on-empty-id" and id == "":
            os._exit(1)
        if not self.acknowledged and self.bug == "unauthorized-executes":
            await self.execute(id, message["payload"])
        open_to_all = self.bug == "mutations-unauthorized" and message["payload"]["query"].startswith("mutation")
        if not self.acknowledged and not open_to_all or self.bug == "forgets-ack" and self.count >= 30:
            await close(4400 if self.bug == "unauthorized-as-4400" else 4401, "Unauthorized")
        if stopped:
            return
        if self.bug == "late-complete-kept" and id in self.stopped_early:
            self.stopped_early.discard(id)
            return
        key = self.last = self.key(id)
        taken = key in self.operations or self.bug == "ids-as-attributes" and hasattr(self.operations, id)
        if taken and self.bug == "duplicate-query":
            taken = "subscription" in message["payload"]["query"]
        if self.bug == "ids-shared":
            taken = any(key in client.operations for client in connections)
        if taken and self.bug == "duplicate-replaces":
            self.operations.pop(key).cancel()
        elif taken:
            if self.bug == "duplicate-closes-all":
                for other in list(connections - {self}):
                    if key in other.operations:
                        await ignoring_end(other.connection.start_close(4409, "in use"))
            await close(4409, "in use" if self.bug == "duplicate-without-id" else f"Subscriber for {id} already exists")
        self.operations[key] = asyncio.create_task(self.execute(id, message["payload"]))

    async def complete(self, id):
        if self.bug == "late-complete-refused" and id in self.finished:
            await self.connection.close(4400, "no such operation")
        if self.bug == "unknown-id-refused" and id not in self.finished and self.key(id) not in self.operations:
            await self.connection.close(4400, "unknown id")
        if self.bug == "complete-ignored" or self.bug == "early-complete-lost" and id not in self.begun:
            return
        if self.bug == "late-complete-kept" and id in self.finished:
            self.stopped_early.add(id)
        if self.bug == "stale-results" and id in self.operations:
            self.stray.append(self.operations.pop(id))
        for client in list(connections) if self.bug == "complete-crosses" else [self]:
            client.stop(client.operations if self.bug == "complete-stops-all" else [self.key(id)])

    def stop(self, keys):
        for key in [key for key in keys if key in self.operations]:
            self.operations[key].cancel()
            self.forget(key, "id-kept-after-complete")

    async def handle(self, text):
        global stopped, invalid
        close, bug = self.connection.close, self.bug
        if isinstance(text, bytes):
            stopped = stopped or bug == "binary-stops-service"
            await close(4400, "a message is text")
        if bug == "invalid-slows-service":
            await asyncio.sleep(invalid * 0.005)
        if bug == "hangs-on-length" and len(text) > 50_000:
            time.sleep(60)
        if bug == "crashes-on-depth" and "[" * 50 in re.sub(r'\s|"\w*":|{', "[", text):
            os._exit(1)
        if bug == "crashes-on-surrogate" and re.search(r"\\u[dD][89a-fA-F]", text):
            os._exit(1)
        try:
            message = read_json(text)
        except ValueError:
            await close(4400, "a message is JSON")
        if bug == "type-by-search" and isinstance(message, dict) and (found := re.search(r'"type"\s*:\s*"(\w+)"', text)):
            message["type"] = found[1]
        wrong = problem(message, bug)
        if bug == "unknown-type-ignored" and wrong == "unknown type":
            return
        if bug == "no-payload-ignored" and wrong == "`payload` has a query" and "payload" not in message:
            return
        if wrong:
            invalid += 1
            for other in list(connections - {self}) if bug == "invalid-closes-all" else []:
                await ignoring_end(other.connection.start_close(4400, wrong))
            await close(4400, wrong)
        kind = message["type"]
        if kind == "connection_init":
            self.inits += 1
            if bug == "second-init-renews" and self.inits > 1 and message.get("payload") != self.payload:
                return
            self.payload = message.get("payload")
            if self.inits > 1 and bug != "second-init-accepted":
                await close(4429, "Too many initialisation requests")
            if (message.get("payload") or {}).get("token", "") not in ("", "good"):
                if bug == "rejects-after-ack":
                    await self.send(type="connection_ack")
                await close(1000 if bug == "rejects-with-1000" else 4403, "Forbidden")
            await self.take_time()
            self.acknowledged = True
            if bug != "acks-unasked":
                await self.send(type="connection_ack")
        elif kind == "ping":
            late = bug == "pongs-limited" and time.monotonic() < self.pong_at + 0.02
            if (self.acknowledged or bug != "ping-before-ack") and not late and not (bug == "pings-wait" and self.operations):
                self.pong_at = time.monotonic()
                await self.take_time()
                await self.send(type="pong")
            if bug == "pings-extend-timeout":
                self.timeout.cancel()
                self.timeout = asyncio.create_task(close_late(self))
        elif kind == "pong":
            if bug == "pong-refused":
                await close(4400, "unexpected pong")
        elif kind == "subscribe":
            await self.subscribe(message)
        else:
            await self.complete(message["id"])


async def ignoring_end(sending):
    try:
        await sending
    except Closed:
        pass


async def beat(client):
    while True:
        for kind in ("ping", "pong"):
            for payload in ({}, {"payload": None}, {"payload": {"sent": time.time()}}):
                await client.send(type=kind, **payload)
                await asyncio.sleep(random.uniform(0, 0.05))


async def close_late(client):
    await asyncio.sleep(INIT_TIMEOUT)
    if not client.inits:
        await ignoring_end(client.connection.start_close(4408, "Connection initialisation timeout"))


async def talk(connection, bug):
    client = Client(connection, bug)
    connection.whole = bug != "fragments-apart"
    connections.add(client)
    client.timeout = None if bug == "no-init-timeout" else asyncio.create_task(close_late(client))
    try:
        if PROTOCOL not in connection.offered:
            await connection.close(4406, "Subprotocol not acceptable")
        if bug == "heartbeats":
            client.stray.append(asyncio.create_task(ignoring_end(beat(client))))
        if bug == "acks-unasked":
            await client.send(type="connection_ack")
        async for text in connection:
            await client.handle(text)
    finally:
        connections.discard(client)
        stopping = [client, *connections] if bug == "close-stops-others" else [client]
        for task in [client.timeout, *client.stray, *(task for other in stopping for task in other.operations.values())]:
            if task:
                task.cancel()


if __name__ == "__main__":
    serve(__doc__, BUGS, lambda path, offered, bug: PROTOCOL if PROTOCOL in offered else "", talk)
