"""Rules for what does the same at every position, and for arrays made of no other."""

from typing import Any

from ctl_jax.pruning._interpreter import (
    AbstractArray,
    Addition,
    Interpreter,
    Operands,
    Results,
    derived,
    register_rule,
)
from ctl_jax.pruning._union_find import FREE, Axis, Shape, elements, merged

RANDOM = "random numbers of a constant key"

# fmt: off
ELEMENTWISE = (
    "abs", "acos", "acosh", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "clz", "complex", "conj", "convert_element_type", "copy", "cos", "cosh", "digamma",
    "div", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "imag", "integer_pow",
    "is_finite", "lgamma", "log", "log1p", "logistic", "max", "min", "mul", "name", "neg",
    "nextafter", "not", "or", "population_count", "pow", "real", "reduce_precision", "rem", "round",
    "rsqrt", "select_n", "sharding_constraint", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "tan", "tanh",
    "xor",
)
# fmt: on


@register_rule(*ELEMENTWISE)
def elementwise(interp: Interpreter, operands: Operands, **_: Any) -> Results:
    """Same position, same channel. Scalars join nothing, sizes 1 broadcast and are FREE."""
    # The operand with most channels gives the labels: in `scale * kernel` the result's axes are
    # the kernel's, and it is the kernel's slices that produce a channel.
    first = max(operands, key=_rank)
    axes: list[Axis] = list(first.axes)
    for other in operands:
        if other is first:
            continue
        for i, axis in enumerate(other.axes):
            if axes[i] is not axis:
                interp.channels.join(axes[i], axis)
                axes[i] = merged(axes[i], axis)
    return [derived(axes, operands)]


@register_rule("eq", "ge", "gt", "le", "lt", "ne")
def _compare(interp: Interpreter, operands: Operands, **_: Any) -> Results:
    """Elementwise; and a comparison with random numbers is dropout's mask, any is as good."""
    (result,) = elementwise(interp, operands)
    random = interp.channels.fixed(RANDOM)
    return [
        result._replace(
            axes=tuple([FREE if isinstance(a, int) and a == random else a for a in result.axes])
        )
    ]


@register_rule("add", "add_any", "sub")
def _add(interp: Interpreter, operands: Operands, **_: Any) -> Results:
    """Elementwise; a sum of two activations that were different channels is a residual one."""
    left, right = operands
    joined = []
    if left.data and right.data:
        pairs = zip(left.axes, right.axes, strict=False)  # a scalar has no axes
        joined = [elements(a, b) for a, b in pairs if interp.channels.join(a, b)]
    interp.additions += [Addition(ids, left.readers, right.readers) for ids in joined]
    (result,) = elementwise(interp, operands)
    return [result._replace(makers=0) if joined else result]


@register_rule("bitcast_convert_type")
def _bitcast(interp: Interpreter, operands: Operands, **_: Any) -> Results:
    (x,), rank = operands, len(interp.result_shapes[0])
    if rank == len(x.axes):
        return [derived(x.axes, operands)]
    return [derived([interp.freeze(x.axes)] * rank, operands)]


@register_rule("device_put", "optimization_barrier")
def _identity(interp: Interpreter, operands: Operands, **_: Any) -> Results:
    return list(operands)


@register_rule("iota")
def _iota(
    interp: Interpreter, operands: Operands, *, shape: Shape, dimension: int, **_: Any
) -> Results:
    axes = [FREE] * len(shape)
    axes[dimension] = interp.channels.fixed("iota")
    return [derived(axes, operands)]


@register_rule(
    "random_bits", "random_clone", "random_fold_in", "random_seed", "random_split",
    "random_unwrap", "random_wrap", "rng_bit_generator", "threefry2x32",
)  # fmt: skip
def _random(interp: Interpreter, operands: Operands, **_: Any) -> Results:
    """Random numbers are as good for one width as for another (dropout).

    Not those of a key that the program holds: they are the same at every call, as a constant is.
    """
    label = FREE if any(x.given for x in operands) else interp.channels.fixed(RANDOM)
    return [derived([label] * len(shape), operands) for shape in interp.result_shapes]


def _rank(x: AbstractArray) -> tuple[int, int]:
    carrying = sum([not isinstance(axis, int) or axis != FREE for axis in x.axes])
    return carrying, len(x.axes)


def markers(x: AbstractArray) -> list[int]:
    """Each axis as one label: its own if it has only one, 0 where it carries channels."""
    return [axis if isinstance(axis, int) else 0 for axis in x.axes]
