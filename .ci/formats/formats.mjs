// Reads the reports of one run with other people's schemas, parsers and renderers, and holds every verdict, count and
// place against the JSON report of the same run:
//
//     node formats.mjs FOLDER check|fuzz|load
//
// FOLDER has the reports report.json, report.sarif, github.txt, summary.md, report.tap, ctrf.json, badge.json and
// events.jsonl of the run.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

import * as actions from "@actions/core";
import { parser as promql } from "@prometheus-io/lezer-promql";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { makeBadge } from "badge-maker";
import { validateStrict } from "ctrf";
import { fromMarkdown } from "mdast-util-from-markdown";
import { gfmFromMarkdown } from "mdast-util-gfm";
import { gfm } from "micromark-extension-gfm";
import { Parser as TapParser } from "tap-parser";

const require = createRequire(import.meta.url);
const Ajv04 = require("ajv-draft-04");

const [folder, kind] = process.argv.slice(2);
const read = (name) => readFileSync(`${folder}/${name}`, "utf8");
const here = (path) => readFileSync(fileURLToPath(new URL(path, import.meta.url)), "utf8");
const report = JSON.parse(read("report.json"));
const validate = (ajv, schema, value, what) => {
  addFormats(ajv);
  assert(ajv.validate(schema, value), `${what}: ${ajv.errorsText(ajv.errors)}`);
};

// What the JSON report says: a case per check or threshold, with the status that each format has to show.
const STATUS = { pass: "passed", info: "passed", fail: "failed", inconclusive: "undecided", "not-testable": "skipped" };
const exitCode = report.run.exit_code;
const cases = [];
if (kind === "load") {
  const status = (one) =>
    one.uncertain ? "undecided" : { holds: "passed", broken: "failed", "not-observed": "undecided" }[one.standing];
  for (const one of report.thresholds) {
    cases.push({ name: one.text, status: status(one), kind: one.uncertain ? "uncertain" : one.standing });
  }
  const valid = report.validity.verdict === "valid" && !report.run.interrupted;
  cases.push({ name: "the run is valid", status: valid ? "passed" : "undecided", kind: report.validity.verdict });
} else {
  for (const protocol of report.protocols) {
    for (const scenario of protocol.scenarios.list) {
      for (const check of scenario.checks) {
        const status = check.expected ? "passed" : check.verdict === "warn" ? "passed" : STATUS[check.verdict];
        const place = check.file ? check : scenario;
        const broken = check.rules.filter((rule) => rule.verdict === check.verdict).map((rule) => rule.id);
        cases.push({
          name: `${scenario.id}:${check.name}`, status, kind: check.verdict, file: place.file, line: place.line,
          message: check.message, protocol: protocol.name, rules: broken, expected: check.expected,
        });
      }
    }
  }
}
if (kind === "check") assert(cases.some((one) => one.expected), "one failure has to be expected");
const count = (status) => cases.filter((one) => one.status === status).length;
assert(count("failed") > 0 && (kind === "fuzz" || count("passed") > 0), "the run has to fail in parts");

// Problems, as annotations and the job summary show them. Of these runs, no hub ends and no entry is stale.
const problems = kind === "load"
  ? cases.filter((one) => one.status !== "passed")
  : report.protocols.flatMap((protocol) => protocol.root_causes).filter((cause) => !cause.expected);

