"""Rules for sums, extrema and windows over axes, and for what runs along one axis."""

from collections.abc import Sequence

from jax.extend.core import JaxprEqn

from ctl_jax.pruning.channels import Axis
from ctl_jax.pruning.rules.elementwise import elementwise
from ctl_jax.pruning.walk import Array, Walk, derived, register_rule


@register_rule("reduce_max", "reduce_min", "reduce_prod", "reduce_sum")
def _reduce(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Over fewer channels this is another number, and no kernel's row can make up for it."""
    (x,) = operands
    gone = eqn.params["axes"]
    for i in gone:
        walk.reduce(eqn, i, x.axes[i])
    return [derived([axis for i, axis in enumerate(x.axes) if i not in gone], operands)]


@register_rule("argmax", "argmin", "reduce_and", "reduce_or", "reduce_xor")
def _reduce_to_index(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """The result says which position: it means something else where positions are missing."""
    (x,) = operands
    gone = eqn.params["axes"]
    walk.freeze([x.axes[i] for i in gone], eqn.primitive.name)
    return [derived([axis for i, axis in enumerate(x.axes) if i not in gone], operands)]


def untouched(walk: Walk, eqn: JaxprEqn, x: Array, same: Sequence[bool]) -> list[Axis]:
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
    return [derived(untouched(walk, eqn, operands[0], same), operands)]


@register_rule("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "sort", "top_k")
def _along(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """Runs along one axis, and does the same at every position of the others."""
    params = eqn.params
    along = params["dimension"] if "dimension" in params else params["axis"]
    (whole,) = elementwise(walk, eqn, operands)
    axes = untouched(walk, eqn, whole, [i != along for i in range(len(whole.axes))])
    return [derived(axes, operands) for _ in eqn.outvars]
