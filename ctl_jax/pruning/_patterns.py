"""Selection of groups by scope and by patterns on their names."""

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ctl_jax.errors import UserError
from ctl_jax.pruning._checks import is_ratio
from ctl_jax.pruning._groups import Groups


def prunable(groups: Groups, scope: str, frozen: Sequence[str]) -> list[str]:
    """The groups in scope that are not frozen.

    Args:
      groups: from `trace`.
      scope: as for `Groups.in_scope`.
      frozen: patterns (`fnmatch`, upper and lower case differ) on paths of parameters and names of
        groups. All groups that are on such a parameter are frozen.

    Returns:
      Names, in the order of the groups; at least one.

    Raises:
      UserError: no group is left, or a pattern matches nothing.
    """
    inside = groups.in_scope(scope)
    if not inside:
        left = "".join(f"; {name!r} is whole: {reason}" for name, reason in groups.left.items())
        raise UserError(
            f"scope {scope!r} holds none of the {len(groups)} groups, expected some{left}"
        )
    if isinstance(frozen, str):
        raise UserError(f"frozen is {frozen!r}, expected a sequence of patterns")
    held: set[str] = set()
    for pattern in frozen:
        found = _matching(pattern, [*groups.shapes, *groups])
        if not found:
            raise UserError(f"frozen: {pattern!r} matches no parameter and no group")
        held |= found
    free = [
        name
        for name in inside
        if not held
        or (name not in held and held.isdisjoint(member.path for member in groups[name].members))
    ]
    if not free:
        raise UserError(
            f"frozen is {frozen!r}, expected to leave some of the {len(inside)} groups of scope "
            f"{scope!r}"
        )
    return free


def own_ratios(ratios: Mapping[str, Any], free: Sequence[str]) -> dict[str, float]:
    """The ratio of each group that has its own.

    Args:
      ratios: from patterns on group names to ratios; the first pattern that matches decides.
      free: the groups that may be cut.

    Returns:
      Group name to ratio, for groups that a pattern matches.

    Raises:
      UserError: a ratio is not in [0, 1), or a pattern matches no group.
    """
    own: dict[str, float] = {}
    for pattern, ratio in ratios.items():
        if not is_ratio(ratio):
            raise UserError(f"ratios[{pattern!r}] is {ratio!r}, expected a number in [0, 1)")
        found = _matching(pattern, free)
        if not found:
            raise UserError(f"ratios: {pattern!r} matches none of the {len(free)} groups to be cut")
        own = dict.fromkeys(found, float(ratio)) | own
    return own


def _matching(pattern: Any, names: Collection[str]) -> set[str]:
    if not isinstance(pattern, str):
        raise UserError(f"{pattern!r} is no pattern, expected a string")
    return {name for name in names if fnmatch.fnmatchcase(name, pattern)}
