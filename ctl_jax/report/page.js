// The page's charts and tables: draws what `_charts.py` put into #data, and redraws it as chosen.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const controls = document.getElementById("controls");
const root = document.documentElement;
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const DASH = "\u2013";
let printing = false;

// ---------------------------------------------------------------- what is chosen

const chosen = {
  get view() { return controls.elements.view.value; },
  get axis() { return controls.elements.axis.value; },
  get unit() { return document.getElementById("unit")?.value ?? "flops"; },
  get group() { return data.groups[controls.elements.group.value]; },
  get methods() { return boxes().filter((box) => box.checked).map((box) => Number(box.value)); },
};

function boxes() {
  return [...controls.querySelectorAll("input[name=method]")];
}

function isDark() {
  return !printing && (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
}

// ---------------------------------------------------------------- charts

const VIEWS = {
  score: { title: (metric) => `${metric} (dev_test)`, format: "", text: (y) => y.toFixed(3) },
  relative: { title: (metric) => `${metric} relative to dense`, format: "+.0%",
    text: (y) => `${y < 0 ? "\u2212" : "+"}${Math.abs(100 * y).toFixed(1)}%` },
  error: { title: (metric) => `error (1 \u2212 ${metric})`, format: "", text: (y) => y.toFixed(3) },
};

const ABOVE = { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal" };

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

// A method at a budget as `view` shows it: y, spread over seeds, seeds, and the ends of its interval
// over tasks where it has one. null where there is none.
function pointOf(curves, method, budget, view) {
  const point = (view === "relative" ? curves.relative : curves.points)[method]?.[budget];
  if (!point) return null;
  const [y, spread, seeds, low, high] = point;
  return view === "error" ? { y: 1 - y, spread, seeds, low: 1 - high, high: 1 - low } : { y, spread, seeds, low, high };
}

function said({ y, spread, seeds, low, high }, view) {
  const { text } = VIEWS[view];
  const over = `${seeds} seed${seeds === 1 ? "" : "s"}`;
  if (low >= 0) return `${text(y)} (95% interval ${text(low)} to ${text(high)}), ${over}`;
  if (spread === null) return `${text(y)}, ${over}`;
  return `${text(y)} \u00b1 ${view === "relative" ? (100 * spread).toFixed(1) : spread.toFixed(3)}, ${over}`;
}

function curvesFigure(curves, view) {
  const colour = isDark() ? "dark" : "light";
  const shown = VIEWS[view];
  const traces = chosen.methods.map((method) => {
    const { name, dash, symbol, [colour]: line } = data.methods[method];
    const places = data.budgets.map((budget, i) => ({ ...budget, point: pointOf(curves, method, i, view) }))
      .filter(({ flops, point }) => flops && point);
    return {
      name, type: "scatter", mode: "lines+markers",
      x: places.map(({ flops }) => flops),
      y: places.map(({ point }) => point.y),
      error_y: {
        type: "data", symmetric: false, thickness: 1, width: 3,
        array: places.map(({ point }) => point.high >= 0 ? point.high - point.y : point.spread),
        arrayminus: places.map(({ point }) => point.low >= 0 ? point.y - point.low : point.spread),
      },
      text: places.map(({ label, point }) => `<b>${escaped(name)}</b>, ${escaped(label)}<br>${said(point, view)}`),
      hovertemplate: "%{text}<extra></extra>",
      line: { color: line, dash, width: 2 },
      marker: { symbol, size: 8, color: line },
    };
  }).filter(({ x }) => x.length);
  const layout = { yaxis: { title: { text: shown.title(curves.metric) }, tickformat: shown.format }, xaxis: budgetAxis() };
  const chance = view === "relative" ? null : curves.chance;
  if (chance !== null && chance !== undefined) {
    const y = view === "error" ? 1 - chance : chance;
    layout.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: "#888", width: 1, dash: "dot" } }];
    layout.annotations = [{ xref: "paper", x: 1, y, text: "chance", showarrow: false, yanchor: "bottom", xanchor: "right" }];
  }
  return { traces, layout };
}

