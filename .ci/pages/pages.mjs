// HTML reports in a real browser: Debian's Chromium, driven by playwright-core, checked with axe-core.
//
//   node pages.mjs HUBPROOF                    makes reports and tests their pages
//   node pages.mjs HUBPROOF --images FOLDER    also takes the screenshots of the book
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [binary, option, images] = process.argv.slice(2);
assert(binary, "usage: node pages.mjs HUBPROOF [--images FOLDER]");
assert(option === undefined || option === "--images", `unknown option ${option}`);
const hubproof = resolve(binary);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const folder = mkdtempSync(join(tmpdir(), "pages-"));
const file = (name) => join(folder, name);

// Runs hubproof. Failures of the hub are wanted, mistakes in the command line are not.
function run(...words) {
  try {
    execFileSync(hubproof, words, { stdio: ["ignore", "ignore", "pipe"], cwd: folder });
  } catch (error) {
    assert([1, 3].includes(error.status), `hubproof ${words.join(" ")}: ${error.stderr}`);
  }
}
const read = (name) => JSON.parse(readFileSync(file(name), "utf8"));
const write = (name, value) => writeFileSync(file(name), JSON.stringify(value));
const render = (output, ...reports) =>
  execFileSync(hubproof, ["report", ...reports, "--format", "html", "--output", output], { cwd: folder });

// Text that must neither run nor hide: in every member that a hub, a pack or a target file can fill.
const HOSTILE = `</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">" onmouseover='window.hacked = 3' ` +
  `--></style><svg onload=window.hacked=4><a href="javascript:window.hacked=5">x</a> {{ 7 * 7 }} \u202eevil\u202c a\u200bb\u2066 \u001b[31mred\u0000 \u2028`;
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/;
// The values of these members select how others are shown.
const WORDS = new Set(["format", "verdict", "status", "standing", "direction", "level", "basis", "phase", "histogram", "workload", "kind"]);
function hostile(value, name = "") {
  if (typeof value === "string") return WORDS.has(name) ? value : `${value.slice(0, 12)}${HOSTILE}`;
  if (Array.isArray(value)) return value.map((item) => hostile(item, name));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, hostile(member, key)]));
}
// Keys of maps are names, too.
function hostileKeys(map) {
  return Object.fromEntries(Object.entries(map).map(([key, value], at) => [at % 2 ? `${HOSTILE}${key}` : key, value]));
}

function makeReports() {
  run("check", "--protocol", "gator", "--fault", "gator-success-other-action", "--report", "json=broken.json", "--report", "html=check.html");
  run("check", "--protocol", "gator", "--report", "json=correct.json");
  run("fuzz", "--protocol", "qi", "--fault", "qi-failure-payload-number", "--mutation", "wrong-type", "--cases", "40", "--seed", "1",
    "--regressions", "findings", "--report", "json=fuzz.json", "--report", "html=fuzz.html");
  const load = ["load", "--protocol", "qi", "--rate", "100", "--warm-up", "1s", "--drain", "5s", "--threshold", "extended_request.response.p50 < 0.01ms"];
  run(...load, "--duration", "10s", "--report", "json=a.json", "--report", "html=load.html");
  run(...load, "--duration", "9s", "--report", "json=b.json");
  render("several.html", "correct.json", "broken.json", "broken.json");
  run("check", "--report", "html=overview.html");
  render("compare.html", "a.json", "b.json");

  const broken = read("broken.json");
  const failed = broken.protocols[0].scenarios.list.find((one) => one.verdict === "fail");
  // 100,000 frames of fifty actors.
  const big = structuredClone(broken);
  const scenario = big.protocols[0].scenarios.list.find((one) => one.id === failed.id);
  scenario.history = Array.from({ length: 100_000 }, (_, at) => ({
    at_ms: at / 20, actor: `actor${at % 50}`, connection: at % 50, direction: at % 2 ? "received" : "sent", kind: "text",
    text: `{"number":${at},"text":"${"x".repeat(400)}"}`, size: 430, hash: null,
  }));
  write("big.json", big);
  render("big.html", "big.json");

  const evil = hostile(broken);
  const long = evil.protocols[0].scenarios.list.find((one) => one.history.length > 2);
  long.history[1].text = "y".repeat(10_000_000);
  evil.protocols[0].findings.find((one) => one.detail).detail.received = `{"a": "${"z".repeat(10_000_000)}"}`;
  evil.protocols[0].rules.by_id = hostileKeys(evil.protocols[0].rules.by_id);
  write("evil.json", evil);
  render("evil-check.html", "evil.json");
  write("evil.json", hostile(read("fuzz.json")));
  render("evil-fuzz.html", "evil.json");
  const load_ = hostile(read("a.json"));
  load_.times = hostileKeys(load_.times);
  for (const interval of load_.intervals) interval.times = hostileKeys(interval.times);
  load_.connections = [{ how: "closed", code: 1000, reason: HOSTILE, count: 1 }];
  load_.ledger.violations = [{ kind: "lost", at_s: 1, item: HOSTILE, history: [{ at_s: 1, what: HOSTILE, party: HOSTILE }], omitted: 1, missed: { deliveries: 1, candidates: 2, receivers: [HOSTILE] } }];
  load_.ledger.counts.lost = 1;
  write("evil.json", load_);
  render("evil-load.html", "evil.json");

  // An hour, in as many intervals as a report has at most.
  const hour = read("a.json");
  const measured = hour.intervals.filter((one) => one.phase === "measured");
  hour.intervals = Array.from({ length: 1200 }, (_, at) => ({ ...measured[at % measured.length], from_s: at * 3, to_s: at * 3 + 3 }));
  write("hour.json", hour);
  render("hour.html", "hour.json");
}

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

