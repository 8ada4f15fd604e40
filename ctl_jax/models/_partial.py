"""Networks in two parts: up to what enters one of their top-level layers, and from there.

Where the lower part does not change, what it computes of an image need be computed only once.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal
from jax.typing import DTypeLike

from ctl_jax.errors import UserError
from ctl_jax.models import _custom, functional
from ctl_jax.models.functional import ByBatch
from ctl_jax.trees import Variables


class _Call(NamedTuple):
    """What enters a layer, and what leaves it."""

    value: Any
    output: Any


class _Entered(Exception):
    """The layer that was looked for is called."""


def entering(
    module: nn.Module,
    variables: Variables,
    images: jax.Array,
    layer: str,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """What enters a top-level layer, in evaluation; nothing that comes after is computed.

    Args:
      module: the network.
      variables: {"params": ..., "batch_stats": ...}.
      images: float32 [B, H, W, 3], preprocessed.
      layer: its name, such as "stage3_block1".
      dtype: as for `apply`.

    Raises:
      UserError: no such layer is called.
    """

    def see(next_fun: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if _is_call(context) and context.module.path == (layer,):
            raise _Entered(args[0] if args else next(iter(kwargs.values())))
        return next_fun(*args, **kwargs)

    try:
        with nn.intercept_methods(see):
            functional.apply(module, variables, images, dtype=dtype)
    except _Entered as entered:
        value: jax.Array = entered.args[0]
        return value
    raise UserError(f"no top-level layer {layer!r} of the {type(module).__name__} is called")


def apply_from(
    module: nn.Module,
    variables: Variables,
    value: jax.Array,
    layer: str,
    image_size: int,
    train: bool | ByBatch = False,
    dtype: DTypeLike = jnp.float32,
) -> Any:
    """As `apply`, from what enters a layer: no layer that is called before it is computed.

    Args:
      module: the network.
      variables: {"params": ..., "batch_stats": ...}.
      value: from `entering`, [B, ...], of any float type.
      layer: one of which `entrance` says that the network may be entered there.
      image_size: side of the images, in pixels.
      train: as for `apply`; of the layers before, none normalises by the batch.
      dtype: as for `apply`.
    """
    images = jnp.zeros((value.shape[0], image_size, image_size, 3), jnp.float32)
    calls = _calls(module, variables, images, dtype)
    below = {name: call.output for name, call in calls.items()}
    value = value.astype(calls[layer].value.dtype)
    return _apply_above(module, variables, images, value, layer, below, train, dtype)


def entrance(
    module: nn.Module, variables: Variables, changing: Collection[str], image_size: int
) -> str:
    """The last top-level layer before which nothing changes, and where a network may be entered.

    Which is so where its logits depend on the layers before only through what enters it: not where
    a connection goes around it, or the head has taps below.

    Args:
      module: the network.
      variables: {"params": ..., "batch_stats": ...}; abstract arrays do.
      changing: the first parts of the paths of the parameters that change.
      image_size: side of the images, in pixels.

    Returns:
      Its name; "" where it would be the first layer, or there is none.
    """
    images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
    calls = _calls(module, variables, images, jnp.float32)
    names = list(calls)
    head = module.inner_head.split("/")[0] if isinstance(module, _custom.Own) else _custom.HEAD
    changing = {head if name == _custom.HEAD else name for name in changing}
    if not changing <= set(names):
        return ""
    end = min(map(names.index, changing), default=len(names) - 1)
    for at in range(end, 0, -1):
        below = {name: calls[name].output for name in names[:at]}
        if _is_enough(module, variables, images, names[at], calls[names[at]].value, below):
            return names[at]
    return ""


def _is_call(context: nn.module.InterceptorContext) -> bool:
    return context.method_name == "__call__" and len(context.module.path) == 1


def _calls(module: nn.Module, variables: Variables, images: Any, dtype: DTypeLike) -> Any:
    """Shapes of what enters and leaves the top-level layers, by name, in the order of calls."""
    found: dict[str, _Call] = {}

    def see(next_fun: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = next_fun(*args, **kwargs)
        if _is_call(context):
            value = args[0] if args else next(iter(kwargs.values()))
            call = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (value, output))
            found.setdefault(context.module.path[0], _Call(*call))
        return output

    with nn.intercept_methods(see):
        jax.eval_shape(
            lambda variables, images: functional.apply(module, variables, images, dtype=dtype),
            variables,
            images,
        )
    return found


def _apply_above(
    module: nn.Module,
    variables: Variables,
    images: jax.Array,
    value: jax.Array,
    layer: str,
    below: Any,
    train: Any,
    dtype: DTypeLike,
) -> Any:
    """`apply` with given inputs of a layer; before it layers give zeros, or what `below` holds."""
    reached = False

    def see(next_fun: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal reached
        if reached or not _is_call(context):
            return next_fun(*args, **kwargs)
        name = context.module.path[0]
        if name != layer:
            return jax.tree.map(
                lambda x: x if isinstance(x, jax.Array) else jnp.zeros(x.shape, x.dtype),
                below[name],
            )
        reached = True
        if args:
            return next_fun(value, *args[1:], **kwargs)
        return next_fun(**{**kwargs, next(iter(kwargs)): value})

    with nn.intercept_methods(see):
        return functional.apply(module, variables, images, train, dtype)


def _is_enough(
    module: nn.Module, variables: Variables, images: Any, layer: str, value: Any, below: Any
) -> bool:
    """Whether logits depend on images and on the layers before only through a layer's inputs."""

    def logits(lower: Any, variables: Any, value: Any) -> jax.Array:
        images, below = lower
        return _apply_above(module, variables, images, value, layer, below, False, jnp.float32)

    lower = images, below
    try:
        jaxpr = jax.make_jaxpr(logits)(lower, variables, value).jaxpr
    except UserError:
        # A head with taps finds the layers missing that it reads.
        return False
    return not _depends(jaxpr, len(jax.tree.leaves(lower)))


def _depends(jaxpr: Jaxpr, count: int) -> bool:
    """Whether an output depends on one of the first inputs; what a call gets, it may depend on."""
    reached = set(jaxpr.invars[:count])
    for eqn in jaxpr.eqns:
        if any(not isinstance(var, Literal) and var in reached for var in eqn.invars):
            reached.update(eqn.outvars)
    return any(not isinstance(var, Literal) and var in reached for var in jaxpr.outvars)
