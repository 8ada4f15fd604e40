"""Whether the program does at other widths what was taken for granted.

Some equations do not say what they would be at other widths: a reshape that splits channels into
heads holds two numbers, and either may be the one that the program insists on. So one channel is
cut from every group concerned and the function is traced again: the groups of the pruned program
must be the pruned groups. Where they are not, or the function can not be traced at these widths,
another way is taken if there is one, and else nothing is cut there.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ctl_jax.pruning.cutting import prune
from ctl_jax.pruning.groups import Group, Groups
from ctl_jax.pruning.keep import Keep
from ctl_jax.pruning.walk import Guess, Place

# Each round takes the next way at the places that came out wrong, so a few reach the last one;
# beyond, whatever is still wrong is frozen.
ROUNDS = 4
# Up to this many groups that are wrong together are looked at one by one.
ONE_BY_ONE = 64
LAST_WAY = 2


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The groups of a program, and what was taken for granted.

    Attributes:
      groups: the groups.
      guesses: in the order of the program.
      concerned: for each guess the groups that it is about.
      outputs: the shapes of the program's results.
    """

    groups: Groups
    guesses: tuple[Guess, ...]
    concerned: tuple[frozenset[str], ...]
    outputs: tuple[tuple[int, ...], ...]


Analyse = Callable[[Mapping[Place, int]], Analysis]
Reanalyse = Callable[[Any, Mapping[Place, int]], Analysis]


def settle(found: Analysis, analyse: Analyse, reanalyse: Reanalyse, variables: Any) -> Analysis:
    """Guesses again until the program, pruned, is what the groups say.

    Args:
      found: with the first guesses.
      analyse: guesses -> the analysis of the same program.
      reanalyse: pruned variables, guesses -> the analysis of the program at their widths; raises
        what the function does if it can not be traced at them.
      variables: those that were traced, abstract.
    """
    guesses: dict[Place, int] = {}
    for left in reversed(range(ROUNDS)):
        wrong = _wrong(found, guesses, reanalyse, variables)
        if not wrong:
            break
        for guess, names in zip(found.guesses, found.concerned, strict=True):
            if names & wrong:
                guesses[guess.place] = guess.choice + 1 if left else LAST_WAY
        found = analyse(guesses)
    return found


def _wrong(
    found: Analysis, guesses: Mapping[Place, int], reanalyse: Reanalyse, variables: Any
) -> Collection[str]:
    """The groups that the pruned program has not, of those that a guess is about."""

    def holds(names: Collection[str]) -> bool:
        return _holds(found, names, lambda pruned: reanalyse(pruned, guesses), variables)

    names = frozenset().union(*found.concerned)
    if not names or holds(names):
        return frozenset()
    alone = {name for name in names if len(names) <= ONE_BY_ONE and not holds([name])}
    return frozenset(alone) or names


def _holds(
    found: Analysis,
    names: Collection[str],
    reanalyse: Callable[[Any], Analysis],
    variables: Any,
) -> bool:
    groups = found.groups
    left = {name: np.arange(group.size - (name in names)) for name, group in groups.items()}
    keep = Keep(left, groups.structure)
    try:
        again = reanalyse(prune(variables, groups, keep))
    except Exception:  # whatever a user's function raises at widths that it was not made for
        return False
    # A channel that is left alone can not be cut: it is no group.
    several = [name for name in groups if len(left[name]) > 1]
    if again.outputs != found.outputs or again.groups.keys() != set(several):
        return False
    kept = _kept(groups, left)
    return all(_is_pruned(groups[name], again.groups[name], left[name], kept) for name in several)


def _kept(groups: Groups, left: Mapping[str, np.ndarray]) -> dict[tuple[str, int], np.ndarray]:
    """For each axis which of its positions stay."""
    kept: dict[tuple[str, int], np.ndarray] = {}
    for name, group in groups.items():
        for member in group.members:
            size = groups.shapes[member.path][member.axis]
            mask = kept.setdefault((member.path, member.axis), np.ones(size, bool))
            mask[np.delete(member.positions, left[name], axis=0)] = False
    return kept


def _is_pruned(
    group: Group, again: Group, left: np.ndarray, kept: Mapping[tuple[str, int], np.ndarray]
) -> bool:
    """Whether `again` is `group` with the channels `left`, on axes that lost positions."""
    if again.size != len(left) or len(again.members) != len(group.members):
        return False
    for old, new in zip(group.members, again.members, strict=True):
        number = np.cumsum(kept[old.path, old.axis]) - 1
        if (old.path, old.axis) != (new.path, new.axis) or not np.array_equal(
            number[old.positions[left]], new.positions
        ):
            return False
    return True
