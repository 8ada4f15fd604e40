"""Successive halving: the better half of the learning rates goes on to the next larger budget."""

import itertools

from ctl_jax import records
from ctl_jax.experiment.steps import Finished, Step, Strategy
from ctl_jax.experiment.strategies import Plan, Point, strategy


@strategy("halving")
def halving(plan: Plan) -> Strategy:
    """Each search over learning rates starts with all of them, at the least budget."""
    searches: dict[object, list[Point]] = {}
    for point in plan.points():
        search = (point.task.spec.name, point.method, point.seed)
        searches.setdefault(search, []).append(point)

    def wanted(finished: Finished) -> list[Step]:
        return [step for points in searches.values() for step in rungs(points, finished)]

    def rungs(points: list[Point], finished: Finished) -> list[Step]:
        steps: list[Step] = []
        left = {point.learning_rate for point in points}
        for _, rung in itertools.groupby(points, key=lambda point: point.budget):
            rates = {plan.trial(p, finished=finished): p.learning_rate for p in rung}
            trials = [trial for trial, rate in rates.items() if rate in left]
            steps += trials
            if not all(trial in finished for trial in trials):
                break
            trials.sort(key=lambda trial: records.rank(finished.record(trial)))
            left = {rates[trial] for trial in trials[: -(-len(trials) // 2)]}
        return steps

    return wanted
