"""Grouping of joined elements: what is one group, its name, and whether it is in a block.

**Group.** Elements that were joined are one channel. Channels that are on the same axes, as many
times each, are one group. A group can be cut if a kernel produces it and nothing froze it.

**Inside a block** (scope `filters`) is read off the dataflow, so that it means the same for any
model. A group is *residual*, and keeps its size in that scope, where

  (a) a residual addition joined it: an add of two activations, both computed from the inputs, whose
      channels were different until then. A bias, a scale or a statistic is not an activation, and
      a train-mode BatchNorm subtracts the mean of the same channels.
  (b) it forks into both sides of a residual addition: one convolution or matrix product that reads
      it leads only to the left side, another only to the right. That is the stem of a ResNet-50,
      which the first block and its projection shortcut read: not yet added to anything, but what
      the block works on, not part of it. Squeeze-and-excitation also forks and rejoins, but in a
      multiplication, and stays inside its block.
  (c) it is the final representation: read by a product whose results, with no other product or
      residual addition after it, are outputs of the function.
"""

import dataclasses
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from ctl_jax.pruning._cost_model import Costs, Terms
from ctl_jax.pruning._groups import Group, Member, Reading, Role
from ctl_jax.pruning._interpreter import AbstractArray, Interpreter
from ctl_jax.pruning._reshapes import spread_to_sources
from ctl_jax.pruning._union_find import Axis, Labels

NOT_PRODUCED = "no convolution or matrix product of the inputs produces it"
SINGLE = "all of it is one channel"

Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """An axis of a parameter, with the elements that stand for its positions (none if size 1)."""

    path: str
    axis: int
    ids: Labels


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """The groups of a program, and where each element is in them.

    Attributes:
      groups: by name, in the order of the program.
      frozen: for every parameter, why an axis, or some positions on it, can not be cut.
      index: int [elements], the number of the group that an element is in; -1 for none.
      channel: int [elements], which of its channels that is.
    """

    groups: Mapping[str, Group]
    frozen: Mapping[str, Mapping[int, str]]
    index: Labels
    channel: Labels


def partition(
    interp: Interpreter,
    outputs: Sequence[AbstractArray],
    slots: Sequence[Slot],
    shapes: Mapping[str, tuple[int, ...]],
) -> Partition:
    """Makes the groups of a program that was walked, its grids resolved.

    Args:
      interp: after the interpreter.
      outputs: what the function returns.
      slots: all parameter axes, in the order of the tree.
      shapes: the parameters' shapes, in the same order.
    """
    size = interp.channels.size
    roots = interp.channels.find(np.arange(size))
    made = _first((product.makes for product in interp.products), size)
    spread_to_sources(made, interp.grids)
    read = _first((product.reads for product in interp.products), size)
    spread_to_sources(read, interp.grids)
    reasons = {reason: _channels_of(ids, roots) for reason, ids in interp.channels.frozen()}
    produced = _channels_of(np.flatnonzero(made < size), roots)
    reasons[NOT_PRODUCED] = ~np.any([produced, *reasons.values()], axis=0)
    kinds = _kinds(slots, roots, ~np.any(list(reasons.values()), axis=0))
    channels = np.bincount(kinds[roots == np.arange(size)], minlength=kinds.max(initial=0) + 1)
    reasons[SINGLE] = (kinds > 0) & (channels == 1)[kinds]
    kinds[reasons[SINGLE]] = 0
    on = [(slot, _present(kinds, slot.ids)) for slot in slots]
    origins = _origins(on, kinds, made)
    index, channel = _numbered(origins, kinds, roots)
    members = _members(on, kinds, channel, made < size, read < size)
    residual = _residual(interp, kinds, outputs)
    normalised = _normalised(interp, kinds)
    groups: dict[str, Group] = {}
    for kind, slot in origins.items():
        name = _unused(slot.path, groups)
        found = tuple(members[kind])
        width = len(found[0].positions)
        groups[name] = Group(name, width, found, residual.get(kind), normalised.get(kind))
    return Partition(groups, _frozen(slots, shapes, kinds, reasons), index, channel)


def _numbered(origins: Mapping[int, Slot], kinds: Labels, roots: Labels) -> tuple[Labels, Labels]:
    """`index` and `channel` of `Partition`: channels are numbered as they are on their origin."""
    numbers = np.full(kinds.max(initial=0) + 1, -1)
    numbers[list(origins)] = np.arange(len(origins))
    index = numbers[kinds]
    channel = np.zeros(len(kinds), np.int64)
    for kind, slot in origins.items():
        of_kind, first = np.unique(roots[slot.ids[kinds[slot.ids] == kind]], return_index=True)
        channel[of_kind[np.argsort(first)]] = np.arange(len(of_kind))
    return index, np.where(index >= 0, channel[roots], 0)


