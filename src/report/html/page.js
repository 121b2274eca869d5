"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const show = (element) => { if (element) element.hidden = false; };

  // A link to something inside a closed <details> opens it; a link to a filtered row shows it.
  const reveal = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let at = target; at; at = at.parentElement) {
      if (at.tagName === "DETAILS") at.open = true;
      if (at.hidden) at.hidden = false;
    }
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);

  // Filters of the grid.
  for (const form of all("form.filter")) {
    show(form);
    form.addEventListener("submit", (event) => event.preventDefault());
    const section = form.closest("section");
    const rows = all("tr.rule", section).map((row) => ({
      row, text: row.textContent.toLowerCase(), status: row.dataset.status.split(" "), differs: "differs" in row.dataset,
    }));
    const groups = all("tbody", section);
    const search = form.querySelector(".search");
    const boxes = all("fieldset input:not(.differ)", form);
    const differ = form.querySelector(".differ");
    const note = form.querySelector(".shown");
    const apply = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
      let shown = 0;
      for (const { row, text, status, differs } of rows) {
        const keep = status.some((one) => wanted.has(one) || one === "none") && words.every((word) => text.includes(word))
          && (!differ || !differ.checked || differs);
        row.hidden = !keep;
        if (keep) shown += 1;
      }
      for (const group of groups) group.hidden = !group.querySelector("tr.rule:not([hidden])");
      note.textContent = shown === rows.length ? `${shown} rules` : `${shown} of ${rows.length} rules`;
    };
    form.addEventListener("input", apply);
    apply();
  }

  for (const tools of all("p.tools")) {
    show(tools);
    const set = (open) => all("details", tools.parentElement).forEach((one) => { one.open = open; });
    tools.querySelector(".open-all").addEventListener("click", () => set(true));
    tools.querySelector(".close-all").addEventListener("click", () => set(false));
  }

  for (const button of all("button.copy")) {
    const text = button.parentElement.querySelector("code");
    show(button);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  // Print what is closed on the screen.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
    closed = [];
  });

  const data = document.getElementById("plot-data");
  const board = data && typeof uPlot !== "undefined" ? drawPlots(JSON.parse(data.textContent)) : null;
  if (document.getElementById("live") && board) follow(document.getElementById("live"), board);

  // The page of a run that has not ended: the server sends what has changed once a second, and the final page at the end.
  function follow(root, board) {
    const source = new EventSource(`events${location.search}`);
    source.addEventListener("message", ({ data }) => {
      const update = JSON.parse(data);
      const parsed = document.createElement("template");
      parsed.innerHTML = update.body;
      const fresh = root.cloneNode(false);
      fresh.append(parsed.content);
      document.title = update.title;
      change(root, fresh, update.next);
      board.update(update);
      document.documentElement.dataset.live = update.ended ? "ended" : "running";
      if (update.ended) source.close();
    });
    source.addEventListener("error", () => show(document.getElementById("live-lost")));
    root.addEventListener("click", async ({ target }) => {
      const action = target.dataset.live;
      if (!action || target.getAttribute("aria-disabled") === "true") return;
      const answer = await fetch(`${action}${location.search}`, { method: "POST" });
      if (!answer.ok) document.getElementById("live-note").textContent = await answer.text();
    });
  }

  // Changes an element into another one, and keeps what has not changed: focus, open lists, drawn plots. An interval may
  // have nothing to plot where others have, so its update removes no plots.
  function change(old, fresh, keepsPlots) {
    for (const { name, value } of [...fresh.attributes]) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    if (old.matches(".canvas, .keys")) return;
    let at = old.firstChild;
    for (const node of [...fresh.childNodes]) {
      const same = node.id ? document.getElementById(node.id) : at;
      if (!same || same.nodeName !== node.nodeName || (same.id || "") !== (node.id || "")) {
        old.insertBefore(node, at);
        continue;
      }
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      if (node.nodeType === Node.ELEMENT_NODE) change(same, node, keepsPlots);
      else if (same.data !== node.data) same.data = node.data;
    }
    while (at) {
      const { nextSibling } = at;
      if (!keepsPlots || at.className !== "plot") at.remove();
      at = nextSibling;
    }
  }

  function drawPlots(plots) {
    const LIGHT = { bg: "#fff", fg: "#000", muted: "#444", line: "#bbb", faint: "#e5e5e5", panel: "#f3f3f3", bad: "#a40e26",
      lines: ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#9a6700", "#cf222e"] };
    const colors = () => {
      const style = getComputedStyle(document.documentElement);
      const get = (name) => style.getPropertyValue(name).trim();
      return { bg: get("--bg"), fg: get("--fg"), muted: get("--muted"), line: get("--line"), faint: get("--faint"), panel: get("--panel"),
        bad: get("--fail"), lines: ["--a", "--b", "--c", "--d", "--e", "--f"].map(get) };
    };
    const number = (value) => {
      if (value === 0) return "0";
      const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
      return Number(value.toFixed(Math.min(digits, 6))).toLocaleString("en", { maximumFractionDigits: 6 });
    };
    const time = (ms) => ms >= 1000 ? `${number(ms / 1000)} s` : ms >= 1 || ms === 0 ? `${number(ms)} ms` : `${number(ms * 1000)} µs`;
    const amount = (unit) => unit === "ms" ? time : (value) => unit === "" ? number(value) : `${number(value)}${unit === "/s" ? "" : " "}${unit}`;
    const percentile = (nines) => {
      const percent = 100 * (1 - 10 ** -nines);
      return nines === 0 ? "shortest" : `p${Number(percent.toFixed(Math.max(0, Math.ceil(nines) - 1)))}`;
    };
    // A range of one point, or of none, would have no scale.
    const range = (low, high) => {
      const from = Number.isFinite(low) ? low : 0;
      return [from, high > from ? high : from + 1];
    };
    // At most some ten marks on an axis.
    const marks = (low, high) => {
      const size = 10 ** Math.floor(Math.log10((high - low) / 8));
      const step = size * [1, 2, 5, 10].find((one) => (high - low) / (one * size) <= 8);
      return Array.from({ length: 11 }, (_, at) => (Math.ceil(low / step) + at) * step).filter((one) => one <= high);
    };
    const decades = (low, high) => {
      const first = Math.floor(Math.log10(low));
      const steps = high / low > 1e4 ? [1] : high / low > 30 ? [1, 3] : [1, 2, 3, 5, 7];
      return Array.from({ length: 40 }, (_, at) => steps.map((one) => one * 10 ** (first + at))).flat().filter((one) => one >= low && one <= high);
    };
    const drawn = [];

    const draw = (plot, element, palette) => {
      const heat = plot.kind === "heat";
      const { x } = plot;
      const nines = plot.xUnit === "nines";
      const log = heat || plot.log;
      const y = heat ? "ms" : plot.yUnit;
      const row = (number) => 10 ** (number / plot.rowsPerDecade);
      const show = amount(y);
      const clean = (values) => log ? values.map((value) => value > 0 ? value : null) : values;
      const values = heat ? [] : plot.series.map((line) => clean(line.values));
      const bounds = heat ? [] : plot.thresholds.map((one) => one.value);
      const seen = heat ? plot.rows.map(row) : values.flat().concat(bounds).filter((value) => value !== null && value > 0);
      let low = Infinity, high = -Infinity;
      for (const value of seen) { low = Math.min(low, value); high = Math.max(high, value); }
      if (log && low < high) { low *= 0.9; high *= 1.15; } else if (log) { low *= 0.5; high *= 2; } else { low = 0; high *= 1.1; }
      if (heat) { low = row(plot.rows[0]); high = row(plot.rows[1] + 1); }
      // Nothing to show: all lines are empty.
      if (!Number.isFinite(low) || !Number.isFinite(high)) [low, high] = log ? [1, 10] : [0, 1];
      const readout = element.parentElement.querySelector(".keys .readout");

      const phases = (u, labels) => {
        const { ctx, bbox } = u;
        ctx.save();
        ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
        ctx.textBaseline = "top";
        ctx.textAlign = "left";
        for (const [from, to, name] of plot.phases) {
          const left = Math.max(u.valToPos(from, "x", true), bbox.left);
          const right = Math.min(u.valToPos(to, "x", true), bbox.left + bbox.width);
          if (right <= left) continue;
          if (!labels && name !== "measured") {
            ctx.fillStyle = palette.panel;
            ctx.fillRect(left, bbox.top, right - left, bbox.height);
          }
          const text = name === "warmup" ? "warm-up" : name;
          const { width } = ctx.measureText(text);
          if (!labels || right - left < width + 10) continue;
          ctx.fillStyle = name === "measured" ? palette.bg : palette.panel;
          ctx.fillRect(left + 2, bbox.top + 1, width + 6, 15 * devicePixelRatio);
          ctx.fillStyle = palette.muted;
          ctx.fillText(text, left + 5, bbox.top + 3);
        }
        ctx.restore();
      };
      const lines = (u) => {
        const { ctx, bbox } = u;
        ctx.save();
        ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
        ctx.textAlign = "right";
        for (const { value, text, broken } of plot.thresholds) {
          if (value <= 0 && log) continue;
          const at = Math.round(u.valToPos(value, "y", true));
          if (at < bbox.top || at > bbox.top + bbox.height) continue;
          ctx.strokeStyle = ctx.fillStyle = broken ? palette.bad : palette.fg;
          ctx.lineWidth = 1.5 * devicePixelRatio;
          ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
          ctx.beginPath();
          ctx.moveTo(bbox.left, at);
          ctx.lineTo(bbox.left + bbox.width, at);
          ctx.stroke();
          ctx.fillText(broken ? `${text} (broken)` : text, bbox.left + bbox.width - 4, at - 5 * devicePixelRatio);
        }
        ctx.restore();
      };
      const cells = (u) => {
        const { ctx } = u;
        ctx.save();
        ctx.fillStyle = palette.lines[0];
        for (const [column, number, count] of plot.cells) {
          const left = Math.floor(u.valToPos(plot.x[column], "x", true));
          const right = Math.ceil(u.valToPos(plot.x[column + 1], "x", true));
          const bottom = Math.ceil(u.valToPos(row(number), "y", true));
          const top = Math.floor(u.valToPos(row(number + 1), "y", true));
          ctx.globalAlpha = 0.15 + 0.85 * Math.log1p(count) / Math.log1p(plot.most);
          ctx.fillRect(left, top, Math.max(1, right - left), Math.max(1, bottom - top));
        }
        ctx.restore();
      };
      const follow = (u) => {
        if (!readout) return;
        const index = u.cursor.idx;
        if (index == null) { readout.textContent = ""; return; }
        const at = nines ? percentile(x[index]) : `${number(x[index])} s`;
        const parts = values.map((line, n) => line[index] == null || !u.series[n + 1].show ? "" : `${plot.series[n].label} ${show(line[index])}`);
        readout.textContent = [at, ...parts.filter(Boolean)].join(" · ");
      };
      const axis = { stroke: palette.muted, grid: { stroke: palette.faint, width: 1 }, ticks: { stroke: palette.line, width: 1 },
        font: "11px system-ui, sans-serif" };
      const series = heat ? [{ paths: () => null, points: { show: false } }] : plot.series.map((line) => ({
        label: line.label, stroke: palette.lines[line.color % 6], width: line.thin ? 1 : 1.75,
        dash: line.dashed ? [7, 4] : line.thin ? [2, 3] : undefined, spanGaps: false, points: { show: false },
      }));
      const options = {
        width: Math.max(element.clientWidth, 200),
        height: 260,
        legend: { show: false },
        scales: {
          x: { time: false, range: (u, min, max) => heat ? range(x[0], x[x.length - 1]) : range(nines ? 0 : Math.min(min ?? 0, 0), max) },
          y: { distr: log ? 3 : 1, range: () => range(low, high) },
        },
        axes: [
          { ...axis, values: (u, at) => at.map((one) => nines ? percentile(one) : number(one)), label: nines ? undefined : "seconds",
            labelSize: nines ? 0 : 18, labelFont: "11px system-ui, sans-serif", space: 60,
            splits: nines ? (u, index, min, max) => [0, Math.log10(2), 1, 2, 3, 4, 5, 6].filter((one) => one <= max) : (u, index, min, max) => marks(min, max) },
          { ...axis, size: 64, splits: () => log ? decades(...range(low, high)) : marks(...range(low, high)), values: (u, at) => at.map((one) => one == null ? "" : show(one)) },
        ],
        series: [{}, ...series],
        cursor: { drag: { x: false, y: false }, sync: nines ? undefined : { key: "time" }, points: { show: !heat } },
        hooks: { drawClear: [(u) => phases(u, false)], draw: [heat ? cells : lines, (u) => phases(u, true)], setCursor: [follow] },
      };
      const points = heat ? [x, x.map(() => low)] : [x, ...values];
      element.replaceChildren();
      return new uPlot(options, points, element);
    };

    const keys = (plot, element, item) => {
      const box = element.parentElement.querySelector(".keys");
      if (!box) return;
      const hidden = new Set(all("input:not(:checked)", box).map((input) => input.dataset.label));
      box.replaceChildren();
      if (plot.kind === "heat") return;
      const list = document.createElement("ul");
      list.className = "key";
      plot.series.forEach((line, index) => {
        const entry = document.createElement("li");
        const label = document.createElement("label");
        const input = document.createElement("input");
        input.type = "checkbox";
        input.dataset.label = line.label;
        input.checked = !hidden.has(line.label);
        input.addEventListener("change", () => item.plot && item.plot.setSeries(index + 1, { show: input.checked }));
        const sample = document.createElement("span");
        sample.className = `sample s${line.color % 6}${line.dashed ? " dashed" : line.thin ? " dotted" : ""}`;
        label.append(input, sample, line.label);
        entry.append(label);
        list.append(entry);
      });
      const readout = document.createElement("p");
      readout.className = "readout";
      box.append(list, readout);
    };

    const render = (item, palette) => {
      if (item.plot) item.plot.destroy();
      item.plot = draw(item.data, item.element, palette);
      for (const [index, input] of all(".keys input", item.element.parentElement).entries()) {
        if (!input.checked) item.plot.setSeries(index + 1, { show: false });
      }
    };
    // Plots are drawn when they come into view, at their real width.
    const watch = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        const item = drawn.find(({ element }) => element === target);
        if (target.clientWidth === 0) continue;
        if (!item.plot) render(item, colors());
        else if (item.plot.width !== target.clientWidth) item.plot.setSize({ width: target.clientWidth, height: item.plot.height });
      }
    });
    const place = (data) => {
      const element = document.getElementById(data.id);
      if (!element) return;
      const item = { data, element, plot: null };
      keys(data, element, item);
      drawn.push(item);
      watch.observe(element);
    };
    plots.forEach(place);
    const again = (palette) => drawn.forEach((item) => { if (item.plot) render(item, palette); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => again(colors()));
    addEventListener("beforeprint", () => drawn.forEach((item) => render(item, LIGHT)));
    addEventListener("afterprint", () => again(colors()));
    document.documentElement.dataset.plots = String(drawn.length);

    // Adds the points of an interval to a plot; `more` is the plot of this interval alone, if it has one.
    const extend = (data, more, { from, to, phase }) => {
      const last = data.phases[data.phases.length - 1];
      if (last && last[2] === phase) last[1] = to;
      else data.phases.push([from, to, phase]);
      if (data.kind === "heat") {
        data.x.push(to);
        if (!more) return;
        const column = data.x.length - 2;
        for (const [, row, count] of more.cells) data.cells.push([column, row, count]);
        data.rows = [Math.min(data.rows[0], more.rows[0]), Math.max(data.rows[1], more.rows[1])];
        data.most = Math.max(data.most, more.most);
        return;
      }
      const none = data.yUnit === "/s" ? 0 : null;
      const { length } = data.x;
      data.x.push((from + to) / 2);
      for (const line of data.series) {
        const same = more && more.series.find(({ label }) => label === line.label);
        line.values.push(same ? same.values[0] : none);
      }
      for (const line of more ? more.series : []) {
        if (data.series.some(({ label }) => label === line.label)) continue;
        data.series.push({ ...line, values: Array(length).fill(none).concat(line.values) });
      }
      if (more) data.thresholds = more.thresholds;
    };

    // Shows the plots of an update: all of them anew, or what the next interval adds to them.
    const update = ({ plots, next, ...interval }) => {
      const moved = new Map();
      for (const item of drawn.splice(0)) {
        if (item.element.isConnected) drawn.push(item);
        else {
          watch.unobserve(item.element);
          moved.set(item.data.id, item.data);
        }
      }
      for (const item of drawn) {
        const data = plots.find(({ id }) => id === item.element.id);
        const labels = item.data.series && item.data.series.length;
        if (next && item.data.xUnit === "s") extend(item.data, data, interval);
        else if (data) item.data = data;
        if (!next || (item.data.series && item.data.series.length) !== labels) keys(item.data, item.element, item);
        if (item.plot) render(item, colors());
      }
      for (const data of plots.filter(({ id }) => !drawn.some(({ element }) => element.id === id))) {
        const known = next && data.xUnit === "s" && moved.get(data.id);
        if (known) extend(known, data, interval);
        place(known || data);
      }
    };
    return { update };
  }

  reveal();
})();
