"""From trials to results: the rule of the search, in one place."""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctl_jax.report.records import Table, read
from ctl_jax.report.schema import Record

COLUMNS = (
    "variant",
    "task",
    "dataset",
    "domain",
    "method",
    "scope",
    "ratio",
    "budget_flops",
    "spent_flops",
    "steps",
    "flops_per_step",
    "learning_rate",
    "seed",
    "dev",
    "dev_test",
    "metric",
    "error",
    "dev_test_top5",
    "params",
    "forward_flops",
    "validate_flops",
    "search_flops",
    "trial",
    "year",
)

Place = tuple[str, str, int, int]  # task, method, budget, seed


def results(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Returns the rows of `results.csv`: one for each task x method x budget x seed.

    Of the trials that differ only in the learning rate, the one with the highest `dev` is the
    result, and its `dev_test` is what is reported. At a tie the smaller learning rate wins.
    A diverged trial loses to all others. There is no row before every learning rate is done.

    Args:
        records: Objects of `records.jsonl`, in any order.

    Returns:
        Rows with the keys `COLUMNS`, in the run record's order of tasks, methods, budgets, seeds.
        `dev` and `dev_test` are None where every learning rate diverged and gave no number;
        `error` is 1 - `dev_test`. `dev_test_top5` is None for multi-label tasks too, and for fewer
        than five classes.
        `search_flops` is what the trials that lost spent on training and validation.

    Raises:
        UserError: The records are incomplete or contradict each other.
    """
    return rows(read(records))


def rows(table: Table) -> list[dict[str, Any]]:
    """Returns the rows of `results.csv`; see `results`."""
    complete = {place: winner(trials) for place, trials in searches(table).items()}
    return [
        _row(*complete[place])
        for place in itertools.product(
            table.tasks, table.plan("methods"), table.plan("budgets"), table.plan("seeds")
        )
        if place in complete
    ]


def searches(table: Table) -> dict[Place, list[dict[str, Any]]]:
    """Returns the trials of each search that is complete, one trial a learning rate."""
    places: dict[Place, list[dict[str, Any]]] = {}
    for trial in table.trials:
        place = (trial["task"], trial["method"], trial["budget_flops"], trial["seed"])
        places.setdefault(place, []).append(trial)
    wanted = len(table.plan("learning_rates"))
    return {place: trials for place, trials in places.items() if len(trials) == wanted}


def winner(trials: Sequence[Record]) -> tuple[Record, list[Record]]:
    """Returns the trial that wins the search over learning rates, and those that lose."""

    def rank(trial: Record) -> tuple[bool, float, float]:
        dev = -math.inf if trial["dev"] is None else trial["dev"]
        return not trial["diverged"], dev, -trial["learning_rate"]

    best = max(trials, key=rank)
    return best, [trial for trial in trials if trial is not best]


def to_csv(table_rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns rows as CSV: floats as their shortest exact text, None as an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows)
    return text.getvalue()


def _row(best: Record, lost: Iterable[Record]) -> dict[str, Any]:
    dev_test = best["dev_test"]
    extra = {
        "error": None if dev_test is None else 1 - dev_test,
        "validate_flops": best["ledger"]["validate"],
        "search_flops": sum(t["ledger"]["train"] + t["ledger"]["validate"] for t in lost),
        "trial": best["id"],
    }
    return {column: extra[column] if column in extra else best[column] for column in COLUMNS}
