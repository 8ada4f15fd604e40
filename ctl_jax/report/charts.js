// The page's charts: draws what `_charts.py` put into #data, and redraws it as chosen. Before page.js.
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

const styled = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const ink = () => printing ? "#000" : styled("--text");

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

// A method's line of `points` {x, y, text}, as it is drawn everywhere.
function lineOf(method, points) {
  const { name, dash, symbol, [isDark() ? "dark" : "light"]: colour } = data.methods[method];
  return {
    name, type: "scatter", mode: "lines+markers",
    x: points.map(({ x }) => x), y: points.map(({ y }) => y),
    text: points.map(({ text }) => `<b>${escaped(name)}</b>, ${text}`), hovertemplate: "%{text}<extra></extra>",
    line: { color: colour, dash, width: 2 }, marker: { symbol, size: 8, color: colour },
  };
}

const hasPoints = ({ x }) => x.length;

function curvesFigure(curves, view) {
  const shown = VIEWS[view];
  const traces = chosen.methods.map((method) => {
    const places = data.budgets.map((budget, i) => ({ ...budget, point: pointOf(curves, method, i, view) }))
      .filter(({ flops, point }) => flops && point);
    return {
      ...lineOf(method, places.map(({ flops, label, point }) => ({ x: flops, y: point.y, text: `${escaped(label)}<br>${said(point, view)}` }))),
      error_y: {
        type: "data", symmetric: false, thickness: 1, width: 3,
        array: places.map(({ point }) => point.high >= 0 ? point.high - point.y : point.spread),
        arrayminus: places.map(({ point }) => point.low >= 0 ? point.y - point.low : point.spread),
      },
    };
  }).filter(hasPoints);
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
      isWide: true, barmode: "stack", height: 140 + 28 * rows.length, showlegend: true,
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
  ].filter(hasPoints);
  const layout = { showlegend: true, legend: ABOVE, yaxis: { title: { text: `${metric}, 80% interval` } },
    xaxis: { type: "log", title: { text: "FLOPs of an image" }, tickformat: "~s", dtick: "D2" } };
  if (measured !== null) {
    layout.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: measured, y1: measured, line: { color: "#888", width: 1, dash: "dash" } }];
    layout.annotations = [{ xref: "paper", x: 1, y: measured, text: "on dev", showarrow: false, yanchor: "bottom", xanchor: "right" }];
  }
  return { traces, layout };
}

// ---------------------------------------------------------------- ranks, and the stream

// The widest ranges of ranks within the critical difference, of the methods that are shown.
function joined(ranks, apart) {
  const ranges = [];
  for (const low of [...ranks].sort((a, b) => a - b)) {
    const high = Math.max(...ranks.filter((rank) => rank <= low + apart));
    if (high > low && high > (ranges.at(-1)?.[1] ?? 0)) ranges.push([low, high]);
  }
  return ranges;
}

// Ranks among all methods of the run: what is hidden moves none of them.
function ranksFigure() {
  const rows = data.ranks;
  const traces = chosen.methods.map((method) => ({
    ...lineOf(method, rows.flatMap(({ label, ranks }, y) => ranks[method] === null ? []
      : [{ x: ranks[method], y, text: `${escaped(label)}<br>rank ${ranks[method].toFixed(2)} of ${ranks.length}` }])),
    mode: "markers",
  })).filter(hasPoints);
  const bars = rows.flatMap(({ ranks, apart }, row) => joined(chosen.methods.map((method) => ranks[method]).filter(Number.isFinite), apart)
    .map(([x0, x1], i) => ({ type: "line", x0, x1, y0: row + 0.22 + 0.09 * i, y1: row + 0.22 + 0.09 * i, line: { color: ink(), width: 3 } })));
  return {
    traces,
    layout: {
      isWide: true, shapes: bars, xaxis: { title: { text: "average rank, 1 the best" } },
      yaxis: { range: [rows.length - 0.3, -0.4], tickvals: rows.map((_, i) => i), ticktext: rows.map(({ label }) => label), showgrid: false, zeroline: false },
    },
  };
}

// Means over the tasks of the stream: errors, or scores where scores are shown.
function meanOf(error) {
  const view = chosen.view === "error" ? "error" : "score";
  const y = view === "error" ? error : 1 - error;
  return { y, text: VIEWS[view].text(y), title: `mean ${VIEWS[view].title(data.groups[0].metric)}` };
}

function spentAxis(title) {
  return { type: chosen.axis, title: { text: title }, tickformat: "~s", ...(chosen.axis === "log" ? { dtick: "D2" } : { rangemode: "tozero" }) };
}

// The points that no other one beats, from few FLOPs to many.
function frontOf(points) {
  let least = Infinity;
  return [...points].sort((a, b) => a.flops - b.flops || a.error - b.error).filter(({ error }) => {
    const isBetter = error < least;
    least = Math.min(least, error);
    return isBetter;
  });
}

