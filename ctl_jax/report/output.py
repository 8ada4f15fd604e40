"""The files of a report."""

import os
from collections.abc import Iterable

from ctl_jax import files
from ctl_jax.report import figures, groups, page
from ctl_jax.report.curves import Mean, Point, Values, task_curves, values
from ctl_jax.report.records import Table, read
from ctl_jax.report.rows import rows, to_csv
from ctl_jax.report.schema import Record


def write(records: Iterable[Record], workdir: str | os.PathLike[str]) -> list[files.Path]:
    """Writes `results.csv`, `means.csv`, `missing.csv`, `report.html` and `figures/*.png`.

    `results.csv` has a line a result, `means.csv` one a group of tasks (all, by metric, domain and
    year), method and budget, `missing.csv` one a task of the stream that there was no data for. The
    same records, in any order, give the same bytes. Each file appears whole or not at all.

    Args:
        records: Objects of `records.jsonl`, in any order.
        workdir: Folder of the run, local or `gs://bucket/path`; made where it does not exist.

    Returns:
        The paths of the files, in the order above.

    Raises:
        UserError: The records are incomplete or contradict each other.
    """
    table = read(records)
    result_rows = rows(table)
    found = values(result_rows)
    scores = groups.scores(table, found, values(result_rows, "dev_test_top5"))
    images = _draw(table, found, scores[0].macro)
    html = page.render(table, result_rows, scores, images)
    examples = {task["name"]: task.get("dev_test_examples") for task in table.plan("tasks")}

    folder = files.path(workdir)
    contents = {
        "results.csv": to_csv(result_rows).encode(),
        "means.csv": groups.to_csv(scores, examples).encode(),
        "missing.csv": groups.missing_csv(table.plan("missing")).encode(),
        # The config may name folders that are not UTF-8.
        "report.html": html.encode(errors="backslashreplace"),
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
                groups.metric(task),
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
