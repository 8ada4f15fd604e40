"""Every task with every method, budget, seed and learning rate: it looks at nothing finished."""

from ctl_jax.experiment.steps import Finished, Step, Strategy
from ctl_jax.experiment.strategies import Plan, strategy


@strategy("grid")
def grid(plan: Plan) -> Strategy:
    """The product of the run's axes."""
    points = plan.points()
    fixed = None if plan.is_measured else [plan.trial(point) for point in points]

    def wanted(finished: Finished) -> list[Step]:
        if fixed is not None:
            return fixed
        return [step for point in points for step in plan.wanted(point, finished)]

    return wanted