// SARIF: the schema of the standard.
if (kind !== "load") {
  const log = JSON.parse(read("report.sarif"));
  const ajv = new Ajv04({ strict: false, unicodeRegExp: false });
  validate(ajv, require("@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json"), log, "SARIF");
  assert.equal(log.runs.length, report.protocols.length);
  for (const [index, run] of log.runs.entries()) {
    const protocol = report.protocols[index];
    assert.equal(run.automationDetails.id, `hubproof ${kind}/${protocol.name}/`);
    assert.equal(run.invocations[0].exitCode, protocol.exit_code);
    assert.equal(run.invocations[0].executionSuccessful, true);
    const rules = new Map(run.tool.driver.rules.map((rule) => [rule.id, rule]));
    for (const [id, rule] of Object.entries(protocol.rules.by_id)) {
      const found = rules.get(id);
      assert.equal(found.shortDescription.text, rule.text);
      assert.equal(found.properties.line ?? null, rule.line);
      assert.equal(found.properties.section ?? null, rule.section);
      assert.equal(found.properties.level, rule.level);
    }
    const results = run.results.map((result) => {
      assert.equal(run.tool.driver.rules[result.ruleIndex].id, result.ruleId);
      const { artifactLocation, region } = result.locations[0].physicalLocation;
      const file = decodeURIComponent(new URL(artifactLocation.uri, "file:///").pathname).slice(1);
      const place = `${file}:${region.startLine}`;
      return `${result.partialFingerprints["check/v1"]} ${result.level} ${result.ruleId} ${place}`;
    });
    const broken = cases.filter((one) => one.protocol === protocol.name && ["fail", "warn"].includes(one.kind));
    const level = { fail: "error", warn: "warning" };
    const rule = (one) => one.rules[0] ?? one.name.split(":").slice(1).join(":");
    const line = (one) => `${one.name} ${level[one.kind]} ${rule(one)} ${one.file}:${one.line}`;
    assert.deepEqual(results, broken.map(line));
    assert.deepEqual(run.results.map((result) => Boolean(result.suppressions)), broken.map((one) => one.expected));
  }
}

// Annotations: the commands that GitHub's own toolkit makes of the same texts.
{
  // As the runner reads a command: properties end at the first `::`.
  const parse = (line) => {
    const [, command, properties, data] = line.match(/^::(\w+) (.*?)::(.*)$/);
    return { command, data, properties: Object.fromEntries(properties.split(",").map((one) => one.split(/=(.*)/s))) };
  };
  const unescape = (text) =>
    text.replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%0A", "\n").replaceAll("%0D", "\r").replaceAll("%25", "%");
  const written = [];
  const annotations = read("github.txt").trimEnd().split("\n").map((line) => {
    const found = parse(line);
    const { title, file, line: startLine } = Object.fromEntries(
      Object.entries(found.properties).map(([name, value]) => [name, unescape(value)]));
    const write = process.stdout.write;
    let official = "";
    process.stdout.write = (text) => ((official += text), true);
    // The message has no `%3A` or `%2C` of its own making.
    const message = found.data.replaceAll("%0A", "\n").replaceAll("%0D", "\r").replaceAll("%25", "%");
    actions[found.command](message, { title, file, startLine });
    process.stdout.write = write;
    assert.deepEqual(parse(official.trimEnd()), found);
    written.push({ command: found.command, file, line: startLine && Number(startLine), message: message.split("\n")[0] });
    return found;
  });
  const errors = written.filter((one) => one.command === "error");
  assert.equal(errors.length, problems.length);
  assert(annotations.every((one, at) => at === 0 || one.command !== "error" || annotations[at - 1].command === "error"));
  if (kind !== "load") {
    const places = problems.filter((cause) => cause.place.file).map((cause) => `${cause.place.file}:${cause.place.line}`);
    const found = errors.map((one) => `${one.file}:${one.line}`);
    for (const place of places) assert(found.includes(place), `${place} of ${found}`);
    assert(errors.every((one) => problems.some((cause) => one.message.includes(cause.message))));
    const warnings = cases.filter((one) => one.kind === "warn");
    assert.equal(written.some((one) => one.command === "warning"), warnings.length > 0);
    for (const one of written.filter((one) => one.command === "warning")) {
      assert(warnings.some((known) => known.file === one.file && known.line === one.line), JSON.stringify(one));
    }
  }
}

