"""Rules for sums, extrema and windows over axes, and for what runs along one axis."""

from collections.abc import Iterable, Sequence
from typing import Any

from ctl_jax.pruning._interpreter import (
    AbstractArray,
    Interpreter,
    Operands,
    Results,
    derived,
    register_rule,
)
from ctl_jax.pruning._union_find import Axis, Shape, without
from ctl_jax.pruning.rules.elementwise import elementwise


@register_rule("reduce_max", "reduce_min", "reduce_prod", "reduce_sum")
def _reduce(interp: Interpreter, operands: Operands, *, axes: Shape, **_: Any) -> Results:
    """Over fewer channels this is another number, and no kernel's row can make up for it."""
    (x,) = operands
    for i in axes:
        interp.reduce(i, x.axes[i])
    return [derived(without(x.axes, axes), operands)]


@register_rule("argmax", "argmin", "reduce_and", "reduce_or", "reduce_xor")
def _reduce_to_index(interp: Interpreter, operands: Operands, *, axes: Shape, **_: Any) -> Results:
    """The result says which position: it means something else where positions are missing."""
    (x,) = operands
    interp.freeze(x.axes[i] for i in axes)
    return [derived(without(x.axes, axes), operands)]


def untouched(interp: Interpreter, x: AbstractArray, same: Iterable[bool]) -> list[Axis]:
    """The axes of a result where only those with `same` are as they were; the others freeze."""
    return [
        axis if keep else interp.freeze([axis]) for axis, keep in zip(x.axes, same, strict=True)
    ]


@register_rule("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def _reduce_window(
    interp: Interpreter,
    operands: Operands,
    *,
    window_dimensions: Shape,
    window_strides: Shape,
    padding: Sequence[tuple[int, int]],
    base_dilation: Shape,
    **_: Any,
) -> Results:
    windows = zip(window_dimensions, window_strides, padding, base_dilation, strict=True)
    same = [window == (1, 1, (0, 0), 1) for window in windows]
    return [derived(untouched(interp, operands[0], same), operands)]


@register_rule("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "sort", "top_k")
def _along(
    interp: Interpreter,
    operands: Operands,
    *,
    axis: int | None = None,
    dimension: int | None = None,
    **_: Any,
) -> Results:
    """Runs along one axis, and does the same at every position of the others."""
    along = axis if dimension is None else dimension
    (whole,) = elementwise(interp, operands)
    axes = untouched(interp, whole, [i != along for i in range(len(whole.axes))])
    return [derived(axes, operands)] * len(interp.eqn.outvars)
