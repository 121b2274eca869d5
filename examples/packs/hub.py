"""WebSocket server on asyncio for the example hubs, with the options that they share.

A hub gives `serve` its bugs and an async function that talks to one client. The server needs only the standard library.
"""
import argparse
import asyncio
import base64
import hashlib
import json
import math
import signal
import struct
from typing import NamedTuple

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MAX_MESSAGE = 16 * 1024 * 1024


class Bug(NamedTuple):
    """`breaks`: the rules that the bug violates, or what a user sees. `left_to`: the command that has to find it."""
    family: str
    breaks: str
    what: str
    left_to: str = "check"


def read_json(text):
    """Returns the value of a JSON text. Raises ValueError if it is not JSON, or if this server cannot represent it."""
    def refuse(literal):
        raise ValueError(literal)

    def number(literal):
        value = float(literal)
        return value if math.isfinite(value) else refuse(literal)

    try:
        return json.loads(text, parse_constant=refuse, parse_float=number)
    except RecursionError:
        raise ValueError("too deep") from None


class Closed(Exception):
    """The connection has ended, or the hub has closed it."""


class Violation(Exception):
    """The client breaks RFC 6455; `code` is the close code that says so."""

    def __init__(self, code):
        self.code = code


class Connection:
    """One client: iterate over it for its messages, which are `str` or `bytes`."""

    def __init__(self, reader, writer, path, offered):
        self.reader, self.writer, self.path, self.offered = reader, writer, path, offered
        self.closed = False
        self.whole = True                  # whether the frames of a message are joined

    async def send(self, text):
        await self.frame(TEXT, text.encode())

    async def frame(self, opcode, payload, first=0x80):
        if self.closed:
            raise Closed
        size = len(payload)
        head = bytes([first | opcode, size]) if size < 126 else (
            struct.pack("!BBH", first | opcode, 126, size) if size < 65536 else struct.pack("!BBQ", first | opcode, 127, size))
        try:
            self.writer.write(head + payload)
            await self.writer.drain()
        except OSError:
            raise Closed from None

    async def start_close(self, code, reason=""):
        """Sends a close frame, for a task that does not read."""
        reason = reason.encode()[:120].decode(errors="ignore")
        await self.frame(CLOSE, struct.pack("!H", code) + reason.encode())
        self.closed = True

    async def close(self, code, reason=""):
        """Sends a close frame, and waits a little for the client's."""
        if not self.closed:
            await self.start_close(code, reason)
            try:
                await asyncio.wait_for(self.skip_to_close(), 1)
            except (OSError, asyncio.TimeoutError, Violation, asyncio.IncompleteReadError):
                pass
        raise Closed

    async def skip_to_close(self):
        while (await self.read_frame())[0] & 15 != CLOSE:
            pass

    async def read_frame(self):
        first, second = await self.reader.readexactly(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        control = first & 8
        if not second & 128 or first & 0x70 or first & 7 > 2 or control and (size > 125 or not first & 128):
            raise Violation(1002)
        if size > MAX_MESSAGE:
            raise Violation(1009)
        mask = await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        whole = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return first, whole.to_bytes(size, "big")

    def __aiter__(self):
        return self

    async def __anext__(self):
        kind, parts = None, []
        try:
            while True:
                first, payload = await self.read_frame()
                opcode = first & 15
                if opcode == CLOSE:
                    self.check_close(payload)
                    if not self.closed:
                        await self.frame(CLOSE, payload[:2])
                        self.closed = True
                    raise StopAsyncIteration
                if opcode == PING:
                    await self.frame(PONG, payload)
                if opcode >= CLOSE:
                    continue
                if (opcode == 0) != (kind is not None):
                    raise Violation(1002)
                kind = kind or opcode
                parts.append(payload)
                if sum(map(len, parts)) > MAX_MESSAGE:
                    raise Violation(1009)
                if first & 128 or not self.whole:
                    whole = b"".join(parts)
                    return whole.decode() if kind == TEXT else whole
        except (OSError, asyncio.IncompleteReadError):
            raise StopAsyncIteration from None
        except UnicodeDecodeError:
            await self.close(1007)
        except Violation as violation:
            await self.close(violation.code)

    @staticmethod
    def check_close(payload):
        if len(payload) == 1:
            raise Violation(1002)
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if not (3000 <= code < 5000 or 1000 <= code <= 1014 and code not in (1004, 1005, 1006)):
                raise Violation(1002)
            payload[2:].decode()


async def accept(reader, writer, select):
    """Answers the upgrade request; returns the connection, or None after a refusal."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, version = (lines[0].split(" ") + ["", ""])[:3]
    headers = {}
    for line in filter(None, lines[1:]):
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), []).append(value.strip())

    def words(name):
        return [word.strip() for word in ",".join(headers.get(name, [])).split(",") if word.strip()]

    offered = words("sec-websocket-protocol")
    [key] = headers.get("sec-websocket-key") or [""]
    status = select(path, offered)
    if (method != "GET" or version != "HTTP/1.1" or "host" not in headers or len(key) != 24
            or "websocket" not in map(str.lower, words("upgrade")) or "upgrade" not in map(str.lower, words("connection"))):
        status = "400 Bad Request"
    elif words("sec-websocket-version") != ["13"]:
        status = "426 Upgrade Required\r\nSec-WebSocket-Version: 13"
    if status and status[:3].isdigit():
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        return None
    answer = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    chosen = f"Sec-WebSocket-Protocol: {status}\r\n" if status else ""
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Accept: {answer}\r\n{chosen}\r\n".encode())
    return Connection(reader, writer, path, offered)


async def listen(port, select, talk):
    async def client(reader, writer):
        try:
            connection = await accept(reader, writer, select)
            if connection is not None:
                await talk(connection)
        except (Closed, OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", port, backlog=512)
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


def serve(description, bugs, select, talk):
    """Reads the arguments, and serves clients until SIGTERM.

    `select(path, offered)` returns the subprotocol for a client, "" for none, or an HTTP status that refuses it.
    `talk(connection, bug)` talks to one client. `bug` is the name of the bug that is switched on, or None.
    """
    cli = argparse.ArgumentParser(description=description)
    cli.add_argument("--port", type=int, default=0, help="0, the default, takes a free port")
    cli.add_argument("--bug", choices=bugs, metavar="NAME", help="make this mistake")
    cli.add_argument("--list-bugs", action="store_true", help="print the bugs: name, family, found by, what is broken, what happens")
    args = cli.parse_args()
    if args.list_bugs:
        for name, bug in bugs.items():
            print("\t".join([name, bug.family, bug.left_to, bug.breaks, bug.what]))
        return
    try:
        asyncio.run(listen(args.port, lambda *request: select(*request, args.bug), lambda connection: talk(connection, args.bug)))
    except KeyboardInterrupt:
        pass