// The job summary: headings, tables and code, as GitHub-flavored Markdown has them.
{
  const tree = fromMarkdown(read("summary.md"), { extensions: [gfm()], mdastExtensions: [gfmFromMarkdown()] });
  const text = (node) => node.value ?? (node.children ?? []).map(text).join("");
  const all = (node, type) => [...(node.type === type ? [node] : []), ...(node.children ?? []).flatMap((child) => all(child, type))];
  const word = ["PASS", "FAIL", "MISTAKE", "INCONCLUSIVE"];
  const titles = all(tree, "heading");
  assert.equal(text(tree.children[0]), "before");
  assert.equal(text(titles[0]), `hubproof ${kind}: ${word[exitCode]}`);
  for (const markup of ["html", "link", "image", "delete", "footnoteReference"]) assert.deepEqual(all(tree, markup), []);
  const rows = (table) => table.children.slice(1).map((row) => row.children.map(text));
  const tables = all(tree, "table").map(rows);
  if (kind === "load") {
    assert.deepEqual(tables[0].map((row) => row[1]), cases.map((one) => one.name));
    const signs = { passed: "✅", failed: "❌", undecided: "❔" };
    cases.forEach((one, at) => assert(tables[0][at][0].startsWith(signs[one.status]), one.name));
    const plain = (number) => Number(number.replaceAll(/[^0-9]/g, ""));
    assert.deepEqual(tables[1].map((row) => [row[0], plain(row[1])]),
      Object.entries(report.times).map(([name, times]) => [name, times.count]));
    assert.deepEqual(tables[2].map((row) => [row[0], plain(row[1])]),
      Object.entries(report.counts).map(([name, counted]) => [name, counted.whole_run]));
  } else {
    const verdicts = ["pass", "fail", "warn", "info", "not-testable", "inconclusive"];
    for (const [at, protocol] of report.protocols.entries()) {
      const [name, verdict, , proven, total, ...counts] = tables[0][at];
      assert.deepEqual([name, verdict], [protocol.name, word[protocol.exit_code]]);
      assert.equal(proven, `${protocol.rules.proven} of ${protocol.rules.total}`);
      assert.equal(Number(total), protocol.checks.total);
      assert.deepEqual(counts.map(Number), verdicts.map((verdict) => protocol.checks.verdicts[verdict]));
    }
  }
  const failed = titles.filter((title) => title.depth === 4 && text(title).startsWith("❌"));
  assert.equal(failed.length, Math.min(problems.length, 50));
}

// TAP: the parser of node-tap.
{
  const parsed = await new Promise((resolve) => {
    const parser = new TapParser({ strict: true }, (results) => resolve({ results, points }));
    const points = [];
    parser.on("assert", (point) => points.push(point));
    parser.end(read("report.tap"));
  });
  const { results, points } = parsed;
  assert.deepEqual(results.failures.filter((failure) => failure.tapError), []);
  assert.equal(results.plan.end, cases.length);
  assert.equal(results.count, cases.length);
  // An expected failure is not ok, but a TODO, which fails no run.
  const todo = cases.filter((one) => one.expected).length;
  assert.equal(results.pass, count("passed") + count("skipped") - todo);
  assert.equal(results.fail, count("failed") + count("undecided") + todo);
  assert.deepEqual([results.skip, results.todo], [count("skipped"), todo]);
  const findings = (report.protocols ?? []).flatMap((protocol) => protocol.findings);
  cases.forEach((one, at) => {
    assert.equal(points[at].name, one.name);
    const finding = findings.find((finding) => one.expected && one.name === `${finding.scenario}:${finding.check}`);
    assert.equal(points[at].todo || undefined, finding?.reason);
    assert.equal(points[at].ok, ["passed", "skipped"].includes(one.status) && !one.expected);
    if (one.file && (one.status === "failed" || points[at].diag)) {
      assert.deepEqual([points[at].diag.at.file, points[at].diag.at.line], [one.file, one.line]);
      assert.equal(points[at].diag.severity, one.kind);
    }
  });
}

