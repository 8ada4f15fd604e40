"""Successive halving: the settings of a search are trained a little, and the better half goes on.

All of n settings are trained for 1/n of their budget, or the next larger power of 1/2; the half
that is best on dev up to twice as much, and so on, until one is left, which is trained to the end.
A rung goes on with the training of the rung before, so that it costs what it adds: with 16 settings
3 whole trainings instead of 16, with 64 settings 4.

A training has the learning rates of its whole budget from the beginning on. So the trial that wins
is, to the last bit, the trial that the grid would have of its setting; and rungs compare networks
whose rates have not fallen yet, which may prefer small rates. The trial is charged for the search.

Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016
(arXiv:1502.07943), algorithm 1.
"""

import functools
from collections.abc import Callable, Sequence

from ctl_jax import records
from ctl_jax.experiment import rungs
from ctl_jax.experiment.kinds import rung
from ctl_jax.experiment.steps import Finished, Step, Strategy
from ctl_jax.experiment.strategies import Plan, Point, strategy

_TRIAL = "finetune"
# As `rung.make`.
_Make = Callable[[Step, int, Step | None], Step]


@strategy("halving")
def halving(plan: Plan) -> Strategy:
    """Each search of a task, method, budget and seed for itself."""
    searches: dict[object, list[Point]] = {}
    for point in plan.points():
        where = (point.task.spec.name, point.method, point.budget, point.seed)
        searches.setdefault(where, []).append(point)

    fixed: dict[object, list[Step]] = {}
    # Of trials that are the same at each look, rungs are, too.
    make = rung.make if plan.is_measured else functools.cache(rung.make)
    if not plan.is_measured:
        fixed = {where: [plan.trial(each) for each in searches[where]] for where in searches}

    def trials(where: object, finished: Finished) -> list[Step]:
        if where in fixed:
            return fixed[where]
        return [step for point in searches[where] for step in plan.wanted(point, finished)]

    def wanted(finished: Finished) -> list[Step]:
        return [
            step
            for where in searches
            for step in _search(plan, make, trials(where, finished), finished)
        ]

    return wanted


def _search(plan: Plan, make: _Make, trials: Sequence[Step], finished: Finished) -> Sequence[Step]:
    if len(trials) == 1 or any(trial.kind != _TRIAL for trial in trials):
        return trials
    levels = _levels(len(trials), min(map(plan.updates, trials)))
    # Trainings of a single update, or of none, have no rungs.
    if not levels:
        return trials
    return _climb(plan, make, trials, levels, finished)


def _levels(count: int, updates: int) -> list[tuple[float, int]]:
    """The rungs of a search.

    Args:
      count: settings.
      updates: of the shortest of their trainings.

    Returns:
      For each rung the share of a training up to it, and how many settings go on from there.
    """
    halvings = (count - 1).bit_length()
    levels = [(2.0 ** (n - halvings), -(-count // 2 ** (n + 1))) for n in range(halvings)]
    # What ends before the first update halves nothing; the next rung does it as well.
    return [(share, left) for share, left in levels if share * updates >= 1]


def _climb(
    plan: Plan,
    make: _Make,
    trials: Sequence[Step],
    levels: Sequence[tuple[float, int]],
    finished: Finished,
) -> list[Step]:
    steps: list[Step] = []
    lost: list[records.RungRecord] = []
    alive: list[tuple[Step, Step | None]] = [(trial, None) for trial in trials]
    for share, left in levels:
        made = {
            step.id: (trial, step)
            for trial, before in alive
            for step in [make(trial, int(share * plan.updates(trial)), before)]
        }
        is_done = all(step in finished for _, step in made.values())
        # Trainings stay until it is known which go on.
        steps += [step if is_done else step.kept() for _, step in made.values()]
        if not is_done:
            return steps
        found = sorted((_result(finished, step) for _, step in made.values()), key=records.rank)
        going = [each for each in found[:left] if not each.diverged]
        lost += found[len(going) :]
        if not going:
            trial, _ = made[found[0].id]
            return [*steps, _finish(trial, None, lost)]
        alive = [made[each.id] for each in going]
    ((trial, last),) = alive
    assert last is not None
    return [*steps, _finish(trial, last, lost, _result(finished, last).looked_flops)]


def _finish(
    trial: Step, before: Step | None, lost: Sequence[records.RungRecord], looked_flops: int = 0
) -> Step:
    spent = sum(records.searched(each) + each.looked_flops for each in lost)
    return rungs.finish(trial, before, [each.id for each in lost], spent + looked_flops)


def _result(finished: Finished, step: Step) -> records.RungRecord:
    record = finished.record(step)
    assert isinstance(record, records.RungRecord)
    return record
