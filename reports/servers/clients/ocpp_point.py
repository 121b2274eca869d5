"""A charge point on the package ocpp and websockets: `ocpp_point.py URL NEEDS`."""
import asyncio
import logging
import sys

from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import ChargePointErrorCode, ChargePointStatus, RegistrationStatus
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

url, needs = sys.argv[1:3]
logging.disable(logging.CRITICAL)


class Point(ChargePoint):
    @on("GetConfiguration")
    def configuration(self, **_):
        return call_result.GetConfiguration(configuration_key=[])

    async def boot(self):
        while True:
            answer = await self.call(call.BootNotification(charge_point_model="Wallbox", charge_point_vendor="Example"))
            if answer and answer.status == RegistrationStatus.accepted:
                break
            await asyncio.sleep(answer.interval if answer else 60)
        if "two-calls" in needs:
            available = call.StatusNotification(connector_id=1, error_code=ChargePointErrorCode.no_error,
                                                status=ChargePointStatus.available)
            await asyncio.gather(self.call(available), self.call(call.Heartbeat()))
        while True:
            await asyncio.sleep(answer.interval)
            await self.call(call.Heartbeat())


async def main():
    booted = None
    while True:
        async with connect(f"{url}/CP-7", subprotocols=["ocpp1.6"]) as socket:
            point = Point("CP-7", socket)
            if booted is None:
                booted = asyncio.create_task(point.boot())
            try:
                await point.start()
            except ConnectionClosed:
                await asyncio.sleep(1)


asyncio.run(main())
