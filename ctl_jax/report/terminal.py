"""The results as a text table for the end of a run."""

from collections.abc import Iterable, Sequence

from ctl_jax.report import costs, text
from ctl_jax.report.curves import Mean, means, values
from ctl_jax.report.groups import metric
from ctl_jax.report.records import Table, read
from ctl_jax.report.rows import rows
from ctl_jax.report.schema import Record

_COLUMNS = 4  # budgets side by side: what fits into 80 characters


def summary(records: Iterable[Record]) -> str:
    """Returns the mean over tasks, method by budget, as lines of plain text.

    Args:
        records: Objects of `records.jsonl`, in any order.

    Returns:
        A table, and below it what is missing, unfinished or diverged. No newline at the end.

    Raises:
        UserError: The records are incomplete or contradict each other.
    """
    table = read(records)
    if table.run is None:
        return "No results: there is no run in these records."
    lines = [f"Results on {table.run['variant']} with {table.run['model']}"]
    methods, budgets = table.plan("methods"), table.budgets
    found = means(values(rows(table)), table.tasks, methods, budgets)
    for start in range(0, len(budgets), _COLUMNS):
        lines += ["", *_block(methods, {b: found[b] for b in budgets[start : start + _COLUMNS]})]
    compared = "; in % relative to dense" if any(mean.relative for mean in found.values()) else ""
    lines += ["", f"Mean of dev_test over the tasks that every method has{compared}."]
    several = sum(metric(task) == "mAP" for task in table.plan("tasks"))
    if several:
        lines.append(f"Multi-label tasks, by mean average precision: {several}; others: accuracy.")
    return "\n".join(lines + _warnings(table))


def _block(methods: Sequence[str], found: dict[int, Mean]) -> list[str]:
    head = ["budget", *text.budgets(found)]
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
    level = text.metric(mean.points[method].mean)
    if not mean.relative:
        return level
    change = text.percent(mean.relative[method].mean) if method in mean.relative else ""
    # Seven characters hold -100.0%, so that the numbers of a column stand under each other.
    return f"{level} {change:>7}"


def _warnings(table: Table) -> list[str]:
    lines = []
    missing = table.plan("missing")
    if missing:
        names = ", ".join(task["name"] for task in missing)
        lines.append(f"Missing tasks ({len(missing)}): {names}")
    corrupt = {
        t["name"]: t["corrupt_examples"] for t in table.plan("tasks") if t.get("corrupt_examples")
    }
    if corrupt:
        listed = ", ".join(f"{name} {count}" for name, count in corrupt.items())
        lines.append(f"Examples left out because they cannot be read: {listed}")
    for task in table.plan("tasks"):
        lines += [f"{task['title']}: {note}" for note in text.data_notes(task)]
    trials, held_up = costs.unfinished(table)
    if trials:
        planned = trials + len(table.trials)
        lines.append(f"Trials not done yet: {trials} of {planned} (rows held up: {held_up})")
    diverged = costs.diverged(table)
    if diverged:
        lines.append(f"Diverged trials: {len(diverged)} of {len(table.trials)}")
    return lines
