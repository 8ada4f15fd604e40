"""The page's tables of scores by group of tasks, and of other means than the macro one."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ctl_jax.report.curves import Mean, Point
from ctl_jax.report.grids import Row, grid
from ctl_jax.report.groups import Scores, error

# What is made of each point before it is shown.
_Change = Callable[[Point], Point] | None


def views(
    found: Sequence[Scores], methods: Sequence[str], budgets: Collection[str], seeds: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """Returns what the template shows of groups of tasks.

    Args:
        found: From `groups.scores`.
        methods: The run's methods.
        budgets: In the order of the columns.
        seeds: The run's seeds.

    Returns:
        For "other", "metric", "domain" and "year" the blocks of one table: `name`, `count` (of
        tasks) and the rows of `grids.grid`. A grouping with one group alone has no blocks, since
        that is the whole stream.
    """

    def block(name: str, tasks: int, means: Mapping[str, Mean], change: _Change = None) -> Row:
        columns = [_points(means[budget], change) for budget in budgets]
        rows = grid(methods, columns, seeds, lower_is_better=change is error)
        for row in rows:
            for cell, budget in zip(row["cells"], budgets, strict=True):
                # A mean over fewer tasks than its neighbour is not to be compared with it.
                if 0 < len(means[budget].tasks) < tasks:
                    cell["note"] = f"{len(means[budget].tasks)} of {tasks} tasks"
        return {"name": name, "count": _tasks(tasks), "rows": rows}

    whole = found[0]
    size = len(whole.group.tasks)
    with_top5 = max((len(mean.tasks) for mean in whole.top5.values()), default=0)
    other = [block("Error (1 - score), macro mean", size, whole.macro, error)]
    if any(mean.tasks for mean in whole.weighted.values()):
        other += [
            block("Score, weighted by examples", size, whole.weighted),
            block("Error, weighted by examples", size, whole.weighted, error),
        ]
    if with_top5:
        other.append(block("Top-5 accuracy, macro mean", with_top5, whole.top5))
    result = {"other": other}
    for by in ("metric", "domain", "year"):
        of = [scores for scores in found if scores.group.by == by]
        result[by] = [
            block(scores.group.name, len(scores.group.tasks), scores.macro)
            for scores in of
            if len(scores.group.tasks) < size
        ]
    return result


def _points(mean: Mean, change: _Change) -> dict[str, Point]:
    if change is None:
        return mean.points
    return {method: change(point) for method, point in mean.points.items()}


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
