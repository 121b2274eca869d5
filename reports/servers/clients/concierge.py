"""A client of the concierge on the package websockets: `concierge.py URL NEEDS`."""
import json
import sys

from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

url, needs = sys.argv[1:3]
GROUP = "simulation1_data"


def session(name):
    with connect(url, subprotocols=["ert-concierge"]) as socket:
        def send(**payload):
            socket.send(json.dumps(payload))

        send(type="IDENTIFY", name=name, version="0.1.0", tags=["babylon"])
        for text in socket:
            payload = json.loads(text)
            kind = payload.get("code") if payload["type"] == "STATUS" else payload["type"]
            if kind == "HELLO" and needs == "message":
                send(type="MESSAGE", target={"type": "NAME", "name": "brendan"}, data={"foo": "bar"})
            elif kind == "HELLO" and needs == "group":
                send(type="GROUP_CREATE", name=GROUP, nickname="The First Simulation")
            elif kind == "GROUP_CREATED" and payload["name"] == GROUP:
                send(type="SELF_SUBSCRIBE", name=GROUP)
            elif kind == "SUBSCRIBED" and payload["name"] == GROUP:
                send(type="GROUP_DELETE", name=GROUP)


name = "anthony"
while True:
    try:
        session(name)
    except ConnectionClosedError as closed:
        if closed.rcvd is None or closed.rcvd.code != 4005:
            raise
        name += "-2"                       # the name is taken
    else:
        break
