#!/usr/bin/env python3
"""A central system of OCPP 1.6 over WebSocket (OCPP-J) with the core profile, written from the two documents alone.

It knows two id tags: TAG-ACCEPTED and TAG-BLOCKED. `--bug NAME` makes one mistake.
"""
import asyncio
import datetime
import itertools
import json
import os
import random
import re
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from hub import Bug, Closed, read_json, serve

PROTOCOL = "ocpp1.6"
BUGS = {
    "boots-once": Bug("history", "OCPP-BOOT", "a second BootNotification of a connection is not answered"),
    "ids-kept": Bug("history", "OCPP-RESPONDS", "a message id that an earlier connection used is not answered"),
    "stop-unknown-refused": Bug("history", "OCPP-STOP", "StopTransaction of an unknown transaction is a CALLERROR"),
    "stop-twice-silent": Bug("history", "OCPP-STOP", "a StopTransaction that is sent again is not answered"),
    "values-after-stop": Bug("history", "OCPP-METER", "MeterValues of a transaction that has ended are not answered"),
    "returning-refused": Bug("history", "OCPP-URL", "a charge point that connects again is refused"),
    "thirty-calls": Bug("history", "OCPP-RESPONDS", "only 30 calls of a connection are answered", "fuzz"),
    "same-transaction": Bug("several", "OCPP-TRANSACTION-ID", "two transactions of a charge point have the same id"),
    "transactions-apart": Bug("several", "OCPP-TRANSACTION-ID", "each charge point counts its transactions on its own"),
    "one-meter-value": Bug("several", "OCPP-METER", "MeterValues with several values are refused"),
    "answers-twice": Bug("several", "OCPP-ONCE", "each answer is sent twice"),
    "loses-answer": Bug("several", "OCPP-RESPONDS", "one of 50 answers is lost", "load"),
    "id-in-lower-case": Bug("identity", "OCPP-ID", "answers have the message id in lower case"),
    "digits-as-number": Bug("identity", "OCPP-ID", "a message id of digits comes back as a number"),
    "id-cut": Bug("identity", "OCPP-ID", "only the first 32 characters of a message id come back"),
    "tag-case": Bug("identity", "OCPP-TAG-CASE", "id tags are compared with their case"),
    "encoded-refused": Bug("identity", "OCPP-URL", "a charge point whose identity has encoded characters is refused"),
    "answers-to-last": Bug("neighbours", "OCPP-ISOLATION", "an answer goes to the charge point that connected last"),
    "ids-shared": Bug("neighbours", "OCPP-ISOLATION", "a call whose id another charge point is using is not answered"),
    "leaves-together": Bug("neighbours", "OCPP-ISOLATION", "when a charge point leaves, another is disconnected"),
    "interval-as-text": Bug("values", "OCPP-BOOT", "the interval is a string"),
    "local-time": Bug("values", "OCPP-TIME", "the current time is not in the form of ISO 8601"),
    "clock-stopped": Bug("values", "OCPP-HEARTBEAT", "the current time is that of the hub's start"),
    "status-in-lower-case": Bug("values", "OCPP-BOOT", "the status is `accepted`"),
    "start-without-tag": Bug("values", "OCPP-START", "the answer to StartTransaction has no idTagInfo"),
    "transaction-as-text": Bug("values", "OCPP-START", "the transaction id is a string"),
    "error-short": Bug("values", "OCPP-CALLERROR", "a CALLERROR has no details"),
    "details-null": Bug("values", "OCPP-CALLERROR", "the details of a CALLERROR are null"),
    "own-error-code": Bug("values", "OCPP-ERROR-CODE", "an unknown action is `UnknownAction`"),
    "unknown-as-generic": Bug("values", "OCPP-NOT-IMPLEMENTED", "an unknown action is a GenericError"),
    "null-payload": Bug("values", "OCPP-CALLRESULT", "an answer without members is null"),
    "offset-refused": Bug("forms", "OCPP-TIME-FORMS", "a time with an offset is refused"),
    "blanks-refused": Bug("forms", "OCPP-JSON", "a message that begins with a blank is not understood"),
    "optional-refused": Bug("forms", "OCPP-OPTIONAL", "a BootNotification with an optional member is refused"),
    "fragments-apart": Bug("forms", "OCPP-RESPONDS", "each frame of a fragmented message is read as a message", "fuzz"),
    "blocked-starts": Bug("entry", "OCPP-START-CHECKS", "StartTransaction accepts a blocked tag"),
    "any-vendor": Bug("entry", "OCPP-VENDOR", "DataTransfer accepts every vendor"),
    "no-subprotocol": Bug("entry", "OCPP-SUBPROTOCOL", "the hub does not confirm the subprotocol"),
    "strangers-stay": Bug("entry", "OCPP-OTHER-SUBPROTOCOL", "a client without the subprotocol stays connected"),
    "connector-zero": Bug("entry", "OCPP-STATUS", "StatusNotification of connector 0 is refused"),
    "unknown-type-answered": Bug("entry", "OCPP-MESSAGE-TYPE", "a message of an unknown type is answered like a call"),
    "members-unchecked": Bug("entry", "OCPP-INCOMPLETE", "required members may be missing, except in BootNotification"),
    "lengths-unchecked": Bug("entry", "OCPP-INVALID", "texts may have any length", "fuzz"),
    "words-unchecked": Bug("entry", "OCPP-INVALID", "a status may be any word", "fuzz"),
    "types-unchecked": Bug("entry", "OCPP-INVALID", "a number may be a string"),
    "crashes-on-depth": Bug("crash", "the process ends", "a message nested 50 levels deep ends the process", "fuzz"),
    "crashes-on-short-call": Bug("crash", "the process ends", "an array of fewer than three items ends the process", "fuzz"),
    "hangs-on-length": Bug("crash", "clients wait", "a message of more than 50 kB is read for a minute", "fuzz"),
    "null-ends-all": Bug("crash", "clients are disconnected", "a payload that is null ends all connections", "fuzz"),
}
TAGS = {"tag-accepted": "Accepted", "tag-blocked": "Blocked"}
STATES = ["Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing", "Reserved", "Unavailable", "Faulted"]
ERRORS = ["ConnectorLockFailure", "EVCommunicationError", "GroundFailure", "HighTemperature", "InternalError", "LocalListConflict",
          "NoError", "OtherError", "OverCurrentFailure", "OverVoltage", "PowerMeterFailure", "PowerSwitchFailure", "ReaderFailure",
          "ResetFailure", "UnderVoltage", "WeakSignal"]
