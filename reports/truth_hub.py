"""A hub whose doings are known: it answers late as it is told to, loses, doubles and reorders, and keeps count of it all.

What it is late with itself it knows, too: an answer took what it took by the clock of the hub. Printed at the end as JSON.
"""
import base64, hashlib, heapq, json, math, select, signal, socket, sys, time

GOLDEN = 0.618033988749895
LATE = 0.1      # seconds that every answer takes, far above what the network takes
STALL_AT, STALL = 8.0, 0.5


def delay(case, number):
    """What the hub adds to the n-th question, in seconds: in `times` shifted exponential, drawn evenly."""
    return LATE + (-math.log(1 - (number * GOLDEN) % 1) * 0.1 if case == "times" else 0)


class Connection:
    def __init__(self, sock):
        self.sock, self.bytes, self.open = sock, b"", False
        self.held = None

    def send(self, message):
        data = json.dumps(message).encode()
        head = bytes([0x81, len(data)]) if len(data) < 126 else bytes([0x81, 126]) + len(data).to_bytes(2, "big")
        self.sock.sendall(head + data)

    def messages(self, data):
        self.bytes += data
        if not self.open:
            head, end, self.bytes = self.bytes.partition(b"\r\n\r\n")
            if not end:
                self.bytes = head
                return
            key = next(line.split(b":", 1)[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            self.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            self.open = True
        while len(self.bytes) >= 6:
            # What the generator sends is masked and shorter than 64 KB.
            short = self.bytes[1] & 127
            start = 2 if short < 126 else 4
            length = short if short < 126 else int.from_bytes(self.bytes[2:4], "big")
            end = start + 4 + length
            if len(self.bytes) < end:
                return
            opcode, key, masked = self.bytes[0] & 15, self.bytes[start:start + 4], self.bytes[start + 4:end]
            self.bytes = self.bytes[end:]
            whole = int.from_bytes(masked, "big") ^ int.from_bytes((key * (length // 4 + 1))[:length], "big")
            payload = whole.to_bytes(length, "big")
            if opcode == 8:
                self.sock.sendall(b"\x88" + bytes([length]) + payload)
            elif opcode == 1:
                yield json.loads(payload)


class Hub:
    def __init__(self, case):
        self.case = case
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.connections, self.subscribers = {}, []
        self.later, self.number, self.asked, self.ended = [], 0, 0, False
        self.origin, self.first = math.inf, None
        self.stalled = False
        self.answers = []
        self.truth = {"ordered": 0, "lost": 0, "doubled": 0,
                      "published": 0, "delivered": 0, "missing": 0, "repeated": 0, "reordered": 0}

    def at(self, when, connection, message):
        self.number += 1
        heapq.heappush(self.later, (when, self.number, connection, message))

    def hear(self, connection, message, now):
        truth = self.truth
        if "due" in message:
            # How the two clocks lie: the fastest message of all was hardly on its way at all.
            self.origin = min(self.origin, now - message["due"] / 1e9)
        match message["type"]:
            case "ask":
                self.asked += 1
                self.first = self.first or now
                # From when it was due, so that its way here does not count twice.
                took = delay(self.case, self.asked)
                self.at(self.origin + message["due"] / 1e9 + took, connection, {**message, "type": "answer"})
            case "order":
                self.at(now + LATE / 2, connection, {**message, "type": "accepted"})
                truth["ordered"] += 1
                number = truth["ordered"]
                loses, doubles = number % 40 == 20, number % 100 == 50
                truth["lost"] += loses
                truth["doubled"] += doubles
                if not loses:
                    for _ in range(1 + doubles):
                        self.at(now + LATE, connection, {**message, "type": "done"})
            case "subscribe":
                self.subscribers.append(connection)
                connection.send({"type": "subscribed"})
            case "publish":
                truth["published"] += 1
                number = truth["published"]
                news = [{**message, "type": "news"}]
                if number % 20 == 10 and not connection.held:
                    connection.held = news
                    return
                if connection.held:
                    # The two have changed places.
                    news += connection.held
                    connection.held = None
                    truth["reordered"] += len(self.subscribers)
                for place, subscriber in enumerate(self.subscribers):
                    for one in news:
                        lost = len(news) == 1 and place == 0 and number % 50 == 21
                        twice = len(news) == 1 and place == 1 and number % 100 == 33
                        truth["missing"] += lost
                        truth["repeated"] += twice
                        for _ in range((not lost) + twice):
                            self.at(now + LATE, subscriber, one)
                        truth["delivered"] += not lost

    def turn(self):
        now = time.monotonic()
        if self.case == "stall" and self.first and not self.stalled and now >= self.first + STALL_AT:
            self.stalled = True
            time.sleep(STALL)
            now = time.monotonic()
        while self.later and self.later[0][0] <= now:
            _, _, connection, message = heapq.heappop(self.later)
            try:
                connection.send(message)
                if message["type"] == "answer":
                    self.answers.append((message["due"] / 1e9, time.monotonic()))
            except OSError:
                pass
        # epoll alone waits for whole milliseconds.
        select.select([self.poll.fileno()], [], [], max(0, self.later[0][0] - time.monotonic()) if self.later else 0.05)
        for fd, _ in self.poll.poll(0):
            if fd == self.listener.fileno():
                sock, _ = self.listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.poll.register(sock, select.EPOLLIN)
                self.connections[sock.fileno()] = Connection(sock)
                continue
            connection = self.connections[fd]
            try:
                data = connection.sock.recv(65536)
                if not data:
                    raise ConnectionError
                now = time.monotonic()
                for message in connection.messages(data):
                    self.hear(connection, message, now)
            except OSError:
                self.poll.unregister(fd)
                connection.sock.close()
                del self.connections[fd]


def main(case):
    hub = Hub(case)
    signal.signal(signal.SIGTERM, lambda *_: setattr(hub, "ended", True))
    print("hub", f"ws://127.0.0.1:{hub.listener.getsockname()[1]}", flush=True)
    while not hub.ended:
        hub.turn()
    # Whoever is still kept back reaches nobody.
    kept = sum(bool(connection.held) for connection in hub.connections.values())
    hub.truth["missing"] += kept
    print(json.dumps({**hub.truth, "took": [sent - hub.origin - due for due, sent in hub.answers]}))


if __name__ == "__main__":
    main(sys.argv[1])
