// Reads an interval log of `hubproof load` with HdrHistogram's own tools and holds it against the report of the same run:
//
//     hubproof load ... --report hlog=run.hlog --report json=run.json && node hlog.mjs run.hlog run.json
//
// Every tag is there, and its histograms of the measured intervals add up to the figures of the report. What is due in
// the measured time and answered after it stands in later intervals, so all from the first measured one on are added.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { HistogramLogReader, build } = createRequire(import.meta.url)("hdr-histogram-js");
const [log, report] = process.argv.slice(2).map((path) => readFileSync(path, "utf8"));
const { times, intervals } = JSON.parse(report);
const measured = intervals.find((interval) => interval.phase === "measured").from_s;

const reader = new HistogramLogReader(log);
const merged = new Map();
for (let histogram; (histogram = reader.nextIntervalHistogram()) !== null; ) {
  const since = (histogram.startTimeStampMsec - reader.startTimeSec * 1000) / 1000;
  if (since < measured - 0.001) continue;
  if (!merged.has(histogram.tag)) {
    merged.set(histogram.tag, build({ lowestDiscernibleValue: 1000, highestTrackableValue: 3600e9, numberOfSignificantValueDigits: 3 }));
  }
  merged.get(histogram.tag).add(histogram);
}
assert.deepEqual([...merged.keys()].sort(), Object.keys(times).sort());
for (const [name, told] of Object.entries(times)) {
  const histogram = merged.get(name);
  assert.equal(histogram.totalCount, told.count, name);
  for (const [figure, percentile] of [["p50_ms", 50], ["p90_ms", 90], ["p99_ms", 99], ["p999_ms", 99.9]]) {
    // Too few samples for it, says the report.
    if (told[figure] === null) continue;
    // Two implementations may end on neighbouring steps; a step is a thousandth, or half a microsecond.
    const [here, there] = [histogram.getValueAtPercentile(percentile) / 1e6, told[figure]];
    assert(Math.abs(here - there) <= Math.max(there / 1000, 0.0006), `${name}, ${figure}: ${here} here, ${there} in the report`);
  }
}
console.log(`${merged.size} tags of the interval log are what the report says`);
