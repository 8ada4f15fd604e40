"""Draws auto.svg, the README's figure of accuracy against FLOPs, from auto.csv beside it.

    python docs/figures/auto.py

The numbers are those of docs/results.md: sections "`auto`: what is best for a budget" (the table of
runs beside fixed methods) and "Finetuning and two phases at equal budgets".
"""

import csv
import itertools
import pathlib

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).parent
COLOURS = ("#c2410c", "#334155", "#0f766e", "#7c8aa0")
# Text stays text, and the same numbers give the same bytes.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "ctl_jax", "font.size": 10}


def main() -> None:
    """Writes auto.svg; a point of one seed is hollow."""
    rows = list(csv.DictReader((HERE / "auto.csv").read_text().splitlines()))
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        series = itertools.groupby(rows, key=lambda row: row["series"])
        for (name, points), colour in zip(series, COLOURS, strict=True):
            _draw(axes, name, list(points), colour)
        axes.set(
            xscale="log", ylim=(0.2, 1), xlabel="TFLOP a task", ylabel="accuracy, mean of 6 tasks"
        )
        budgets = sorted({float(row["tflop"]) for row in rows})
        axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.grid(color="#e2e8f0", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(0, 0.5))
        figure.savefig(HERE / "auto.svg", metadata={"Date": None}, facecolor="white")


def _draw(axes: plt.Axes, name: str, points: list[dict[str, str]], colour: str) -> None:
    budgets = [float(point["tflop"]) for point in points]
    scores = [float(point["accuracy"]) for point in points]
    axes.plot(budgets, scores, color=colour, linewidth=1.8, label=name)
    faces = ["white" if point["seeds"] == "1" else colour for point in points]
    axes.scatter(budgets, scores, color=faces, edgecolors=colour, s=26, zorder=3)


if __name__ == "__main__":
    main()
