"""What a run spent: FLOPs by method and purpose, seconds, and on what hardware."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ctl_jax import formatting, records
from ctl_jax.records import PURPOSES, SEARCHED, Computed, Hardware, TrialRecord
from ctl_jax.report._results import searches
from ctl_jax.report._table import Place, Table, place


def ledger(table: Table) -> dict[str, dict[str, int]]:
    """Every FLOP of the run's trials by method and purpose.

    What a trial spent on training, features and validation is `train`, `extract` and `validate` if
    it won its search. It is `search` if it lost or if its search is not complete yet. Pruning is
    counted for each trial. A learner's choice of what trials start from is `search`, once for all
    trials of a search. Pretraining that the run did once for all methods is not in here: it belongs
    to none.

    Returns:
      Method to purpose to FLOPs, for every method of the run.
    """
    won = _won_searches(table)
    totals = {method: dict.fromkeys(PURPOSES, 0) for method in table.methods}
    for trial in table.trials:
        total, spent = totals[trial.method], trial.ledger.as_dict()
        for purpose in PURPOSES:
            lost = purpose in SEARCHED and trial.id not in won
            total["search" if lost else purpose] += spent[purpose]
    for where, flops in choices(table).items():
        totals[where[1]]["search"] += flops
    return totals


def choices(table: Table) -> dict[Place, int]:
    """FLOPs of what a learner chose by what the trials of a search start from, by search."""
    return {place(trial): trial.choice_flops for trial in table.trials if trial.choice_flops}


def _won_searches(table: Table) -> set[str]:
    """Ids of the trials that won a search that is complete."""
    return {records.winner(trials).id for trials in searches(table).values()}


class Sharing(NamedTuple):
    """What trials were charged for, and what was computed.

    Attributes:
      charged: FLOPs of all trials, each as if it were alone.
      computed: FLOPs that were computed: what trials share (features, heads, corrections of what
        a cut leaves), once.
      steps: how many steps were made that trials may share.
      wall_s: seconds that they took together.
    """

    charged: int
    computed: int
    steps: int
    wall_s: float


def sharing(table: Table, task: str | None = None) -> Sharing:
    """What trials were charged for, and what was computed.

    What the run did once for all methods, such as pretraining, is in neither.

    Args:
      table: the run's records.
      task: name of the only task that counts; None for all.
    """
    trials = [each for each in table.trials if task in (None, each.task)]
    steps = [each for each in table.prepared if task in (None, each.task)]
    chosen = (flops for where, flops in choices(table).items() if task in (None, where[0]))
    own = (each.computed_flops for each in trials)
    return Sharing(
        charged=sum(trial.ledger.total for trial in trials) + sum(chosen),
        computed=sum(own) + sum(step.flops for step in steps),
        steps=len(steps),
        wall_s=sum(getattr(step, "wall_s", 0.0) for step in steps),
    )


def shared(table: Table) -> str:
    """What trials were charged for and what was computed, a sentence; "" of the same.

    Of a run that is not finished, or of few trials, more may be computed: for trials to come, and
    of images up to the end of a shard.
    """
    found = sharing(table)
    charged, computed = formatting.flops(found.charged), formatting.flops(found.computed)
    if charged == computed:
        return ""
    return (
        f"Charged to trials as if each were alone: {charged}; computed: {computed}, with features, "
        f"heads and corrections once ({found.steps} steps, {formatting.duration(found.wall_s)})."
    )


def saturated(table: Table) -> dict[str, str]:
    """The budget from which on a larger one changes nothing, by method that has one.

    A head has been fitted on all images then, and no step follows.
    """
    budgets = list(table.budgets)
    # Method and budget to task, seed, full name, and the images that a head was fitted on.
    fitted: dict[str, dict[str, set[Any]]] = {}
    for trial in table.trials:
        at = fitted.setdefault(trial.method, {}).setdefault(trial.budget, set())
        # Of `auto`, which may fit another head on as many.
        name = records.full_method(trial)
        at.add((trial.task, trial.seed, name, None if trial.steps else trial.examples))
    found = {}
    for method, by_budget in fitted.items():
        last = by_budget.get(budgets[-1], set())
        same = [budget for budget in budgets if by_budget.get(budget) == last]
        if len(same) > 1 and all(examples is not None for *_, examples in last):
            found[method] = same[0]
    return {method: found[method] for method in table.methods if method in found}


# What seconds went to: trials that won their search, those that lost, and the rest.
PARTS = ("chosen trials", "search", "other")


def wall_seconds(table: Table) -> dict[str, dict[str, float]]:
    """The wall-clock time of each method's trials in seconds, by part: see `PARTS`.

    What trials share is not in here: see `sharing`.
    """
    won = _won_searches(table)
    totals = {method: dict.fromkeys(PARTS, 0.0) for method in table.methods}
    for trial in table.trials:
        totals[trial.method][PARTS[0] if trial.id in won else PARTS[1]] += trial.wall_s
    return totals


class Line(NamedTuple):
    """A line of the ledger.

    Attributes:
      name: a method, or what was done for all of them.
      flops: by purpose.
      seconds: wall-clock time by part: see `PARTS`; empty where it is not known.
    """

    name: str
    flops: dict[str, int]
    seconds: dict[str, float]


def lines(table: Table) -> list[Line]:
    """Everything that a run spent: the lines of its methods, then of what served all of them."""

    def once(name: str, purpose: str, flops: int, seconds: dict[str, float]) -> Line:
        return Line(name, {**dict.fromkeys(PURPOSES, 0), purpose: flops}, seconds)

    seconds = wall_seconds(table)
    found = [Line(method, flops, seconds[method]) for method, flops in ledger(table).items()]
    if table.pretrain:
        flops = table.pretrain.flops
        found.append(once("pretraining, shared by the methods", "pretrain", flops, {}))
    if table.paces:
        flops = sum(pace.flops for pace in table.paces)
        wall_s = sum(pace.wall_s for pace in table.paces)
        name = "measuring this device, for budgets in seconds"
        found.append(once(name, "search", flops, {PARTS[1]: wall_s}))
    if table.finals:
        flops = sum(each.flops for each in table.finals)
        wall_s = sum(each.wall_s for each in table.finals)
        name = "the best networks again, on train and dev, and on test"
        found.append(once(name, "train", flops, {PARTS[2]: wall_s}))
    if table.evaluations:
        tests = table.evaluations.values()
        flops, wall_s = sum(test.flops for test in tests), sum(test.wall_s for test in tests)
        found.append(
            once("evaluating the best models on test", "validate", flops, {PARTS[2]: wall_s})
        )
    return found


def learning_rates(table: Table) -> dict[str, dict[float, int]]:
    """How many searches each learning rate that was tried won, by method.

    Methods whose trials make no step, and so have none, are not in here.
    """
    return _won(table, "learning_rate", () if table.run is None else table.run.learning_rates)


def batch_sizes(table: Table) -> dict[str, dict[int, int]]:
    """The same of batch sizes."""
    return _won(table, "batch_size")


def label_smoothings(table: Table) -> dict[str, dict[float, int]]:
    """The same of label smoothings."""
    return _won(table, "label_smoothing")


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
    """The trials that diverged, in the run's order."""
    return [trial for trial in table.trials if trial.diverged]


def unfinished(table: Table) -> tuple[int, int]:
    """How many trials are not done yet, and how many rows of results they hold up."""
    return len(table.pending), len({place(trial) for trial in table.pending})


def hardware(table: Table) -> dict[Hardware, int]:
    """How many steps were computed on what, most first; without those of before."""
    steps: list[Computed] = [
        *table.trials,
        *table.prepared,
        *table.paces,
        *table.evaluations.values(),
        *filter(None, [table.pretrain]),
    ]
    found = Counter(step.computed_on for step in steps if step.computed_on is not None)
    return dict(sorted(found.items(), key=lambda item: (-item[1], str(item[0]))))


def hardware_in_words(table: Table) -> str:
    """The same in words: "12 steps on EPYC 7B13, 2 cores"; "" where nothing is known."""
    return "; ".join(
        f"{count} step{'' if count == 1 else 's'} on {what}"
        for what, count in hardware(table).items()
    )


def hardware_warning(table: Table) -> str:
    """A sentence where the steps were computed on several kinds of hardware, else ""."""
    if len(hardware(table)) < 2:
        return ""
    return (
        "Steps were computed on different hardware, where sums are rounded differently: a run on "
        f"one kind may come to other numbers. {hardware_in_words(table)}."
    )