REASONS = ["EmergencyStop", "EVDisconnected", "HardReset", "Local", "Other", "PowerLoss", "Reboot", "Remote", "SoftReset",
           "UnlockCommand", "DeAuthorized"]
# Members of a payload: a length is that of a text, a list has the words that are allowed, a range the numbers. "?" marks an optional member.
CONTEXTS = ["Interruption.Begin", "Interruption.End", "Sample.Clock", "Sample.Periodic", "Transaction.Begin", "Transaction.End",
            "Trigger", "Other"]
PHASES = ["L1", "L2", "L3", "N", "L1-N", "L2-N", "L3-N", "L1-L2", "L2-L3", "L3-L1"]
LOCATIONS = ["Body", "Cable", "EV", "Inlet", "Outlet"]
SAMPLES = {"value": 1_000_000, "context?": CONTEXTS, "format?": ["Raw", "SignedData"], "measurand?": 60, "phase?": PHASES,
           "location?": LOCATIONS, "unit?": 20}
CONNECTORS, ALL_OR_ONE = range(1, 2**31), range(0, 2**31)
METER = {"timestamp": "time", "sampledValue": [SAMPLES]}
FORMS = {
    "BootNotification": {"chargePointVendor": 20, "chargePointModel": 20, "chargePointSerialNumber?": 25, "chargeBoxSerialNumber?": 25,
                         "firmwareVersion?": 50, "iccid?": 20, "imsi?": 20, "meterType?": 25, "meterSerialNumber?": 25},
    "Heartbeat": {},
    "Authorize": {"idTag": 20},
    "StartTransaction": {"connectorId": CONNECTORS, "idTag": 20, "meterStart": int, "reservationId?": int, "timestamp": "time"},
    "StopTransaction": {"transactionId": int, "meterStop": int, "timestamp": "time", "idTag?": 20, "reason?": REASONS,
                        "transactionData?": [METER]},
    "StatusNotification": {"connectorId": ALL_OR_ONE, "status": STATES, "errorCode": ERRORS, "info?": 50, "timestamp?": "time",
                           "vendorId?": 255, "vendorErrorCode?": 50},
    "MeterValues": {"connectorId": ALL_OR_ONE, "transactionId?": int, "meterValue": [METER]},
    "DataTransfer": {"vendorId": 255, "messageId?": 50, "data?": 1_000_000},
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?$")
started, numbers = time.time(), itertools.count(1)
charge_points, known_ids, seen, ended = [], set(), set(), set()


class Refused(Exception):
    """The call is answered with a CALLERROR; `args` are its code and description."""


def is_time(text):
    try:
        return bool(TIME.match(text)) and datetime.datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def check(value, form, name, bug):
    """Checks a member against its form."""
    if form is int or isinstance(form, range):
        if isinstance(value, str) and bug == "types-unchecked":
            return
        if not isinstance(value, int) or isinstance(value, bool):
            raise Refused("TypeConstraintViolation", f"{name} is an integer")
        if form is not int and value not in form:
            raise Refused("PropertyConstraintViolation", f"{name} is out of range")
    elif isinstance(form, dict):
        if not isinstance(value, dict):
            raise Refused("TypeConstraintViolation", f"{name} is an object")
        for key, inner in form.items():
            key, optional = key.rstrip("?"), key[-1] == "?"
            if key in value:
                check(value[key], inner, key, bug)
            elif not optional and not (bug == "members-unchecked" and "chargePointVendor" not in form):
                raise Refused("OccurenceConstraintViolation", f"{key} is missing")
        for key in value:
            if key not in form and key + "?" not in form:
                raise Refused("FormationViolation", f"{key} is unknown")
    elif isinstance(form, list) and isinstance(form[0], dict):
        if not isinstance(value, list):
            raise Refused("TypeConstraintViolation", f"{name} is a list")
        if not value:
            raise Refused("OccurenceConstraintViolation", f"{name} is empty")
        for item in value:
            check(item, form[0], name, bug)
    elif not isinstance(value, str):
        raise Refused("TypeConstraintViolation", f"{name} is a text")
    elif isinstance(form, list):
        if value not in form and bug != "words-unchecked":
            raise Refused("PropertyConstraintViolation", f"{name} is not one of the words")
    elif form == "time":
        if not is_time(value) or bug == "offset-refused" and value[-1] != "Z":
            raise Refused("PropertyConstraintViolation", f"{name} is not a time")
    elif len(value) > form and bug != "lengths-unchecked":
        raise Refused("PropertyConstraintViolation", f"{name} is too long")


class ChargePoint:
    def __init__(self, connection, bug):
        self.connection, self.bug = connection, bug
        self.booted, self.ids, self.count, self.numbers = False, set(), 0, itertools.count(1)

    def now(self):
        moment = datetime.datetime.fromtimestamp(started if self.bug == "clock-stopped" else time.time(), datetime.timezone.utc)
        return moment.strftime("%d.%m.%Y %H:%M" if self.bug == "local-time" else "%Y-%m-%dT%H:%M:%S.%f")[:23] + "Z" * (self.bug != "local-time")

    def tag_info(self, tag):
        key = tag if self.bug == "tag-case" else tag.lower()
        tags = {"TAG-ACCEPTED": "Accepted", "TAG-BLOCKED": "Blocked"} if self.bug == "tag-case" else TAGS
        return {"status": tags.get(key, "Invalid")}

    def result_of(self, action, payload):
        """Returns the payload of the CALLRESULT, or None for no answer."""
        bug = self.bug
        if action not in FORMS:
            code = {"own-error-code": "UnknownAction", "unknown-as-generic": "GenericError"}.get(bug, "NotImplemented")
            raise Refused(code, "the action is unknown")
        if bug == "optional-refused" and action == "BootNotification" and len(payload) > 2:
            raise Refused("FormationViolation", "unknown members")
        check(payload, FORMS[action], "the payload", bug)
        if action == "BootNotification":
            if self.booted and bug == "boots-once":
                return None
            self.booted = True
            return {"status": "accepted" if bug == "status-in-lower-case" else "Accepted", "currentTime": self.now(),
                    "interval": "300" if bug == "interval-as-text" else 300}
        if action == "Heartbeat":
            return {"currentTime": self.now()}
        if action == "Authorize":
            return {"idTagInfo": self.tag_info(payload.get("idTag", ""))}
        if action == "StartTransaction":
            number = 1 if bug == "same-transaction" else next(self.numbers if bug == "transactions-apart" else numbers)
            info = {"status": "Accepted"} if bug == "blocked-starts" else self.tag_info(payload.get("idTag", ""))
            result = {"transactionId": str(number) if bug == "transaction-as-text" else number, "idTagInfo": info}
            if bug == "start-without-tag":
                del result["idTagInfo"]
            return result
        if action == "StopTransaction":
            number = payload.get("transactionId", 0)
            if bug == "stop-unknown-refused" and isinstance(number, int) and number > 1_000_000:
                raise Refused("PropertyConstraintViolation", "the transaction is unknown")
            if bug == "stop-twice-silent" and number in ended:
                return None
            ended.add(number)
            return {"idTagInfo": self.tag_info(payload["idTag"])} if "idTag" in payload else {}
        if action == "StatusNotification" and bug == "connector-zero" and payload["connectorId"] == 0:
            raise Refused("PropertyConstraintViolation", "connectors have numbers from 1")
        if action == "MeterValues":
            if bug == "one-meter-value" and len(payload.get("meterValue", [])) > 1:
                raise Refused("OccurenceConstraintViolation", "too many values")
            if bug == "values-after-stop" and payload.get("transactionId") in ended:
                return None
        if action == "DataTransfer":
            known = payload.get("vendorId") == "org.example"
            return {"status": "Accepted" if known or bug == "any-vendor" else "UnknownVendorId"}
        return {}

    async def handle(self, text):
        bug = self.bug
        if isinstance(text, bytes):
            return
        if bug == "hangs-on-length" and len(text) > 50_000:
            time.sleep(60)
        if bug == "crashes-on-depth" and "[" * 50 in re.sub(r'\s|"\w*":|{', "[", text):
            os._exit(1)
        try:
            if bug == "blanks-refused" and text[:1] != "[":
                return
            message = read_json(text)
        except ValueError:
            return
        if not isinstance(message, list):
            return
        if bug == "crashes-on-short-call" and len(message) < 3:
            os._exit(1)
        if len(message) != 4 or message[0] != 2 and not (bug == "unknown-type-answered" and message[0] not in (3, 4)):
            return
        _, id, action, payload = message
        if not isinstance(id, str):
            return
        if bug == "null-ends-all" and payload is None:
            for other in list(charge_points):
                other.connection.writer.close()
        self.count += 1
        if bug == "thirty-calls" and self.count > 30 or bug == "ids-kept" and id in known_ids:
            return
        self.ids.add(id)
        if bug == "ids-shared" and any(id in other.ids for other in charge_points if other is not self):
            return
        await self.answer(id, action, payload)

    async def answer(self, id, action, payload):
        bug, shown = self.bug, id
        if bug == "id-in-lower-case":
            shown = id.lower()
        if bug == "digits-as-number" and id.isdecimal():
            shown = int(id)
        if bug == "id-cut":
            shown = id[:32]
        try:
            if len(id) > 36:
                raise Refused("FormationViolation", "the message id is too long")
            if not isinstance(action, str):
                raise Refused("FormationViolation", "the action is a text")
            if not isinstance(payload, dict):
                raise Refused("FormationViolation", "the payload is an object")
            result = self.result_of(action, payload)
            if result is None:
                return
            if bug == "null-payload" and result == {}:
                result = None
            answer = [3, shown, result]
        except Refused as refusal:
            answer = [4, shown, *refusal.args, None if bug == "details-null" else {}]
            if bug == "error-short":
                answer.pop()
        if bug == "loses-answer" and random.random() < 0.02:
            return
        receiver = charge_points[-1] if bug == "answers-to-last" else self
        for _ in range(2 if bug == "answers-twice" else 1):
            await receiver.connection.send(json.dumps(answer))


async def talk(connection, bug):
    if PROTOCOL not in connection.offered and bug != "strangers-stay":
        await connection.close(1002, "the subprotocol is ocpp1.6")
    connection.whole = bug != "fragments-apart"
    charge_point = ChargePoint(connection, bug)
    charge_points.append(charge_point)
    try:
        async for text in connection:
            try:
                await charge_point.handle(text)
            except Closed:
                if connection.closed:
                    raise
    finally:
        charge_points.remove(charge_point)
        known_ids.update(charge_point.ids)
        if bug == "leaves-together" and charge_points:
            charge_points[0].connection.writer.close()


def select(path, offered, bug):
    if bug == "encoded-refused" and "%" in path or bug == "returning-refused" and path in seen:
        return "404 Not Found"
    seen.add(path)
    return PROTOCOL if PROTOCOL in offered and bug != "no-subprotocol" else ""


if __name__ == "__main__":
    serve(__doc__, BUGS, select, talk)
