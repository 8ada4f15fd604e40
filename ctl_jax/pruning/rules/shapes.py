"""Rules for what rearranges positions: broadcast, transpose, reverse, reshape."""

import itertools
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from ctl_jax.pruning._interpreter import Grid, Interpreter, Operands, Results, register_rule, view
from ctl_jax.pruning._union_find import FREE, Axis, Shape, without


@register_rule("broadcast_in_dim")
def _broadcast(
    interp: Interpreter, operands: Operands, *, shape: Shape, broadcast_dimensions: Shape, **_: Any
) -> Results:
    axes: list[Axis] = [FREE] * len(shape)
    for axis, i in zip(operands[0].axes, broadcast_dimensions, strict=True):
        axes[i] = axis
    return [view(axes, operands[0])]


@register_rule("transpose")
def _transpose(interp: Interpreter, operands: Operands, *, permutation: Shape, **_: Any) -> Results:
    (x,) = operands
    return [view([x.axes[i] for i in permutation], x)]


@register_rule("squeeze")
def _squeeze(interp: Interpreter, operands: Operands, *, dimensions: Shape, **_: Any) -> Results:
    (x,) = operands
    return [view(without(x.axes, dimensions), x)]


@register_rule("rev")
def _rev(interp: Interpreter, operands: Operands, *, dimensions: Shape, **_: Any) -> Results:
    axes = list(operands[0].axes)
    for i in dimensions:
        axis = axes[i]
        axes[i] = axis if isinstance(axis, int) else axis[::-1]
    return [view(axes, operands[0])]


@register_rule("tile")
def _tile(interp: Interpreter, operands: Operands, *, reps: Shape, **_: Any) -> Results:
    """As a broadcast to a new axis before each, and a merge."""
    (x,), (shape,) = operands, interp.shapes
    return [
        view(
            [
                axis if repeats == 1 else _pair(interp, FREE, repeats, axis, n)
                for axis, n, repeats in zip(x.axes, shape, reps, strict=True)
            ],
            x,
        )
    ]


@register_rule("reshape")
def _reshape(
    interp: Interpreter,
    operands: Operands,
    *,
    new_sizes: Shape,
    dimensions: Shape | None = None,
    **_: Any,
) -> Results:
    """Runs of axes merge or split; sizes of 1 come and go."""
    x, old, new = operands[0], interp.shapes[0], new_sizes
    if 0 in old or dimensions is not None:
        return [view([interp.freeze(x.axes)] * len(new), x)]
    axes: list[Axis] = [FREE] * len(new)
    for before, after in _runs(old, new):
        sizes = [old[i] for i in before], [new[i] for i in after]
        regrouped = _regroup(interp, [x.axes[i] for i in before], *sizes)
        for i, axis in zip(after, regrouped, strict=True):
            axes[i] = axis
    return [view(axes, x)]


def _runs(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of axes (of size > 1) of two shapes that hold the same positions."""
    left = [i for i, n in enumerate(old) if n > 1]
    right = [i for i, n in enumerate(new) if n > 1]
    while left:
        before, after = [left.pop(0)], [right.pop(0)]
        while (a := prod(old[i] for i in before)) != (b := prod(new[i] for i in after)):
            if a < b:
                before.append(left.pop(0))
            else:
                after.append(right.pop(0))
        yield before, after


def _regroup(
    interp: Interpreter, axes: Sequence[Axis], old: Sequence[int], new: Sequence[int]
) -> Sequence[Axis]:
    """The labels of a run of axes of sizes `old` once it is reshaped to sizes `new`."""
    if len(old) == len(new) == 1:
        return axes
    plain = [axis for axis in axes if isinstance(axis, int)]
    if len(plain) == len(axes):
        return [min(plain)] * len(new)
    # Both shapes are coarser forms of one fine shape: split the axes to it, then merge.
    inner = sorted({prod(sizes[i:]) for sizes in (old, new) for i in range(len(sizes))})
    if any(b % a for a, b in itertools.pairwise(inner)):
        return [interp.freeze(axes)] * len(new)
    fine = [b // a for a, b in zip([1, *inner], inner, strict=False) if b > a][::-1]
    parts: list[Axis] = []
    for axis, n in zip(axes, old, strict=True):
        parts += _split(interp, axis, _take(fine, n, len(parts)))
    merged, at = [], 0
    for n in new:
        sizes = _take(fine, n, at)
        merged.append(_merge(interp, parts[at : at + len(sizes)], sizes))
        at += len(sizes)
    return merged


def _take(fine: Sequence[int], size: int, start: int) -> list[int]:
    """The sizes of `fine` from `start` on whose product is `size`."""
    end = start + 1
    while prod(fine[start:end]) < size:
        end += 1
    return list(fine[start:end])


def _split(interp: Interpreter, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """The labels of axes of these sizes that one axis is reshaped to."""
    if len(sizes) == 1 or isinstance(axis, int):
        return [axis] * len(sizes)
    ids = axis.reshape(sizes)
    for i, n in enumerate(sizes):
        line = np.moveaxis(ids, i, -1).reshape(-1, n)
        if (line == line[0]).all():  # they vary along this one alone
            result: list[Axis] = [interp.freeze()] * len(sizes)
            result[i] = line[0]
            return result
    choice = interp.guess(axis, "reshape")
    if choice > 1:
        return [interp.freeze()] * len(sizes)
    rows, columns = interp.channels.new(sizes[0]), interp.channels.new(prod(sizes[1:]))
    interp.grids.append(Grid(ids.reshape(len(rows), -1), rows, columns, True, bool(choice)))
    return [rows, *_split(interp, columns, sizes[1:])]


def _merge(interp: Interpreter, axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    """The labels of the one axis that axes of these sizes are reshaped to."""
    result = axes[-1]
    width = sizes[-1]
    for axis, n in zip(axes[-2::-1], sizes[-2::-1], strict=True):
        result = _pair(interp, axis, n, result, width)
        width *= n
    return result


def _pair(interp: Interpreter, rows: Axis, n: int, columns: Axis, m: int) -> Axis:
    """The labels of an axis of n * m positions, row by row."""
    if isinstance(rows, int) and isinstance(columns, int):
        return min(rows, columns)
    # Of equal rows or columns there may be fewer once the program runs at other widths.
    rows = interp.channels.new(n) if isinstance(rows, int) and rows == FREE else rows
    columns = interp.channels.new(m) if isinstance(columns, int) and columns == FREE else columns
    if isinstance(columns, int):
        return np.repeat(rows, m)
    if isinstance(rows, int):
        return np.tile(columns, n)
    for grid in interp.grids:  # merged again as it was split
        if grid.rows is rows and grid.columns is columns and grid.whole is not None:
            return grid.whole.ravel()
    whole = interp.channels.new(n * m).reshape(n, m)
    interp.grids.append(Grid(whole, rows, columns, split=False))
    return whole.ravel()
