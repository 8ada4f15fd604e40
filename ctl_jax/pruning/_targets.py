"""Meeting a target of FLOPs, parameters or memory: a search on closed forms, nothing is traced."""

import dataclasses
import math
import numbers
from typing import Any

import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.pruning._allocation import Ladder, widening
from ctl_jax.pruning._checks import is_number
from ctl_jax.pruning._cost_model import Costs
from ctl_jax.trees import Ints

# Costs are sums in float64.
_SLACK = 1e-12


@dataclasses.dataclass(frozen=True)
class Target:
    """What a pruned network may cost at most.

    Attributes:
      kind: one of `ctl_jax.pruning._cost_model.KINDS`.
      asked: the number as given.
      full: what the full network costs.
      fraction: whether `asked` is a share of that.
    """

    kind: str
    asked: float
    full: int
    fraction: bool

    @classmethod
    def of(cls, kind: str, asked: Any, costs: Costs) -> "Target":
        """Reads a target: a float in (0, 1] is a share of the full cost, any other a number.

        Raises:
          UserError: it is not a positive, finite number.
        """
        if not is_number(asked) or not 0 < asked < math.inf:
            raise UserError(
                f"{kind} is {asked!r}, expected a share of the full network's in (0, 1] or a "
                "number above 1"
            )
        fraction = not isinstance(asked, numbers.Integral) and asked <= 1
        full = round(float(costs.evaluate(kind, costs.sizes)))
        return cls(kind, asked, full, fraction)

    @property
    def budget(self) -> float:
        """The cost that must not be exceeded."""
        return self.asked * self.full if self.fraction else float(self.asked)

    def note(self, cost: float) -> str:
        """Says how close a network of this cost comes."""
        if self.budget >= self.full:
            return f"{self.kind} {self.asked} is not below the full network's: everything stays"
        if self.fraction:
            return f"{self.kind} {cost / self.full:.6g} of the full, asked {self.asked}"
        return f"{self.kind} {round(cost)} of the full {self.full}, asked {self.asked}"

    def unreachable(self, lowest: float) -> UserError:
        """The error where the narrowest network costs `lowest`, which is too much."""
        # Rounded up, so that what is named here can be asked for.
        least = f"{math.ceil(lowest / self.full * 1e4) / 1e4}" if self.fraction else round(lowest)
        return UserError(
            f"{self.kind} is {self.asked}, expected at least {least}: with the narrowest widths "
            f"allowed {round(lowest)} of the full {self.full} are left"
        )


def meet(costs: Costs, target: Target, steps: Ladder) -> tuple[Ints, float]:
    """The widths that cost as much of the target as they can, but not more.

    First as far up the ladder as the target allows, by bisection: one more step would exceed it.
    Then every later step, in their order, that still fits into what is left of it: in the end no
    group can be widened by one step. (To come as close as any widths do would be a knapsack.)

    Args:
      costs: of the groups.
      target: to be met.
      steps: the ladder of widths.

    Returns:
      int64 [groups], the widths; and what they cost.

    Raises:
      UserError: even the lowest widths cost more; says how much.
    """
    kind, limit = target.kind, target.budget * (1 + _SLACK)
    widths = steps.lowest
    if (lowest := float(costs.evaluate(kind, widths))) > limit:
        raise target.unreachable(lowest)
    group, gain = steps.ordered.group, steps.ordered.gain
    while len(group):
        count = fitting(costs, kind, limit, widths, group, gain)
        widths = widths + widening(group[:count], gain[:count], len(widths))
        group, gain = group[count:], gain[count:]
        # What does not fit now never will, since costs grow with every width.
        next_step = np.full(len(widths), -1)
        next_step[group[::-1]] = np.arange(len(group))[::-1]
        open_groups = np.flatnonzero(next_step >= 0)
        wider = np.repeat(widths[None], len(open_groups), axis=0)
        wider[np.arange(len(open_groups)), open_groups] += gain[next_step[open_groups]]
        fits = np.zeros(len(widths), bool)
        fits[open_groups] = costs.evaluate(kind, wider) <= limit
        group, gain = group[fits[group]], gain[fits[group]]
    return widths, float(costs.evaluate(kind, widths))


def fitting(costs: Costs, kind: str, limit: float, widths: Ints, group: Ints, gain: Ints) -> int:
    """How many steps can be taken from `widths`, in their order, until the cost exceeds `limit`.

    Args:
      costs: of the groups.
      kind: one of `ctl_jax.pruning._cost_model.KINDS`.
      limit: a cost, not below that of `widths`.
      widths: int64 [groups], to start from.
      group: int64 [steps], which group each step widens.
      gain: int64 [steps], by how many channels.
    """
    low, high = 0, len(group) + 1
    while high - low > 1:
        middle = (low + high) // 2
        wider = widths + widening(group[low:middle], gain[low:middle], len(widths))
        if costs.evaluate(kind, wider) <= limit:
            low, widths = middle, wider
        else:
            high = middle
    return low