// Opens a page and watches what it does.
async function open(name, { width = 1400, scheme = "light", hash = "", script = true } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme, javaScriptEnabled: script });
  // A busy machine may take long to start a renderer.
  context.setDefaultTimeout(120_000);
  const page = await context.newPage();
  // Counts the points that each plot is drawn from.
  await page.addInitScript(() => {
    window.points = {};
    let plot;
    Object.defineProperty(window, "uPlot", {
      get: () => plot,
      set: (real) => { plot = function (options, data, element) { window.points[element.id] = data[0].length; return new real(options, data, element); }; },
    });
  });
  const noise = [];
  page.on("console", (message) => noise.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => noise.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { noise.push("a dialog"); dialog.dismiss(); });
  const url = /^http:/.test(name) ? name : pathToFileURL(file(name)).href + hash;
  const own = /^http:/.test(name) ? new URL(name).origin : "file:";
  page.on("request", (request) => { if (!request.url().startsWith(own) && !/^data:/.test(request.url())) noise.push(`request: ${request.url()}`); });
  await page.goto(url);
  const check = () => assert.deepEqual(noise, [], `${name}: what the page did`);
  return { page, check, close: async () => { check(); await context.close(); } };
}

async function looksRight(name) {
  for (const width of [400, 1400]) {
    for (const scheme of ["light", "dark"]) {
      const { page, close } = await open(name, { width, scheme });
      const where = `${name}, ${width} px, ${scheme}`;
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert(wide <= width, `${where}: the page is ${wide} px wide`);
      await page.waitForFunction(() => ![...document.querySelectorAll(".canvas")].some((one) => one.checkVisibility() && !one.querySelector("canvas")));
      const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(dark === "rgb(255, 255, 255)", scheme === "light", `${where}: background ${dark}`);
      // Everything opened, as a reader may have it.
      await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
      const { violations } = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
      const found = violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
      assert.deepEqual(found, [], `${where}: axe`);
      await close();
    }
  }
}

async function linksLead(name) {
  const { page, close } = await open(name);
  const broken = await page.evaluate(() => {
    const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
    const twice = ids.filter((id, at) => ids.indexOf(id) !== at);
    const links = [...document.querySelectorAll("a[href]")].map((one) => one.getAttribute("href"));
    return { twice, dead: links.filter((href) => !href.startsWith("#") || !document.getElementById(decodeURIComponent(href.slice(1)))) };
  });
  assert.deepEqual(broken, { twice: [], dead: [] }, `${name}: ids and links`);
  await close();
}