function budgetAxis() {
  const known = data.budgets.filter(({ flops }) => flops);
  const axis = { type: chosen.axis, title: { text: "training budget (FLOP)" }, tickformat: "~s" };
  if (chosen.axis === "linear") return { ...axis, rangemode: "tozero" };
  const every = Math.ceil(known.length / 7); // more labels than seven would touch
  const ticks = known.filter((_, i) => i % every === 0);
  return { ...axis, tickvals: ticks.map(({ flops }) => flops), ticktext: ticks.map(({ tick }) => tick) };
}

function ledgerFigure() {
  const { lines, purposes } = data.ledger;
  const unit = chosen.unit;
  const methods = new Set(chosen.methods);
  // The first line is on top, as in the table.
  const rows = lines.filter(({ method }) => method === null || methods.has(method)).reverse();
  const traces = purposes[unit].map(({ name, colour }) => ({
    name, type: "bar", orientation: "h",
    x: rows.map((row) => row[unit][name] ?? 0),
    y: rows.map(({ name }) => escaped(name)),
    marker: { color: colour },
    hovertemplate: `<b>%{y}</b><br>${name}: %{x:.3~s}${unit === "flops" ? "FLOP" : " s"}<extra></extra>`,
  })).filter(({ x }) => x.some(Boolean));
  const title = unit === "flops" ? "FLOP" : "wall time (s)";
  return {
    traces,
    layout: {
      barmode: "stack", height: 140 + 28 * rows.length, showlegend: true,
      legend: ABOVE,
      xaxis: { title: { text: title }, tickformat: "~s" }, yaxis: { automargin: true },
    },
  };
}

function trainingFigure({ metric, losses, scores }) {
  const at = (place) => (point) => point[place];
  const traces = [{ name: "training loss", type: "scatter", mode: "lines", x: losses.map(at(0)), y: losses.map(at(1)), line: { color: "#888" } }];
  const layout = { showlegend: true, legend: ABOVE, xaxis: { title: { text: "training compute (FLOP)" }, tickformat: "~s" },
    yaxis: { title: { text: "training loss (nats)" } } };
  if (scores.length) {
    traces.push({ name: `${metric} (dev)`, type: "scatter", mode: "lines+markers", x: scores.map(at(0)), y: scores.map(at(1)), yaxis: "y2", line: { color: "#d55e00" } });
    layout.yaxis2 = { title: { text: `${metric} (dev)` }, overlaying: "y", side: "right", showgrid: false, automargin: true };
  }
  return { traces, layout };
}

// What `auto` expected of the networks that it could afford, each with its 80% interval.
function choiceFigure({ metric, measured, options }) {
  const trace = (name, points, marker, hasBars = true) => ({
    name, type: "scatter", mode: "markers", marker,
    x: points.map(({ flops }) => flops), y: points.map(({ score }) => score),
    error_y: { visible: hasBars, type: "data", symmetric: false, thickness: 1, width: 2,
      array: points.map(({ score, high }) => high - score), arrayminus: points.map(({ score, low }) => score - low) },
    text: points.map(({ name, score, low, high }) => `<b>${escaped(name)}</b><br>${score.toFixed(3)} (${low.toFixed(2)} to ${high.toFixed(2)})`),
    hovertemplate: "%{text}<extra></extra>",
  });
  const traces = [
    trace("expected", options.filter((each) => !each.is_chosen), { color: "#999", size: 7 }),
    trace("chosen", options.filter((each) => each.is_chosen), { color: "#d55e00", size: 13, symbol: "star" }),
    trace("looked at", options.filter((each) => each.is_seen), { color: "#3c9be0", size: 17, symbol: "circle-open", line: { width: 2 } }, false),
  ].filter(({ x }) => x.length);
  const layout = { showlegend: true, legend: ABOVE, yaxis: { title: { text: `${metric}, 80% interval` } },
    xaxis: { type: "log", title: { text: "FLOPs of an image" }, tickformat: "~s", dtick: "D2" } };
  if (measured !== null) {
    layout.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: measured, y1: measured, line: { color: "#888", width: 1, dash: "dash" } }];
    layout.annotations = [{ xref: "paper", x: 1, y: measured, text: "on dev", showarrow: false, yanchor: "bottom", xanchor: "right" }];
  }
  return { traces, layout };
}

