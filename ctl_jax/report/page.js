// The page's tables, and what is done when something is chosen. Behind charts.js, whose names it uses.
"use strict";

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
