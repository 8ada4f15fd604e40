"""Allocation of a cut among the groups: which widths, and in what order channels are given up.

Every allocation is one ladder: from the narrowest network, with the least width of each group, one
step after the other back to the full one, a step being the next channels of one group. A ratio or
a target is how far up one goes. The allocations differ in the share at which a step is reached:

- `uniform`: the share of its own group that is then kept. All groups keep the same share.
- `isomorphic`: all channels of the groups of one structure are ranked by score together; the
  share of these that is kept with the step. All structures keep the same share (Fang et al. 2024,
  "Isomorphic Pruning for Vision Models": scores of alike sub-structures compare, others do not).
- `global`: the same with all channels of all groups in one ranking (Liu et al. 2017, "Network
  Slimming"; the DepGraph paper, Fang et al. 2023, calls it global pruning).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ctl_jax.pruning._groups import Group, Groups
from ctl_jax.trees import Floats, Ints

ALLOCATIONS = ("uniform", "global", "isomorphic")


# A share that misses the one asked by less is equal to it: 10 * (1 - 0.35) may not be 6.5.
_SLACK = 1e-9
# Infinite scores rank first or last; this bound keeps their means finite.
_LARGEST = 1e300


@dataclasses.dataclass(frozen=True)
class Range:
    """The widths that a group may have: `least`, then every `step`, and `size` itself.

    Attributes:
      size: the full width.
      least: the narrowest; a multiple of `step`, or `size` where no smaller width is allowed.
      step: channels from one width to the next.
    """

    size: int
    least: int
    step: int

    @classmethod
    def of(cls, group: Group, round_to: int, minimum: int, floor: float) -> "Range":
        """The widths of a group on whose producing axes all sizes are multiples of `round_to`.

        Args:
          group: the group.
          round_to: a channel that is k positions of the axis counts k times, so that widths are
            multiples of `round_to / gcd(round_to, k)` channels.
          minimum: channels that stay at least.
          floor: share of the channels that stays at least.
        """
        step = 1
        if round_to > 1:
            positions = {m.positions.shape[1] for m in group.members if m.role == "out"}
            step = math.lcm(*(round_to // math.gcd(round_to, k) for k in positions))
        wanted = max(1, minimum, math.ceil(floor * group.size - _SLACK))
        return cls(group.size, min(step * -(-wanted // step), group.size), step)

    def nearest(self, share: float) -> int:
        """The multiple of `step` nearest to `share * size`, the greater of two; may be 0."""
        return self.step * math.floor((share + _SLACK) * self.size / self.step + 0.5)

    def width(self, share: float) -> int:
        """The allowed width nearest to that share; the full one at 1."""
        return self.size if share >= 1 else max(self.least, min(self.nearest(share), self.size))


@dataclasses.dataclass(frozen=True, eq=False)
class Ladder:
    """The way from the narrowest widths to the full ones.

    Attributes:
      lowest: int64 [groups], widths at its foot.
      group: int64 [steps], which group each step widens; steps of one group in their order.
      gain: int64 [steps], by how many channels.
      share: float64 [steps], the least share to be kept at which the step is taken.
    """

    lowest: Ints
    group: Ints
    gain: Ints
    share: Floats

    def widths(self, share: float) -> Ints:
        """int64 [groups], the widths with all steps up to `share`."""
        if share >= 1:  # a last step that is shorter than the others may be beyond
            return self.climb(self.group, self.gain)
        taken = self.share <= share + _SLACK
        return self.climb(self.group[taken], self.gain[taken])

    def climb(self, group: Ints, gain: Ints) -> Ints:
        """int64 [groups], the lowest widths and these steps."""
        return self.lowest + widening(group, gain, len(self.lowest))

    @functools.cached_property
    def ordered(self) -> "Ladder":
        """The same with its steps in the order of their shares."""
        order = np.argsort(self.share, kind="stable")
        return Ladder(self.lowest, self.group[order], self.gain[order], self.share[order])


def widening(group: Ints, gain: Ints, count: int) -> Ints:
    """int64 [count], what these steps add to each group's width."""
    return np.bincount(group, gain, count).astype(np.int64)


