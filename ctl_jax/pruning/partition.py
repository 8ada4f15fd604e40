"""From joined elements to groups: what is one group, its name, and whether it is in a block.

**Group.** Elements that were joined are one channel. Channels that lie on the same axes, as many
times each, are one group. A group can be cut if a kernel produces it and nothing froze it.

**Inside a block** (scope `filters`) is read off the dataflow, so that it means the same for any
model. A group is a *stream*, and keeps its size in that scope, where

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

import numpy as np
import numpy.typing as npt

from ctl_jax.pruning.channels import Labels
from ctl_jax.pruning.groups import Group, Groups, Member, Role
from ctl_jax.pruning.walk import Array, Product, Walk

NOT_PRODUCED = "no convolution or matrix product of the inputs produces it"

Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """An axis of a parameter, with the elements that stand for its positions (none if size 1)."""

    path: str
    axis: int
    ids: Labels


def partition(
    walk: Walk,
    outputs: Sequence[Array],
    slots: Sequence[Slot],
    shapes: Mapping[str, tuple[int, ...]],
) -> Groups:
    """Makes the groups of a program that was walked.

    Args:
      walk: after the walk.
      outputs: what the function returns.
      slots: all parameter axes, in the order of the tree.
      shapes: the parameters' shapes, in the same order.

    Returns:
      The groups.
    """
    size = sum(len(slot.ids) for slot in slots)
    roots = walk.channels.find(np.arange(size))
    reasons = {reason: _channels_of(ids, roots) for reason, ids in walk.channels.frozen()}
    made = _any_of((product.makes for product in walk.products), size)
    read = _any_of((product.reads for product in walk.products), size)
    produced = _channels_of(np.flatnonzero(made), roots)
    reasons[NOT_PRODUCED] = ~np.any([produced, *reasons.values()], axis=0)
    kinds = _kinds(slots, roots, ~np.any(list(reasons.values()), axis=0))

    def role(ids: Labels) -> Role:
        return "out" if made[ids].any() else "in" if read[ids].any() else "elementwise"

    # Channels are numbered as they lie on the axis that names their group.
    origins = _origins(walk.products, slots, kinds)
    number = np.zeros(size, np.int64)
    for kind, slot in origins.items():
        of_kind, first = np.unique(roots[slot.ids[kinds[slot.ids] == kind]], return_index=True)
        number[of_kind[np.argsort(first)]] = np.arange(len(of_kind))
    members: dict[int, list[Member]] = {kind: [] for kind in origins}
    for slot in slots:
        for kind in _present(kinds, slot.ids):
            at = np.flatnonzero(kinds[slot.ids] == kind)
            channel = number[roots[slot.ids[at]]]
            positions = at[np.lexsort((at, channel))].reshape(channel.max() + 1, -1)
            members[kind].append(Member(slot.path, slot.axis, role(slot.ids[at]), positions))

    streams = _streams(walk, kinds, outputs)
    groups: dict[str, Group] = {}
    for kind, slot in origins.items():
        name = _unused(slot.path, groups)
        width = len(members[kind][0].positions)
        groups[name] = Group(name, width, tuple(members[kind]), streams.get(kind))
    return Groups(groups, shapes, _frozen(slots, shapes, kinds, reasons))


def _any_of(runs: Iterable[Labels], size: int) -> Mask:
    mask = np.zeros(size, bool)
    for ids in runs:
        mask[ids] = True
    return mask


def _channels_of(ids: Labels, roots: Labels) -> Mask:
    """Which elements are of the same channel as one of `ids`."""
    return _any_of([roots[ids]], len(roots))[roots]


def _present(kinds: Labels, ids: Labels) -> list[int]:
    """The kinds of group that are found among `ids`, in that order."""
    found, first = np.unique(kinds[ids], return_index=True)
    return [int(kind) for kind in found[np.argsort(first)] if kind]


def _kinds(slots: Sequence[Slot], roots: Labels, prunable: Mask) -> Labels:
    """Numbers the groups: per element its group's number, 0 where it is not prunable.

    Refines one partition axis after axis: channels part where one axis holds them and another does
    not, or not as often. Takes time in the number of elements, however many axes share a channel.
    """
    kind = prunable.astype(np.int64)
    fresh = 2
    for slot in slots:
        found, counts = np.unique(roots[slot.ids[prunable[slot.ids]]], return_counts=True)
        if found.size:
            before = kind[found] * (counts.max() + 1) + counts
            parts, part = np.unique(before, return_inverse=True)
            kind[found] = fresh + part
            fresh += len(parts)
    return np.where(prunable, kind[roots], 0)


def _origins(products: Sequence[Product], slots: Sequence[Slot], kinds: Labels) -> dict[int, Slot]:
    """For each group the axis that first produces it, in the order of the program."""
    starts = np.cumsum([0, *(len(slot.ids) for slot in slots)])
    origins: dict[int, Slot] = {}
    for product in products:
        for kind in _present(kinds, product.makes):
            if kind not in origins:
                first = product.makes[np.argmax(kinds[product.makes] == kind)]
                origins[kind] = slots[int(np.searchsorted(starts, first, side="right")) - 1]
    return origins


def _streams(walk: Walk, kinds: Labels, outputs: Sequence[Array]) -> dict[int, str]:
    """Why a group is not inside a block, for those that are not; the module says how."""
    streams: dict[int, str] = {}
    for addition in walk.additions:
        streams.update(dict.fromkeys(_present(kinds, addition.joined), "residual addition"))
    readers: dict[int, int] = {}
    for i, product in enumerate(walk.products):
        for kind in _present(kinds, product.reads):
            readers[kind] = readers.get(kind, 0) | 1 << i
    forks = {(add.left & ~add.right, add.right & ~add.left) for add in walk.additions}
    last = functools.reduce(operator.or_, (output.makers for output in outputs), 0)
    for kind, bits in readers.items():
        if any(bits & left and bits & right for left, right in forks):
            streams.setdefault(kind, "forks into a residual addition")
        if bits & last:
            streams.setdefault(kind, "final representation")
    return streams


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
