"""Scores of groups of tasks: all of them, by metric, by domain, by year."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ctl_jax.records import MissingTask, RunTask
from ctl_jax.report.curves import Mean, Point, Values, means
from ctl_jax.report.table import Table

COLUMNS = (
    "by",
    "group",
    "method",
    "budget_flops",
    "tasks",
    "score",
    "score_std",
    "error",
    "examples",
    "weighted_score",
    "weighted_error",
    "top5_tasks",
    "top5",
    "budget",
)


class Group(NamedTuple):
    """Some of the run's tasks.

    Attributes:
        by: "all", "metric", "domain" or "year".
        name: The metric, domain or year; "all" where these are all tasks.
        tasks: Their names, in the run's order.
    """

    by: str
    name: str
    tasks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a group's tasks come to, each at every budget; see `curves.means`.

    Attributes:
        group: The tasks.
        macro: The unweighted mean over tasks: the score of the stream.
        weighted: The mean weighted by the examples each task was evaluated on; no tasks where
            these are not known.
        top5: The unweighted mean of top-5 accuracy, over the tasks that have it.
    """

    group: Group
    macro: dict[str, Mean]
    weighted: dict[str, Mean]
    top5: dict[str, Mean]


def group_tasks(tasks: Iterable[RunTask]) -> list[Group]:
    """Returns the groups of a run's tasks; a task without a year or a domain is in no such group.

    Args:
        tasks: The run's.

    Returns:
        All tasks, then by metric, by domain (in alphabetical order), by year.
    """
    tasks = list(tasks)
    found = [Group("all", "all", tuple(task.name for task in tasks))]
    keys: dict[str, Callable[[RunTask], Any]] = {
        "metric": metric,
        "domain": lambda task: task.domain,
        "year": lambda task: task.year,
    }
    for by, key in keys.items():
        members: dict[Any, list[str]] = {}
        for task in tasks:
            if key(task) is not None:
                members.setdefault(key(task), []).append(task.name)
        found += [Group(by, str(name), tuple(members[name])) for name in sorted(members)]
    return found


def metric(task: RunTask) -> str:
    """Returns what a task's score is: "accuracy", or "mAP" of a multi-label task."""
    return "mAP" if task.kind == "multi_label" else "accuracy"


def metric_name(tasks: Iterable[RunTask]) -> str:
    """Returns the name of the tasks' metric, "score" where they do not share one."""
    names = {metric(task) for task in tasks}
    return names.pop() if len(names) == 1 else "score"


def chance(task: RunTask) -> float | None:
    """Returns the accuracy of a guess, 1 / number of classes, where that is known.

    The mean average precision of a guess depends on how frequent the labels are, which no record
    says.
    """
    if metric(task) != "accuracy" or not task.num_classes:
        return None
    return 1 / task.num_classes


def scores(table: Table, found: Values, top5: Values) -> list[Scores]:
    """Returns the scores of every group.

    Args:
        table: The run's records.
        found: Results, from `curves.values`.
        top5: The same of top-5 accuracy.
    """
    methods, budgets = table.methods, table.budgets
    weights = {task.name: task.dev_test_examples or 0 for task in table.tasks}
    result = []
    for group in group_tasks(table.tasks):
        known = all(weights[task] for task in group.tasks)
        result.append(
            Scores(
                group,
                means(found, group.tasks, methods, budgets),
                means(found, group.tasks if known else (), methods, budgets, weights),
                means(top5, group.tasks, methods, budgets),
            )
        )
    return result


def error(point: Point) -> Point:
    """Returns 1 - score."""
    return dataclasses.replace(point, mean=1 - point.mean)


def to_csv(found: Iterable[Scores], table: Table) -> str:
    """Returns one line a group, budget and method that has a score.

    Args:
        found: From `scores`.
        table: The run's records.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for of_group in found:
        for budget, macro in of_group.macro.items():
            writer.writerows(_lines(of_group, budget, macro, table))
    return text.getvalue()


def _lines(found: Scores, budget: str, macro: Mean, table: Table) -> list[dict[str, Any]]:
    examples = {task.name: task.dev_test_examples for task in table.tasks}
    lines = []
    top5 = found.top5[budget]
    for method, point in macro.points.items():
        weighted = found.weighted[budget].points.get(method)
        best = top5.points.get(method)
        lines.append(
            {
                "by": found.group.by,
                "group": found.group.name,
                "method": method,
                "budget_flops": table.budgets[budget],
                "tasks": len(macro.tasks),
                "score": point.mean,
                "score_std": point.std,
                "error": error(point).mean,
                "examples": sum(examples[t] or 0 for t in macro.tasks) if weighted else None,
                "weighted_score": weighted and weighted.mean,
                "weighted_error": weighted and error(weighted).mean,
                "top5_tasks": len(top5.tasks),
                "top5": best and best.mean,
                "budget": budget,
            }
        )
    return lines


def missing_csv(missing: Sequence[MissingTask]) -> str:
    """Returns one line a task of the stream that the run went without."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ("name", "title", "reason"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, missing))
    return text.getvalue()
