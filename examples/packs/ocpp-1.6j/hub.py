#!/usr/bin/env python3
"""A central system of OCPP 1.6 over WebSocket (OCPP-J) with the core profile, written from the two documents alone.

It knows two id tags: TAG-ACCEPTED and TAG-BLOCKED, and all charge points but STRANGER. After each BootNotification it asks the
charge point for its configuration, and then changes it. `--bug NAME` makes one mistake.
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
import uuid

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
    "boot-required": Bug("history", "OCPP-RECONNECT", "a charge point that connects again is served only after another BootNotification"),
    "transactions-forgotten": Bug("history", "OCPP-STOP", "StopTransaction of a transaction of an earlier connection is a CALLERROR"),
    "start-again-silent": Bug("history", "OCPP-HISTORY", "a StartTransaction that is sent again is not answered"),
    "silent-after-error": Bug("history", "OCPP-RESPONDS", "the call after a CALLERROR is not answered"),
    "minus-one-refused": Bug("history", "OCPP-NO-TRANSACTION", "MeterValues of the transaction -1 are a CALLERROR"),
    "returning-refused": Bug("history", "OCPP-URL", "a charge point that connects again is refused"),
    "thirty-calls": Bug("history", "OCPP-RESPONDS", "only 30 calls of a connection are answered", "fuzz"),
    "same-transaction": Bug("several", "OCPP-TRANSACTION-ID", "two transactions of a charge point have the same id"),
    "transactions-apart": Bug("several", "OCPP-TRANSACTION-ID", "each charge point counts its transactions on its own"),
    "transactions-counted": Bug("several", "OCPP-TRANSACTION-ID", "a transaction id is the number of active transactions"),
    "calls-at-once": Bug("several", "OCPP-ONE-CALL", "the hub sends its second call before its first is answered"),
    "call-ids-alike": Bug("several", "OCPP-CALL-ID", "all calls of the hub have the same message id"),
    "waits-for-answer": Bug("several", "OCPP-CROSSING", "no call is answered while the charge point owes an answer"),
    "no-empty-data": Bug("several", "OCPP-OPTIONAL", "a StopTransaction whose transactionData is an empty list is refused"),
    "one-meter-value": Bug("several", "OCPP-METER", "MeterValues with several values are refused"),
    "answers-twice": Bug("several", "OCPP-ONCE", "each answer is sent twice"),
    "loses-answer": Bug("several", "OCPP-RESPONDS", "one of 50 answers is lost", "load"),
    "id-in-lower-case": Bug("identity", "OCPP-ID", "answers have the message id in lower case"),
    "digits-as-number": Bug("identity", "OCPP-ID", "a message id of digits comes back as a number"),
    "id-cut": Bug("identity", "OCPP-ID", "only the first 32 characters of a message id come back"),
    "digits-rounded": Bug("identity", "OCPP-ID", "a message id of digits is rounded to 53 bits"),
    "ids-in-any-case": Bug("identity", "OCPP-RESPONDS", "a message id that differs from an earlier one only in its case is not answered"),
    "ids-by-32": Bug("identity", "OCPP-RESPONDS", "a message id that begins with the same 32 characters as an earlier one is not answered"),
    "own-id-taken": Bug("identity", "OCPP-CROSSING", "a call with the id of the hub's own call is taken for its answer"),
    "action-case": Bug("identity", "OCPP-NOT-IMPLEMENTED", "the case of an action does not matter"),
    "action-prefix": Bug("identity", "OCPP-NOT-IMPLEMENTED", "an action may have more letters"),
    "word-case": Bug("identity", "OCPP-INVALID", "the case of a status does not matter"),
    "start-tag-case": Bug("identity", "OCPP-TAG-CASE", "StartTransaction compares id tags with their case"),
    "blocked-tag-case": Bug("identity", "OCPP-TAG-CASE", "a tag that is blocked is accepted in another case"),
    "tag-case": Bug("identity", "OCPP-TAG-CASE", "id tags are compared with their case"),
    "encoded-refused": Bug("identity", "OCPP-URL", "a charge point whose identity has encoded characters is refused"),
    "answers-to-last": Bug("neighbours", "OCPP-ISOLATION", "an answer goes to the charge point that connected last"),
    "ids-shared": Bug("neighbours", "OCPP-ISOLATION", "a call whose id another charge point is using is not answered"),
    # Alone, `neighbours` shows it; in a whole run of check every conversation stops at its opening, which accuses of nothing.
    "all-wait": Bug("neighbours", "OCPP-ISOLATION", "while a charge point owes an answer, no other is served", "check"),
    "leaves-together": Bug("neighbours", "OCPP-ISOLATION", "when a charge point leaves, another is disconnected"),
    "interval-as-text": Bug("values", "OCPP-BOOT", "the interval is a string"),
    "local-time": Bug("values", "OCPP-TIME", "the current time is not in the form of ISO 8601"),
    "clock-stopped": Bug("values", "OCPP-HEARTBEAT", "the current time is that of the hub's start"),
    "clock-shifted": Bug("values", "OCPP-HEARTBEAT", "the current time is that of another zone, with a Z"),
    "boot-member": Bug("values", "OCPP-MEMBERS", "the answer to BootNotification has a member heartbeatInterval"),
    "vendor-data": Bug("values", "OCPP-VENDOR", "the answer to DataTransfer of an unknown vendor has data"),
    "call-short": Bug("values", "OCPP-CALL", "a call of the hub has no payload"),
    "status-in-lower-case": Bug("values", "OCPP-BOOT", "the status is `accepted`"),
    "start-without-tag": Bug("values", "OCPP-START", "the answer to StartTransaction has no idTagInfo"),
    "transaction-as-text": Bug("values", "OCPP-START", "the transaction id is a string"),
    "error-short": Bug("values", "OCPP-CALLERROR", "a CALLERROR has no details"),
    "details-null": Bug("values", "OCPP-CALLERROR", "the details of a CALLERROR are null"),
    "own-error-code": Bug("values", "OCPP-ERROR-CODE", "an unknown action is `UnknownAction`"),
    "unknown-as-generic": Bug("values", "OCPP-NOT-IMPLEMENTED", "an unknown action is a GenericError"),
    "null-payload": Bug("values", "OCPP-EMPTY", "an answer without members is null"),
    "offset-refused": Bug("forms", "OCPP-TIME-FORMS", "a time with an offset is refused"),
    "blanks-refused": Bug("forms", "OCPP-JSON", "a message that begins with a blank is not understood"),
    "start-offset-refused": Bug("forms", "OCPP-TIME-FORMS", "a time with an offset is refused in StartTransaction"),
    "escapes-kept": Bug("forms", "OCPP-JSON", "the escape of an ASCII letter is not understood"),
    "ascii-only": Bug("forms", "OCPP-JSON", "a message with other letters than those of ASCII is not understood"),
    "sample-refused": Bug("forms", "OCPP-OPTIONAL", "a sampled value with a format is refused"),
    "optional-refused": Bug("forms", "OCPP-OPTIONAL", "a BootNotification with an optional member is refused"),
    "fragments-apart": Bug("forms", "OCPP-RESPONDS", "each frame of a fragmented message is read as a message", "fuzz"),
    "blocked-starts": Bug("entry", "OCPP-START-CHECKS", "StartTransaction accepts a blocked tag"),
    "any-vendor": Bug("entry", "OCPP-VENDOR", "DataTransfer accepts every vendor"),
    "no-subprotocol": Bug("entry", "OCPP-SUBPROTOCOL", "the hub does not confirm the subprotocol"),
    "strangers-stay": Bug("entry", "OCPP-OTHER-SUBPROTOCOL", "a client without the subprotocol stays connected"),
    "strangers-welcome": Bug("entry", "OCPP-STRANGER", "an unknown charge point is served"),
    "weak-signal-refused": Bug("entry", "OCPP-STATUS", "StatusNotification with the error WeakSignal is refused"),
    "nested-unchecked": Bug("entry", "OCPP-INCOMPLETE", "required members of a sampled value may be missing"),
    "long-id": Bug("entry", "OCPP-INVALID", "a message id may have any length"),
    "connector-zero": Bug("entry", "OCPP-STATUS", "StatusNotification of connector 0 is refused"),
    "unknown-type-answered": Bug("entry", "OCPP-MESSAGE-TYPE", "a message of an unknown type is answered like a call"),
    "members-unchecked": Bug("entry", "OCPP-INCOMPLETE", "required members may be missing, except in BootNotification"),
    "lengths-unchecked": Bug("entry", "OCPP-INVALID", "texts may have any length"),
    "words-unchecked": Bug("entry", "OCPP-INVALID", "a status may be any word"),
    "sample-words-unchecked": Bug("entry", "OCPP-INVALID", "a measurand may be any word", "fuzz"),
    "booleans-are-numbers": Bug("entry", "OCPP-INVALID", "a number may be a boolean"),
    "types-unchecked": Bug("entry", "OCPP-INVALID", "a number may be a string"),
    "crashes-on-depth": Bug("crash", "the process ends", "a message nested 50 levels deep ends the process", "fuzz"),
    "crashes-on-short-call": Bug("crash", "the process ends", "an array of fewer than three items ends the process", "fuzz"),
    "hangs-on-length": Bug("crash", "clients wait", "a message of more than 50 kB is read for a minute", "fuzz"),
    "crashes-on-surrogate": Bug("crash", "the process ends", "half of a surrogate pair ends the process", "fuzz"),
    "null-ends-all": Bug("crash", "clients are disconnected", "a payload that is null ends all connections", "fuzz"),
}
TAGS = {"tag-accepted": "Accepted", "tag-blocked": "Blocked"}
STATES = ["Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing", "Reserved", "Unavailable", "Faulted"]
ERRORS = ["ConnectorLockFailure", "EVCommunicationError", "GroundFailure", "HighTemperature", "InternalError", "LocalListConflict",
          "NoError", "OtherError", "OverCurrentFailure", "OverVoltage", "PowerMeterFailure", "PowerSwitchFailure", "ReaderFailure",
          "ResetFailure", "UnderVoltage", "WeakSignal"]
REASONS = ["EmergencyStop", "EVDisconnected", "HardReset", "Local", "Other", "PowerLoss", "Reboot", "Remote", "SoftReset",
           "UnlockCommand", "DeAuthorized"]
CONTEXTS = ["Interruption.Begin", "Interruption.End", "Sample.Clock", "Sample.Periodic", "Transaction.Begin", "Transaction.End",
            "Trigger", "Other"]
PHASES = ["L1", "L2", "L3", "N", "L1-N", "L2-N", "L3-N", "L1-L2", "L2-L3", "L3-L1"]
LOCATIONS = ["Body", "Cable", "EV", "Inlet", "Outlet"]
MEASURANDS = [f"{kind}.{way}" for kind in ("Current", "Power.Active", "Power.Reactive") for way in ("Export", "Import")] + [
    f"Energy.{kind}.{way}.{span}" for kind in ("Active", "Reactive") for way in ("Export", "Import") for span in ("Register", "Interval")] + [
    "Current.Offered", "Power.Offered", "Power.Factor", "Frequency", "RPM", "SoC", "Temperature", "Voltage"]
UNITS = ["Wh", "kWh", "varh", "kvarh", "W", "kW", "VA", "kVA", "var", "kvar", "A", "V", "K", "Celsius", "Celcius", "Fahrenheit", "Percent"]
# Members of a payload: a length is that of a text, a list has the words that are allowed, a range the numbers. "?" marks an optional member.
SAMPLES = {"value": 1_000_000, "context?": CONTEXTS, "format?": ["Raw", "SignedData"], "measurand?": MEASURANDS, "phase?": PHASES,
           "location?": LOCATIONS, "unit?": UNITS}
ALL_OR_ONE = range(0, 2**31)
METER = {"timestamp": "time", "sampledValue": [SAMPLES]}
FORMS = {
    "BootNotification": {"chargePointVendor": 20, "chargePointModel": 20, "chargePointSerialNumber?": 25, "chargeBoxSerialNumber?": 25,
                         "firmwareVersion?": 50, "iccid?": 20, "imsi?": 20, "meterType?": 25, "meterSerialNumber?": 25},
    "Heartbeat": {},
    "Authorize": {"idTag": 20},
    "StartTransaction": {"connectorId": int, "idTag": 20, "meterStart": int, "reservationId?": int, "timestamp": "time"},
    "StopTransaction": {"transactionId": int, "meterStop": int, "timestamp": "time", "idTag?": 20, "reason?": REASONS,
                        "transactionData?": (METER,)},
    "StatusNotification": {"connectorId": ALL_OR_ONE, "status": STATES, "errorCode": ERRORS, "info?": 50, "timestamp?": "time",
                           "vendorId?": 255, "vendorErrorCode?": 50},
    "MeterValues": {"connectorId": int, "transactionId?": int, "meterValue": [METER]},
    "DataTransfer": {"vendorId": 255, "messageId?": 50, "data?": 1_000_000},
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?$")
LONE_SURROGATE = re.compile(r"\\ud[89ab]..(?!\\ud[c-f])", re.IGNORECASE)
started, numbers = time.time(), itertools.count(1)
charge_points, known_ids, seen, booted, given, ended = [], set(), set(), set(), set(), set()


class Refused(Exception):
    """The call is answered with a CALLERROR; `args` are its code and description."""


def is_time(text):
    try:
        return bool(TIME.match(text)) and datetime.datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def is_missing_allowed(form, bug):
    return bug == "members-unchecked" and "chargePointVendor" not in form or bug == "nested-unchecked" and form in (METER, SAMPLES)


def check(value, form, name, bug):
    """Checks a member against its form."""
    if form is int or isinstance(form, range):
        if isinstance(value, str) and bug == "types-unchecked":
            return
        if not isinstance(value, int) or isinstance(value, bool) and bug != "booleans-are-numbers":
            raise Refused("TypeConstraintViolation", f"{name} is an integer")
        if form is not int and value not in form:
            raise Refused("PropertyConstraintViolation", f"{name} is out of range")
    elif isinstance(form, dict):
        if not isinstance(value, dict):
            raise Refused("TypeConstraintViolation", f"{name} is an object")
        if bug == "sample-refused" and form is SAMPLES and "format" in value:
            raise Refused("FormationViolation", "format is unknown")
        for key, inner in form.items():
            key, optional = key.rstrip("?"), key[-1] == "?"
            if key in value:
                check(value[key], inner, key, bug)
            elif not optional and not is_missing_allowed(form, bug):
                raise Refused("OccurenceConstraintViolation", f"{key} is missing")
        for key in value:
            if key not in form and key + "?" not in form:
                raise Refused("FormationViolation", f"{key} is unknown")
    elif isinstance(form, tuple) or isinstance(form, list) and isinstance(form[0], dict):
        if not isinstance(value, list):
            raise Refused("TypeConstraintViolation", f"{name} is a list")
        if not value and (isinstance(form, list) or bug == "no-empty-data"):
            raise Refused("OccurenceConstraintViolation", f"{name} is empty")
        for item in value:
            check(item, form[0], name, bug)
    elif not isinstance(value, str):
        raise Refused("TypeConstraintViolation", f"{name} is a text")
    elif isinstance(form, list):
        unchecked = bug == "words-unchecked" or bug == "sample-words-unchecked" and form is MEASURANDS
        if value not in form and not unchecked and not (bug == "word-case" and value.lower() in map(str.lower, form)):
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
        self.active, self.after_error = {}, False
        self.pending, self.calls = None, []

    def now(self):
        moment = started if self.bug == "clock-stopped" else time.time() + 7200 * (self.bug == "clock-shifted")
        form = "%d.%m.%Y %H:%M" if self.bug == "local-time" else "%Y-%m-%dT%H:%M:%S.%f"
        return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime(form)[:23] + "Z" * (self.bug != "local-time")

    def tag_info(self, tag, action):
        with_case = self.bug == "tag-case" or self.bug == "start-tag-case" and action == "StartTransaction"
        tags = {tag.upper(): status for tag, status in TAGS.items()} if with_case else TAGS
        if self.bug == "blocked-tag-case" and tag.lower() == "tag-blocked" and tag != "TAG-BLOCKED":
            return {"status": "Accepted"}
        return {"status": tags.get(tag if with_case else tag.lower(), "Invalid")}

    def start(self, payload):
        bug, same = self.bug, (payload.get("connectorId"), payload.get("idTag"))
        if bug == "start-again-silent" and same in self.active.values():
            return None
        number = 1 if bug == "same-transaction" else next(self.numbers if bug == "transactions-apart" else numbers)
        if bug == "transactions-counted":
            number = id(self) % 1_000_000 * 100 + len(self.active)
        self.active[number] = same
        given.add(number)
        info = {"status": "Accepted"} if bug == "blocked-starts" else self.tag_info(payload.get("idTag", ""), "StartTransaction")
        result = {"transactionId": str(number) if bug == "transaction-as-text" else number, "idTagInfo": info}
        if bug == "start-without-tag":
            del result["idTagInfo"]
        return result

    def result_of(self, action, payload):
        """Returns the payload of the CALLRESULT, or None for no answer."""
        bug = self.bug
        if bug in ("action-case", "action-prefix"):
            alike = (known for known in FORMS if known.lower() == action.lower() or bug == "action-prefix" and action.startswith(known))
            action = next(alike, action)
        if action not in FORMS:
            code = {"own-error-code": "UnknownAction", "unknown-as-generic": "GenericError"}.get(bug, "NotImplemented")
            raise Refused(code, "the action is unknown")
        if bug == "optional-refused" and action == "BootNotification" and len(payload) > 2:
            raise Refused("FormationViolation", "unknown members")
        if bug == "boot-required" and not self.booted and action != "BootNotification" and self.connection.path in booted:
            raise Refused("SecurityError", "BootNotification comes first")
        check(payload, FORMS[action], "the payload", bug)
        if action == "BootNotification":
            if self.booted and bug == "boots-once":
                return None
            self.booted = True
            booted.add(self.connection.path)
            result = {"status": "accepted" if bug == "status-in-lower-case" else "Accepted", "currentTime": self.now(),
                      "interval": "300" if bug == "interval-as-text" else 300}
            return {**result, "heartbeatInterval": 300} if bug == "boot-member" else result
        if action == "Heartbeat":
            return {"currentTime": self.now()}
        if action == "Authorize":
            return {"idTagInfo": self.tag_info(payload.get("idTag", ""), action)}
        if action == "StartTransaction":
            if bug == "start-offset-refused" and payload["timestamp"][-1] != "Z":
                raise Refused("PropertyConstraintViolation", "timestamp is not a time")
            return self.start(payload)
        if action == "StopTransaction":
            number = payload.get("transactionId", 0)
            if bug == "stop-unknown-refused" and isinstance(number, int) and number > 1_000_000:
                raise Refused("PropertyConstraintViolation", "the transaction is unknown")
            if bug == "transactions-forgotten" and number not in self.active and number in given:
                raise Refused("PropertyConstraintViolation", "the transaction is unknown")
            if bug == "stop-twice-silent" and number in ended:
                return None
            ended.add(number)
            self.active.pop(number, None)
            return {"idTagInfo": self.tag_info(payload["idTag"], action)} if "idTag" in payload else {}
        if action == "StatusNotification":
            if bug == "connector-zero" and payload["connectorId"] == 0:
                raise Refused("PropertyConstraintViolation", "connectors have numbers from 1")
            if bug == "weak-signal-refused" and payload["errorCode"] == "WeakSignal":
                raise Refused("PropertyConstraintViolation", "errorCode is not one of the words")
        if action == "MeterValues":
            if bug == "one-meter-value" and len(payload.get("meterValue", [])) > 1:
                raise Refused("OccurenceConstraintViolation", "too many values")
            if bug == "values-after-stop" and payload.get("transactionId") in ended - {-1}:
                return None
            if bug == "minus-one-refused" and payload.get("transactionId") == -1:
                raise Refused("PropertyConstraintViolation", "the transaction is unknown")
        if action == "DataTransfer":
            known = payload.get("vendorId") == "org.example"
            result = {"status": "Accepted" if known or bug == "any-vendor" else "UnknownVendorId"}
            return {**result, "data": ""} if bug == "vendor-data" else result
        return {}

    async def handle(self, text):
        bug = self.bug
        if isinstance(text, bytes):
            return
        if bug == "hangs-on-length" and len(text) > 50_000:
            time.sleep(60)
        if bug == "crashes-on-depth" and "[" * 50 in re.sub(r'\s|"\w*":|{', "[", text):
            os._exit(1)
        if bug == "crashes-on-surrogate" and LONE_SURROGATE.search(text):
            os._exit(1)
        unread = bug == "blanks-refused" and text[:1] != "[" or bug == "ascii-only" and not text.isascii()
        if unread or bug == "escapes-kept" and re.search(r"\\u00[4-7]", text):
            return
        try:
            message = read_json(text)
        except ValueError:
            return
        if not isinstance(message, list):
            return
        if bug == "crashes-on-short-call" and len(message) < 3:
            os._exit(1)
        if message[:1] in ([3], [4]):
            if len(message) > 1 and message[1] == self.pending:
                await self.call_next()
            return
        if len(message) != 4 or message[0] != 2 and bug != "unknown-type-answered":
            return
        _, id, action, payload = message
        if not isinstance(id, str):
            return
        if bug == "null-ends-all" and payload is None:
            for other in list(charge_points):
                other.connection.writer.close()
        if bug == "own-id-taken" and id == self.pending:
            return await self.call_next()
        if not self.is_lost(id):
            self.ids.add(id)
            await self.answer(id, action, payload)

    def is_lost(self, id):
        """Whether a bug of this hub loses the call."""
        self.count += 1
        first, self.after_error = self.after_error, False
        others = [other for other in charge_points if other is not self]
        return {
            "thirty-calls": self.count > 30,
            "silent-after-error": first,
            "ids-kept": id in known_ids,
            "ids-shared": any(id in other.ids for other in others),
            "ids-in-any-case": id not in self.ids and id.lower() in map(str.lower, self.ids),
            "ids-by-32": any(id != other and id[:32] == other[:32] and len(id) > 32 for other in self.ids),
            "waits-for-answer": self.pending is not None,
            "all-wait": any(other.pending is not None for other in others),
            "loses-answer": random.random() < 0.02,
        }.get(self.bug, False)

    def shown(self, id):
        """Returns the message id of an answer."""
        if self.bug == "id-in-lower-case":
            return id.lower()
        if self.bug == "digits-as-number" and id.isdecimal():
            return int(id)
        if self.bug == "digits-rounded" and id.isdecimal() and len(id) > 15:
            return str(int(float(id)))
        return id[:32] if self.bug == "id-cut" else id

    async def answer(self, id, action, payload):
        bug = self.bug
        try:
            if len(id) > 36 and bug != "long-id":
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
            answer = [3, self.shown(id), result]
        except Refused as refusal:
            self.after_error = True
            answer = [4, self.shown(id), *refusal.args, None if bug == "details-null" else {}]
            if bug == "error-short":
                answer.pop()
        receiver = charge_points[-1] if bug == "answers-to-last" else self
        for _ in range(2 if bug == "answers-twice" else 1):
            await receiver.connection.send(json.dumps(answer))
        if answer[0] == 3 and action == "BootNotification" and self.pending is None:
            self.calls = [["GetConfiguration", {"key": []}], ["ChangeConfiguration", {"key": "HeartbeatInterval", "value": "300"}]]
            await self.call_next()

    async def call_next(self):
        """Sends the next call of the hub, now that no other is pending."""
        self.pending = None
        while self.calls and (self.pending is None or self.bug == "calls-at-once"):
            self.pending = "1" if self.bug == "call-ids-alike" else str(uuid.uuid4())
            call = [2, self.pending, *self.calls.pop(0)]
            await self.connection.send(json.dumps(call[:3] if self.bug == "call-short" else call))


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
    stranger = path.rpartition("/")[2] == "STRANGER" and bug != "strangers-welcome"
    if stranger or bug == "encoded-refused" and "%" in path or bug == "returning-refused" and path in seen:
        return "404 Not Found"
    seen.add(path)
    return PROTOCOL if PROTOCOL in offered and bug != "no-subprotocol" else ""


if __name__ == "__main__":
    serve(__doc__, BUGS, select, talk)
