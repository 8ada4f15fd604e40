"""The table of rules: what each primitive does to the channels on its operands' axes."""

import dataclasses
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn

from ctl_jax.pruning.channels import FREE, Axis, elements, merged
from ctl_jax.pruning.walk import Addition, Array, Walk, derived, register_rule, shape_of

# fmt: off
ELEMENTWISE = (
    "abs", "acos", "acosh", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "complex", "conj", "convert_element_type", "copy", "cos", "cosh", "digamma", "div",
    "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag",
    "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "name", "ne", "neg", "nextafter", "not", "or", "pow", "real", "reduce_precision", "rem",
    "round", "rsqrt", "select_n", "sharding_constraint", "sign", "sin", "sinh", "sqrt", "square",
    "stop_gradient", "tan", "tanh", "xor",
)
# fmt: on


@register_rule(*ELEMENTWISE)
def _elementwise(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Same position, same channel. Scalars join nothing, sizes 1 broadcast and are FREE."""
    # The operand with most channels gives the labels: in `scale * kernel` the result's axes are
    # the kernel's, and it is the kernel's slices that produce a channel.
    ranked = sorted(operands, key=lambda x: -sum(axis != FREE for axis in _markers(x)))
    axes: list[Axis] = list(ranked[0].axes)
    for other in ranked[1:]:
        for i, axis in enumerate(other.axes):
            walk.channels.join(axes[i], axis)
            axes[i] = merged(axes[i], axis)
    return [derived(axes, operands)]


@register_rule("add", "add_any", "sub")
def _add(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Elementwise; a sum of two activations that were different channels is a residual one."""
    left, right = operands
    joined = []
    if left.data and right.data:
        pairs = zip(left.axes, right.axes, strict=False)  # a scalar has no axes
        joined = [elements(a, b) for a, b in pairs if walk.channels.join(a, b)]
    walk.additions += [Addition(ids, left.readers, right.readers) for ids in joined]
    (result,) = _elementwise(walk, eqn, operands)
    return [dataclasses.replace(result, makers=0) if joined else result]


@register_rule("device_put", "optimization_barrier")
def _identity(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    return list(operands)


@register_rule(
    "call", "closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "remat2",
    "checkpoint",  # remat2 by the name it has in other versions of jax
)  # fmt: skip
def _call(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """A function called with these operands: walked as if it stood here."""
    called = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
    return walk.run(called.jaxpr if isinstance(called, ClosedJaxpr) else called, operands)


@register_rule("iota")
def _iota(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    axes = [FREE] * len(eqn.params["shape"])
    axes[eqn.params["dimension"]] = walk.channels.fixed("iota")
    return [derived(axes, operands)]


@register_rule("broadcast_in_dim")
def _broadcast(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    axes: list[Axis] = [FREE] * len(eqn.params["shape"])
    for axis, i in zip(operands[0].axes, eqn.params["broadcast_dimensions"], strict=True):
        axes[i] = axis
    return [derived(axes, operands)]


@register_rule("transpose")
def _transpose(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    (x,) = operands
    return [derived([x.axes[i] for i in eqn.params["permutation"]], operands)]


@register_rule("squeeze")
def _squeeze(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    (x,) = operands
    gone = eqn.params["dimensions"]
    return [derived([axis for i, axis in enumerate(x.axes) if i not in gone], operands)]


@register_rule("rev")
def _rev(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    axes = list(operands[0].axes)
    for i in eqn.params["dimensions"]:
        axis = axes[i]
        axes[i] = axis if isinstance(axis, int) else axis[::-1]
    return [derived(axes, operands)]


@register_rule("concatenate")
def _concatenate(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Along its dimension the labels follow one another; the others are elementwise."""
    along = eqn.params["dimension"]
    parts = []
    for x, var in zip(operands, eqn.invars, strict=True):
        # How many equal parts there are is the program's own number, not one that fits any width.
        free = _markers(x)[along] == FREE
        label = walk.channels.fixed(eqn.primitive.name) if free else x.axes[along]
        parts.append(np.broadcast_to(label, shape_of(var)[along]))
    rest = [Array((*x.axes[:along], FREE, *x.axes[along + 1 :])) for x in operands]
    axes = list(_elementwise(walk, eqn, rest)[0].axes)
    axes[along] = np.concatenate(parts)
    return [derived(axes, operands)]


@register_rule("reshape")
def _reshape(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Runs of axes merge or split; sizes of 1 come and go."""
    old, new = shape_of(eqn.invars[0]), eqn.params["new_sizes"]
    if 0 in old or eqn.params.get("dimensions") is not None:
        label = walk.freeze(operands[0].axes, "reshape")
        return [derived([label] * len(new), operands)]
    axes: list[Axis] = [FREE] * len(new)
    for before, after in _runs(old, new):
        labels = _regroup(
            walk, [operands[0].axes[i] for i in before], [old[i] for i in before],
            [new[i] for i in after],
        )  # fmt: skip
        for i, axis in zip(after, labels, strict=True):
            axes[i] = axis
    return [derived(axes, operands)]


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
    walk: Walk, axes: Sequence[Axis], old: Sequence[int], new: Sequence[int]
) -> Sequence[Axis]:
    """The labels of a run of axes of sizes `old` once it is reshaped to sizes `new`.

    Where one axis of the run carries channels, each position of the result belongs to the channel
    whose values it holds; an axis of the result carries them if they vary along it alone.
    """
    if len(old) == len(new) == 1:
        return axes
    carriers = [i for i, axis in enumerate(axes) if not isinstance(axis, int)]
    if not carriers:
        return [min(_markers(Array(tuple(axes))))] * len(new)
    if len(carriers) == 1:
        (carrier,) = carriers
        along = [n if i == carrier else 1 for i, n in enumerate(old)]
        ids = np.broadcast_to(np.reshape(axes[carrier], along), old).reshape(new)
        for i in range(len(new)):
            line = np.moveaxis(ids, i, -1).reshape(-1, new[i])
            if (line == line[0]).all():
                result: list[Axis] = [walk.channels.fixed("reshape")] * len(new)
                result[i] = line[0]
                return result
    return [walk.freeze(axes, "reshape")] * len(new)


@register_rule(
    "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod",
    "reduce_sum", "reduce_xor",
)  # fmt: skip
def _reduce(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """What is reduced is not cut: a mean is a sum over a number that the jaxpr holds fixed."""
    (x,) = operands
    gone = eqn.params["axes"]
    walk.freeze([x.axes[i] for i in gone], eqn.primitive.name)
    return [derived([axis for i, axis in enumerate(x.axes) if i not in gone], operands)]


def _untouched(walk: Walk, eqn: JaxprEqn, x: Array, same: Sequence[bool]) -> list[Axis]:
    """The axes of a result where only those with `same` are as they were; the others freeze."""
    name = eqn.primitive.name
    return [
        axis if keep else walk.freeze([axis], name) for axis, keep in zip(x.axes, same, strict=True)
    ]


@register_rule("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def _reduce_window(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    names = "window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation"
    windows = zip(*(eqn.params[name] for name in names), strict=True)
    same = [window[:4] == (1, 1, (0, 0), 1) for window in windows]
    return [derived(_untouched(walk, eqn, operands[0], same), operands)]


@register_rule("pad")
def _pad(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    same = [config == (0, 0, 0) for config in eqn.params["padding_config"]]
    return [derived(_untouched(walk, eqn, operands[0], same), operands)]


@register_rule("slice")
def _slice(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    shape = shape_of(eqn.invars[0])
    strides = eqn.params["strides"] or (1,) * len(shape)
    bounds = zip(
        shape, eqn.params["start_indices"], eqn.params["limit_indices"], strides, strict=True
    )
    same = [(start, limit, stride) == (0, n, 1) for n, start, limit, stride in bounds]
    return [derived(_untouched(walk, eqn, operands[0], same), operands)]


@register_rule("dot_general")
def _dot_general(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    left, right = operands
    contracted, batch = eqn.params["dimension_numbers"]
    for i, j in (*zip(*contracted, strict=True), *zip(*batch, strict=True)):
        walk.channels.join(left.axes[i], right.axes[j])
    free = [
        [i for i in range(len(x.axes)) if i not in (*contracted[side], *batch[side])]
        for side, x in enumerate(operands)
    ]
    bit = 0
    if left.data and right.data:
        # Attention divides by the square root of this width, a literal in the jaxpr.
        walk.freeze([left.axes[i] for i in contracted[0]], "dot_general of two activations")
    elif left.data or right.data:
        side = 0 if right.data else 1
        bit = walk.product(operands[side], contracted[side], free[side])
    axes = [
        *(merged(left.axes[i], right.axes[j]) for i, j in zip(*batch, strict=True)),
        *(left.axes[i] for i in free[0]),
        *(right.axes[j] for j in free[1]),
    ]
    return [derived(axes, operands, bit)]


@register_rule("conv_general_dilated")
def _conv(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    x, kernel = operands
    name, params = eqn.primitive.name, eqn.params
    numbers = params["dimension_numbers"]
    batch, feature, *space = numbers.lhs_spec
    out, into, *window = numbers.rhs_spec
    frozen = walk.freeze([x.axes[i] for i in space], name)
    walk.freeze([kernel.axes[i] for i in window], f"window of {name}")
    axes: list[Axis] = [frozen] * len(x.axes)
    axes[numbers.out_spec[0]] = x.axes[batch]
    sizes = shape_of(eqn.invars[0])[feature], shape_of(eqn.invars[1])[out]
    bit = 0
    if params["feature_group_count"] == params["batch_group_count"] == 1:
        walk.channels.join(x.axes[feature], kernel.axes[into])
        axes[numbers.out_spec[1]] = kernel.axes[out]
        if x.data and not kernel.data:
            bit = walk.product(kernel, [into], [out])
    elif sizes == (params["feature_group_count"],) * 2:
        # Depthwise: a channel is made from itself, as by a scale.
        walk.channels.join(x.axes[feature], kernel.axes[out])
        axes[numbers.out_spec[1]] = merged(x.axes[feature], kernel.axes[out])
    else:
        counts = ((key, params[key]) for key in ("feature_group_count", "batch_group_count"))
        reason = " and ".join(f"{name} with {key}={n}" for key, n in counts if n > 1)
        touched = x.axes[batch], x.axes[feature], kernel.axes[into], kernel.axes[out]
        walk.freeze(touched, reason)
        axes = [walk.channels.fixed(reason)] * len(axes)
    return [derived(axes, operands, bit)]


def _markers(x: Array) -> list[int]:
    """Each axis as one label: its own if it has only one, 0 where it carries channels."""
    return [axis if isinstance(axis, int) else 0 for axis in x.axes]
