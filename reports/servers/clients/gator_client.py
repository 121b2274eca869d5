"""The client of gator-eda, as a task would use it: `gator_client.py URL NEEDS`."""
import asyncio
import sys

from gator.common.logger import Logger
from gator.common.ws_client import WebsocketClient

url, needs = sys.argv[1:3]


async def main():
    client = WebsocketClient(url.removeprefix("ws://"))
    await client.start()
    calls = []
    if needs == "log":
        calls = [Logger(ws_cli=client).info("a message")]
    if needs in ("request", "two-requests"):
        calls = [client.register(id="job", server="127.0.0.1:9"), client.update(id="job")][:1 if needs == "request" else 2]
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.Event().wait()


asyncio.run(main())
