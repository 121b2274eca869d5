"""What the messages of gator.py look like on the wire: read as strictly as JSON is, written in every way it allows."""
import json
import math

from odd_websocket import TEXT, chance, odd, rng

EXTRAS = [("uptime", 12.5), ("tier", {"ident": "T0", "children": []}), ("x-\u00fc", None), ("result_code", 0),
          ("tags", []), ("", "")]
EXCUSES = ["no", "Das versteht hier niemand.", "\u7406\u89e3\u3067\u304d\u307e\u305b\u3093", "Traceback:\n\t\"{}\"\n",
           "\U0001f40a", "long " * 400]


class Refused(Exception):
    """The request cannot be done; `undecodable` where it was no message at all."""

    def __init__(self, reason, undecodable=False):
        super().__init__(reason)
        self.undecodable = undecodable


def read(opcode, body):
    """One message as an object."""
    def no_number(text):
        raise ValueError(f"{text} is no JSON")

    def number(text):
        value = float(text)
        return value if math.isfinite(value) else no_number(text)

    try:
        if opcode != TEXT:
            raise ValueError("messages are texts")
        message = json.loads(body, parse_constant=no_number, parse_float=number)
    except (ValueError, RecursionError) as error:
        raise Refused(f"cannot be decoded: {error}", undecodable=True) from None
    if not isinstance(message, dict):
        raise Refused("a message is an object", undecodable=True)
    return message


def with_extras(message):
    for target in (message, message.get("payload")):
        if isinstance(target, dict) and chance("extra", 0.4):
            for name, value in rng.sample(EXTRAS, rng.randint(1, 3)):
                target.setdefault(name, value)
    return message


def written(message):
    """The message as JSON in UTF-8."""
    style = {"separators": (",", ":")}
    if "order" in odd:
        items = list(message.items())
        rng.shuffle(items)
        message = dict(items)
        style = {"indent": rng.choice([None, 0, 2, "\t"]), "ensure_ascii": rng.random() < 0.5}
    try:
        text = json.dumps(message, **style).encode()
    except UnicodeEncodeError:      # half a surrogate pair can only be written escaped
        text = json.dumps(message).encode()
    except RecursionError:
        text = json.dumps(dict(message, rsp_id=None)).encode()
    return rng.choice([b"", b" ", b"\r\n"]) + text + rng.choice([b"", b"\n"]) if "order" in odd else text
