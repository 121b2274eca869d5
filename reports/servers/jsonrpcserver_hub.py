"""jsonrpcserver on websockets: `jsonrpcserver_hub.py PORT`."""
import asyncio
import collections
import json
import logging
import sys

import websockets
from jsonrpcserver import Error, InvalidParams, Success, async_dispatch, method

logging.disable(logging.CRITICAL)
notes = collections.Counter()


@method
async def subtract(number, minus):
    if not all(isinstance(value, (int, float)) for value in (number, minus)):
        return InvalidParams()
    return Success(number - minus)


@method
async def echo(value):
    return Success(value)


@method
async def ping():
    return Success("pong")


@method
async def note(text):
    notes[json.dumps(text)] += 1
    return Success()


@method
async def noted(text):
    return Success(notes[json.dumps(text)])


@method
async def fail():
    return Error(4001, "The method failed")


@method
async def slow():
    await asyncio.sleep(0.5)
    return Success(True)


async def connect(websocket):
    try:
        async for text in websocket:
            if response := await async_dispatch(text):
                await websocket.send(response)
    except websockets.ConnectionClosed:
        pass


async def main():
    async with websockets.serve(connect, "127.0.0.1", int(sys.argv[1])):
        await asyncio.Event().wait()


asyncio.run(main())
