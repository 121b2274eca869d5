"""A central system on the package ocpp and websockets: `ocpp_central.py PORT`."""
import asyncio
import itertools
import logging
import sys
from datetime import datetime, timezone

import websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result
from ocpp.v16.datatypes import IdTagInfo
from ocpp.v16.enums import AuthorizationStatus, DataTransferStatus, RegistrationStatus

TAGS = {"tag-accepted": AuthorizationStatus.accepted, "tag-blocked": AuthorizationStatus.blocked}
numbers = itertools.count(1)
logging.disable(logging.CRITICAL)


def now():
    return datetime.now(timezone.utc).isoformat()


def tag_info(id_tag):
    return IdTagInfo(status=TAGS.get(id_tag.lower(), AuthorizationStatus.invalid))


class Central(ChargePoint):
    @on("BootNotification")
    def boot(self, **_):
        return call_result.BootNotification(current_time=now(), interval=300, status=RegistrationStatus.accepted)

    @on("Heartbeat")
    def heartbeat(self):
        return call_result.Heartbeat(current_time=now())

    @on("Authorize")
    def authorize(self, id_tag):
        return call_result.Authorize(id_tag_info=tag_info(id_tag))

    @on("StartTransaction")
    def start_transaction(self, id_tag, **_):
        return call_result.StartTransaction(transaction_id=next(numbers), id_tag_info=tag_info(id_tag))

    @on("StopTransaction")
    def stop_transaction(self, id_tag=None, **_):
        return call_result.StopTransaction(id_tag_info=tag_info(id_tag) if id_tag else None)

    @on("StatusNotification")
    def status(self, **_):
        return call_result.StatusNotification()

    @on("MeterValues")
    def meter_values(self, **_):
        return call_result.MeterValues()

    @on("DataTransfer")
    def data_transfer(self, **_):
        return call_result.DataTransfer(status=DataTransferStatus.unknown_vendor_id)


async def connect(websocket):
    if websocket.subprotocol is None:
        return await websocket.close()
    try:
        await Central(websocket.request.path.strip("/"), websocket).start()
    except websockets.ConnectionClosed:
        pass


async def main():
    # As in the package's own example: a client without a common subprotocol is accepted, and then closed.
    async with websockets.serve(connect, "127.0.0.1", int(sys.argv[1]), subprotocols=["ocpp1.6"],
                                select_subprotocol=lambda _, offered: "ocpp1.6" if "ocpp1.6" in offered else None):
        await asyncio.Event().wait()


asyncio.run(main())
