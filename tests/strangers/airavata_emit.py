"""Publishes the event that a scenario asks for, as hubproof's hook `emit` for both hubs of this protocol.

    airavata_emit.py URL        URL is the hub's, without /control

The controls take the experiment, task or worker itself, and derive the rest of the event.
"""
import json
import sys
import urllib.request

asked = json.load(sys.stdin)
message, args = asked["message"], asked["args"]
data = message.get("data", {})
body = dict(next((data[kind] for kind in ("experiment", "task", "worker") if kind in data), data))
if "experiment" in data:
    body.setdefault("ownerId", args.get("user"))
    body.setdefault("projectId", args.get("project"))
request = urllib.request.Request(f"{sys.argv[1]}/control/{message['type']}", data=json.dumps(body).encode())
with urllib.request.urlopen(request) as answer:
    print(answer.read().decode())
