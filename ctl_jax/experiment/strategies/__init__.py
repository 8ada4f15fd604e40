"""Strategies: from what is finished to the steps that are wanted; one file each.

    @strategy("grid")
    def grid(plan: Plan) -> Strategy:
        ...

A module here makes its strategies known with `strategy`; it is found by being here.
`config.strategy` names the one of a run.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import rules
from ctl_jax.experiment.methods import Method
from ctl_jax.experiment.steps import Finished, Step, Strategy
from ctl_jax.experiment.tasks import TaskInfo


class Point(NamedTuple):
    """A place on the axes of a run: what makes a trial.

    Attributes:
      learning_rate: and what follows is a `searches.Setting`.
    """

    task: TaskInfo
    method: Method
    budget: Budget
    seed: int
    learning_rate: float | None
    batch_size: int | None
    mixup: float
    label_smoothing: float


class Plan(Protocol):
    """What a strategy may ask of a run's plan."""

    @property
    def is_measured(self) -> bool:
        """Whether trials depend on what is finished: on measurements, cuts, or looks at a task."""

    def points(self) -> list[Point]:
        """Tasks x methods x budgets x seeds x settings that are tried, in that order."""

    def wanted(self, point: Point, finished: Finished) -> list[Step]:
        """What a point wants so far: its trial, or what has to be done before that is known."""

    def updates(self, trial: Step) -> int:
        """How many updates the training of a trial makes, without what is done before it."""

    def trial(
        self, point: Point, weights: Step | None = None, finished: Finished | None = None
    ) -> Step:
        """The step of a trial; see `experiment.plan.Plan.trial`."""


Maker: TypeAlias = Callable[[Plan], Strategy]

# Here the config finds what may stand in it.
_MAKERS: dict[str, Maker] = rules.STRATEGIES


def strategy(name: str) -> Callable[[Maker], Maker]:
    """Makes a function from a run's plan to a strategy known under a name.

    Raises:
      UserError: there is a strategy of this name.
    """

    def add(maker: Maker) -> Maker:
        if name in _MAKERS:
            raise UserError(f"strategy {name!r}: there is one of this name; expected a new name")
        _MAKERS[name] = maker
        return maker

    return add


def make(name: str, plan: Plan) -> Strategy:
    """The strategy of a name, for a run."""
    return _MAKERS[name](plan)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
