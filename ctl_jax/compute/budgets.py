"""Budgets: how much training a task may cost, in a unit that says what for."""

import dataclasses
import re
from collections.abc import Callable
from typing import NamedTuple

from ctl_jax.errors import UserError

# More than any machine does; what a slip such as 1e300 would be.
_MOST = 1e30
_TEXT = re.compile(r"\s*((?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z_]*)\s*")


@dataclasses.dataclass(frozen=True)
class Pace:
    """What a unit may need to know of one method on one task.

    Attributes:
      dense_epoch_flops: FLOPs of one epoch of dense training on the task's train split.
      dense_step_flops: FLOPs of one step of it.
      flops_per_second: measures what the method's training does on this device. Called only by
        units that are measured.
    """

    dense_epoch_flops: float
    dense_step_flops: float
    flops_per_second: Callable[[], float]


class Unit(NamedTuple):
    """A unit of budgets.

    Attributes:
      flops: (amount, pace) -> the FLOPs that so much pays for.
      sentence: what one is.
      measured: whether it asks `Pace.flops_per_second`, so that it differs between devices.
    """

    flops: Callable[[float, Pace], float]
    sentence: str
    measured: bool


# By name, a plural; filled by `unit`.
UNITS: dict[str, Unit] = {}


def unit(
    name: str, sentence: str, *, measured: bool = False
) -> Callable[[Callable[[float, Pace], float]], Callable[[float, Pace], float]]:
    """Adds the decorated function as a unit.

    Args:
      name: letters, a plural that ends in s: what stands behind an amount, "2 epochs".
      sentence: what one is.
      measured: whether the function asks `Pace.flops_per_second`.

    Example:
      >>> @unit("minutes", "A minute of training on this device.", measured=True)
      ... def minutes(amount: float, pace: Pace) -> float:
      ...     return 60 * amount * pace.flops_per_second()
    """

    def add(flops: Callable[[float, Pace], float]) -> Callable[[float, Pace], float]:
        UNITS[name] = Unit(flops, sentence, measured)
        return flops

    return add


@unit("flops", "A floating point operation: 2 are a multiplication and an addition.")
def _flops(amount: float, pace: Pace) -> float:
    return amount


@unit("epochs", "What an epoch of dense training on the task's train split costs.")
def _epochs(amount: float, pace: Pace) -> float:
    return amount * pace.dense_epoch_flops


@unit("steps", "What a step of dense training on the task costs.")
def _steps(amount: float, pace: Pace) -> float:
    return amount * pace.dense_step_flops


@unit("seconds", "What a second of the method's own training does on this device.", measured=True)
def _seconds(amount: float, pace: Pace) -> float:
    return amount * pace.flops_per_second()


@dataclasses.dataclass(frozen=True, order=True)
class Budget:
    """What a training may cost.

    Its text, such as "4000000000 flops", "0.5 epochs" or "1 second", is the same for equal ones,
    and `parse` reads it back.

    Attributes:
      amount: more than 0, at most 1e30; of flops a whole number.
      unit: a key of `UNITS`.

    Raises:
      UserError: it is no such amount or unit.
    """

    amount: float
    unit: str = "flops"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UserError(
                f"budget of {self.amount:g} {self.unit!r}: unknown unit; expected one of "
                f"{', '.join(UNITS)}"
            )
        if not 0 < self.amount <= _MOST:
            raise UserError(
                f"budget of {self.amount:g} {self.unit}: expected more than 0, at most {_MOST:g}"
            )
        if self.unit == "flops" and self.amount != int(self.amount):
            raise UserError(f"budget of {self.amount!r} flops: expected a whole number of them")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Reads "2e12", "2e12 flops", "2 epochs", "2epochs" or "1 epoch".

        Raises:
          UserError: the text is no budget.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise UserError(
                f"budget {text!r}: expected an amount and a unit, e.g. '2e12 flops' or '2 epochs'; "
                f"units are {', '.join(UNITS)}"
            )
        name = match[2].lower() or "flops"
        # "1 epoch", "1 second".
        return cls(
            float(match[1]), name if name in UNITS or f"{name}s" not in UNITS else f"{name}s"
        )

    def flops(self, pace: Pace) -> int:
        """FLOPs that it pays for, of the method and task that `pace` is of."""
        # The nearest: 0.3 epochs of ten steps must pay for three steps.
        return round(UNITS[self.unit].flops(self.amount, pace))

    def __str__(self) -> str:
        amount = float(self.amount)
        shown = f"{amount:.0f}" if amount == int(amount) and amount < 1e16 else repr(amount)
        return f"{shown} {self.unit.removesuffix('s') if self.amount == 1 else self.unit}"
