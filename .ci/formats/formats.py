"""Reads the reports of one run with other people's parsers, and holds them against the JSON report of the same run:

    python formats.py FOLDER check|fuzz|load

FOLDER has report.json and report.xml of the run, and for load metrics.json (OTLP) and metrics.line (InfluxDB).
"""
import collections, json, sys

from google.protobuf import json_format
from junitparser import Error, Failure, JUnitXml, Skipped
from line_protocol_parser import parse_line
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

folder, kind = sys.argv[1:]
with open(f"{folder}/report.json", encoding="utf-8") as file:
    report = json.load(file)


def is_equal(found, expected, what):
    assert found == expected, f"{what}: {found!r}, not {expected!r}"


def is_close(found, expected, what):
    assert abs(found - expected) <= max(abs(expected), 1e-9) / 1000, f"{what}: {found!r}, not {expected!r}"


# JUnit: a status per case, and properties. Findings of fuzz that differ only in what the hub sent have one name.
expected = collections.Counter()
if kind == "load":
    for one in report["thresholds"]:
        status = {"holds": "passed", "broken": "failed", "not-observed": "undecided"}[one["standing"]]
        expected[one["text"], "undecided" if one["uncertain"] else status] += 1
    valid = report["validity"]["verdict"] == "valid" and not report["run"]["interrupted"]
    expected["the run is valid", "passed" if valid else "undecided"] += 1
else:
    statuses = {"pass": "passed", "info": "passed", "warn": "passed", "fail": "failed", "inconclusive": "undecided",
                "not-testable": "skipped"}
    rules = {}
    for protocol in report["protocols"]:
        for scenario in protocol["scenarios"]["list"]:
            for check in scenario["checks"]:
                name = f"{scenario['id']}:{check['name']}"
                expected[name, "passed" if check["expected"] else statuses[check["verdict"]]] += 1
                by_id = protocol["rules"]["by_id"]
                ids = [rule["id"] for rule in check["rules"]]
                if ids and all(rule in by_id for rule in ids):
                    rules[name] = {
                        "rule": ", ".join(ids),
                        "level": ", ".join(rule["level"] for rule in check["rules"]),
                        "document.line": ", ".join(
                            str(by_id[rule]["line"] or (by_id[rule]["section"] and f"section {by_id[rule]['section']}")
                                or "an oracle of hubproof") for rule in ids),
                    }
junit = JUnitXml.fromfile(f"{folder}/report.xml")
found = collections.Counter()
for suite in junit:
    properties = {one.name: one.value for one in suite.properties()}
    is_equal(properties["tool.version"], report["tool"]["version"], "version")
    is_equal(properties["target"], report["run"]["target"], "target")
    seeds = {"load": lambda: report["run"]["seed"], "fuzz": lambda: report["protocols"][0]["fuzzed"]["seed"]}
    if kind in seeds:
        is_equal(properties["seed"], str(seeds[kind]()), "seed")
    for case in suite:
        kinds = {Failure: "failed", Error: "undecided", Skipped: "skipped"}
        results = [kinds[type(one)] for one in case.result if type(one) in kinds]
        found[case.name, results[0] if results else "passed"] += 1
        if kind != "load" and case.name in rules:
            own = {one.name: one.value for one in case.iterchildren(__import__("junitparser").Properties) for one in one}
            for name, value in rules[case.name].items():
                is_equal(own[name], value, f"{name} of {case.name}")
is_equal(found, expected, "cases of JUnit")
for total, status in [(junit.failures, "failed"), (junit.errors, "undecided"), (junit.skipped, "skipped")]:
    is_equal(total, sum(number for (_, one), number in expected.items() if one == status), status)

if kind == "load":
    # Names of counts and times, as the JSON report has them.
    def report_name(labels, what):
        subject = labels.get("message") or labels.get("journey")
        if "label" in labels:
            subject = f"{subject}[{labels['label']}]"
        return f"{subject}.{what}"

    prefixes = {"errors": "errors", "schedule": "schedule", "frames": "frames"}

    def count_name(family, labels):
        what = labels.get("what") or labels.get("kind")
        return f"{prefixes[family]}.{what}" if family in prefixes else report_name(labels, what)

    def time_name(family, labels):
        if family == "schedule":
            return f"schedule.{labels['kind']}"
        return report_name(labels, labels.get("kind", "duration"))

    counts = {name: counted["whole_run"] for name, counted in report["counts"].items()}

    # OTLP: the protocol buffers of OpenTelemetry, which know no other member.
    with open(f"{folder}/metrics.json", encoding="utf-8") as file:
        request = json_format.Parse(file.read(), ExportMetricsServiceRequest())
    last, times = {}, {}
    [resource] = request.resource_metrics
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    is_equal(attributes["hubproof.plan"], report["run"]["plan"], "plan")
    for metric in resource.scope_metrics[0].metrics:
        family = metric.name.removeprefix("hubproof.").removesuffix(".seconds")
        data = getattr(metric, metric.WhichOneof("data"))
        for point in data.data_points:
            assert 0 < point.start_time_unix_nano < point.time_unix_nano
            labels = {one.key: one.value.string_value for one in point.attributes}
            if metric.WhichOneof("data") == "histogram":
                assert metric.unit == "s" and data.aggregation_temporality == 2
                is_equal(len(point.bucket_counts), len(point.explicit_bounds) + 1, metric.name)
                is_equal(sum(point.bucket_counts), point.count, metric.name)
                times[time_name(family, labels)] = point
            elif family in ("messages", "journeys", "operations", *prefixes):
                assert data.is_monotonic and data.aggregation_temporality == 2
                last[count_name(family, labels)] = point.as_int
            elif family == "ledger":
                is_equal(point.as_int, report["ledger"]["counts"].get(labels["what"], 0), labels["what"])
    is_equal(last, counts, "counts of OTLP")
    is_equal(set(times), set(report["times"]), "times of OTLP")
    for name, point in times.items():
        is_equal(point.count, report["times"][name]["count"], name)
        is_close(point.sum, report["times"][name]["mean_ms"] * point.count / 1000, name)

    # InfluxDB's line protocol.
    sums, samples = collections.Counter(), collections.Counter()
    with open(f"{folder}/metrics.line", encoding="utf-8") as file:
        lines = [parse_line(line) for line in file.read().splitlines()]
    for line in lines:
        measurement, tags, fields = line["measurement"], line["tags"], line["fields"]
        assert measurement.startswith("hubproof_") and tags["plan"] == report["run"]["plan"] and line["time"] > 1e18
        family = measurement.removeprefix("hubproof_")
        if family.endswith("_seconds"):
            if tags["phase"] != "warmup":
                samples[time_name(family.removesuffix("_seconds"), tags)] += fields["count"]
        elif family in ("messages", "journeys", "operations", *prefixes):
            sums[count_name(family, tags)] += fields["count"]
    is_equal(dict(sums), counts, "counts of the line protocol")
    is_equal(dict(samples), {name: times["count"] for name, times in report["times"].items()}, "samples")
    print(f"load: {len(counts)} counts and {len(times)} times are the same in OTLP and line protocol")
print(f"{kind}: {len(expected)} cases are the same in JUnit")