// CTRF: the reference implementation's validator.
{
  const ctrf = JSON.parse(read("ctrf.json"));
  validateStrict(ctrf);
  const { summary, tests, extra } = ctrf.results;
  assert.equal(extra.exitCode, exitCode);
  assert.deepEqual([summary.tests, summary.passed, summary.failed, summary.skipped, summary.other],
    [cases.length, count("passed"), count("failed"), count("skipped"), count("undecided")]);
  const statuses = { passed: "passed", failed: "failed", skipped: "skipped", undecided: "other" };
  assert.deepEqual(tests.map((test) => [test.name, test.status]), cases.map((one) => [one.name, statuses[one.status]]));
  if (kind !== "load") {
    assert.deepEqual(tests.map((test) => [test.filePath, test.line, test.rawStatus]), cases.map((one) => [one.file, one.line, one.kind]));
  }
}

// The badge: the renderer of shields.io accepts it, and it has no other keys than an endpoint may have.
{
  const { schemaVersion, isError, ...badge } = JSON.parse(read("badge.json"));
  assert.deepEqual([schemaVersion, isError], [1, exitCode !== 0]);
  assert.deepEqual(Object.keys(badge), ["label", "message", "color"]);
  assert(makeBadge(badge).includes(badge.message.split(" ")[0]));
  assert.equal(badge.color, { 0: "brightgreen", 3: "lightgrey" }[exitCode] ?? "red");
}

// Events: every line fits the schema, the first begins the run and the last ends it.
{
  const events = read("events.jsonl").trimEnd().split("\n").map((line) => JSON.parse(line));
  const schema = JSON.parse(here(`../../schemas/hubproof/${kind === "load" ? "load-events" : "events"}.schema.json`));
  const ajv = new Ajv2020({ strict: false, logger: false });
  addFormats(ajv);
  const fits = ajv.compile(schema);
  for (const event of events) assert(fits(event), `${JSON.stringify(event)}: ${ajv.errorsText(fits.errors)}`);
  assert.equal(events[0].event, "run-started");
  const last = events.at(-1);
  assert.deepEqual([last.event, last.exit_code], ["run-finished", exitCode]);
  if (kind === "load") {
    const sums = {};
    for (const event of events.filter((event) => event.event === "interval")) {
      for (const [name, number] of Object.entries(event.counts)) sums[name] = (sums[name] ?? 0) + number;
    }
    assert.deepEqual(sums, Object.fromEntries(Object.entries(report.counts).map(([name, counted]) => [name, counted.whole_run])));
  } else {
    const finished = events.filter((event) => event.event === "scenario-finished");
    assert(events.slice(1).every((event, at) => event.at_ms >= events[at].at_ms), "events are in order");
    for (const [at, protocol] of report.protocols.entries()) {
      assert.deepEqual(last.protocols[at].checks, protocol.checks.verdicts);
      if (kind === "check") {
        const verdicts = finished.filter((event) => event.protocol === protocol.name).map((event) => `${event.scenario} ${event.verdict}`);
        assert.deepEqual(verdicts.sort(), protocol.scenarios.list.map((scenario) => `${scenario.id} ${scenario.verdict}`).sort());
      } else {
        assert.equal(finished.filter((event) => event.protocol === protocol.name).length, protocol.fuzzed.cases);
      }
    }
  }
}

// The dashboard: the grammar of PromQL reads every query.
if (kind === "load") {
  const dashboard = JSON.parse(here("../../examples/grafana/hubproof-load.json"));
  let queries = 0;
  for (const { expr } of dashboard.panels.flatMap((panel) => panel.targets ?? [])) {
    const query = expr.replaceAll("$__rate_interval", "1m");
    promql.parse(query).iterate({ enter: (node) => assert(!node.type.isError, `${query} at ${node.from}`) });
    queries += 1;
  }
  assert(queries > 10);
}
console.log(`${kind}: ${cases.length} cases and ${problems.length} problems are the same in every format`);
