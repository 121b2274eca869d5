"""Prints the records of a hub with the text that the scenario asks for, as hubproof's hook `log_entries` wants them.

    gator_log_entries.py URL        URL is that of the control, which may give the records in pages
"""
import http.client
import json
import sys

message = json.load(sys.stdin)["args"]["message"]
host, _, path = sys.argv[1].removeprefix("http://").partition("/")
found, after = [], 0
while True:
    hub = http.client.HTTPConnection(host)
    hub.request("POST", f"/{path}", json.dumps({"after": after}))
    [records] = [value for value in json.load(hub.getresponse()).values() if isinstance(value, list)]
    found += [record for record in records if record.get("message") == message]
    if not records or "id" not in records[-1]:
        break
    after = records[-1]["id"]
print(json.dumps(found))
