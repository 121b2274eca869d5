#!/usr/bin/env python3
"""A concierge hub written by a stranger: from the protocol's document alone, with habits of its own.

It exists so that the judge is tried against a hub that shares neither code nor customs with ours. Every
habit below is one the document (or RFC 6455, or RFC 8259) leaves to the hub, so a judge that demands only
what is written must find nothing wrong. All of them are on unless `--plain` or `--odd NAME,NAME` says
otherwise:

  headers     upgrade answer in odd case, with extra headers: names are case-insensitive, reasons are free
  hints       103 Early Hints before the 101: whatever is not 101 is handled as HTTP has it (4.1), and 1xx are interim
  drip        bytes arrive one by one or in torn pieces: TCP knows no messages
  fragments   messages come in up to four fragments, some empty, cut inside characters, pings between (5.4)
  pings       pings and unasked pongs at any time, even in the segment of the upgrade answer (5.5.2, 5.5.3)
  slow        every frame is 0-120 ms late: no answer has a deadline
  reasons     close reasons are missing, or of any text up to 123 bytes: only the codes are listed
  order       members of an object in any order: JSON objects have none
  extras      unknown members in every object: a status ends in `/* ... */`, nothing closes an object
  spaces      any white space JSON allows between tokens
  escapes     characters as \\uXXXX, also in member names: the same JSON string
  numbers     2.0, 2e0 or 20e-1 for 2: `seq` is a `number`
  ids         uuids of version 1 in capitals: `uuid` is a `string`, a version is not named
  nulls       a nickname nobody gave is absent or null (as in the result of SELF_FETCH), also in results
  names       fetched groups list their subscribers by name ("returns all the client names")
  zero        the first text payload has number 0: "the n-th" names no first number
  late-ack    what others receive and what the sender receives comes in any order: none is given
  news        STATUS OK without seq when clients come and go: "may happen for various reasons"
  all-others  a message to ALL skips its sender: who "all" is, is not said
  whole       a delivered target keeps members it does not need; the example drops them, no sentence does
  strict      a type nobody knows cannot be decoded: PROTOCOL (4002 before IDENTIFY) instead of UNSUPORTED
  overtake    answers overtake each other, and news overtakes answers: seq says what is answered, not the order
  late-leave  who has left is forgotten up to 0.3 s later: no sentence says "at once"
  ok-too      STATUS OK with the seq of what succeeded, besides its own answer: nothing says what OK is for
  founders    whoever creates a group is subscribed to it: nothing says how subscriptions begin
  picky       members that the document does not show are refused, except in targets, where its example has one
  sets        lists of clients, groups and subscribers in any order: none is given
  last-words  a STATUS says why, before a socket is closed for what came before IDENTIFY: only the close is required
  own-close   a client's close is answered with 1000 or without a code: echoing it is what is "typically" done (5.5.1);
              after a close frame the hub's half of the stream may end at once
  binary      a binary message ends the connection with 1003: only text payloads are spoken of
  seqless     an owner that deletes its group gets UNSUBSCRIBED without seq: "may not have" one, having sent no UNSUBSCRIBE
  old-lists   UNSUBSCRIBED still lists who has just left: whether the list is of before or after is not said
  padding     payloads of 40 kB now and then
  keys        the uuid of HELLO is the key for files, and not the one that others see: "acts as a file server key"
  welcome     newcomers hear GROUP_CREATED of groups there are: somebody else's doing, so without seq
  impatient   who leaves a ping unanswered for ten seconds is closed: pongs are due "as soon as is practical" (5.5.2)
  refuses     a client that does not offer the subprotocol is refused with 400: it "should" offer it

Two more are only on where `--odd` names them. The document allows them as well, and the judge advises against them:

  any-minor   any version with the same major number is compatible, also below 1.0: semver calls those unstable, no more
  quiet-end   GROUP_DELETED is for groups that somebody deletes; of one that ends with its owner its subscribers hear

`--bug NAME` makes one of a stranger's typical mistakes instead; see BUGS.
"""
import argparse
import asyncio
import json
import re
import sys
import uuid

sys.dont_write_bytecode = True  # a test leaves nothing beside its sources
from odd_websocket import TEXT, Connection, Failed, Gone, chance, odd, rng

