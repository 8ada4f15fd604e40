"""What the walk noted of costs and readers, in terms of the groups that were found."""

from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np

from ctl_jax.pruning.channels import Axis, Labels
from ctl_jax.pruning.costs import Costs, Terms
from ctl_jax.pruning.groups import Reading
from ctl_jax.pruning.partition import Partition, Slot
from ctl_jax.pruning.walk import Walk


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
    walk: Walk, found: Partition, slots: Sequence[Slot], shapes: Mapping[str, tuple[int, ...]]
) -> Costs:
    """The closed forms of FLOPs, parameters and memory; see `costs.Costs`."""
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
    flops = terms((cost.flops, rows.of(cost.axes)) for cost in walk.costs)
    params = terms((prod(shapes[path]), rows.of(axes)) for path, axes in axes_of.items())
    memory = terms((x.itemsize * prod(x.shape), rows.of(x.axes)) for x in walk.buffers)
    sizes = [group.size for group in found.groups.values()]
    fixed, per_width = rows.sizes(sizes)
    return Costs(
        tuple(found.groups), np.asarray(sizes, np.int64), fixed, per_width, flops, params, memory,
        np.asarray([x.birth for x in walk.buffers], np.int64),
        np.asarray([x.death for x in walk.buffers], np.int64),
    )  # fmt: skip


def readings(walk: Walk, found: Partition) -> tuple[Reading, ...]:
    """Where products read channels, outside of loops and branches."""
    names = list(found.groups)
    result = []
    for read in walk.reads:
        of = np.where(read.labels >= 0, found.index[read.labels], -1)
        for i in np.unique(of[of >= 0]):
            channels = np.where(of == i, found.channel[read.labels], -1)
            result.append(Reading(read.equation, read.operand, read.axis, names[i], channels))
    return tuple(result)