function computeFigure() {
  const methods = chosen.methods;
  const front = frontOf(data.compute.filter(({ method }) => methods.includes(method)));
  const behind = {
    name: "front", type: "scatter", mode: "lines", hoverinfo: "skip", line: { shape: "hv", width: 6, color: "rgba(128,128,128,0.35)" },
    x: front.map(({ flops }) => flops), y: front.map(({ error }) => meanOf(error).y),
  };
  const lines = methods.map((method) => lineOf(method, data.compute.filter((each) => each.method === method).map(({ label, flops, error, seeds }) => {
    const { y, text } = meanOf(error);
    return { x: flops, y, text: `${escaped(label)}<br>${text}, ${seeds} seed${seeds === 1 ? "" : "s"}` };
  })));
  return {
    traces: [behind, ...lines].filter(hasPoints),
    layout: { xaxis: spentAxis("FLOPs of all trials of all tasks"), yaxis: { title: { text: meanOf(0).title } } },
  };
}

function alongFigure() {
  const traces = chosen.methods.map((method) => lineOf(method, data.along.passed[method].map(([flops, error], i) => {
    const { y, text } = meanOf(error);
    return { x: flops, y, text: `up to ${escaped(data.tasks[i].title)} (${i + 1})<br>${text}` };
  }))).filter(hasPoints);
  const layout = { xaxis: spentAxis("FLOPs of all trials of all tasks so far"), yaxis: { title: { text: meanOf(0).title } } };
  return { traces, layout };
}

// What tasks could start from, of the first method that is shown and has a choice.
function transferFigure() {
  const found = data.transfer.find(({ method }) => chosen.methods.includes(method));
  if (!found) return { traces: [], layout: { isWide: true, annotations: [{ xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false, text: "no method that compares features is chosen" }] } };
  const { method, label, tasks, sources, scores, starts } = found;
  return {
    traces: [
      {
        type: "heatmap", x: sources, y: tasks, z: scores, zmin: 0, zmax: 1, colorscale: "Viridis", colorbar: { title: { text: "score on dev", side: "right" } },
        text: scores.map((row, i) => row.map((score, j) => score === null ? `${escaped(tasks[i])}: not from ${escaped(sources[j])}`
          : `<b>${escaped(tasks[i])}</b> from ${escaped(sources[j])}<br>${score.toFixed(3)}${starts[i] === j ? ", started from it" : ""}`)),
        hovertemplate: "%{text}<extra></extra>",
      },
      {
        type: "scatter", mode: "markers", hoverinfo: "skip", marker: { color: "#fff", size: 9, line: { color: "#000", width: 1.5 } },
        x: tasks.flatMap((_, i) => starts[i] === null ? [] : [sources[starts[i]]]), y: tasks.filter((_, i) => starts[i] !== null),
      },
    ],
    layout: {
      isWide: true, height: Math.min(900, 260 + 22 * tasks.length), margin: { l: 56, r: 12, t: 40, b: 48 },
      title: { text: `${escaped(data.methods[method].name)}, ${escaped(label)}`, x: 0.01, y: 1, yanchor: "top", pad: { t: 12 }, font: { size: 13 } },
      xaxis: { type: "category", title: { text: "network of" }, showgrid: false }, yaxis: { type: "category", autorange: "reversed", showgrid: false },
    },
  };
}

// ---------------------------------------------------------------- drawing

function figureOf(plot) {
  const view = plot.dataset.view ?? chosen.view;
  switch (plot.dataset.chart) {
    case "ledger": return ledgerFigure();
    case "training": return trainingFigure(data.training[plot.dataset.index]);
    case "choice": return choiceFigure(data.choices[plot.dataset.index]);
    case "ranks": return ranksFigure();
    case "compute": return computeFigure();
    case "along": return alongFigure();
    case "transfer": return transferFigure();
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
  const { traces, layout: { isWide, ...layout } } = figureOf(plot);
  const line = printing ? "#ddd" : styled("--line");
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
  // On paper two stand side by side, and wide ones alone.
  const width = isWide ? 660 : 325;
  const size = printing ? { width, height: 280, autosize: false } : { height: 380, autosize: true };
  const base = {
    hovermode: "closest", showlegend: false, dragmode: false,
    margin: { l: 56, r: 12, t: 12, b: 48 }, ...size,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: ink() },
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

// What arrow keys go through, row by row: words, and where they are. Of a heatmap its rows.
function pointsOf({ data: traces = [] }) {
  if (traces[0]?.type === "heatmap") {
    return traces[0].text.map((row, i) => row.map((words, j) => ({ words, at: { curveNumber: 0, pointNumber: [i, j] } })));
  }
  return traces.flatMap((trace, curveNumber) => trace.hoverinfo === "skip" ? [] : [trace.x.map((x, pointNumber) => ({
    words: trace.text?.[pointNumber] ?? `${trace.y[pointNumber]}, ${trace.name}: ${x.toPrecision(3)}`, at: { curveNumber, pointNumber },
  }))]);
}

// Left and right by budget, up and down by method.
function walk(event) {
  const plot = event.currentTarget;
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const rows = pointsOf(plot);
  if (!step || !rows.length) return;
  event.preventDefault();
  const within = (place, all) => Math.min(Math.max(place, 0), all.length - 1);
  const [row, column] = plot.place ?? [0, -1];
  const next = within(row + step[0], rows);
  plot.place = [next, within(column + step[1], rows[next])];
  const { words, at } = rows[next][plot.place[1]];
  Plotly.Fx.hover(plot, [at]);
  document.getElementById("said").textContent = words.replace(/<[^>]*>/g, " ").replaceAll("&lt;", "<").replaceAll("&amp;", "&");
}
