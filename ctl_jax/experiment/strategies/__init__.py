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
from typing import TYPE_CHECKING

from ctl_jax.errors import UserError
from ctl_jax.experiment.steps import Strategy

if TYPE_CHECKING:
    from ctl_jax.experiment.plan import Plan

_MAKERS: dict[str, Callable[["Plan"], Strategy]] = {}


def strategy(
    name: str,
) -> Callable[[Callable[["Plan"], Strategy]], Callable[["Plan"], Strategy]]:
    """Makes a function from a run's plan to a strategy known under a name.

    Raises:
      UserError: there is a strategy of this name.
    """

    def add(maker: Callable[["Plan"], Strategy]) -> Callable[["Plan"], Strategy]:
        if name in _MAKERS:
            raise UserError(f"strategy {name!r}: there is one of this name; expected a new name")
        _MAKERS[name] = maker
        return maker

    return add


def names() -> tuple[str, ...]:
    """Of the strategies that there are."""
    return tuple(_MAKERS)


def make(name: str, plan: "Plan") -> Strategy:
    """The strategy of a name, for a run."""
    return _MAKERS[name](plan)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
