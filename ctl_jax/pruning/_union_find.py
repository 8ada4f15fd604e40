"""Union-find over the positions of every parameter axis: which channels are the same channel.

Every axis of every array in the program carries a *label* for each of its positions:

    label >= 0    an element: one position of one axis of one parameter, or of an axis that the
                  program makes by reshaping (see `products`)
    FREE          nothing: the same value at every position (a broadcast), fits any width
    label < FREE  fixed: not a parameter's, and not to be cut; stands for the reason why

An axis on which all positions have one negative label is that plain int, whatever its size; any
other is an int array with a label a position. Labels by position, not by axis, are what lets a
flattened feature map, a concatenation or a reversal need no special case: they only rearrange
labels.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Axis = int | Labels
Shape = Sequence[int]

FREE = -1


class UnionFind:
    """Elements that must be cut together, and those that must not be cut at all.

    Elements are joined while the program is walked, so that a rule can ask at an addition whether
    its two sides were different channels until then.
    """

    def __init__(self, size: int) -> None:
        self._parent: Labels = np.arange(size, dtype=np.int64)
        self.size = size
        self._frozen: dict[str, list[Labels]] = {}
        self._normalised: dict[str, list[Labels]] = {}
        self._fixed: dict[str, int] = {}
        self._reasons: list[str] = []

    def new(self, count: int) -> Labels:
        """Elements of an axis that is no parameter's."""
        start, self.size = self.size, self.size + count
        if self.size > len(self._parent):
            more = np.arange(len(self._parent), 2 * self.size, dtype=np.int64)
            self._parent = np.concatenate([self._parent, more])
        return np.arange(start, self.size)

    def fixed(self, reason: str) -> int:
        """The label of positions that are never cut, for `reason`."""
        if reason not in self._fixed:
            self._reasons.append(reason)
            self._fixed[reason] = FREE - len(self._reasons)
        return self._fixed[reason]

    def freeze(self, axis: Axis, reason: str) -> None:
        """Makes the channels of `axis`, and all that are or will be joined to them, unprunable."""
        self._frozen.setdefault(reason, []).append(elements(axis))

    def frozen(self) -> Iterator[tuple[str, Labels]]:
        """Each reason with the elements that it froze, in the order of the program."""
        for reason, found in self._frozen.items():
            yield reason, np.concatenate(found)

    def normalise(self, axis: Axis, by: str) -> None:
        """Notes that the program reduces over the channels of `axis` with the primitive `by`."""
        self._normalised.setdefault(by, []).append(elements(axis))

    def take_back(self, normalised: Mapping[str, int]) -> None:
        """Forgets reductions that were noted after there were so many of each."""
        for by, found in self._normalised.items():
            del found[normalised.get(by, 0) :]

    def count_normalised(self) -> dict[str, int]:
        """How many reductions of each primitive were noted."""
        return {by: len(found) for by, found in self._normalised.items()}

    def normalised(self) -> Iterator[tuple[str, Labels]]:
        """Each reduction with the elements that it was made over, in the order of the program."""
        for by, found in self._normalised.items():
            if found:
                yield by, np.concatenate(found)

    def find(self, ids: Labels) -> Labels:
        """The representative of each element: the same for all that are joined."""
        parent, node = self._parent, ids
        while True:
            up = parent[node]
            top = parent[up]
            if (up == top).all():
                parent[ids] = top
                return top
            parent[node] = top  # path halving
            node = top

    def join(self, a: Axis, b: Axis) -> bool:
        """Joins two axes of one size position by position; whether that joined anything new.

        What meets a fixed position is frozen for its reason; what meets FREE stays as it is.
        """
        if a is b:
            return False
        if isinstance(a, int):
            a, b = b, a
        if isinstance(b, int):
            if b < FREE and not isinstance(a, int):
                self.freeze(a, self._reasons[FREE - 1 - b])
            return False
        assert not isinstance(a, int), "two ints are not swapped"
        if a.min(initial=0) >= 0 and b.min(initial=0) >= 0:
            return self._union(a, b)
        for one, other in ((a, b), (b, a)):
            stuck = (one < FREE) & (other >= 0)
            for label in np.unique(one[stuck]):
                self.freeze(other[stuck & (one == label)], self._reasons[FREE - 1 - label])
        both = (a >= 0) & (b >= 0)
        return self._union(a[both], b[both])

    def _union(self, a: Labels, b: Labels) -> bool:
        changed = False
        while True:
            x, y = self.find(a), self.find(b)
            apart = x != y
            if not apart.any():
                return changed
            changed = True
            # An element may have several partners here: it takes the lowest and the next round
            # joins the rest.
            low, high = np.minimum(x, y)[apart], np.maximum(x, y)[apart]
            np.minimum.at(self._parent, high, low)


def elements(*axes: Axis) -> Labels:
    """The elements on these axes, without their free and fixed positions."""
    found = [axis[axis >= 0] for axis in axes if not isinstance(axis, int)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def merged(a: Axis, b: Axis) -> Axis:
    """The labels after `a` and `b` were joined: elements before fixed before free."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    for axis in (a, b):
        if not isinstance(axis, int) and axis.min(initial=0) >= 0:
            return axis  # the very array: joining it again costs nothing
    left, right = np.asarray(a), np.asarray(b)
    return np.where(left >= 0, left, np.where(right >= 0, right, np.minimum(left, right)))


def without(axes: Sequence[Axis], gone: Collection[int]) -> list[Axis]:
    """The axes that are left once those at some places are gone."""
    return [axis for i, axis in enumerate(axes) if i not in gone]