function figureOf(plot) {
  const view = plot.dataset.view ?? chosen.view;
  switch (plot.dataset.chart) {
    case "ledger": return ledgerFigure();
    case "training": return trainingFigure(data.training[plot.dataset.index]);
    case "choice": return choiceFigure(data.choices[plot.dataset.index]);
    case "task": return curvesFigure(data.tasks[plot.dataset.index], view);
    case "group": return curvesFigure(data.groups[plot.dataset.index], view);
    default: return curvesFigure(chosen.group, view);
  }
}

const plots = [...document.querySelectorAll(".plot")];
const inSight = new Set();
const stale = new Set(plots);

function draw(plot) {
  if (!stale.delete(plot)) return;
  const { traces, layout } = figureOf(plot);
  const style = getComputedStyle(root);
  const colour = (name) => printing ? { "--text": "#000", "--line": "#ddd" }[name] : style.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  // On paper two stand side by side, and bars alone.
  const width = layout.barmode ? 660 : 325;
  const size = printing ? { width, height: 280, autosize: false } : { height: 380, autosize: true };
  const base = {
    hovermode: "closest", showlegend: false, dragmode: false,
    margin: { l: 56, r: 12, t: 12, b: 48 }, ...size,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: colour("--text") },
  };
  Plotly.react(plot, traces, { ...base, ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } },
    { responsive: true, displayModeBar: false });
}

function redraw() {
  plots.forEach((plot) => stale.add(plot));
  inSight.forEach(draw);
}

// A chart is drawn when it comes near, so that a page of a hundred tasks opens at once.
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) {
      inSight.add(target);
      draw(target);
    } else {
      inSight.delete(target);
    }
  }
}, { rootMargin: "200px" });

// Arrow keys go through a chart's points: left and right by budget, up and down by method.
function walk(event) {
  const plot = event.currentTarget;
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const traces = plot.data ?? [];
  if (!step || !traces.length) return;
  event.preventDefault();
  const [line, point] = plot.place ?? [0, -1];
  const next = Math.min(Math.max(line + step[0], 0), traces.length - 1);
  const place = Math.min(Math.max(point + step[1], 0), traces[next].x.length - 1);
  plot.place = [next, place];
  Plotly.Fx.hover(plot, [{ curveNumber: next, pointNumber: place }]);
  const trace = traces[next];
  const words = trace.text?.[place] ?? `${trace.y[place]}, ${trace.name}: ${trace.x[place].toPrecision(3)}`;
  document.getElementById("said").textContent = words.replace(/<[^>]*>/g, " ").replaceAll("&lt;", "<").replaceAll("&amp;", "&");
}

// ---------------------------------------------------------------- tables

const SCALE = { "": 1, "%": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 };

// What a cell is sorted by: a number where its text begins with one, null where it is empty.
function keyOf(text) {
  const trimmed = text.trim();
  if (!trimmed || trimmed === DASH) return null;
  const number = /^([+-]?[\d.,]+(?:e[+-]?\d+)?)\s*([%kMGTPE]?)/.exec(trimmed.replace("\u2212", "-"));
  return number ? Number(number[1].replaceAll(",", "")) * SCALE[number[2]] : trimmed.toLowerCase();
}

function compare(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null); // empty cells stay last
  if (typeof a === typeof b) return direction * (typeof a === "number" ? a - b : a.localeCompare(b));
  return typeof a === "number" ? -1 : 1;
}

