"""Learners: what each task of a stream starts from, by what was learnt before it; one file each.

    @learner("previous")
    def previous(case: Case, finished: Finished) -> Begin:
        ...

Its name then stands in front of a method: `previous:filters@0.5`. It combines with every method and
every search. A module here makes its learners known with `learner`; it is found by being here.
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from ctl_jax.errors import UserError
from ctl_jax.experiment.methods import LEARNERS
from ctl_jax.experiment.steps import Finished, Step
from ctl_jax.experiment.tasks import TaskInfo


class Learnt(NamedTuple):
    """What an earlier task of the stream has left.

    Attributes:
      task: which.
      weights: makes the network that was best on its dev; None where nothing was trained yet.
    """

    task: TaskInfo
    weights: Step | None


class Begin(NamedTuple):
    """What a task starts from.

    Attributes:
      weights: makes the network; None: what the method starts from without a learner.
      chosen_by: the steps by which it was chosen, whose FLOPs are of the choice.
    """

    weights: Step | None = None
    chosen_by: tuple[Step, ...] = ()


class Case(NamedTuple):
    """A task that is to be learnt, after others.

    Attributes:
      task: which.
      before: what those before it have left, in the order of the stream, all of the same method,
        budget and seed.
      has_start: whether there are weights to start from without any of them, pretrained ones.
      compare: the step that says how good the features of a network are on the task, see
        kinds/neighbours.py; or one that has to be done before. Of None those of the method's own
        start.
    """

    task: TaskInfo
    before: Sequence[Learnt]
    has_start: bool
    compare: Callable[[Step | None], Step]


# A pure function; where steps have to be finished before it can say, it gives them.
Learner: TypeAlias = Callable[[Case, Finished], Begin | Sequence[Step]]


def learner(name: str) -> Callable[[Learner], Learner]:
    """Makes a learner known under a name.

    Raises:
      UserError: there is one of this name.
    """

    def add(function: Learner) -> Learner:
        if name in LEARNERS:
            raise UserError(f"learner {name!r}: there is one of this name; expected a new name")
        LEARNERS[name] = function
        return function

    return add


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
