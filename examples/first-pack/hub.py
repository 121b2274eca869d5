#!/usr/bin/env python3
"""The hub of the book's page "Your first pack": rooms, whose members receive posts of each other. `--bug NAME` makes one mistake."""
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "packs"))
from hub import Bug, read_json, serve

BUGS = {
    "members-as-text": Bug("values", "", "the number of members is a text"),
    "echo": Bug("neighbours", "", "a post comes back to its author, too"),
}
rooms = {}


def read(text):
    """Returns the operation and the argument of a message; None if it is not a message of the protocol."""
    try:
        asked = read_json(text)
        argument = {"join": "room", "post": "text"}[asked["op"]]
        return (asked["op"], asked[argument]) if isinstance(asked[argument], str) else None
    except (ValueError, TypeError, KeyError):
        return None


async def talk(client, bug):
    room = None
    try:
        async for text in client:
            asked = read(text)
            if asked is None:
                await client.close(1008)
            op, argument = asked
            if op == "join":
                if room is not None:
                    room.remove(client)
                room = rooms.setdefault(argument, [])
                room.append(client)
                members = str(len(room)) if bug == "members-as-text" else len(room)
                await client.send(json.dumps({"op": "joined", "room": argument, "members": members}))
            elif op == "post" and room is not None:
                for other in list(room):
                    if other is not client or bug == "echo":
                        await other.send(json.dumps({"op": "posted", "text": argument}))
    finally:
        if room is not None:
            room.remove(client)


serve(__doc__, BUGS, lambda path, offered, bug: "", talk)
