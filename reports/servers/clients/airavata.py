"""A client of the Airavata Scheduler on the package websockets, which reconnects by itself: `airavata.py URL NEEDS`."""
import asyncio
import itertools
import json
import sys
from datetime import datetime, timezone

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

url, needs = sys.argv[1:3]
TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1c2VyLTQ1NiJ9.c2lnbmF0dXJl"
RESOURCE = {"resourceType": "experiment", "resourceId": "exp-123"}
numbers = itertools.count(1)


async def talk(socket):
    async def send(type, **members):
        now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        await socket.send(json.dumps({"type": type, "id": f"user_user-456_{next(numbers)}", "timestamp": now, **members}))

    if needs == "ping":
        await send("ping")
    if needs in ("subscribe", "unsubscribe"):
        await send("system_status", data={"action": "subscribe", **RESOURCE})
    async for text in socket:
        message = json.loads(text)
        if message["type"] == "ping":
            await send("pong")
        elif needs == "unsubscribe" and (message.get("data") or {}).get("action") == "subscribed":
            await send("system_status", data={"action": "unsubscribe", **RESOURCE})


async def main():
    async for socket in connect(f"{url}/ws/user", additional_headers={"Authorization": f"Bearer {TOKEN}"}):
        try:
            await talk(socket)
        except ConnectionClosed:
            pass


asyncio.run(main())
