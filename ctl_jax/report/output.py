"""The files of a report."""

import os
import pathlib
from collections.abc import Iterable

from ctl_jax import files
from ctl_jax.report import figures, page
from ctl_jax.report.curves import Mean, Point, Values, means, task_curves, values
from ctl_jax.report.records import Table, read
from ctl_jax.report.rows import rows, to_csv
from ctl_jax.report.schema import Record


def write(records: Iterable[Record], workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Writes `results.csv`, `report.html` and `figures/*.png` into the workdir.

    The same records, in any order, give the same bytes. Each file appears whole or not at all.

    Args:
        records: Objects of `records.jsonl`, in any order.
        workdir: Folder of the run; made where it does not exist.

    Returns:
        The paths of the files, in the order above.

    Raises:
        UserError: The records are incomplete or contradict each other.
    """
    table = read(records)
    result_rows = rows(table)
    found = values(result_rows)
    at_budget = means(found, table.tasks, table.plan("methods"), table.budgets)
    images = _draw(table, found, at_budget)
    html = page.render(table, result_rows, at_budget, images)

    folder = pathlib.Path(workdir)
    contents = {
        "results.csv": to_csv(result_rows).encode(),
        "report.html": html.encode(),
        **{f"figures/{name}.png": image for name, image in images.items()},
    }
    for name, content in contents.items():
        files.write_bytes(folder / name, content)
    return [folder / name for name in contents]


def _draw(table: Table, found: Values, at_budget: dict[int, Mean]) -> dict[str, bytes]:
    """Returns the figures that there are numbers for, by name."""
    methods = table.plan("methods")
    metric = page.metric_name(table)
    images = {}
    level = _curves(methods, {budget: mean.points for budget, mean in at_budget.items()})
    if level:
        title = f"Mean over {page.task_counts(at_budget)}"
        images["mean_over_tasks"] = figures.accuracy(title, metric, level, methods)
    gain = _curves(methods, {budget: mean.relative for budget, mean in at_budget.items()})
    if gain:
        title = f"Relative improvement over dense, {page.task_counts(at_budget)}"
        images["relative_to_dense"] = figures.relative(title, metric, gain, methods)
    for task in table.plan("tasks"):
        curves = task_curves(found, task["name"])
        if curves:
            images[page.task_figure(task["name"])] = figures.accuracy(
                task["title"],
                page.metric_name(table, task["name"]),
                curves,
                methods,
                page.chance(task),
            )
    return images


def _curves(
    methods: list[str], at_budget: dict[int, dict[str, Point]]
) -> dict[str, dict[int, Point]]:
    """Returns points by method, then budget; a method without points is left out."""
    curves = {
        method: {budget: points[method] for budget, points in at_budget.items() if method in points}
        for method in methods
    }
    return {method: curve for method, curve in curves.items() if curve}
