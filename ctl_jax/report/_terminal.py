"""The results as a text table for the end of a run."""

import dataclasses
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctl_jax import formatting
from ctl_jax.report import _choices, _winners, frontier, spending
from ctl_jax.report._budgets import labels
from ctl_jax.report._comparison_tables import best_on_dev, caveats, ends, headline
from ctl_jax.report._results import rows
from ctl_jax.report._table import Table, read
from ctl_jax.report.aggregate import Mean, means, metric, values
from ctl_jax.report.comparisons import baseline_of, compare

_WIDTH = 80
_COLUMNS = 4  # budgets side by side: what fits into the width


def summary(
    lines: Iterable[Mapping[str, Any]],
    workdir: str | os.PathLike[str] = "",
    baseline: str | None = None,
) -> str:
    """The mean over tasks, method by budget, as lines of plain text.

    Args:
      lines: objects of `records.jsonl`, in any order.
      workdir: folder of the run, where the best models are.
      baseline: the method that others are compared with; None is dense, or the first of a run
        without it.

    Returns:
      A table, below it who is best with intervals, what is missing, unfinished or diverged, how
      `auto` chose, and the best models where they were evaluated. No newline at the end.

    Raises:
      UserError: the records are incomplete or contradict each other.
    """
    table = read(lines)
    if table.run is None:
        return "No results: there is no run in these records."
    shown = [f"Results on {table.run.variant} with {table.run.model}"]
    found_rows = rows(table)
    found = means(values(found_rows), table.task_names, table.methods, table.budgets)
    budgets = list(found)
    for start in range(0, len(budgets), _COLUMNS):
        block = {budget: found[budget] for budget in budgets[start : start + _COLUMNS]}
        shown += ["", *_block(table.methods, block)]
    compared = "; in % relative to dense" if any(mean.relative for mean in found.values()) else ""
    shown += ["", f"Mean of dev_test over the tasks that every method has{compared}."]
    several = sum(metric(task) == "mAP" for task in table.tasks)
    if several:
        shown.append(f"Multi-label tasks, by mean average precision: {several}; others: accuracy.")
    shown += _headline(table, found_rows, found, baseline)
    shown += _told(table, found_rows)
    shown += _warnings(table) + _choices.lines(table)
    return "\n".join(shown + _winners.lines(table, workdir))


def _headline(
    table: Table,
    found_rows: Sequence[Mapping[str, Any]],
    at_budget: Mapping[str, Mean],
    baseline: str | None,
) -> list[str]:
    """Who is best at the smallest and the largest budget, and what cannot be said of that."""
    base = baseline_of(table.methods, baseline)
    best = best_on_dev(table, found_rows)
    budgets = {budget: table.budgets[budget] for budget in ends(at_budget)}
    compared_ones = list(dict.fromkeys([base, *(best[budget] for budget in budgets)]))
    found = values(found_rows)
    leaders = frontier.frontier(found, table.task_names, table.methods, budgets)
    compared = compare(found, table.task_names, compared_ones, budgets, base)
    # Two budgets are no curve.
    compared = dataclasses.replace(compared, curves={})
    # Terminals need not know more than ASCII.
    sentences = [
        s.replace(formatting.MINUS, "-") for s, _ in headline(at_budget, best, leaders, compared)
    ]
    sentences += caveats(compared, len(table.tasks), len(table.seeds)) if sentences else []
    return [line for sentence in sentences for line in textwrap.wrap(sentence, _WIDTH)]


def _told(table: Table, found_rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the table does not tell: where methods cross, saturate, and share."""
    compared = frontier.versus(found_rows, table.task_names, table.methods, table.budgets)
    by_budget: dict[str, list[str]] = {}
    for method, budget in spending.saturated(table).items():
        by_budget.setdefault(budget, []).append(method)
    lines = [
        frontier.crossover(compared),
        *(
            f"Fitted on all images from {labels([budget])[0]} on, where a larger budget changes "
            f"nothing: {', '.join(methods)}."
            for budget, methods in by_budget.items()
        ),
        spending.shared(table),
    ]
    return [line for sentence in lines for line in textwrap.wrap(sentence, _WIDTH)]


def _block(methods: Sequence[str], found: Mapping[str, Mean]) -> list[str]:
    head = ["budget", *labels(found)]
    tasks = ["tasks", *(str(len(mean.tasks)) for mean in found.values())]
    body = [[method, *(_cell(mean, method) for mean in found.values())] for method in methods]
    grid = [head, tasks, *body]
    widths = [max(len(row[column]) for row in grid) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in grid
    ]
    lines.insert(2, "-" * max(len(line) for line in lines))
    return lines


def _cell(mean: Mean, method: str) -> str:
    if method not in mean.points:
        return "-"
    level = formatting.metric(mean.points[method].mean)
    if not mean.relative:
        return level
    change = formatting.percent(mean.relative[method].mean) if method in mean.relative else ""
    # Seven characters hold -100.0%, so that the numbers of a column stand under each other.
    return f"{level} {change:>7}"


def _warnings(table: Table) -> list[str]:
    lines = []
    if table.missing:
        names = ", ".join(task.name for task in table.missing)
        lines.append(f"Missing tasks ({len(table.missing)}): {names}")
    corrupt = {task.name: task.corrupt_examples for task in table.tasks if task.corrupt_examples}
    if corrupt:
        listed = ", ".join(f"{name} {count}" for name, count in corrupt.items())
        lines.append(f"Examples left out because they cannot be read: {listed}")
    for task in table.tasks:
        lines += [f"{task.title}: {n}" for n in formatting.data_notes(task.notes, task.passed_over)]
    trials, held_up = spending.unfinished(table)
    if trials:
        planned = trials + len(table.trials)
        lines.append(f"Trials not done yet: {trials} of {planned} (rows held up: {held_up})")
    diverged = spending.diverged(table)
    if diverged:
        lines.append(f"Diverged trials: {len(diverged)} of {len(table.trials)}")
    return lines + textwrap.wrap(spending.hardware_warning(table), _WIDTH)