def _members(
    on: Sequence[tuple[Slot, Sequence[int]]],
    kinds: Labels,
    channel: Labels,
    made: Mask,
    read: Mask,
) -> dict[int, list[Member]]:
    """For each kind of group the parameter axes that hold it."""
    members: dict[int, list[Member]] = {}
    for slot, present in on:
        for kind in present:
            ids, at = slot.ids, np.arange(len(slot.ids))
            if len(present) > 1 or kinds[ids[0]] != kind or not kinds[ids].all():
                at = np.flatnonzero(kinds[ids] == kind)
                ids = ids[at]
            role: Role = "out" if made[ids].any() else "in" if read[ids].any() else "elementwise"
            positions = _by_channel(at, channel[ids])
            members.setdefault(kind, []).append(Member(slot.path, slot.axis, role, positions))
    return members


def _first(runs: Iterable[Labels], size: int) -> Labels:
    """Per element the first of the runs that has it, `size` where none has."""
    first = np.full(size, size)
    for i, ids in reversed(list(enumerate(runs))):
        first[ids] = i
    return first


def _channels_of(ids: Labels, roots: Labels) -> Mask:
    """Which elements are of the same channel as one of `ids`."""
    mask = np.zeros(len(roots), bool)
    mask[roots[ids]] = True
    return mask[roots]


def _present(kinds: Labels, ids: Labels) -> list[int]:
    """The kinds of group that are found among `ids`, in that order."""
    of = kinds[ids]
    if not of.size:
        return []
    if (of == of[0]).all():
        return [int(of[0])] if of[0] else []
    found, first = np.unique(of, return_index=True)
    return [int(kind) for kind in found[np.argsort(first)] if kind]


def _kinds(slots: Sequence[Slot], roots: Labels, prunable: Mask) -> Labels:
    """Numbers the groups: per element its group's number, 0 where it is not prunable.

    Refines one partition axis after axis: channels part where one axis holds them and another does
    not, or not as often. Takes time in the number of elements, however many axes share a channel.
    """
    kind = prunable.astype(np.int64)
    fresh = 2
    seen: set[bytes] = set()
    for slot in slots:
        channels = roots[slot.ids[prunable[slot.ids]]]
        key = channels.tobytes()
        if not channels.size or key in seen:
            continue  # an axis with the same channels has parted them already
        seen.add(key)
        found, counts = np.unique(channels, return_counts=True)
        before = kind[found] * (counts.max() + 1) + counts
        if (before == before[0]).all():
            parts, part = before[:1], np.zeros(len(before), np.int64)
        else:
            parts, part = np.unique(before, return_inverse=True)
        kind[found] = fresh + part
        fresh += len(parts)
    return np.where(prunable, kind[roots], 0)


def _origins(
    on: Sequence[tuple[Slot, Sequence[int]]], kinds: Labels, made: Labels
) -> dict[int, Slot]:
    """For each group the axis that first produces it, in the order of the program."""
    found: dict[int, tuple[int, Slot]] = {}
    for slot, present in on:
        for kind in present:
            ids = slot.ids if len(present) == 1 else slot.ids[kinds[slot.ids] == kind]
            first = int(made[ids].min())
            if first < len(made) and (kind not in found or first < found[kind][0]):
                found[kind] = first, slot
    ranked = sorted(found.items(), key=lambda item: item[1][0])
    return {kind: slot for kind, (_, slot) in ranked}


def _by_channel(at: Labels, channel: Labels) -> Labels:
    """The positions `at` in rows, one a channel, ascending."""
    if (channel == np.arange(len(at))).all():
        return at[:, None]
    return at[np.lexsort((at, channel))].reshape(channel.max() + 1, -1)


def _residual(
    interp: Interpreter, kinds: Labels, outputs: Sequence[AbstractArray]
) -> dict[int, str]:
    """Why a group is not inside a block, for those that are not; the module says how."""
    residual: dict[int, str] = {}
    for addition in interp.additions:
        residual.update(dict.fromkeys(_present(kinds, addition.joined), "residual addition"))
    readers: dict[int, int] = {}
    for i, product in enumerate(interp.products):
        for kind in _present(kinds, product.reads):
            readers[kind] = readers.get(kind, 0) | 1 << i
    forks = {(add.left & ~add.right, add.right & ~add.left) for add in interp.additions}
    last = functools.reduce(operator.or_, (output.makers for output in outputs), 0)
    for kind, bits in readers.items():
        if any(bits & left and bits & right for left, right in forks):
            residual.setdefault(kind, "forks into a residual addition")
        if bits & last:
            residual.setdefault(kind, "final representation")
    return residual