HABITS = re.findall(r"^  ([a-z-]+)  ", __doc__, re.M)
ADVISED_AGAINST = {"any-minor", "quiet-end"}
BUGS = {
    "keeps-groups": "a group survives its owner",
    "seq-counts-answers": "seq counts the frames this hub sent instead of the texts it received",
    "wrong-close-code": "a taken name is answered with 4004 instead of 4005",
    "group-to-all": "a message to a group goes to everybody",
    "anyone-deletes": "every client may delete every group",
    "trusts-origin": "an origin the sender wrote is passed on",
    "quiet-groups": "nobody but its creator hears of a new group",
    "parses-data": "data is rebuilt with its numbers as floats instead of passed on verbatim",
    "ignores-secret": "every secret is good",
}
bug = None


# JSON: written with this hub's habits, read so that `data` keeps its own text.

class Raw(str):
    """JSON text that is sent as it is."""


def space():
    return rng.choice(["", "", " ", "\n", "\t ", "\r\n  "]) if "spaces" in odd else ""


def text_of(string):
    if not chance("escapes", 0.4):
        return json.dumps(string, ensure_ascii="escapes" not in odd or not string.isprintable())
    return '"' + "".join(f"\\u{ord(c):04X}" if c.isascii() and rng.random() < 0.3 else json.dumps(c)[1:-1]
                         for c in string).replace("/", "\\/") + '"'


def number(n):
    forms = [f"{n}", f"{n}.0", f"{n}e0", f"{n}.00E+0"] + ([f"{n}0e-1"] if n else [])
    return Raw(rng.choice(forms) if "numbers" in odd else n)


def encode(value):
    if isinstance(value, Raw):
        return value
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, list):
        value = rng.sample(value, len(value)) if "sets" in odd else value
        return "[" + ",".join(space() + encode(v) + space() for v in value) + "]"
    if isinstance(value, dict):
        members = list(value.items())
        if "extras" in odd:
            members += [("x-mood", rng.choice(["fine", None, 7, ["a"]])), ("", Raw('{"type": "STATUS", "data": {}}'))]
        if "padding" in odd and "type" in value and rng.random() < 0.05:
            members.append(("padding", "ß" * 20000))
        if "order" in odd:
            rng.shuffle(members)
        return "{" + ",".join(f"{space()}{encode(k)}{space()}:{space()}{encode(v)}" for k, v in members) + space() + "}"
    return json.dumps(value)


def no_constant(name):
    raise ValueError(f"{name} is not JSON")


reader_of_json = json.JSONDecoder(parse_int=float, parse_constant=no_constant)


def decode(text):
    """The object in `text`, and the text of each of its members."""
    value = reader_of_json.decode(text)
    if not isinstance(value, dict):
        raise ValueError("a payload is an object")
    blank, raw = re.compile(r"[ \t\r\n]*"), {}
    at = blank.match(text).end() + 1
    while text[(at := blank.match(text, at).end())] == '"':
        key, at = json.decoder.scanstring(text, at + 1)
        start = blank.match(text, blank.match(text, at).end() + 1).end()
        _, end = reader_of_json.raw_decode(text, start)
        raw[key] = Raw(text[start:end])
        at = blank.match(text, end).end() + 1
        if text[at - 1] == "}":
            break
    return value, raw


# The concierge itself.

class Peer(Connection):
    def __init__(self, reader, writer):
        super().__init__(reader, writer)
        self.received = self.sent = 0
        self.id = self.name = self.nickname = None
        self.tags = []

    @staticmethod
    def new_id():
        return str(uuid.uuid1()).upper() if "ids" in odd else str(uuid.uuid4())

    def tell(self, payload):
        if not self.closing:
            self.sent += 1
            line = {"HELLO": None, "MESSAGE": "messages"}.get(payload["type"], self.sent % 8)
            self.send(TEXT, (space() + encode(payload) + space()).encode(), line)

    def described(self):
        return {"name": self.name, "uuid": self.id, "tags": self.tags} | optional("nickname", self.nickname)


def optional(key, value):
    return {} if value is None and not chance("nulls") else {key: value}


class Group:
    def __init__(self, name, nickname, owner):
        self.name, self.nickname, self.owner, self.members = name, nickname, owner, {}

    def described(self, names=False):
        ids = [p.name if names else p.id for p in self.members.values()]
        return {"name": self.name, "owner_uuid": self.owner.id, "subscribers": ids}

    def status(self, code):
        return {"type": "STATUS", "code": code} | self.described() | optional("nickname", self.nickname)

    def fetched(self):
        nickname = self.nickname if "nulls" in odd else self.nickname or self.name
        return self.described("names" in odd) | optional("nickname", nickname)


