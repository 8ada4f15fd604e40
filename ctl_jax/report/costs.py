"""Where the FLOPs went, by method and purpose."""

from collections.abc import Sequence
from typing import Any

from ctl_jax import records
from ctl_jax.records import PURPOSES, SEARCHED, TrialRecord
from ctl_jax.report.rows import searches
from ctl_jax.report.table import Table, place


def ledger(table: Table) -> dict[str, dict[str, int]]:
    """Returns every FLOP of the run's trials by method and purpose.

    What a trial spent on training, features and validation is `train`, `extract` and `validate` if
    it won its search. It is `search` if it lost or if its search is not complete yet. Pruning is
    counted for each trial. Pretraining that the run did once for all methods is not in here: it
    belongs to none.

    Returns:
        Method to purpose to FLOPs, for every method of the run.
    """
    won = {records.winner(trials).id for trials in searches(table).values()}
    totals = {method: dict.fromkeys(PURPOSES, 0) for method in table.methods}
    for trial in table.trials:
        total, spent = totals[trial.method], trial.ledger.as_dict()
        for purpose in PURPOSES:
            lost = purpose in SEARCHED and trial.id not in won
            total["search" if lost else purpose] += spent[purpose]
    return totals


def wall_seconds(table: Table) -> dict[str, float]:
    """Returns the summed wall-clock time of each method's trials in seconds."""
    totals = dict.fromkeys(table.methods, 0.0)
    for trial in table.trials:
        totals[trial.method] += trial.wall_s
    return totals


def learning_rates(table: Table) -> dict[str, dict[float, int]]:
    """Returns how many searches each learning rate that was tried won, by method.

    Methods whose trials make no step, and so have none, are not in here.
    """
    return _won(table, "learning_rate", () if table.run is None else table.run.learning_rates)


def batch_sizes(table: Table) -> dict[str, dict[int, int]]:
    """Returns the same of batch sizes."""
    return _won(table, "batch_size")


def _won(table: Table, setting: str, planned: Sequence[Any] = ()) -> dict[str, dict[Any, int]]:
    tried: dict[str, set[Any]] = {method: set() for method in table.methods}
    for trial in table.trials:
        tried[trial.method].add(getattr(trial, setting))
    values = sorted({*planned, *(value for each in tried.values() for value in each)} - {None})
    counts = {m: dict.fromkeys(values, 0) for m in table.methods if tried[m] != {None}}
    for trials in searches(table).values():
        best = records.winner(trials)
        if (value := getattr(best, setting)) is not None:
            counts[best.method][value] += 1
    return counts


def diverged(table: Table) -> list[TrialRecord]:
    """Returns the trials that diverged, in the run's order."""
    return [trial for trial in table.trials if trial.diverged]


def unfinished(table: Table) -> tuple[int, int]:
    """Returns how many trials are not done yet, and how many rows of results they hold up."""
    return len(table.pending), len({place(trial) for trial in table.pending})
