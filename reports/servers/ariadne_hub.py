"""ariadne on uvicorn: `ariadne_hub.py PORT`."""
import asyncio
import datetime
import sys

import uvicorn
from ariadne import MutationType, QueryType, SubscriptionType, make_executable_schema
from ariadne.asgi import GraphQL
from ariadne.asgi.handlers import GraphQLTransportWSHandler
from ariadne.exceptions import WebSocketConnectionError

query, mutation, subscription = QueryType(), MutationType(), SubscriptionType()


@query.field("echo")
@mutation.field("remember")
def echo(_, info, text):
    return text


@query.field("slow")
async def slow(_, info, ms):
    await asyncio.sleep(ms / 1000)
    return True


@query.field("fails")
def fails(_, info):
    raise ValueError("the resolver failed")


@subscription.source("count")
async def count(_, info, to):
    for number in range(to):
        yield number + 1


@subscription.source("ticks")
async def ticks(_, info, every):
    number = 0
    while True:
        await asyncio.sleep(every / 1000)
        yield (number := number + 1)


@subscription.field("count")
@subscription.field("ticks")
def value(number, info, **_):
    return number


def connect(websocket, params):
    if isinstance(params, dict) and params.get("token") == "wrong":
        raise WebSocketConnectionError("wrong token")


schema = make_executable_schema("""
  type Query { echo(text: String!): String!, slow(ms: Int!): Boolean!, fails: String }
  type Mutation { remember(text: String!): String! }
  type Subscription { count(to: Int!): Int!, ticks(every: Int!): Int! }
""", query, mutation, subscription)
handler = GraphQLTransportWSHandler(on_connect=connect, connection_init_wait_timeout=datetime.timedelta(seconds=2))
uvicorn.run(GraphQL(schema, websocket_handler=handler), host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