// A link to a check, which is in a closed list, opens the list.
async function deepLinksOpen(name) {
  const { page, close } = await open(name);
  const cell = page.locator("td.cell a").first();
  const target = (await cell.getAttribute("href")).slice(1);
  await cell.click();
  const box = page.locator(`[id="${target}"]`);
  await box.waitFor({ state: "visible" });
  await close();
  const again = await open(name, { hash: `#${target}` });
  await again.page.locator(`[id="${target}"]`).waitFor({ state: "visible" });
  assert(await again.page.locator(`[id="${target}"]`).evaluate((one) => {
    const { top } = one.getBoundingClientRect();
    return top >= 0 && top < innerHeight;
  }), `${name}: #${target} is in view`);
  await again.close();
}

async function filtersWork(name) {
  const { page, close } = await open(name);
  const rows = page.locator("tr.rule:visible");
  const all = await rows.count();
  await page.locator("form.filter input[value=pass]").uncheck();
  const some = await rows.count();
  assert(some > 0 && some < all, `${name}: ${some} of ${all} rules without those that pass`);
  assert.equal(await page.locator("form.filter .shown").textContent(), `${some} of ${all} rules`);
  await page.locator("form.filter input[value=pass]").check();
  await page.locator("form.filter .search").fill("identifier");
  const found = await rows.count();
  assert(found > 0 && found < all, `${name}: ${found} of ${all} rules with a word`);
  await page.locator("form.filter .search").fill("no rule has this");
  assert.equal(await rows.count(), 0);
  await close();
}

async function differencesAreFiltered(name) {
  const { page, close } = await open(name);
  const all = await page.locator("tr.rule:visible").count();
  await page.locator("form.filter .differ").check();
  const some = await page.locator("tr.rule:visible").count();
  assert(some > 0 && some < all, `${name}: ${some} of ${all} rules differ`);
  await close();
}

async function keyboardWorks(name) {
  const { page, close } = await open(name);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert(page.url().endsWith("#main"));
  const summary = page.locator("summary").first();
  await summary.focus();
  await page.keyboard.press("Enter");
  assert(await summary.evaluate((one) => one.parentElement.open), `${name}: Enter opens a list`);
  await close();
}

async function prints(name) {
  const { page, check, close } = await open(name);
  await page.evaluate(() => addEventListener("beforeprint", () => {
    window.leftClosed = document.querySelectorAll("details:not([open])").length;
  }));
  const pdf = await page.pdf({ format: "A4" });
  assert(pdf.length > 10_000 && pdf.subarray(0, 5).toString() === "%PDF-", `${name}: ${pdf.length} bytes of PDF`);
  assert.equal(await page.evaluate(() => window.leftClosed), 0, `${name}: all lists are printed`);
  await page.emulateMedia({ media: "print" });
  assert(!(await page.locator("nav").isVisible()), `${name}: no navigation on paper`);
  check();
  await close();
}

// Without script, all text is there.
async function worksWithoutScript(name, words) {
  const { page, close } = await open(name, { script: false });
  const text = await page.locator("body").innerText();
  for (const word of words) assert(text.includes(word), `${name} without script: ${word}`);
  await close();
}

async function plotsAreDrawn(name) {
  const { page, close } = await open(name);
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  await page.waitForFunction(() => [...document.querySelectorAll(".canvas")].every((one) => one.querySelector("canvas")));
  const plots = await page.evaluate(() => [...document.querySelectorAll(".canvas")].map((one) => {
    const canvas = one.querySelector("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const colors = new Set();
    for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) colors.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
    return { label: one.getAttribute("aria-label"), colors: colors.size };
  }));
  assert(plots.length >= 4, `${name}: ${plots.length} plots`);
  for (const { label, colors } of plots) {
    assert(colors > 3, `${name}: ${label} has ${colors} colors`);
    assert(/ to |median/.test(label), `${name}: ${label} describes the plot`);
  }
  // The key hides a line.
  const box = page.locator(".keys input").first();
  await box.uncheck();
  assert(!(await box.isChecked()));
  await close();
}

