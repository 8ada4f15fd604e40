"""Each task starts from the best network of the task before it."""

from ctl_jax.experiment.learners import Begin, Case, learner
from ctl_jax.experiment.steps import Finished


@learner("previous")
def previous(case: Case, finished: Finished) -> Begin:
    """The stream is one long training; the first task starts as without a learner (FT-prev)."""
    return Begin(case.before[-1].weights if case.before else None)
