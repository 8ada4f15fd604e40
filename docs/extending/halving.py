"""Successive halving: the better half of what is searched goes on to the next larger budget."""

import itertools

from ctl_jax import records
from ctl_jax.experiment.steps import Finished, Step, Strategy
from ctl_jax.experiment.strategies import Plan, Point, strategy


@strategy("halving")
def halving(plan: Plan) -> Strategy:
    """Each search starts with all of its settings, at the least budget."""
    searches: dict[object, list[Point]] = {}
    for point in plan.points():
        search = (point.task.spec.name, point.method, point.seed)
        searches.setdefault(search, []).append(point)

    def wanted(finished: Finished) -> list[Step]:
        return [step for points in searches.values() for step in rungs(points, finished)]

    def rungs(points: list[Point], finished: Finished) -> list[Step]:
        steps: list[Step] = []
        left = {(point.learning_rate, point.batch_size) for point in points}
        for _, rung in itertools.groupby(points, key=lambda point: point.budget):
            tried = {
                plan.trial(p, finished=finished): (p.learning_rate, p.batch_size) for p in rung
            }
            trials = [trial for trial, setting in tried.items() if setting in left]
            steps += trials
            if not all(trial in finished for trial in trials):
                break
            trials.sort(key=lambda trial: records.rank(finished.record(trial)))
            left = {tried[trial] for trial in trials[: -(-len(trials) // 2)]}
        return steps

    return wanted
