"""The axis of budgets: their order, their labels, and how many FLOPs each stands for."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from ctl_jax import formatting
from ctl_jax.compute.budgets import UNITS, Budget
from ctl_jax.records import TrialRecord

# Budget, such as "2 epochs", to its FLOPs, ascending; None (and last) where no trial tells yet.
Axis = Mapping[str, int | None]


def axis(names: Sequence[str], trials: Iterable[TrialRecord]) -> Axis:
    """Where budgets stand on an axis of FLOPs.

    Args:
      names: a run's budgets.
      trials: the run's. A budget in another unit than FLOPs stands at what it came to: the mean
        over tasks.
    """
    spent: dict[str, dict[str, list[int]]] = {}
    for trial in trials:
        spent.setdefault(trial.budget, {}).setdefault(trial.task, []).append(trial.budget_flops)
    budgets = {name: Budget.parse(name) for name in names}
    found = {
        name: int(budget.amount) if budget.unit == "flops" else _mean(spent.get(name, {}))
        for name, budget in budgets.items()
    }
    by_size = sorted(found, key=lambda n: (found[n] is None, found[n] or 0, budgets[n].amount, n))
    return {name: found[name] for name in by_size}


def _mean(by_task: Mapping[str, Sequence[int]]) -> int | None:
    if not by_task:
        return None
    return round(statistics.fmean(statistics.fmean(amounts) for amounts in by_task.values()))


def labels(names: Iterable[str]) -> list[str]:
    """Budgets as people read them: `4 GFLOP`, `2 epochs`."""
    return formatting.budgets(map(Budget.parse, names))


def units(names: Iterable[str]) -> list[tuple[str, str]]:
    """The units of budgets besides FLOPs, each with the sentence that says what one is."""
    found = {Budget.parse(name).unit for name in names} - {"flops"}
    return [(name, UNITS[name].sentence) for name in sorted(found)]
