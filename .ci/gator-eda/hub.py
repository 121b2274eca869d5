"""Starts a tier of gator-eda as a hub under test: on a loopback port, and with hooks over HTTP on the next port.

    hub.py PORT [--verbose]

What answers on PORT is gator's own code. The document does not say how tiers find each other and what they run, so that is
asked for by the hooks `connect_up` and `register_child` of hubproof's pack; here they do what gator's own launcher does:
the tier's client connects to its parent, and a child sends `register` when it has connected and `complete` before it leaves.
The tier runs no jobs: its children are those of the scenarios. --verbose is that of gator's own command: without it no log
of the severity DEBUG is passed on.
"""
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import websockets
from gator.common import ws_server
from gator.common.child import Child, ChildState
from gator.common.logger import Logger
from gator.common.types import LogSeverity
from gator.common.ws_client import WebsocketClient
from gator.common.ws_wrapper import WebsocketWrapper
from gator.specs import Job, JobGroup
from gator.tier import Tier
from rich.console import Console

PORT = int(sys.argv[1])
children = {}


class NoScheduler:
    """Launches nothing: a scenario plays the children."""

    def __init__(self, parent, quiet):
        pass

    async def launch(self, tasks):
        pass

    async def wait_for_all(self):
        await asyncio.Event().wait()


async def register(name):
    """Gives the tier a child that it waits for."""
    tracking = Path(tempfile.mkdtemp(dir=tier.tracking))
    tier.jobs_launched[name] = children[name] = Child(spec=Job(id=name), id=name, tracking=tracking,
                                                        state=ChildState.LAUNCHED)
    return {"path": f"/{name}"}


async def connect_up(url):
    """Connects the tier to a parent in place of the one before."""
    if client.ws is not None:
        await client.ws.close()
    client.address = url.removeprefix("ws://")
    await client.start()
    return {}


async def sends(child, action, **payload):
    """Gives the tier a request as if a child had sent it."""
    await tier.server.route(child, {"action": action, "posted": True, "payload": payload})


def served_on_loopback(serve):
    """Returns `websockets.serve` for a fixed port of loopback, where a child is registered that connects by its path."""

    async def start(handle, _host, _port):
        async def accept(ws):
            name, child = ws.path[1:], WebsocketWrapper(ws)
            child.ws_event.set()
            if name not in children:
                return await handle(ws)
            await sends(child, "register", id=name, server="127.0.0.1:0")
            try:
                await handle(ws)
            finally:
                await sends(child, "complete", id=name, result="SUCCESS", code=0, metrics={})
        return await serve(accept, "127.0.0.1", PORT)
    return start


async def serve_hooks(reader, writer):
    """One HTTP request, whose body is one object with one member: the name of a hook, and its arguments."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        [(hook, args)] = json.loads(await reader.readexactly(length)).items()
        body, status = json.dumps(await {"connect_up": connect_up, "register_child": register}[hook](**args)), "200 OK"
    except Exception as error:
        body, status = json.dumps({"error": repr(error)}), "500 Internal Server Error"
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    await writer.drain()
    writer.close()


async def main():
    global client, tier
    ws_server.websockets.serve = served_on_loopback(websockets.serve)
    client = WebsocketClient()
    await client.start()
    logger = Logger(ws_cli=client, verbosity=LogSeverity.DEBUG if "--verbose" in sys.argv else LogSeverity.INFO)
    # Without colours: rich takes 20 seconds to find those of a word of 65,536 letters.
    logger.set_console(Console(log_path=False, highlight=False))
    with tempfile.TemporaryDirectory() as tracking:
        tier = Tier(spec=JobGroup(id="tier", jobs=[]), client=client, logger=logger,
                    tracking=Path(tracking), scheduler=NoScheduler)
        await asyncio.start_server(serve_hooks, "127.0.0.1", PORT + 1)
        await tier.launch()


asyncio.run(main())
