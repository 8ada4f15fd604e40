"""From trials to results: the rule of the search, in one place."""

import csv
import io
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from ctl_jax import records
from ctl_jax.records import TrialRecord
from ctl_jax.report._table import Place, Table, place, read


def results(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `results.csv`: one for each task x method x budget x seed.

    Of the trials that differ only in the learning rate, the one with the highest `dev` is the
    result, and its `dev_test` is what is reported; see `records.winner`. There is no row while a
    trial of it is wanted and not done.

    Args:
      lines: objects of `records.jsonl`, in any order.

    Returns:
      Rows with the columns `records.COLUMNS` (see docs/columns.md), in the run record's order of
      tasks, methods, budgets, seeds. `dev` and `dev_test` are None where every learning rate
      diverged and gave no number.

    Raises:
      UserError: the records are incomplete or contradict each other.
    """
    return rows(read(lines))


def rows(table: Table) -> list[dict[str, Any]]:
    """The rows of `results.csv`; see `results`."""
    if table.run is None:
        return []
    complete = searches(table)
    found = []
    for where in itertools.product(table.task_names, table.methods, table.run.budgets, table.seeds):
        if where in complete:
            best = records.winner(complete[where])
            found.append(records.row(best, [t for t in complete[where] if t is not best]))
    return found


def searches(table: Table) -> dict[Place, list[TrialRecord]]:
    """The trials of each search that is complete: none of it is left to do."""
    found: dict[Place, list[TrialRecord]] = {}
    for trial in table.trials:
        found.setdefault(place(trial), []).append(trial)
    for left in table.pending:
        found.pop(place(left), None)
    return found


def to_csv(table_rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV: floats as their shortest exact text, None as an empty field."""
    text = io.StringIO()
    names = [column.name for column in records.COLUMNS]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows)
    return text.getvalue()
