"""Layouts: which channels there are, and where on the parameters they are."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ctl_jax.trees import Ints

Slot = tuple[str, int]  # a parameter's path and one of its axes


@dataclasses.dataclass(frozen=True, eq=False)
class AxisLayout:
    """How groups lie on an axis.

    Attributes:
      whole: name of the group that the axis holds alone, channel i at position i, if it is so.
      size: of the axis.
      groups: names, each with the positions of its channels.
    """

    whole: str | None
    size: int
    groups: tuple[tuple[str, Ints], ...]


class Layout:
    """The channel groups of a trace, without what the tracer says about them.

    Two traces have the same layout if the same cut means the same to both: groups of the same
    names and sizes, on the same positions of the same axes, in trees of the same shapes.

    Attributes:
      sizes: group name -> number of channels.
      members: group name -> (path, axis) -> int64 [size, k], the positions on that axis that belong
        to each channel.
      shapes: the shape of every parameter, by path.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        members: Mapping[str, Mapping[Slot, Ints]],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.sizes = dict(sizes)
        self.members = {name: dict(members[name]) for name in self.sizes}
        self.shapes = dict(shapes)
        # What `prune` found out about trees: their layout -> the parameter that each leaf is.
        self.owners: dict[Any, Sequence[str | None]] = {}

    @functools.cached_property
    def axes(self) -> dict[str, dict[int, AxisLayout]]:
        """By path and axis the groups that are on it.

        Axes on which the same groups lie in the same way have one and the same object.
        """
        found: dict[str, dict[int, list[tuple[str, Ints]]]] = {}
        for name, members in self.members.items():
            for (path, axis), positions in members.items():
                found.setdefault(path, {}).setdefault(axis, []).append((name, positions))
        known: dict[Any, AxisLayout] = {}
        return {
            path: {
                axis: self._lying(self.shapes[path][axis], groups, known)
                for axis, groups in axes.items()
            }
            for path, axes in found.items()
        }

    def _lying(
        self, size: int, groups: Sequence[tuple[str, Ints]], known: dict[Any, AxisLayout]
    ) -> AxisLayout:
        alike = (size, *((name, table.shape, table.tobytes()) for name, table in groups))
        if alike not in known:
            name, table = groups[0]
            whole = table.shape[1] == 1 and np.array_equal(table[:, 0], np.arange(size))
            known[alike] = AxisLayout(name if whole else None, size, tuple(groups))
        return known[alike]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over names, sizes, positions and shapes: equal layouts, equal text.

        It does not depend on the order of groups, nor on the batch size of the trace.
        """
        text = json.dumps(self.to_data(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return self.difference(other) is None

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"Structure({len(self.sizes)} groups, {len(self.shapes)} parameters, "
            f"{self.fingerprint[:12]})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"owners": {}}  # tree structures can not all be pickled

    def difference(self, expected: "Layout") -> str | None:
        """The first thing in which this is another layout than `expected`, or None.

        Returns:
          The rest of a sentence that begins with what holds this layout, such as "has 3 channels
          of group 'a', expected 4".
        """
        return None if self is expected else next(self._differences(expected), None)

    def _differences(self, expected: "Layout") -> Iterator[str]:
        """The differences, what explains most first; only the first is sure to be one."""
        for name in {**expected.sizes, **self.sizes}:
            if name not in self.sizes:
                yield f"lacks group {name!r} of {expected.sizes[name]} channels"
            elif name not in expected.sizes:
                yield f"has group {name!r} of {self.sizes[name]} channels, expected no such group"
        for name, size in expected.sizes.items():
            if self.sizes[name] != size:
                yield f"has {self.sizes[name]} channels of group {name!r}, expected {size}"
        for name in expected.sizes:
            yield from self._differences_of(name, expected)
        for path in {**expected.shapes, **self.shapes}:
            here, there = self.shapes.get(path), expected.shapes.get(path)
            if here is None:
                yield f"lacks parameter {path} of shape {there}"
            elif there is None:
                yield f"has parameter {path} of shape {here}, expected no such parameter"
            elif here != there:
                yield f"has parameter {path} of shape {here}, expected {there}"

    def _differences_of(self, name: str, expected: "Layout") -> Iterator[str]:
        here, there = self.members[name], expected.members[name]
        for slot in {**there, **here}:
            if slot not in here:
                yield f"has group {name!r} not on {key(slot)}, expected it there"
            elif slot not in there:
                yield f"has group {name!r} on {key(slot)}, expected it not there"
            elif here[slot] is not there[slot] and not np.array_equal(here[slot], there[slot]):
                channel = 0
                if here[slot].shape == there[slot].shape:
                    channel = int(np.argmax((here[slot] != there[slot]).any(axis=1)))
                yield (
                    f"has channel {channel} of group {name!r} at "
                    f"{_some(here[slot][channel])} of {key(slot)}, "
                    f"expected {_some(there[slot][channel])}"
                )

    def to_data(self) -> dict[str, Any]:
        """This as plain values for JSON; `from_data` reads it.

        Positions that are regularly are written as [k, start, step a channel, step within a
        channel], any others as the table that they are.
        """
        written: dict[Any, list[Any]] = {}  # many members have the same table

        def encoded(positions: Ints) -> list[Any]:
            table = positions.shape, positions.tobytes()
            if table not in written:
                written[table] = _encode(positions)
            return written[table]

        return {
            "groups": {
                name: {
                    "size": size,
                    "members": {key(slot): encoded(p) for slot, p in self.members[name].items()},
                }
                for name, size in self.sizes.items()
            },
            "shapes": {path: list(shape) for path, shape in self.shapes.items()},
        }

    @classmethod
    def from_data(cls, data: Any) -> "Layout":
        """Reads what `to_data` returned.

        Raises:
          KeyError, TypeError, ValueError, AttributeError: `data` is nothing of the kind.
        """
        shapes = {path: tuple(int(n) for n in shape) for path, shape in data["shapes"].items()}
        sizes: dict[str, int] = {}
        members: dict[str, dict[Slot, Ints]] = {}
        tables: dict[tuple[int, str], Ints] = {}
        for name, group in data["groups"].items():
            size = sizes[name] = int(group["size"])
            members[name] = {}
            for text, code in group["members"].items():
                path, _, axis = text.removesuffix("]").rpartition("[")
                if (positions := tables.get((size, str(code)))) is None:
                    positions = tables[size, str(code)] = _decode(code, size)
                if positions.min() < 0 or positions.max() >= shapes[path][int(axis)]:
                    raise ValueError(f"{text} holds positions that {path} has not")
                members[name][path, int(axis)] = positions
        return cls(sizes, members, shapes)


def key(slot: Slot) -> str:
    """An axis of a parameter in text: "params/conv1/kernel[3]"."""
    path, axis = slot
    return f"{path}[{axis}]"


def _some(positions: Ints) -> str:
    shown = ", ".join(map(str, positions[:3]))
    what = "position" if len(positions) == 1 else "positions"
    return f"{what} {shown}" + (f" and {len(positions) - 3} more" if len(positions) > 3 else "")


def _encode(positions: Ints) -> list[Any]:
    size, k = positions.shape
    start = int(positions[0, 0])
    step = int(positions[1, 0]) - start if size > 1 else 0
    within = int(positions[0, 1]) - start if k > 1 else 0
    code = [k, start, step, within]
    return code if np.array_equal(positions, _regular(size, *code)) else positions.tolist()


def _decode(code: list[Any], size: int) -> Ints:
    if len(code) == 4 and all(isinstance(n, int) for n in code):
        return _regular(size, *code)
    positions = np.asarray(code)
    if positions.ndim != 2 or len(positions) != size or positions.dtype.kind != "i":
        raise ValueError(f"expected a table of positions for {size} channels")
    return positions.astype(np.int64)


def _regular(size: int, k: int, start: int, step: int, within: int) -> Ints:
    return start + step * np.arange(size)[:, None] + within * np.arange(k)
