"""Verification of a trace: what the function does at other widths, found by tracing it at some.

**Guesses.** Some equations do not say what they would be at other widths: a reshape that splits
channels into heads holds two numbers, and either may be the one that the program insists on. So
every group concerned is given one channel more and the function is traced again: without that
channel, the groups of the wider program must be the groups that were found. Where they are not, or
the function can not be traced at these widths, another way is taken if there is one, and else
nothing is cut there. (Wider rather than narrower, because an axis of one channel that is left is
none.)

**Numbers that follow from a width.** Then the function is traced with every group at another width,
and must be the same program but for that (see `programs`). If it is not, or does not run, bisection
finds the groups that it is due to, and they stay whole. The widths are odd where the full ones are
even, so that what depends on a divisor shows, and between a quarter and half of them, so that what
is rounded down shows and widths that Python may compare keep their order; different ones for groups
of one size, so that a ratio of widths shows. What does not show at these widths shows when `select`
traces the function at those that it chose: see its `check`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from ctl_jax.pruning import _comparison
from ctl_jax.pruning._groups import Group, Groups
from ctl_jax.pruning._interpreter import Guess, Place
from ctl_jax.trees import leaf_paths

# Each round takes the next way at the places that came out wrong, so a few reach the last one;
# beyond, whatever is still wrong is frozen.
ROUNDS = 4
# Up to this many groups that are wrong together are looked at one by one.
ONE_BY_ONE = 64
LAST_WAY = 2
# So often a function is traced in search of the groups that it computes numbers from; then all that
# are still under suspicion are left whole.
MOST_TRACES = 64


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The groups of a program, and what was taken for granted.

    Attributes:
      groups: the groups.
      guesses: in the order of the program.
      concerned: for each guess the groups that it is about.
      outputs: the shapes of the program's results.
      loose: reductions over positions that carry no channels; see `comparison.change`.
    """

    groups: Groups
    guesses: tuple[Guess, ...]
    concerned: tuple[frozenset[str], ...]
    outputs: tuple[tuple[int, ...], ...]
    loose: _comparison.Loose


Analyse = Callable[[Mapping[Place, int]], Analysis]
Reanalyse = Callable[[Any, Mapping[Place, int]], Analysis]
AtWidths = Callable[[Any], ClosedJaxpr]


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


def left_whole(
    settled: Callable[[Sequence[tuple[Group, str]]], Analysis],
    program: ClosedJaxpr,
    at_widths: AtWidths,
    variables: Any,
) -> tuple[Analysis, dict[str, str]]:
    """Analyses a program until it is the same at other widths of the groups that are found.

    Args:
      settled: groups that must not be cut, and why -> the analysis of the program.
      program: the function at full width.
      at_widths: variables -> the function at theirs.
      variables: those that were traced, abstract.

    Returns:
      The analysis, and the groups that were left whole: name -> why.
    """
    whole: list[tuple[Group, str]] = []
    traces = MOST_TRACES
    while True:
        found = settled(whole)
        search = _Search(functools.partial(change, found, program, at_widths, variables), traces)
        culprits = search.culprits(found.groups)
        if not culprits:
            return found, {group.name: reason for group, reason in whole}
        traces = search.traces
        whole += [(found.groups[name], reason) for name, reason in culprits.items()]


def change(
    found: Analysis,
    program: ClosedJaxpr,
    at_widths: AtWidths,
    variables: Any,
    widths: Mapping[str, int],
) -> str | None:
    """How a function is another one where its groups have these widths; None if it is not."""
    try:
        other = at_widths(_resized(variables, found.groups, widths))
    except Exception as error:  # whatever a user's function raises
        return f"the function does not run ({described(error)})"
    return _comparison.change(program, other, found.loose)


class _Search:
    """Finds the groups due to which a function is another one at other widths."""

    def __init__(self, changed: Callable[[Mapping[str, int]], str | None], traces: int) -> None:
        self._changed = changed
        self.traces = traces

    def culprits(self, groups: Groups) -> dict[str, str]:
        """Names, with what changes; none if nothing does."""
        sizes = {name: group.size for name, group in groups.items()}
        tried = tried_widths(sizes)
        halves = {name: _even_width(size) for name, size in sizes.items()}

        def changed(names: Sequence[str]) -> str | None:
            for widths in (tried, halves):  # a function may insist on even widths
                self.traces -= 1
                chosen = {name: widths[name] for name in names}
                found = self._changed(sizes | chosen)
                if found is None or not found.startswith("the function does not run"):
                    break
            if found is None:
                return None
            few = ", ".join(f"{chosen[name]} of {sizes[name]}" for name in names[:3])
            return f"{found} at {few} channels"

        return self._among(list(groups), changed) if groups else {}

    def _among(
        self, names: Sequence[str], changed: Callable[[Sequence[str]], str | None]
    ) -> dict[str, str]:
        reason = changed(names)
        if reason is None:
            return {}
        half = len(names) // 2
        if not half or self.traces < 0:
            return dict.fromkeys(names, reason)
        found = self._among(names[:half], changed) | self._among(names[half:], changed)
        # Where either half by itself is as it should be, it is due to both.
        return found or dict.fromkeys(names, reason)


def tried_widths(sizes: Mapping[str, int]) -> dict[str, int]:
    """The widths at which the function is traced, for groups of these sizes.

    As far as there are enough, widths are in the order of the sizes, and none is equal to another.
    """
    found: dict[str, int] = {}
    of: dict[int, int] = {}  # the size that a width stands for
    below = 0
    for size in sorted(set(sizes.values())):
        likely = [n for n in range(max(3, size // 4), (size + 1) // 2) if (size - n) % 2]
        free = [n for n in likely if n > below] or [n for n in likely if n not in of]
        # Few channels: any other width that no other size has.
        free = free or [next(n for n in itertools.count(3) if n != size and n not in of)]
        for i, name in enumerate(name for name in sizes if sizes[name] == size):
            found[name] = free[i % len(free)]
            of[found[name]] = size
        below = max(of)
    return found


def _even_width(size: int) -> int:
    return size // 2 if size % 2 == 0 and size >= 4 else 2 * size


def described(error: Exception) -> str:
    """An exception in one line."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"


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
        sizes = {name: group.size + (name in names) for name, group in groups.items()}
        again = reanalyse(_resized(variables, groups, sizes))
    except Exception:  # whatever a user's function raises at widths that it was not made for
        return False
    if again.outputs != found.outputs or again.groups.keys() != groups.keys():
        return False
    if any(group.size != sizes[name] for name, group in again.groups.items()):
        return False
    kept = _kept(again.groups, groups)
    return all(_is_pruned(again.groups[name], group, kept) for name, group in groups.items())


def _resized(variables: Any, groups: Groups, sizes: Mapping[str, int]) -> Any:
    """Abstract variables with so many channels in each group."""
    shapes = {path: list(shape) for path, shape in groups.shapes.items()}
    for name, size in sizes.items():
        for member in groups[name].members:
            shapes[member.path][member.axis] += (size - groups[name].size) * member.positions.shape[
                1
            ]
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
