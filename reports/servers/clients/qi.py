"""The side of system 2200 that sends requests, on the package websockets: `qi.py URL NEEDS`."""
import json
import sys
import uuid

from websockets.sync.client import connect

url, needs = sys.argv[1:3]
VERSION = "0.1.0"


def check(reply):
    if reply["status"] not in ("success", "failure"):
        raise ValueError(f"no such status: {reply['status']}")
    return reply.get("payload")


with connect(url) as socket:
    def send(**message):
        socket.send(json.dumps({**message, "version": VERSION}))

    def receive():
        return json.loads(socket.recv())

    if needs == "request":
        send(command="get_system_information")
        check(receive())
    if needs in ("session", "two-sessions"):
        open_sessions = {str(uuid.uuid4()) for _ in range(2 if needs == "two-sessions" else 1)}
        for session in open_sessions:
            send(session_id=session, command="execute", payload={"algorithm": "grover", "shots": 100})
        while open_sessions:
            reply = receive()
            if reply["session_id"] in open_sessions:
                open_sessions.discard(reply["session_id"])
                check(reply)