// Nothing in a report runs, breaks the page, or hides.
async function isHarmless(name) {
  const { page, close } = await open(name);
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  await page.mouse.move(300, 400);
  const state = await page.evaluate(() => ({
    hacked: window.hacked, images: document.querySelectorAll("img").length, title: document.title,
    scripts: document.querySelectorAll("script").length, links: [...document.links].filter((one) => !one.hash).length,
    handlers: document.querySelectorAll("[onload], [onerror], [onmouseover]").length,
    labels: [...document.querySelectorAll("[aria-label], [title]")].map((one) => `${one.getAttribute("aria-label")}${one.title}`).join("\n"),
    text: document.body.textContent.replace(/<script[^]*$/, ""),
  }));
  assert.equal(state.hacked, undefined, `${name}: a script ran`);
  assert.deepEqual([state.images, state.links, state.handlers], [0, 0, 0], `${name}: elements from text`);
  assert(state.scripts <= 3, `${name}: ${state.scripts} scripts`);
  const shown = await page.locator("body").innerText();
  for (const code of ["\\u{202e}", "\\u{200b}", "\\u{1b}[31m", "{{ 7 * 7 }}"]) assert(shown.includes(code), `${name}: ${code} is visible`);
  for (const text of [shown, state.labels, state.title]) assert(!HIDDEN.test(text), `${name}: ${JSON.stringify(text.match(HIDDEN))}`);
  await close();
}

async function paintsWithinASecond(name) {
  // The best of three: this machine may be busy.
  const times = [];
  for (let n = 0; n < 3; n += 1) {
    const { page, close } = await open(name);
    times.push(await page.evaluate(() => new Promise((done) => {
      const seen = (entries) => entries.getEntriesByName("first-contentful-paint").forEach((one) => done(one.startTime));
      new PerformanceObserver(seen).observe({ type: "paint", buffered: true });
    })));
    await close();
  }
  assert(Math.min(...times) < 1000, `${name}: first paint after ${times} ms`);
}

function isSmall(name, megabytes) {
  const { size } = statSync(file(name));
  assert(size < megabytes * 1e6, `${name}: ${size} bytes`);
}

// Fails on violations of accessibility.
async function isAccessible(page, where) {
  const { violations } = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
  const found = violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
  assert.deepEqual(found, [], `${where}: axe`);
}

// A load run that is followed, held, resumed and stopped on its live page.
async function livePageWorks() {
  const load = spawn(hubproof, ["load", "--protocol", "emprops", "--workers", "20", "--clients", "4", "--rate", "100", "--warm-up", "2s",
    "--duration", "10m", "--drain", "10s", "--live", "0", "--report", "html=live.html", "--report", "json=live.json"], { cwd: folder });
  const ended = new Promise((done) => load.on("exit", done));
  try {
    let said = "";
    const url = await new Promise((done, failed) => {
      load.on("exit", () => failed(new Error(said)));
      load.stderr.on("data", (data) => {
        said += data;
        const found = said.match(/live page on (\S+)\s/);
        if (found) done(found[1]);
      });
    });
    const { page, check, close } = await open(url, { width: 1100 });
    // The number of points that the plot of submitted jobs shows.
    const points = () => page.evaluate(() => window.points["plot-submit_job.response-over-time"]);
    const started = async () => Number((await page.locator("#counts tr", { has: page.locator("th", { hasText: /\.started$/ }) }).first()
      .locator("td").first().textContent()).replace(/\D/g, ""));
    const phase = (text) => page.locator(".live strong", { hasText: text }).waitFor();
    await phase("measured");
    await page.locator("#latency .canvas canvas").first().waitFor();
    const before = await started();
    await page.waitForFunction((before) => {
      const rows = [...document.querySelectorAll("#counts tbody tr")].filter((row) => row.firstElementChild.textContent.endsWith(".started"));
      return rows.some((row) => Number(row.children[1].textContent.replace(/\D/g, "")) > before + 100);
    }, before);
    await isAccessible(page, "live page");
    // What a reader has opened and focused stays as it is.
    const list = page.locator("#counts summary");
    await list.click();
    const hold = page.locator("#live-hold");
    await hold.focus();
    assert.equal(await hold.textContent(), "Hold");
    await page.keyboard.press("Enter");
    await phase("held");
    const [held, shown] = [await started(), await points()];
    await page.waitForFunction(() => document.querySelector(".live strong").textContent !== "held for 1.00 s");
    assert.equal(await started(), held, "no journey begins during a hold");
    assert.equal(await hold.textContent(), "Resume");
    assert(await page.evaluate(() => document.activeElement.id === "live-hold" && document.querySelector("#counts details").open), "focus and open lists");
    assert((await page.locator("#live-note").textContent()).includes("held back"));
    await isAccessible(page, "live page, held");
    await hold.click();
    await phase("measured");
    await page.waitForFunction((held) => Number([...document.querySelectorAll("#counts tbody tr")]
      .find((row) => row.firstElementChild.textContent.endsWith(".started")).children[1].textContent.replace(/\D/g, "")) > held + 100, held);
    assert(await points() > shown, `a plot grows: ${await points()} points, and ${shown} in the hold`);
    if (images) {
      mkdirSync(images, { recursive: true });
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: join(images, "live-load.png"), clip: { x: 0, y: 0, width: 1100, height: 900 } });
    }
    await page.locator("#live-stop").click();
    await page.waitForFunction(() => document.documentElement.dataset.live === "ended");
    assert.equal(await ended, 3, `an interrupted run: ${said}`);
    // The page stays, and shows what the report shows.
    const { run: { summary }, counts } = read("live.json");
    assert((await page.locator("h1").textContent()).includes(summary), "the final verdict");
    assert.equal(await started(), counts[Object.keys(counts).find((name) => name.endsWith(".started"))].whole_run);
    assert.equal(await page.locator("[data-live]:not(html)").count(), 0, "no buttons are left");
    await isAccessible(page, "live page, ended");
    const words = (root) => root.locator("main").innerText();
    const final = await open("live.html", { width: 1100 });
    await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
    await final.page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
    assert.equal(await words(page), await words(final.page), "the page has become that of --report html=");
    await final.close();
    check();
    await close();
  } finally {
    load.kill();
    await ended;
  }
}

