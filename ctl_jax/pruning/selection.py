"""Step three: which channels stay."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.pruning.groups import Group, Groups
from ctl_jax.pruning.keep import Indices, Keep


def select(
    groups: Groups,
    scores: Mapping[str, Any],
    *,
    ratio: float,
    scope: str = "filters",
    round_to: int = 1,
) -> Keep:
    """Drops the lowest scores of each group, the same share of every group in scope.

    A group of `size` channels keeps the multiple of `round_to` nearest to `(1 - ratio) * size`, of
    two equally near the greater, but at least `round_to` and at most `size`. (So a group whose size
    is no multiple stays whole where the next multiple is above its size; one that is smaller than
    `round_to` is never cut.) Of equal scores the lowest index stays.

    Args:
      groups: from `trace`.
      scores: group name to one number a channel, from `score`.
      ratio: the share of channels to drop, in [0, 1). At 0 everything stays, whatever `round_to`.
      scope: "filters" or "channels"; see `Groups.in_scope`.
      round_to: widths are multiples of this, which suits the hardware.

    Returns:
      For every group the channels that stay; groups that are not in scope stay whole. `notes` says
      which groups the ratio would have emptied.

    Raises:
      UserError: an argument is none of the above, the scope holds no group, or scores are missing
        or NaN.
    """
    if not isinstance(ratio, numbers.Real) or not 0 <= ratio < 1:
        raise UserError(f"ratio is {ratio!r}, expected a number in [0, 1)")
    if not isinstance(round_to, int) or round_to < 1:
        raise UserError(f"round_to is {round_to!r}, expected an integer of at least 1")
    cut = groups.in_scope(scope)
    if not cut:
        raise UserError(f"scope {scope!r} holds none of the {len(groups)} groups, expected some")
    kept: dict[str, Indices] = {}
    notes = []
    for name, group in groups.items():
        width = group.size
        if ratio > 0 and name in cut:
            nearest = _nearest_multiple(group.size * (1 - ratio), round_to)
            width = min(max(nearest, round_to), group.size)
            if nearest == 0:
                notes.append(
                    f"ratio {ratio} would empty group {name!r}: it keeps {width} of {group.size}"
                )
        kept[name] = _highest(group, scores, width)
    return Keep(kept, {name: group.size for name, group in groups.items()}, notes)


def _nearest_multiple(width: float, of: int) -> int:
    # Rounded first, so that 10 * (1 - 0.35) is the 6.5 that it means.
    return of * math.floor(round(width, 9) / of + 0.5)


def _highest(group: Group, scores: Mapping[str, Any], width: int) -> Indices:
    """The `width` channels of highest score, ascending."""
    found = np.asarray(scores.get(group.name, ()), np.float64)
    if found.shape != (group.size,) or np.isnan(found).any():
        raise UserError(
            f"scores[{group.name!r}] is {scores.get(group.name)!r}, expected {group.size} numbers"
        )
    return np.sort(np.argsort(-found, kind="stable")[:width])
