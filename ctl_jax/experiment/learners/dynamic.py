"""Each task starts from the network whose features suit it best, by k nearest neighbours on dev.

Bornschein et al., Nevis'22 (arXiv:2211.11747), FT-d; in dm_nevis the learner finetuning_dknn, with
`DYNAMIC_KNN_TRANSFER_MATRIX`. There, too, the candidates are the best networks of all tasks before.
Other than there, the pretrained network stays a candidate, and the FLOPs of the choice are counted.
How features are compared stands in kinds/neighbours.py.
"""

from collections.abc import Iterable, Sequence

from ctl_jax import records
from ctl_jax.experiment.learners import Begin, Case, Learnt, learner
from ctl_jax.experiment.steps import Finished, Step


@learner("dynamic")
def dynamic(case: Case, finished: Finished) -> Begin | Sequence[Step]:
    """From the pretrained network or that of any task before.

    Random weights are a candidate for the first task alone. Of equally good candidates the
    pretrained network wins, then the earlier one.
    """
    return _best(case, case.before, finished)


@learner("dynamic@domain")
def within_domain(case: Case, finished: Finished) -> Begin | Sequence[Step]:
    """The same among tasks of its own domain; a task whose domain is not known has none before."""
    domain = case.task.spec.domain
    same = [each for each in case.before if domain and each.task.spec.domain == domain]
    return _best(case, same, finished)


def _best(case: Case, before: Iterable[Learnt], finished: Finished) -> Begin | Sequence[Step]:
    # Each once: a task that trained nothing has left what it started from.
    trained = {each.weights.id: each.weights for each in before if each.weights is not None}
    candidates = [*([None] if case.has_start or not trained else []), *trained.values()]
    if len(candidates) == 1:
        return Begin(candidates[0])
    looks = [case.compare(candidate) for candidate in candidates]
    if not all(look in finished for look in looks):
        return looks
    found = [finished.record(look) for look in looks]
    scores = [record.dev for record in found if isinstance(record, records.NeighboursRecord)]
    return Begin(candidates[scores.index(max(scores))], tuple(looks))