def _normalised(interp: Interpreter, kinds: Labels) -> dict[int, str]:
    """For the groups over whose channels the program reduces: by which primitive first."""
    normalised: dict[int, str] = {}
    for by, ids in interp.channels.normalised():
        for kind in _present(kinds, ids):
            normalised.setdefault(kind, by)
    return normalised


def _unused(path: str, groups: Mapping[str, Group]) -> str:
    """`path`, numbered where an axis, or two of one parameter, produce more than one group."""
    name, i = path, 2
    while name in groups:
        name, i = f"{path}#{i}", i + 1
    return name


def _frozen(
    slots: Sequence[Slot],
    shapes: Mapping[str, tuple[int, ...]],
    kinds: Labels,
    reasons: Mapping[str, Mask],
) -> dict[str, dict[int, str]]:
    frozen: dict[str, dict[int, str]] = {path: {} for path in shapes}
    for slot in slots:
        loose = slot.ids[kinds[slot.ids] == 0]
        if not slot.ids.size:
            frozen[slot.path][slot.axis] = f"of size {shapes[slot.path][slot.axis]}"
        elif loose.size:
            found = [reason for reason, mask in reasons.items() if mask[loose].any()]
            frozen[slot.path][slot.axis] = "; ".join(found)
    return frozen


class _Rows:
    """The distinct axes of a program; row 0 is the axis of size 1."""

    def __init__(self, index: Labels) -> None:
        self._index = index
        self._rows: dict[int, int] = {}
        self.axes: list[Labels] = []  # kept, so that their ids stay theirs

    def of(self, axes: Iterable[Axis]) -> list[int]:
        """The rows of those axes that carry channels of a group."""
        rows = []
        for axis in axes:
            if isinstance(axis, int):
                continue
            if id(axis) not in self._rows:
                self.axes.append(axis)
                carries = bool((self._index[axis[axis >= 0]] >= 0).any())
                self._rows[id(axis)] = len(self.axes) if carries else 0
            rows.append(self._rows[id(axis)])
        return [row for row in rows if row]

    def sizes(self, groups: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Positions on each axis in no group, and for one channel of each group of these sizes."""
        counts = np.zeros((len(self.axes) + 1, len(groups) + 1))
        counts[0, -1] = 1
        for row, axis in enumerate(self.axes, 1):
            of = np.where(axis >= 0, self._index[axis], -1)
            counts[row] = np.bincount(np.where(of < 0, len(groups), of), minlength=len(groups) + 1)
        return counts[:, -1], counts[:, :-1] / np.asarray(groups, float)

    def size(self, row: int) -> int:
        return len(self.axes[row - 1])


def costs(
    interp: Interpreter,
    found: Partition,
    slots: Sequence[Slot],
    shapes: Mapping[str, tuple[int, ...]],
) -> Costs:
    """The closed forms of FLOPs, parameters and memory; see `cost_model.Costs`."""
    rows = _Rows(found.index)

    def terms(parts: Iterable[tuple[float, Sequence[int]]]) -> Terms:
        parts = list(parts)
        longest = max((len(of) for _, of in parts), default=0)
        axes = np.zeros((len(parts), longest), np.int32)
        for i, (_, of) in enumerate(parts):
            axes[i, : len(of)] = of
        # All that does not vary is in the coefficient.
        each = [total / prod(map(rows.size, of)) for total, of in parts]
        return Terms(np.asarray(each, np.float64), axes)

    axes_of: dict[str, list[Axis]] = {path: [] for path in shapes}
    for slot in slots:
        axes_of[slot.path].append(slot.ids)
    flops = terms((cost.flops, rows.of(cost.axes)) for cost in interp.costs)
    params = terms((prod(shapes[path]), rows.of(axes)) for path, axes in axes_of.items())
    memory = terms((x.itemsize * prod(x.shape), rows.of(x.axes)) for x in interp.buffers)
    sizes = [group.size for group in found.groups.values()]
    fixed, per_width = rows.sizes(sizes)
    return Costs(
        tuple(found.groups), np.asarray(sizes, np.int64), fixed, per_width, flops, params, memory,
        np.asarray([x.birth for x in interp.buffers], np.int64),
        np.asarray([x.death for x in interp.buffers], np.int64),
    )  # fmt: skip


def readings(interp: Interpreter, found: Partition) -> tuple[Reading, ...]:
    """Where products read channels, outside of loops and branches."""
    names = list(found.groups)
    result = []
    for read in interp.reads:
        of = np.where(read.labels >= 0, found.index[read.labels], -1)
        for i in np.unique(of[of >= 0]):
            channels = np.where(of == i, found.channel[read.labels], -1)
            result.append(Reading(read.equation, read.operand, read.axis, names[i], channels))
    return tuple(result)
