"""Where the FLOPs went, by method and purpose."""

from ctl_jax import records
from ctl_jax.records import PURPOSES, TrialRecord
from ctl_jax.report.rows import searches
from ctl_jax.report.table import Table, place


def ledger(table: Table) -> dict[str, dict[str, int]]:
    """Returns every FLOP of the run's trials by method and purpose.

    What a trial spent on training and validation is `train` and `validate` if it won its search.
    It is `search` if it lost or if its search is not complete yet. Pruning is counted for each
    trial. Pretraining that the run did once for all methods is not in here: it belongs to none.

    Returns:
        Method to purpose to FLOPs, for every method of the run.
    """
    won = {records.winner(trials).id for trials in searches(table).values()}
    totals = {method: dict.fromkeys(PURPOSES, 0) for method in table.methods}
    for trial in table.trials:
        total, spent = totals[trial.method], trial.ledger.as_dict()
        for purpose in PURPOSES:
            lost = purpose in ("train", "validate") and trial.id not in won
            total["search" if lost else purpose] += spent[purpose]
    return totals


def wall_seconds(table: Table) -> dict[str, float]:
    """Returns the summed wall-clock time of each method's trials in seconds."""
    totals = dict.fromkeys(table.methods, 0.0)
    for trial in table.trials:
        totals[trial.method] += trial.wall_s
    return totals


def learning_rates(table: Table) -> dict[str, dict[float, int]]:
    """Returns how many searches each learning rate that was tried won, by method."""
    planned = () if table.run is None else table.run.learning_rates
    rates = sorted({*planned, *(trial.learning_rate for trial in table.trials)})
    counts = {method: dict.fromkeys(rates, 0) for method in table.methods}
    for trials in searches(table).values():
        best = records.winner(trials)
        counts[best.method][best.learning_rate] += 1
    return counts


def diverged(table: Table) -> list[TrialRecord]:
    """Returns the trials that diverged, in the run's order."""
    return [trial for trial in table.trials if trial.diverged]


def unfinished(table: Table) -> tuple[int, int]:
    """Returns how many trials are not done yet, and how many rows of results they hold up."""
    return len(table.pending), len({place(trial) for trial in table.pending})
