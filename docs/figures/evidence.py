"""Draws evidence.svg, the README's figure of pruning and its rivals, from evidence.csv beside it.

    python docs/figures/evidence.py [RUN]

evidence.csv has dev_test of each task, method, budget and seed of the run in docs/results.md,
section "The paper's comparison"; with the folder of such a run it is written again first. Lines
are means over tasks, bands their 95% intervals by the bootstrap over tasks.
"""

import csv
import pathlib
import sys

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
import numpy as np

from ctl_jax.report.statistics import Interval, mean_interval, relative_interval

HERE = pathlib.Path(__file__).parent
COLUMNS = ("task", "method", "budget", "seed", "dev_test")
PRUNED = {"filters@0.25": "#93c5fd", "filters@0.5": "#2563eb", "filters@0.75": "#1e3a8a"}
RIVALS = {
    "auto": "#c2410c",
    "filters@0.5:lsq@2stages+probe": "#0f766e",
    "filters@0.5": "#2563eb",
    "dense": "#334155",
}
# Text stays text, and the same numbers give the same bytes.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "ctl_jax", "font.size": 10}

# Scores by method and budget, a number a task: the mean over seeds.
Scores = dict[tuple[str, float], np.ndarray]


def main() -> None:
    """Writes evidence.csv where a run is given, and evidence.svg."""
    table = HERE / "evidence.csv"
    if sys.argv[1:]:
        with open(pathlib.Path(sys.argv[1]) / "results.csv", newline="") as file:
            rows = [[row[name] for name in COLUMNS] for row in csv.DictReader(file)]
        with open(table, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    with open(table, newline="") as file:
        scores = read(list(csv.DictReader(file)))
    with mpl.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.5), layout="constrained")
        for method, colour in PRUNED.items():
            line(left, scores, method, colour, relative_to="dense")
        left.axhline(20, color="#7c8aa0", linestyle=":", linewidth=1)
        left.axhline(0, color="#334155", linewidth=1.2)
        left.set(ylabel="improvement over dense (%)", title="pruned before finetuning")
        for method, colour in RIVALS.items():
            line(right, scores, method, colour)
        right.set(ylabel="accuracy", title="and what it competes with", ylim=(0, 1))
        for axes in (left, right):
            finish(axes, scores)
        figure.savefig(HERE / "evidence.svg", metadata={"Date": None}, facecolor="white")


def read(rows: list[dict[str, str]]) -> Scores:
    """Scores from the rows of evidence.csv."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for row in rows:
        key = row["method"], float(row["budget"].removesuffix(" flops")) / 1e12
        found.setdefault(key, {}).setdefault(row["task"], []).append(float(row["dev_test"]))
    return {
        key: np.array([np.mean(by_task[task]) for task in sorted(by_task)])
        for key, by_task in found.items()
    }


def line(
    axes: plt.Axes, scores: Scores, method: str, colour: str, relative_to: str | None = None
) -> None:
    """Draws a method's curve with its band."""

    def interval(budget: float) -> Interval:
        if relative_to is None:
            return mean_interval(scores[method, budget])
        found = relative_interval(scores[method, budget], scores[relative_to, budget])
        return Interval(*(100 * each for each in found))

    budgets = sorted(budget for name, budget in scores if name == method)
    middle, low, high = zip(*map(interval, budgets), strict=True)
    axes.plot(budgets, middle, color=colour, marker="o", markersize=4, linewidth=1.8, label=method)
    axes.fill_between(budgets, low, high, color=colour, alpha=0.12, linewidth=0)


def finish(axes: plt.Axes, scores: Scores) -> None:
    """The axis of budgets, and the legend."""
    budgets = sorted({budget for _, budget in scores})
    axes.set(xscale="log", xlabel="TFLOP a task")
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.grid(color="#e2e8f0", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5)


if __name__ == "__main__":
    main()
