"""Rules for what picks, places or puts side by side parts of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctl_jax.pruning._interpreter import (
    AbstractArray,
    Interpreter,
    Operands,
    Results,
    derived,
    register_rule,
)
from ctl_jax.pruning._union_find import FREE, Axis, Shape, merged, without
from ctl_jax.pruning.rules.elementwise import elementwise, markers
from ctl_jax.pruning.rules.reductions import untouched


@register_rule("concatenate")
def _concatenate(interp: Interpreter, operands: Operands, *, dimension: int, **_: Any) -> Results:
    """Along its dimension the labels follow one another; the others are elementwise."""
    along, parts = dimension, []
    for x, shape in zip(operands, interp.shapes, strict=True):
        # How many equal parts there are is the program's own number, not one that fits any width.
        free = markers(x)[along] == FREE
        label = interp.freeze() if free else x.axes[along]
        parts.append(np.broadcast_to(label, shape[along]))
    rest = [AbstractArray((*x.axes[:along], FREE, *x.axes[along + 1 :])) for x in operands]
    axes = list(elementwise(interp, rest)[0].axes)
    line = np.concatenate(parts)
    plain = line.size and line[0] < 0 and (line == line[0]).all()
    axes[along] = int(line[0]) if plain else line
    return [derived(axes, operands)]


@register_rule("stack")
def _stack(interp: Interpreter, operands: Operands, *, axis: int, **_: Any) -> Results:
    axes = list(elementwise(interp, operands)[0].axes)
    axes.insert(axis, interp.freeze())
    return [derived(axes, operands)]


@register_rule("unstack")
def _unstack(interp: Interpreter, operands: Operands, *, axis: int, **_: Any) -> Results:
    (x,) = operands
    interp.freeze([x.axes[axis]])
    return [derived(without(x.axes, [axis]), operands)] * len(interp.eqn.outvars)


@register_rule("slice")
def _slice(
    interp: Interpreter,
    operands: Operands,
    *,
    start_indices: Shape,
    limit_indices: Shape,
    strides: Shape | None,
    **_: Any,
) -> Results:
    (x,) = operands
    cuts = zip(start_indices, limit_indices, strides or (1,) * len(x.axes), strict=True)
    return [derived([_part(interp, *pair) for pair in zip(x.axes, cuts, strict=True)], operands)]


def _part(interp: Interpreter, axis: Axis, cut: tuple[int, int, int]) -> Axis:
    """The labels of `axis[start:limit:stride]`.

    Where the cut makes equal parts, its numbers may follow the width (`x[..., : c // 2]`). So the
    j-th channels of all parts are one, or with a stride those that are side by side, and each part
    loses as many. Otherwise its numbers are the program's own, and nothing there is cut.
    """
    start, limit, stride = cut
    if isinstance(axis, int) or (limit - start, stride) == (len(axis), 1):
        return axis
    length = limit - start if stride == 1 else stride
    picked = axis[start:limit:stride]
    equal = len(axis) % length == 0 and (
        start % length == 0 if stride == 1 else len(picked) == len(axis) // stride
    )
    # One literal index names a position, not a part.
    if not equal or len(picked) == 1 or interp.guess(axis, "slice", ways=1):
        return interp.freeze([axis], "slice")
    parts = axis.reshape(-1, length)
    if stride > 1:
        parts = parts.T
    interp.channels.join(parts[:-1].ravel(), parts[1:].ravel())
    return picked


@register_rule("split")
def _split(
    interp: Interpreter, operands: Operands, *, axis: int, sizes: Shape, **_: Any
) -> Results:
    (x,), along, ends = operands, operands[0].axes[axis], np.cumsum(sizes)
    parts: list[Axis] = [along] * len(sizes)
    if not isinstance(along, int):
        if len(set(sizes)) > 1:
            parts = [interp.freeze([along])] * len(sizes)
        else:
            parts = [_part(interp, along, (end - sizes[0], end, 1)) for end in ends]
    return [derived([*x.axes[:axis], part, *x.axes[axis + 1 :]], operands) for part in parts]


@register_rule("pad")
def _pad(
    interp: Interpreter,
    operands: Operands,
    *,
    padding_config: Sequence[tuple[int, int, int]],
    **_: Any,
) -> Results:
    axes: list[Axis] = []
    for axis, (low, high, interior) in zip(operands[0].axes, padding_config, strict=True):
        if (low, high, interior) == (0, 0, 0):
            axes.append(axis)
        elif isinstance(axis, int) or interior or min(low, high) < 0:
            axes.append(interp.freeze([axis]))
        elif interp.guess(axis, "pad", ways=1):
            axes.append(interp.freeze())
        else:
            # As many zeros whatever the width: they keep their places, and what is added to them.
            axes.append(np.pad(axis, (low, high), constant_values=interp.freeze()))
    return [derived(axes, operands)]


@register_rule("dynamic_slice")
def _dynamic_slice(
    interp: Interpreter, operands: Operands, *, slice_sizes: Shape, **_: Any
) -> Results:
    sizes = zip(interp.shapes[0], slice_sizes, strict=True)
    return [derived(untouched(interp, operands[0], [a == b for a, b in sizes]), operands)]


@register_rule("dynamic_update_slice")
def _dynamic_update_slice(interp: Interpreter, operands: Operands, **_: Any) -> Results:
    x, update = operands[:2]
    sizes = zip(*interp.shapes[:2], strict=True)
    pairs = zip(x.axes, update.axes, [a == b for a, b in sizes], strict=True)
    return [derived([_placed(interp, *pair) for pair in pairs], operands)]


def _placed(interp: Interpreter, axis: Axis, update: Axis, whole: bool) -> Axis:
    """The labels of an axis on which values are replaced: all of them, or some."""
    if not whole:
        return interp.freeze([axis, update])
    interp.channels.join(axis, update)
    return merged(axis, update)


@register_rule("gather")
def _gather(
    interp: Interpreter, operands: Operands, *, dimension_numbers: Any, slice_sizes: Shape, **_: Any
) -> Results:
    """Axes that are taken whole keep their labels; of those that are indexed nothing is cut.

    With a weight and indices that are data it is a product in disguise: an embedding.
    """
    x, indices = operands
    shape, numbers = interp.shapes[0], dimension_numbers
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    window = [i for i in range(len(shape)) if i not in gone]
    whole = [i for i in window if slice_sizes[i] == shape[i]]
    label = interp.freeze(without(x.axes, whole))
    axes: list[Axis] = [label] * len(interp.result_shapes[0])
    for i, place in zip(window, numbers.offset_dims, strict=True):
        if i in whole:
            axes[place] = x.axes[i]
    rest = [i for i in range(len(axes)) if i not in numbers.offset_dims]
    for place, axis in zip(rest, indices.axes[:-1], strict=True):
        axes[place] = axis
    bit = interp.product(x, [], whole) if indices.data and not x.data else 0
    return [derived(axes, operands, bit)]


@register_rule(
    "scatter", "scatter-add", "scatter-max", "scatter-min", "scatter-mul", "scatter-sub",
)  # fmt: skip
def _scatter(
    interp: Interpreter, operands: Operands, *, dimension_numbers: Any, **_: Any
) -> Results:
    """Axes that are written whole are joined with those of the values; the others are not cut."""
    (x, updates), (shape, given) = operands[::2], interp.shapes[::2]
    numbers = dimension_numbers
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = [i for i in range(len(shape)) if i not in gone]
    placed: list[Axis] = [interp.freeze(x.axes[i] for i in gone)] * len(shape)
    for i, j in zip(window, numbers.update_window_dims, strict=True):
        placed[i] = _placed(interp, x.axes[i], updates.axes[j], shape[i] == given[j])
    interp.freeze(without(updates.axes, numbers.update_window_dims))
    return [derived(placed, operands)]
