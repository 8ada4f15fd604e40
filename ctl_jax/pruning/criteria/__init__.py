"""Pruning criteria: how much each channel matters; one file a family.

    @criterion("l1")
    def l1(request: Request) -> Parts:
        return by_slot(request, slices.absolutes)

Notation: a channel has several slices, one a parameter that holds it; `w` runs over the weights of
a slice. Each function measures every slice by itself; `score` takes the slices of a channel
together, applies the criterion's `finish`, if it has one, and normalises.

A module here makes its criteria known with `criterion`; it is found by being here.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from ctl_jax.errors import UserError
from ctl_jax.pruning.criteria.request import Parts, Request
from ctl_jax.pruning.criteria.slices import Vector

Measure: TypeAlias = Callable[[Request], Parts]
Needs: TypeAlias = Literal["nothing", "weights", "gradients", "activations"]


@dataclasses.dataclass(frozen=True)
class Criterion:
    """How channels are scored by a criterion.

    Attributes:
      measure: from the request to the parts of each group's scores, float64 [channels] a slice.
      needs: what it looks at: "nothing" but the groups, "weights", or weights and data: "gradients"
        (of a loss) or "activations".
      by_role: whether it measures slices of parameters, of roles that can be chosen.
      finish: what becomes of the slices' aggregate, float64 [channels]; None: it is the score.
      flops: from the request and a batch, perhaps abstract, to what the batch costs; None where
        there is no data.
    """

    measure: Measure
    needs: Needs = "weights"
    by_role: bool = True
    finish: Callable[[Vector], Vector] | None = None
    flops: Callable[[Request, Any], int] | None = None


CRITERIA: dict[str, Criterion] = {}

# Those that need no data.
ZERO_SHOT: dict[str, Criterion] = {}


def criterion(
    name: str,
    *,
    needs: Needs = "weights",
    by_role: bool = True,
    finish: Callable[[Vector], Vector] | None = None,
    flops: Callable[[Request, Any], int] | None = None,
) -> Callable[[Measure], Measure]:
    """Makes a function known as the criterion of a name; arguments as for `Criterion`.

    Raises:
      UserError: there is a criterion of this name.
    """

    def add(measure: Measure) -> Measure:
        if name in CRITERIA:
            raise UserError(f"criterion {name!r}: there is one of this name; expected a new name")
        CRITERIA[name] = Criterion(measure, needs, by_role, finish, flops)
        if needs in ("nothing", "weights"):
            ZERO_SHOT[name] = CRITERIA[name]
        return measure

    return add


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
