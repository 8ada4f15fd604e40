"""Rules for matrix products and convolutions."""

from typing import Any

import numpy as np
from jax import lax

from ctl_jax.pruning._interpreter import Interpreter, Operands, Results, derived, register_rule
from ctl_jax.pruning._union_find import FREE, Axis, merged


@register_rule("dot_general")
def _dot_general(
    interp: Interpreter, operands: Operands, *, dimension_numbers: Any, **_: Any
) -> Results:
    left, right = operands
    contracted, batch = dimension_numbers
    joined: dict[int, Axis] = {}
    for i, j in (*zip(*contracted, strict=True), *zip(*batch, strict=True)):
        interp.channels.join(left.axes[i], right.axes[j])
        joined[i] = merged(left.axes[i], right.axes[j])
    for i, j in zip(*contracted, strict=True):
        for x, axis in ((left, left.axes[i]), (right, right.axes[j])):
            if not x.data and isinstance(axis, int) and axis == FREE:
                interp.reduce(i, joined[i])  # a sum by another name
    others = [
        [i for i in range(len(x.axes)) if i not in (*contracted[side], *batch[side])]
        for side, x in enumerate(operands)
    ]
    bit = 0
    if left.data and right.data:
        # Attention divides by the square root of this width, a literal in the jaxpr.
        interp.freeze([left.axes[i] for i in contracted[0]], "dot_general of two activations")
    elif left.data or right.data:
        side = 0 if right.data else 1
        bit = interp.product(operands[side], contracted[side], others[side])
        interp.read(1 - side, operands[1 - side], contracted[1 - side])
    axes = [
        *(joined[i] for i in batch[0]),
        *(left.axes[i] for i in others[0]),
        *(right.axes[j] for j in others[1]),
    ]
    interp.cost([*axes, *(joined[i] for i in contracted[0])])
    return [derived(axes, operands, bit)]


@register_rule("conv_general_dilated")
def _conv(
    interp: Interpreter,
    operands: Operands,
    *,
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int,
    batch_group_count: int,
    **_: Any,
) -> Results:
    x, kernel = operands
    groups, sizes = feature_group_count, interp.shapes[1]
    batch, feature, *space = dimension_numbers.lhs_spec
    out, into, *window = dimension_numbers.rhs_spec
    axes: list[Axis] = [interp.freeze(x.axes[i] for i in space)] * len(x.axes)
    name = interp.eqn.primitive.name
    interp.freeze([kernel.axes[i] for i in window], f"window of {name}")
    axes[dimension_numbers.out_spec[0]] = x.axes[batch]
    bit = 0
    if batch_group_count > 1:
        touched = x.axes[batch], x.axes[feature], kernel.axes[into], kernel.axes[out]
        reason = f"{name} with {batch_group_count=}"
        axes = [interp.freeze(touched, reason)] * len(axes)
        made: Axis = axes[0]
    elif groups > 1 and sizes[into] == 1:
        # Depthwise: a channel is made from itself, as by a scale; or several from one.
        multiplier = sizes[out] // groups
        source = x.axes[feature]
        if not isinstance(source, int):
            source = np.repeat(source, multiplier) if multiplier > 1 else source
        interp.channels.join(source, kernel.axes[out])
        made = merged(source, kernel.axes[out])
    else:
        # With several groups the j-th channels of all of them are one: so each group loses as
        # many, their number stays, and the kernel's one input axis serves them all.
        source, made = kernel.axes[into], kernel.axes[out]
        if isinstance(source, int) and source == FREE and not kernel.data:
            interp.reduce(feature, x.axes[feature])  # a sum by another name
        if groups > 1 and not isinstance(source, int):
            source = np.tile(source, groups)
        interp.channels.join(x.axes[feature], source)
        if groups > 1 and not isinstance(made, int):
            rows = made.reshape(groups, -1)
            interp.channels.join(rows[:-1].ravel(), rows[1:].ravel())
        if x.data and not kernel.data:
            bit = interp.product(kernel, [into], [out])
            interp.read(0, x, [feature])
    axes[dimension_numbers.out_spec[1]] = made
    interp.cost([x.axes[batch], made, kernel.axes[into]])
    return [derived(axes, operands, bit)]
