"""strawberry-graphql on uvicorn: `strawberry_hub.py PORT`."""
import asyncio
import datetime
import sys
from typing import AsyncGenerator, Optional

import strawberry
import uvicorn
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError


@strawberry.type
class Query:
    @strawberry.field
    def echo(self, text: str) -> str:
        return text

    @strawberry.field
    async def slow(self, ms: int) -> bool:
        await asyncio.sleep(ms / 1000)
        return True

    @strawberry.field
    def fails(self) -> Optional[str]:
        raise ValueError("the resolver failed")


@strawberry.type
class Mutation:
    @strawberry.mutation
    def remember(self, text: str) -> str:
        return text


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number + 1

    @strawberry.subscription
    async def ticks(self, every: int) -> AsyncGenerator[int, None]:
        number = 0
        while True:
            await asyncio.sleep(every / 1000)
            yield (number := number + 1)


class App(GraphQL):
    async def on_ws_connect(self, context):
        if (context.get("connection_params") or {}).get("token") == "wrong":
            raise ConnectionRejectionError
        return await super().on_ws_connect(context)


schema = strawberry.Schema(Query, Mutation, Subscription)
app = App(schema, subscription_protocols=["graphql-transport-ws"], connection_init_wait_timeout=datetime.timedelta(seconds=2))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