async function takeImages() {
  mkdirSync(images, { recursive: true });
  const shots = [
    ["check.html", "report-check", "", 900], ["several.html", "report-grid", "#gator.grid", 700],
    ["fuzz.html", "report-fuzz", "#qi.tried", 700], ["load.html", "report-load", "#latency", 900],
    ["compare.html", "report-compare", "#differences", 900],
  ];
  for (const [name, image, hash, height] of shots) {
    const context = await browser.newContext({ viewport: { width: 1100, height }, colorScheme: "light" });
    const page = await context.newPage();
    await page.goto(pathToFileURL(file(name)).href + hash);
    await page.waitForFunction(() => ![...document.querySelectorAll(".canvas")].some((one) => one.checkVisibility() && !one.querySelector("canvas")));
    // The first cause whose message differs from what was expected.
    if (image === "report-check") await page.locator(".causes > li:has(.diff)").first().evaluate((one) => one.scrollIntoView());
    await page.screenshot({ path: join(images, `${image}.png`) });
    await context.close();
  }
}

try {
  makeReports();
  const checks = ["check.html", "several.html", "fuzz.html"];
  const loads = ["load.html", "compare.html"];
  const evil = ["evil-check.html", "evil-fuzz.html", "evil-load.html"];
  for (const name of [...checks, "overview.html", ...loads, ...evil]) {
    await looksRight(name);
    await linksLead(name);
    console.log(`${name}: both widths, both color schemes, axe, links`);
  }
  for (const name of checks) await deepLinksOpen(name);
  await filtersWork("check.html");
  await differencesAreFiltered("several.html");
  for (const name of [...checks, ...loads]) {
    await prints(name);
    if (name !== "compare.html") await keyboardWorks(name);
  }
  await worksWithoutScript("check.html", ["FAIL gator", "GAT-", "Reproduce", "hubproof check --fault gator-success-other-action"]);
  await worksWithoutScript("fuzz.html", ["FAIL qi", "Smallest conversation", "--replay findings/"]);
  await worksWithoutScript("load.html", ["extended_request.response.p50 < 0.01ms", "Ledger"]);
  for (const name of [...loads, "evil-load.html"]) await plotsAreDrawn(name);
  for (const name of evil) await isHarmless(name);
  isSmall("big.html", 5);
  await paintsWithinASecond("big.html");
  isSmall("hour.html", 3);
  for (const name of evil) isSmall(name, 5);
  await livePageWorks();
  console.log("live page: numbers, hold, resume, stop, final state: fine");
  console.log("links, filters, keyboard, print, plots, hostile text, sizes: fine");
  if (images) await takeImages();
} finally {
  await browser.close();
  rmSync(folder, { recursive: true });
}
