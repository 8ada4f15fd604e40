"""Our arrays as views of another library's: how they are in the arrays of a file.

What a table of names does to a file's arrays (transposed kernels, queries and keys cut out of one
array, tokens put together) is found by giving it arrays of their own positions.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ctl_jax.exports._graph import Node
from ctl_jax.models.names import Naming, Shape

Integers = np.ndarray


def nodes(naming: Naming, ours: Mapping[str, Shape], theirs: Mapping[str, Shape]) -> list[Node]:
    """The operations that make our arrays of a file's.

    Args:
      naming: whose names the file has.
      ours: shapes of our arrays by path; they are the names of the operations' results.
      theirs: shapes of the file's arrays by name.
    """
    found: list[Node] = []
    for entry in naming.entries(ours):
        ends = np.cumsum([0, *(int(np.prod(theirs[name])) for name in entry.theirs)])
        # Of large layers half of the memory.
        kind = np.int32 if ends[-1] < 1 << 31 else np.int64
        positions = [
            np.arange(start, stop, dtype=kind).reshape(theirs[name])
            for name, start, stop in zip(entry.theirs, ends[:-1], ends[1:], strict=True)
        ]
        results = entry.read(positions, [ours[path] for path in entry.ours])
        for path, result in zip(entry.ours, results, strict=True):
            found += _view(path, np.asarray(result), entry.theirs, ends)
    return found


def _view(path: str, places: Integers, names: Sequence[str], ends: Integers) -> Iterator[Node]:
    """Operations for one array, whose elements are at some `places` of arrays in a row."""
    source = np.searchsorted(ends, places, side="right") - 1
    parts = list(_parts(source))
    joined = [f"{path}.{i}" for i in range(len(parts))] if len(parts) > 1 else [path]
    for (axis, start, stop), name in zip(parts, joined, strict=True):
        piece = places.take(range(start, stop), axis) if len(parts) > 1 else places
        number = int(source.take(start, axis).flat[0]) if piece.ndim else int(source)
        yield from _strided(name, piece - places.dtype.type(ends[number]), names[number])
    if len(parts) > 1:
        yield Node("concatenate", tuple(joined), path, {"axis": parts[0][0]})


def _parts(source: Integers) -> Iterator[tuple[int, int, int]]:
    """(axis, start, stop) of the parts that are each of one array."""
    for axis in range(source.ndim):
        rows = np.moveaxis(source, axis, 0).reshape(source.shape[axis], -1)
        if (rows == rows[:, :1]).all():
            steps = np.flatnonzero(np.diff(rows[:, 0])) + 1
            bounds = [0, *steps.tolist(), len(rows)]
            yield from ((axis, a, b) for a, b in itertools.pairwise(bounds))
            return
    raise AssertionError("an array of ours is a mosaic of several of theirs")


def _strided(name: str, places: Integers, source: str) -> Iterator[Node]:
    """The operations by which the elements at some places of an array are another."""
    shape, strides, offset = [], [], int(places.flat[0])
    for axis in range(places.ndim):
        start = (0,) * axis + (slice(None),) + (0,) * (places.ndim - axis - 1)
        for size, stride in _factors(places[start] - offset):
            shape.append(size)
            strides.append(stride)
    found = np.asarray(offset, places.dtype)
    for size, stride in zip(shape, strides, strict=True):
        found = found[..., None] + np.arange(size, dtype=places.dtype) * places.dtype.type(stride)
    assert np.array_equal(found.reshape(places.shape), places), f"{name} is no view of {source}"
    view = {"shape": shape, "strides": strides, "offset": offset}
    if list(places.shape) == shape:
        yield Node("as_strided", (source,), name, view)
    else:
        yield Node("as_strided", (source,), f"{name}:", view)
        yield Node("reshape", (f"{name}:",), name, {"shape": list(places.shape)})


def _factors(places: Integers) -> list[tuple[int, int]]:
    """Sizes and strides whose sums, the last one running fastest, are some places from 0 on."""
    if len(places) == 1:
        return [(1, 1)]
    stride = int(places[1])
    run = int(np.argmin(np.append(places == stride * np.arange(len(places)), False)))
    if run == len(places) or len(places) % run:
        return [(len(places), stride)]
    return [*_factors(places[::run]), (run, stride)]
