"""Rules for what picks, places or puts side by side parts of arrays."""

from collections.abc import Sequence

import numpy as np
from jax.extend.core import JaxprEqn

from ctl_jax.pruning.channels import FREE, Axis, merged
from ctl_jax.pruning.rules.elementwise import elementwise, markers
from ctl_jax.pruning.rules.reductions import untouched
from ctl_jax.pruning.walk import Array, Walk, derived, register_rule, shape_of


@register_rule("concatenate")
def _concatenate(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Along its dimension the labels follow one another; the others are elementwise."""
    along = eqn.params["dimension"]
    parts = []
    for x, var in zip(operands, eqn.invars, strict=True):
        # How many equal parts there are is the program's own number, not one that fits any width.
        free = markers(x)[along] == FREE
        label = walk.channels.fixed(eqn.primitive.name) if free else x.axes[along]
        parts.append(np.broadcast_to(label, shape_of(var)[along]))
    rest = [Array((*x.axes[:along], FREE, *x.axes[along + 1 :])) for x in operands]
    axes = list(elementwise(walk, eqn, rest)[0].axes)
    line = np.concatenate(parts)
    plain = line.size and line[0] < 0 and (line == line[0]).all()
    axes[along] = int(line[0]) if plain else line
    return [derived(axes, operands)]


@register_rule("stack")
def _stack(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    axes = list(elementwise(walk, eqn, operands)[0].axes)
    axes.insert(eqn.params["axis"], walk.channels.fixed(eqn.primitive.name))
    return [derived(axes, operands)]


@register_rule("unstack")
def _unstack(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    (x,), along = operands, eqn.params["axis"]
    walk.freeze([x.axes[along]], eqn.primitive.name)
    axes = [axis for i, axis in enumerate(x.axes) if i != along]
    return [derived(axes, operands) for _ in eqn.outvars]


@register_rule("slice")
def _slice(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    (x,), shape, params = operands, shape_of(eqn.invars[0]), eqn.params
    strides = params["strides"] or (1,) * len(shape)
    cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return [derived([_part(walk, *pair) for pair in zip(x.axes, cuts, strict=True)], operands)]


def _part(walk: Walk, axis: Axis, cut: tuple[int, int, int]) -> Axis:
    """The labels of `axis[start:limit:stride]`.

    Where the cut makes equal parts, its numbers may follow the width (`x[..., : c // 2]`). So the
    j-th channels of all parts are one, or with a stride those that lie side by side, and each part
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
    if not equal or len(picked) == 1 or walk.guess(axis, "slice", ways=1):
        return walk.freeze([axis], "slice")
    parts = axis.reshape(-1, length)
    if stride > 1:
        parts = parts.T
    walk.channels.join(parts[:-1].ravel(), parts[1:].ravel())
    return picked


@register_rule("split")
def _split(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    (x,), along, sizes = operands, eqn.params["axis"], eqn.params["sizes"]
    axis, ends = x.axes[along], np.cumsum(sizes)
    parts: list[Axis] = [axis] * len(sizes)
    if not isinstance(axis, int):
        if len(set(sizes)) > 1 and len(sizes) > 1:
            parts = [walk.freeze([axis], eqn.primitive.name)] * len(sizes)
        else:
            parts = [_part(walk, axis, (end - sizes[0], end, 1)) for end in ends]
    return [derived([*x.axes[:along], part, *x.axes[along + 1 :]], operands) for part in parts]


@register_rule("pad")
def _pad(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    axes: list[Axis] = []
    for axis, (low, high, interior) in zip(
        operands[0].axes, eqn.params["padding_config"], strict=True
    ):
        if (low, high, interior) == (0, 0, 0):
            axes.append(axis)
        elif isinstance(axis, int) or interior or min(low, high) < 0:
            axes.append(walk.freeze([axis], "pad"))
        elif walk.guess(axis, "pad", ways=1):
            axes.append(walk.channels.fixed("pad"))
        else:
            # As many zeros whatever the width: they keep their places, and what is added to them.
            axes.append(np.pad(axis, (low, high), constant_values=walk.channels.fixed("pad")))
    return [derived(axes, operands)]


@register_rule("dynamic_slice")
def _dynamic_slice(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    sizes = zip(shape_of(eqn.invars[0]), eqn.params["slice_sizes"], strict=True)
    return [derived(untouched(walk, eqn, operands[0], [a == b for a, b in sizes]), operands)]


@register_rule("dynamic_update_slice")
def _dynamic_update_slice(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    x, update, *_ = operands
    shapes = zip(*map(shape_of, eqn.invars[:2]), strict=True)
    pairs = zip(x.axes, update.axes, [a == b for a, b in shapes], strict=True)
    return [derived([_placed(walk, eqn, *pair) for pair in pairs], operands)]


def _placed(walk: Walk, eqn: JaxprEqn, axis: Axis, update: Axis, whole: bool) -> Axis:
    """The labels of an axis on which values are replaced: all of them, or some."""
    if not whole:
        return walk.freeze([axis, update], eqn.primitive.name)
    walk.channels.join(axis, update)
    return merged(axis, update)


@register_rule("gather")
def _gather(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Axes that are taken whole keep their labels; of those that are indexed nothing is cut.

    With a weight and indices that are data it is a product in disguise: an embedding.
    """
    x, indices = operands
    name, shape = eqn.primitive.name, shape_of(eqn.invars[0])
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    window = [i for i in range(len(shape)) if i not in gone]
    whole = [i for i in window if sizes[i] == shape[i]]
    walk.freeze([axis for i, axis in enumerate(x.axes) if i not in whole], name)
    axes: list[Axis] = [walk.channels.fixed(name)] * len(shape_of(eqn.outvars[0]))
    for i, place in zip(window, numbers.offset_dims, strict=True):
        if i in whole:
            axes[place] = x.axes[i]
    rest = [i for i in range(len(axes)) if i not in numbers.offset_dims]
    for place, axis in zip(rest, indices.axes[:-1], strict=True):
        axes[place] = axis
    bit = walk.product(x, [], whole) if indices.data and not x.data else 0
    return [derived(axes, operands, bit)]


@register_rule(
    "scatter", "scatter-add", "scatter-max", "scatter-min", "scatter-mul", "scatter-sub",
)  # fmt: skip
def _scatter(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Axes that are written whole are joined with those of the values; the others are not cut."""
    x, _, updates = operands
    shape, given = shape_of(eqn.invars[0]), shape_of(eqn.invars[2])
    numbers = eqn.params["dimension_numbers"]
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = [i for i in range(len(shape)) if i not in gone]
    axes = [walk.channels.fixed(eqn.primitive.name)] * len(shape)
    placed: list[Axis] = list(axes)
    for i, j in zip(window, numbers.update_window_dims, strict=True):
        placed[i] = _placed(walk, eqn, x.axes[i], updates.axes[j], shape[i] == given[j])
    walk.freeze([x.axes[i] for i in gone], eqn.primitive.name)
    others = [axis for j, axis in enumerate(updates.axes) if j not in numbers.update_window_dims]
    walk.freeze(others, eqn.primitive.name)
    return [derived(placed, operands)]
