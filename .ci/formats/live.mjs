// Fails if the lines on stdin do not come one after another: the first and the last are at least SECONDS apart.
//
//     hubproof load ... --report events=- | node live.mjs SECONDS
import { createInterface } from "node:readline";

const times = [];
for await (const line of createInterface({ input: process.stdin })) {
  JSON.parse(line);
  times.push(Date.now());
}
const apart = (times.at(-1) - times[0]) / 1000;
if (!(times.length > 2 && apart >= Number(process.argv[2]))) {
  console.error(`${times.length} lines within ${apart} s`);
  process.exit(1);
}
console.log(`${times.length} events came within ${apart.toFixed(1)} s, as they happened`);