// Makes a table sortable by its headings, and filterable where it has `data-filter`.
// `rows` are {keys, words, row}: what columns are sorted by, what the filter searches, and a
// function that gives the row's element.
function equip(table, rows, limit = Infinity) {
  const heads = [...table.tHead.rows[0].cells];
  const by = { column: null, direction: 1 };
  const filter = { input: null, count: null };
  let most = limit;

  function show() {
    const words = filter.input?.value.toLowerCase().split(/\s+/).filter(Boolean) ?? [];
    const kept = rows().filter((row) => words.every((word) => row.words.includes(word)));
    if (by.column !== null) kept.sort((a, b) => compare(a.keys[by.column], b.keys[by.column], by.direction));
    table.tBodies[0].replaceChildren(...kept.slice(0, most).map(({ row }) => row()));
    if (filter.count) {
      const shown = Math.min(kept.length, most);
      filter.count.value = `${shown} of ${kept.length} rows`;
      filter.more.hidden = shown === kept.length;
    }
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      by.direction = by.column === column ? -by.direction : 1;
      by.column = column;
      heads.forEach((each) => each.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", by.direction > 0 ? "ascending" : "descending");
      show();
    });
  });
  if (table.dataset.filter !== undefined) {
    const line = document.getElementById("filter").content.cloneNode(true);
    filter.input = line.querySelector("input");
    filter.count = line.querySelector("output");
    filter.more = line.querySelector("button");
    filter.input.setAttribute("aria-label", `Filter: ${table.caption?.textContent.trim() ?? ""}`);
    filter.input.addEventListener("input", show);
    filter.more.addEventListener("click", () => { most = Infinity; show(); });
    table.closest(".scroll").before(line);
    show();
  }
  return show;
}

function rowsOf(table) {
  const rows = [...table.tBodies[0].rows].map((row) => ({
    keys: [...row.cells].map((cell) => keyOf(cell.dataset.key ?? cell.textContent)),
    words: row.textContent.toLowerCase(),
    row: () => row,
  }));
  return () => rows;
}

// One row a task, method and budget, of the chosen tasks and methods.
function results() {
  const groups = chosen.group.tasks;
  return groups.flatMap((index) => chosen.methods.flatMap((method) => data.budgets.flatMap((budget, i) => {
    const task = data.tasks[index];
    const score = pointOf(task, method, i, "score");
    if (!score) return [];
    const gain = pointOf(task, method, i, "relative");
    const { name } = data.methods[method];
    const texts = [task.title, task.domain ?? DASH, String(task.year ?? DASH), name, budget.label, score.y.toFixed(3),
      score.spread === null ? DASH : score.spread.toFixed(3), gain ? VIEWS.relative.text(gain.y) : DASH, String(score.seeds)];
    return [{
      keys: [task.title.toLowerCase(), task.domain, task.year, name, budget.flops, score.y, score.spread, gain?.y ?? null, score.seeds],
      words: texts.join(" ").toLowerCase(),
      row: () => rowElement(texts),
    }];
  })));
}

function rowElement(texts) {
  const row = document.createElement("tr");
  texts.forEach((text, i) => {
    const cell = document.createElement(i ? "td" : "th");
    if (!i) cell.scope = "row";
    cell.textContent = text;
    row.append(cell);
  });
  return row;
}

// ---------------------------------------------------------------- the page

const showResults = equip(document.getElementById("results"), results, 50);
document.querySelectorAll("table.sortable:not(#results)").forEach((table) => equip(table, rowsOf(table)));

function choose() {
  const tasks = new Set(chosen.group.tasks);
  document.querySelectorAll("section.task[data-index]").forEach((section) => {
    section.hidden = !tasks.has(Number(section.dataset.index));
  });
  showResults();
  redraw();
}

controls.hidden = false;
controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("change", choose);
document.getElementById("unit")?.addEventListener("change", redraw);
for (const [id, checked] of [["all", true], ["none", false]]) {
  document.getElementById(id).addEventListener("click", () => {
    boxes().forEach((box) => { box.checked = checked; });
    choose();
  });
}
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  redraw();
});
systemDark.addEventListener("change", redraw);
plots.forEach((plot) => {
  observer.observe(plot);
  plot.tabIndex = 0;
  plot.addEventListener("keydown", walk);
});
// Tables that are wider than the screen can be scrolled by keyboard.
const wide = new ResizeObserver((entries) => entries.forEach(({ target }) => {
  if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
  else target.removeAttribute("tabindex");
}));
document.querySelectorAll(".scroll").forEach((box) => wide.observe(box));
for (const [event, value] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => {
    printing = value;
    redraw();
    if (printing) plots.forEach(draw);
  });
}
