"""RFC 6455, first of all the server's side, with every habit the RFC allows that clients seldom meet.

The habits are named and explained in concierge.py; `odd` holds those that are on.
"""
import asyncio
import base64
import hashlib
import itertools
import random
import struct
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LONGEST = 4 << 20
rng = random.Random()
odd = set()


def chance(habit, share=0.5):
    return habit in odd and rng.random() < share


class Gone(Exception):
    """The connection is over."""


class Failed(Exception):
    """The connection has to be closed with a code and a reason."""


async def connect(url):
    """The client's side of an upgrade: reader and writer of a connection that is open."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 20)
    path = (place.path or "/") + (f"?{place.query}" if place.query else "")
    key = base64.b64encode(rng.randbytes(16)).decode()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in head.split(b"\r\n")[0]:
        writer.close()
        raise ValueError("the upgrade was refused")
    return reader, writer


class Connection:
    masks = False       # who connected masks what it sends, and the other does not

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.out = asyncio.PriorityQueue(20000)
        self.latest = self.fixed = 0
        self.lines = {}
        self.counter = itertools.count()
        self.closing = False
        self.waiting = None     # since when a ping has not been answered

    async def upgrade(self, protocol):
        """Answers the upgrade request; a request that is none is refused."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        head = {}
        for line in filter(None, lines[1:]):
            name, _, value = (part.strip() for part in line.partition(":"))
            head[name.lower()] = ", ".join(filter(None, [head.get(name.lower()), value]))
        tokens = [t.strip().lower() for t in head.get("connection", "").split(",")]
        good = lines[0].startswith("GET ") and "upgrade" in tokens and head.get("upgrade", "").lower() == "websocket"
        offered = protocol in [p.strip() for p in head.get("sec-websocket-protocol", "").split(",")]
        if not good or "sec-websocket-key" not in head or ("refuses" in odd and not offered):
            await self.put(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            raise Gone
        if head.get("sec-websocket-version") != "13":
            await self.put(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n")
            raise Gone
        if refused := self.refused(lines[0].split(" ")[1], head):
            await self.put(f"HTTP/1.1 {refused}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            raise Gone
        digest = hashlib.sha1(head["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        answer = [("Upgrade", "websocket"), ("Connection", "Upgrade"),
                  ("Sec-WebSocket-Accept", base64.b64encode(digest).decode())]
        answer += [("Sec-WebSocket-Protocol", protocol)] if offered else []
        lines = ["HTTP/1.1 101 Switching Protocols"] + [f"{name}: {value}" for name, value in answer]
        if "headers" in odd:
            lines = self.odd_head(answer)
        if chance("hints"):
            lines = ["HTTP/1.1 103 Early Hints", "Link: </style.css>; rel=preload", ""] + lines
        first = "".join(f"{line}\r\n" for line in lines) + "\r\n"
        await self.put(first.encode("latin-1") + (self.frame(PING, b"hi") if chance("pings") else b""))

    def refused(self, path, head):
        """The status line for a request that this hub does not upgrade; `None` for one that it does."""

    @staticmethod
    def odd_head(answer):
        connection = [("Connection", "keep-alive,  UPGRADE")], [("Connection", "keep-alive"), ("Connection", "upgrade")]
        answer = [("Upgrade", "WebSocket"), *rng.choice(connection), *answer[2:], ("Server", "stranger/0.0"),
                  ("X-Nothing", ""), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=" + "d" * 3000)]
        rng.shuffle(answer)
        case, blank = [str, str.lower, str.upper, str.swapcase], ["", " ", "\t ", "  "]
        reason = rng.choice(["", "Come in", "Switching Protocols", "H\u00e9"])
        return [f"HTTP/1.1 101 {reason}"] + [
            f"{rng.choice(case)(name)}:{rng.choice(blank)}{value}{rng.choice(blank)}" for name, value in answer]

    async def exactly(self, count):
        try:
            return await self.reader.readexactly(count)
        except (asyncio.IncompleteReadError, OSError):
            raise Gone from None

    async def message(self):
        """The next data message (opcode, bytes); control frames are dealt with on the way."""
        kind, parts, length = None, [], 0
        while True:
            b0, b1 = await self.exactly(2)
            final, opcode, size = b0 & 0x80, b0 & 0x0F, b1 & 0x7F
            if b0 & 0x70 or bool(b1 & 0x80) is self.masks or opcode not in (0, TEXT, BINARY, CLOSE, PING, PONG):
                raise Failed(1002, "reserved bits, a wrong mask, or an unknown opcode")
            if opcode >= CLOSE and (not final or size > 125):
                raise Failed(1002, "a control frame that is long or in pieces")
            if size >= 126:
                size = int.from_bytes(await self.exactly(2 if size == 126 else 8), "big")
            if length + size > LONGEST:
                raise Failed(1009, "too long")
            mask = bytes(4) if self.masks else await self.exactly(4)
            body = await self.exactly(size)
            key = (mask * (size // 4 + 1))[:size]
            body = (int.from_bytes(body, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
            if opcode == CLOSE:
                self.answer_close(body)
            elif opcode == PING:
                self.send(PONG, body)
            elif opcode == PONG:
                self.waiting = None
            else:
                if (opcode == 0) != (kind is not None):
                    raise Failed(1002, "fragments out of order")
                kind = kind or opcode
                length += size
                parts.append(body)
                if final:
                    return kind, b"".join(parts)

    def answer_close(self, body):
        code = int.from_bytes(body[:2], "big")
        if body and not (code in (1000, 1001, 1002, 1003, *range(1007, 1012)) or 3000 <= code < 5000):
            raise Failed(1002, "a close code nobody may send")
        self.close(rng.choice([0, code, 1000]) if "own-close" in odd else code)
        raise Gone

    @staticmethod
    def frame(opcode, body, final=True):
        n = len(body)
        size = bytes([n]) if n < 126 else struct.pack(">BH", 126, n) if n < 65536 else struct.pack(">BQ", 127, n)
        return bytes([opcode | (0x80 if final else 0)]) + size + body

    def masked(self, frame, body):
        """The frame as this side sends it."""
        if not self.masks:
            return frame
        head, key = bytearray(frame[:len(frame) - len(body)]), rng.randbytes(4)
        head[1] |= 0x80
        return bytes(head) + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(body))

    def frames(self, opcode, body):
        if opcode == TEXT and chance("pings", 0.2):
            noise = rng.randbytes(rng.choice([0, 4, 125]))
            yield self.masked(self.frame(rng.choice([PING, PONG]), noise), noise)
        torn = opcode == TEXT and chance("fragments")
        cuts = sorted(rng.randint(0, len(body)) for _ in range(rng.randint(1, 3))) if torn else []
        for at, (start, end) in enumerate(zip([0] + cuts, cuts + [len(body)])):
            part = body[start:end]
            yield self.masked(self.frame(0 if at else opcode, part, at == len(cuts)), part)
            if at < len(cuts) and chance("pings", 0.7):
                yield self.masked(self.frame(PING, b"between"), b"between")

    async def put(self, data):
        pieces = [data]
        if chance("drip") and self.out.qsize() < 8:     # a hub that is behind has no time for this
            first, cut = rng.choice([0, 3, 30]), rng.randint(0, len(data))
            pieces = [data[at:at + 1] for at in range(first)] + [data[first:][:cut], data[first:][cut:]]
        for piece in filter(None, pieces):
            if self.writer.is_closing():
                raise ConnectionResetError
            self.writer.write(piece)
            await asyncio.sleep(0)
        await self.writer.drain()

    async def write_out(self):
        """Sends what is queued, each frame when it is due, until a close frame went out."""
        clock, opcode = asyncio.get_running_loop().time, None
        while opcode != CLOSE:
            try:
                due, _, opcode, body = await asyncio.wait_for(self.out.get(), rng.uniform(0.2, 2))
            except TimeoutError:
                due, opcode, body = 0, PING if "pings" in odd or "impatient" in odd else None, b"still there?"
            await asyncio.sleep(max(0, due - clock()))
            if "impatient" in odd and opcode == PING:
                self.waiting = self.waiting or clock()
                if clock() - self.waiting > 10:
                    opcode, body = CLOSE, struct.pack(">H", 1008)
            try:
                for frame in self.frames(opcode, body) if opcode else ():
                    await self.put(frame)
                if opcode == CLOSE and chance("own-close"):
                    self.writer.write_eof()
            except OSError:
                return

    def send(self, opcode, body, line=None):
        """Queues a frame. Within a `line` none overtakes another; without one it neither overtakes nor is overtaken."""
        due = asyncio.get_running_loop().time()
        if opcode == TEXT and chance("slow", 0.7):
            due += rng.uniform(0, 0.12)
        if line is None or "overtake" not in odd:
            self.fixed = due = max(due, self.latest)
        else:
            self.lines[line] = due = max(due, self.fixed, self.lines.get(line, 0))
        self.latest = max(self.latest, due)
        try:
            self.out.put_nowait((due, next(self.counter), opcode, body))
        except asyncio.QueueFull:
            self.writer.transport.abort()

    def close(self, code, reason=""):
        if not self.closing:
            self.closing = True
            if "reasons" in odd and code >= 4000:
                reason = rng.choice(["", reason, "é" * 61, "bye\n\"{}\""])
            self.send(CLOSE, struct.pack(">H", code) + reason.encode() if code else b"")

    async def see_off(self, sender, ended):
        """Lets the close frame out; reads on until the client answers it, or our goodbye becomes a reset."""
        try:
            async with asyncio.timeout(3):
                await asyncio.wait([sender])
                while not ended:
                    await self.message()
        except (TimeoutError, Gone, Failed):
            pass
