"""Only as much as it takes: a larger budget where the best on dev is not good enough yet."""

import itertools

from ctl_jax import records
from ctl_jax.experiment.steps import Finished, Step, Strategy
from ctl_jax.experiment.strategies import Plan, Point, strategy

ENOUGH = 0.9


@strategy("enough")
def enough(plan: Plan) -> Strategy:
    """Each task, method and seed begins with the least budget."""
    searches: dict[object, list[Point]] = {}
    for point in plan.points():
        searches.setdefault((point.task.spec.name, point.method, point.seed), []).append(point)

    def wanted(finished: Finished) -> list[Step]:
        return [step for points in searches.values() for step in until_enough(points, finished)]

    def until_enough(points: list[Point], finished: Finished) -> list[Step]:
        steps: list[Step] = []
        for _, of_budget in itertools.groupby(points, key=lambda point: point.budget):
            trials = [plan.trial(point, finished=finished) for point in of_budget]
            steps += trials
            if not all(trial in finished for trial in trials):
                break
            best = records.winner(map(finished.record, trials))
            if best.dev is not None and best.dev >= ENOUGH:
                break
        return steps

    return wanted