def status(code, **more):
    return {"type": "STATUS", "code": code} | more


def want(payload, key, kind=str, needed=True):
    """A member of a payload; one that is not needed may be absent or null."""
    value = payload.get(key)
    if value is None and not needed:
        return None
    if not isinstance(value, kind) or kind is list and not all(isinstance(v, str) for v in value):
        raise ValueError(f"`{key}` is missing or of the wrong kind")
    return value


def shown(payload, kind):
    """Nothing that the document does not show, where this hub is picky."""
    known = SHOWN.get(kind)
    if "picky" in odd and known is not None and set(payload) - known - {"type"}:
        raise ValueError(f"{kind} has none of {', '.join(set(payload) - known)}")


def semver(text):
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(?:[-+][0-9A-Za-z.+-]+)?", text)
    return found and tuple(map(int, found.groups()))


def compatible(mine, theirs):
    a, b = semver(mine), semver(theirs)
    return bool(a and b and a[0] == b[0] and (a[0] or a[1] == b[1] or "any-minor" in odd))


class Hub:
    def __init__(self, version, secret):
        self.version, self.secret = version, secret
        self.names, self.ids, self.groups = {}, {}, {}

    async def serve(self, reader, writer):
        peer, sender, ended = Peer(reader, writer), None, True
        try:
            async with asyncio.timeout(10):
                await peer.upgrade("ert-concierge")
            sender = asyncio.create_task(peer.write_out())
            try:
                async with asyncio.timeout(5):
                    first = await peer.message()
            except TimeoutError:
                raise Failed(4004, "no IDENTIFY in time") from None
            self.identify(peer, *first)
            while True:
                self.receive(peer, *await peer.message())
        except Failed as failed:
            if peer.name is None and chance("last-words") and failed.args[0] in (4002, 4003):
                peer.tell(status("PROTOCOL", desc=failed.args[1], seq=number(1 - ("zero" in odd))))
            peer.close(*failed.args)
            ended = False
        except (Gone, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            polite, peer.closing = peer.closing, True
            if "late-leave" in odd:
                asyncio.get_running_loop().call_later(rng.uniform(0, 0.3), self.leave, peer)
            else:
                self.leave(peer)
            if sender and polite:
                await peer.see_off(sender, ended)
            if sender:
                sender.cancel()
            writer.close()

    def identify(self, peer, opcode, body):
        try:
            payload, _ = decode(text := body.decode()) if opcode == TEXT else no_constant("binary")
            kind = want(payload, "type")
        except (ValueError, RecursionError):
            raise Failed(4002, "that is no payload") from None
        peer.received = 1
        if kind != "IDENTIFY":
            raise Failed(4002 if "strict" in odd and kind not in KNOWN else 4003, "IDENTIFY comes first")
        try:
            shown(payload, kind)
            name, version = want(payload, "name"), want(payload, "version")
            secret = want(payload, "secret", needed=False)
            peer.tags = want(payload, "tags", list, needed=False) or []
            peer.nickname = want(payload, "nickname", needed=False)
        except ValueError as why:
            raise Failed(4002, str(why)[:100]) from None
        if not compatible(self.version, version):
            raise Failed(4007, f"this is {self.version}")
        if self.secret not in (None, secret) and bug != "ignores-secret":
            raise Failed(4006, "wrong secret")
        if name in self.names:
            raise Failed(4004 if bug == "wrong-close-code" else 4005, "the name is taken")
        peer.name, peer.id = name, peer.new_id()
        self.deliver(self.news("somebody came"))
        self.names[name] = self.ids[peer.id] = peer
        peer.tell({"type": "HELLO", "uuid": peer.new_id() if "keys" in odd else peer.id, "version": self.version})
        if "welcome" in odd:
            known = rng.sample(list(self.groups.values()), min(2, len(self.groups)))
            self.deliver([(peer, group.status("GROUP_CREATED")) for group in known])

    def leave(self, peer):
        if self.names.get(peer.name) is not peer:
            return
        del self.names[peer.name], self.ids[peer.id]
        mail = []
        for group in list(self.groups.values()):
            group.members.pop(peer.id, None)
            if group.owner is peer and bug != "keeps-groups":
                mail += self.drop(group, None)
                if "quiet-end" not in odd:
                    mail += [(p, group.status("GROUP_DELETED")) for p in self.names.values()]
        self.deliver(mail + self.news("somebody left"))

    def news(self, desc):
        """Told to a few, so that a crowd does not drown in it."""
        told = rng.sample(list(self.names.values()), min(4, len(self.names))) if "news" in odd else []
        return [(p, status("OK", desc=desc)) for p in told]

    def drop(self, group, seq):
        """Deletes a group: what its subscribers are told, the deleter with the number of its payload."""
        del self.groups[group.name]
        news = group.status("UNSUBSCRIBED")
        told = seq and not chance("seqless")
        return [(p, news | ({"seq": seq} if told and p is group.owner else {})) for p in group.members.values()]

    def deliver(self, mail):
        if "late-ack" in odd:
            rng.shuffle(mail)
        for peer, payload in mail:
            peer.tell(payload)

    def receive(self, peer, opcode, body):
        if opcode != TEXT and "binary" in odd:
            raise Failed(1003, "only text is understood")
        elif opcode != TEXT:
            return  # only text payloads are spoken of
        peer.received += 1
        seq = number(peer.sent + 1 if bug == "seq-counts-answers" else peer.received - ("zero" in odd))
        try:
            try:
                payload, raw = decode(body.decode())
            except UnicodeDecodeError:
                raise Failed(1007, "text is UTF-8") from None
            kind = want(payload, "type")
            shown(payload, kind)
            act = ACTS.get(kind)
            if act:
                answer, mail = act(self, peer, payload, raw, seq)
            elif "strict" in odd and kind not in KNOWN:
                raise ValueError("unknown type")
            else:
                answer, mail = status("UNSUPORTED"), []
        except (ValueError, RecursionError) as why:
            answer, mail = status("PROTOCOL", desc=str(why)), []
        if answer.get("code") in ("MESSAGE_SENT", "SUBSCRIBED", "GROUP_CREATED") and chance("ok-too"):
            mail = mail + [(peer, status("OK", seq=seq))]
        self.deliver([(peer, answer | {"seq": seq})] + mail)

    def message(self, peer, payload, raw, _):
        target = want(payload, "target", dict)
        kind = want(target, "type")
        if "data" not in raw:
            raise ValueError("`data` is missing")
        lean = {"type": kind}
        origin = peer.described()
        if kind == "NAME":
            lean["name"] = want(target, "name")
            if lean["name"] not in self.names:
                return status("NO_SUCH_NAME", name=lean["name"]), []
            to = [self.names[lean["name"]]]
        elif kind == "UUID":
            lean["uuid"] = want(target, "uuid")
            if lean["uuid"] not in self.ids:
                return status("NO_SUCH_UUID", uuid=lean["uuid"]), []
            to = [self.ids[lean["uuid"]]]
        elif kind == "GROUP":
            lean["group"] = want(target, "group")
            if lean["group"] not in self.groups:
                return status("NO_SUCH_GROUP", group=lean["group"]), []
            group = self.groups[lean["group"]]
            to = list((self.names if bug == "group-to-all" else group.members).values())
            origin["group"] = group.fetched()
        elif kind == "ALL":
            to = [p for p in self.names.values() if p is not peer or "all-others" not in odd]
        else:
            raise ValueError("a target is a NAME, a UUID, a GROUP or ALL")
        if bug == "trusts-origin" and "origin" in payload:
            origin = raw["origin"]
        data = Raw(json.dumps(json.loads(raw["data"], parse_int=float))) if bug == "parses-data" else raw["data"]
        target = raw["target"] if "whole" in odd else lean
        relayed = {"type": "MESSAGE", "origin": origin, "target": target, "data": data}
        return status("MESSAGE_SENT"), [(p, relayed) for p in to]

    def create(self, peer, payload, _, __):
        name, nickname = want(payload, "name"), want(payload, "nickname", needed=False)
        if name in self.groups:
            return self.groups[name].status("GROUP_ALREADY_CREATED"), []
        group = self.groups[name] = Group(name, nickname, peer)
        if "founders" in odd:
            group.members[peer.id] = peer
        told = [p for p in self.names.values() if p is not peer and bug != "quiet-groups"]
        return group.status("GROUP_CREATED"), [(p, group.status("GROUP_CREATED")) for p in told]

    def named(act):
        """An act on an existing group; one that does not exist is answered here."""
        def on_group(self, peer, payload, _, seq):
            group = self.groups.get(name := want(payload, "name"))
            return act(self, peer, group, seq) if group else (status("NO_SUCH_GROUP", group=name), [])
        return on_group

    @named
    def delete(self, peer, group, seq):
        if group.owner is not peer and bug != "anyone-deletes":
            return status("BAD", desc="only its owner may delete a group"), []
        gone = group.status("GROUP_DELETED")
        return gone, self.drop(group, seq) + [(p, gone) for p in self.names.values() if p is not peer]

    @named
    def subscribe(self, peer, group, _):
        group.members[peer.id] = peer
        return group.status("SUBSCRIBED"), []

    @named
    def unsubscribe(self, peer, group, _):
        before = group.status("UNSUBSCRIBED")
        if not group.members.pop(peer.id, None):
            return status("BAD", desc="not subscribed"), []
        return before if chance("old-lists") else group.status("UNSUBSCRIBED"), []

    @named
    def fetch(self, _, group, __):
        return {"type": "GROUP_FETCH_RESULT"} | group.fetched(), []

    def fetch_groups(self, *_):
        return {"type": "GROUP_FETCH_ALL_RESULT", "groups": [g.fetched() for g in self.groups.values()]}, []

    def fetch_clients(self, *_):
        return {"type": "CLIENT_FETCH_ALL_RESULT", "clients": [p.described() for p in self.names.values()]}, []

    def fetch_self(self, peer, *_):
        mine = [g.name for g in self.groups.values() if peer.id in g.members]
        return {"type": "SELF_FETCH_RESULT", "subscriptions": mine} | peer.described(), []


ACTS = {"MESSAGE": Hub.message, "GROUP_CREATE": Hub.create, "GROUP_DELETE": Hub.delete, "SELF_SUBSCRIBE": Hub.subscribe,
        "SELF_UNSUBSCRIBE": Hub.unsubscribe, "GROUP_FETCH": Hub.fetch, "GROUP_FETCH_ALL": Hub.fetch_groups,
        "CLIENT_FETCH_ALL": Hub.fetch_clients, "SELF_FETCH": Hub.fetch_self}
SHOWN = {"IDENTIFY": {"name", "version", "secret", "tags"}, "MESSAGE": {"origin", "target", "data"},
         "GROUP_CREATE": {"name", "nickname"}, "GROUP_DELETE": {"name"}, "SELF_SUBSCRIBE": {"name"},
         "SELF_UNSUBSCRIBE": {"name"}, "GROUP_FETCH": {"name"}, "GROUP_FETCH_ALL": set(), "CLIENT_FETCH_ALL": set(),
         "SELF_FETCH": set()}
KNOWN = {*ACTS, "IDENTIFY", "HELLO", "STATUS", "GROUP_FETCH_RESULT", "GROUP_FETCH_ALL_RESULT",
         "CLIENT_FETCH_ALL_RESULT", "SELF_FETCH_RESULT"}


async def main():
    global bug
    cli = argparse.ArgumentParser(description="A concierge hub with legal but uncommon habits.")
    cli.add_argument("--port", type=int, default=0)
    cli.add_argument("--secret", help="what clients have to send; none is asked for by default")
    cli.add_argument("--version", default="0.1.0", help="the hub's own version")
    cli.add_argument("--plain", action="store_true", help="no odd habits")
    cli.add_argument("--odd", type=lambda s: set(s.split(",")), help="only these habits, separated by commas")
    cli.add_argument("--bug", choices=BUGS, help="; ".join(f"{k}: {v}" for k, v in BUGS.items()))
    cli.add_argument("--seed", type=int, default=1, help="of the dice that choose among the habits")
    args = cli.parse_args()
    bug = args.bug
    odd.update(set() if args.plain else args.odd or set(HABITS) - ADVISED_AGAINST)
    if odd - set(HABITS):
        cli.error(f"no such habit: {', '.join(odd - set(HABITS))}; there are {', '.join(HABITS)}")
    rng.seed(args.seed)
    hub = Hub(args.version, args.secret)
    server = await asyncio.start_server(hub.serve, "127.0.0.1", args.port)
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
