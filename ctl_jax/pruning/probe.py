"""Whether the program does at other widths what was taken for granted.

Some equations do not say what they would be at other widths: a reshape that splits channels into
heads holds two numbers, and either may be the one that the program insists on. So every group
concerned is given one channel more and the function is traced again: without that channel, the
groups of the wider program must be the groups that were found. Where they are not, or the function
can not be traced at these widths, another way is taken if there is one, and else nothing is cut
there. (Wider rather than narrower, because an axis of one channel that is left is none.)
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np

from ctl_jax.pruning.groups import Group, Groups
from ctl_jax.pruning.paths import leaf_paths
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


def settle(analyse: Analyse, reanalyse: Reanalyse, variables: Any) -> Analysis:
    """Analyses a program, and guesses again until it is at other widths what the groups say.

    Args:
      analyse: guesses -> the analysis of the program.
      reanalyse: variables, guesses -> the analysis of the program at their widths; raises what the
        function does if it can not be traced at them.
      variables: those that were traced, abstract.
    """
    guesses: dict[Place, int] = {}
    found = analyse(guesses)
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
) -> frozenset[str]:
    """The groups that do not hold at other widths, of those that a guess is about."""

    def holds(names: Collection[str]) -> bool:
        return _holds(found, names, lambda wide: reanalyse(wide, guesses), variables)

    names: frozenset[str] = frozenset().union(*found.concerned)
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
    try:
        again = reanalyse(_widened(variables, groups, names))
    except Exception:  # whatever a user's function raises at widths that it was not made for
        return False
    if again.outputs != found.outputs or again.groups.keys() != groups.keys():
        return False
    sizes = {name: group.size + (name in names) for name, group in groups.items()}
    if any(group.size != sizes[name] for name, group in again.groups.items()):
        return False
    kept = _kept(again.groups, groups)
    return all(_is_pruned(again.groups[name], group, kept) for name, group in groups.items())


def _widened(variables: Any, groups: Groups, names: Collection[str]) -> Any:
    """Variables with one channel more in each group of these names."""
    shapes = {path: list(shape) for path, shape in groups.shapes.items()}
    for name in names:
        for member in groups[name].members:
            shapes[member.path][member.axis] += member.positions.shape[1]
    leaves = [
        jax.ShapeDtypeStruct(shapes[path], leaf.dtype) for path, leaf in leaf_paths(variables)
    ]
    return jax.tree.unflatten(jax.tree.structure(variables), leaves)


def _kept(wide: Groups, groups: Groups) -> dict[tuple[str, int], np.ndarray]:
    """For each axis of the wider program which positions are not of the added channels."""
    kept: dict[tuple[str, int], np.ndarray] = {}
    for name, group in wide.items():
        for member in group.members:
            size = wide.shapes[member.path][member.axis]
            mask = kept.setdefault((member.path, member.axis), np.ones(size, bool))
            mask[member.positions[groups[name].size :]] = False
    return kept


def _is_pruned(wide: Group, group: Group, kept: Mapping[tuple[str, int], np.ndarray]) -> bool:
    """Whether `group` is `wide` with its first channels, on axes that lost the other positions."""
    if len(wide.members) != len(group.members):
        return False
    for old, new in zip(wide.members, group.members, strict=True):
        number = np.cumsum(kept[old.path, old.axis]) - 1
        if (old.path, old.axis) != (new.path, new.axis) or not np.array_equal(
            number[old.positions[: group.size]], new.positions
        ):
            return False
    return True