def ladder(
    groups: Groups,
    widths: Ints,
    ranges: Mapping[str, Range],
    ranked: Mapping[str, Floats],
    allocation: str,
) -> Ladder:
    """Makes the ladder of an allocation.

    Args:
      groups: from `trace`.
      widths: int64 [groups], of the groups that are not in `ranges`.
      ranges: the widths of the groups among which the cut is shared out.
      ranked: for each of these its scores, descending.
      allocation: one of `ALLOCATIONS`.
    """
    number = {name: i for i, name in enumerate(groups)}
    lowest = widths.copy()
    for name, allowed in ranges.items():
        lowest[number[name]] = allowed.least
    parts = [
        _pooled(names, number, ranges, ranked)
        if len(names) > 1
        else _alone(number[names[0]], ranges[names[0]])
        for names in pools(groups, list(ranges), allocation)
    ]
    if not parts:
        return Ladder(lowest, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    group, gain, share = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Ladder(lowest, group, gain, share)


def _alone(number: int, allowed: Range) -> tuple[Ints, Ints, Floats]:
    """Group, gain and share of each step of a group that is ranked by itself."""
    before, gain = _steps(allowed)
    share = (before + allowed.step / 2) / allowed.size
    return np.full(len(gain), number), gain, share


def _pooled(
    names: Sequence[str],
    number: Mapping[str, int],
    ranges: Mapping[str, Range],
    ranked: Mapping[str, Floats],
) -> tuple[Ints, Ints, Floats]:
    """Group, gain and share of each step of groups that are ranked together, best first."""
    parts = []
    for name in names:
        before, gain = _steps(ranges[name])
        if len(gain):
            value = np.clip(ranked[name], -_LARGEST, _LARGEST)
            value = np.add.reduceat(value, before) / gain
            # Means of equal scores may differ in their last digit.
            value = np.minimum.accumulate(value)
            step = np.full(len(gain), ranges[name].step)
            parts.append((np.full(len(gain), number[name]), gain, step, value))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    group, gain, step, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-value, kind="stable")
    group, gain, step = group[order], gain[order], step[order]
    least = sum(ranges[name].least for name in names)
    middle = least + np.cumsum(gain) - gain + step / 2
    share = np.maximum.accumulate(middle) / sum(ranges[name].size for name in names)
    return group, gain, share


def _steps(allowed: Range) -> tuple[Ints, Ints]:
    """The width before each step, and what it adds."""
    before = np.arange(allowed.least, allowed.size, allowed.step)
    return before, np.minimum(allowed.step, allowed.size - before)


def pools(groups: Groups, names: Sequence[str], allocation: str) -> Iterator[list[str]]:
    """The groups that are ranked together."""
    if allocation == "uniform":
        yield from ([name] for name in names)
    elif allocation == "global":
        if names:
            yield list(names)
    else:
        pools: dict[object, list[str]] = {}
        for name, key in zip(names, _structures(groups, names), strict=True):
            pools.setdefault(key, []).append(name)
        yield from pools.values()


def _structures(groups: Groups, names: Sequence[str]) -> Iterator[object]:
    """What is equal for groups of one structure, whatever their widths.

    The axes that hold the channels: of which parameters (by their last key), in which role and
    place, and the sizes of the other axes of these parameters, but for those that hold channels.
    """
    held = {(member.path, member.axis) for group in groups.values() for member in group.members}
    for name in names:
        yield tuple(
            sorted(
                (
                    member.path.rpartition("/")[2],
                    member.role,
                    member.axis,
                    tuple(
                        -1 if (member.path, axis) in held else size
                        for axis, size in enumerate(groups.shapes[member.path])
                    ),
                )
                for member in groups[name].members
            )
        )
