"""Widths follow from the parameters: a Linen module runs with pruned parameters as they are.

A Linen layer is built with its full width and refuses a parameter of another. Here a parameter is
taken as it is given, and where a layer computes with a width of its own (the groups of a
convolution, the features that a bias is reshaped to), that follows from its parameters too. So
there is one model definition, not a dense one and a pruned one.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.core import meta
from flax.core.scope import Scope


def apply(module: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """`module.apply(variables, *args, **kwargs)` at the widths of `variables`.

    Works for any Linen module, pruned or not, under `jax.jit`, with `nn.scan` and `nn.remat`. Each
    parameter, of a stock layer or of a module's own `self.param`, in `setup` or in a compact
    method, is the one in `variables`, whatever shape the module would give it. A module's own
    arithmetic must follow too: wherever a width is meant, `x.shape[-1]` or a kernel's shape and not
    a field. Of the stock layers,

    - `nn.Conv` with groups has as many as its kernel and its inputs say: a depthwise convolution
      stays one, and any other keeps the number of its groups;
    - `nn.GroupNorm` keeps the number of its groups, also where `group_size` gave it, but for one
      of a group a channel, which stays that (both if it has a scale or a bias, which tell how many
      channels there were);
    - `nn.MultiHeadDotProductAttention` has the heads of its kernels, and goes on dividing by the
      square root of a head's full width. Without `qkv_features`, that width (as the channels of
      a GroupNorm above) comes from tracing `module.init`, about as long as `module.apply` takes;
    - recurrent cells keep their full width: their carry is made from a field. `pruning.trace` sees
      that they do not run at another, and leaves them whole, as any layer that does not.

    Args:
      module: a Linen module.
      variables: its variables, perhaps pruned.
      *args: as for `module.apply`.
      **kwargs: as for `module.apply`.

    Returns:
      What `module.apply` returns.

    Example:
      >>> module = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])
      >>> apply_fn = functools.partial(models.apply_pruned, module)
      >>> groups = pruning.trace(apply_fn, variables, x)
      >>> logits = apply_fn(pruning.prune(variables, groups, keep), x)
    """
    full = functools.cache(functools.partial(_full_params, module, args, kwargs))
    with nn.intercept_methods(functools.partial(_follow, full)):
        return module.apply(variables, *args, **kwargs)


class _Scope(Scope):
    """A scope whose parameters are taken as they are."""

    def param(
        self,
        name: str,
        init_fn: Callable[..., Any],
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Any:
        if not self.has_variable("params", name):
            return super().param(name, init_fn, *init_args, unbox=unbox, **init_kwargs)
        # As in Flax, but for the comparison with the shape that `init_fn` would give. Tracing the
        # initialisers for it takes Flax half of the time of tracing a network.
        self.reserve(name, "params")
        value = self.get_variable("params", name)
        return meta.unbox(value) if unbox else value


def _full_params(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Shapes of the parameters that the module would start with, had it been called like this."""
    kwargs = {k: v for k, v in kwargs.items() if k not in ("mutable", "capture_intermediates")}
    rngs = kwargs.pop("rngs", None)
    rngs = rngs if isinstance(rngs, Mapping) else {}

    def init() -> Any:
        return module.init({**rngs, "params": jax.random.key(0)}, *args, **kwargs)["params"]

    return meta.unbox(jax.eval_shape(init))


def _follow(
    full: Callable[[], Any],
    next_fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    layer = context.module
    # Not a subclass: Flax checks a `setup` in a scope of its own kind.
    if type(layer.scope) is Scope:
        layer.scope.__class__ = _Scope
    # During the initialisation that `_full_params` traces, there is nothing to follow yet.
    if context.method_name == "__call__" and not layer.is_initializing():
        for kind, fields in _FIELDS.items():
            if isinstance(layer, kind):
                inputs = args[0] if args else next(iter(kwargs.values()))
                for name, value in fields(layer, inputs, full).items():
                    # Linen freezes the fields of a bound layer; this copy of it lives for one call.
                    object.__setattr__(layer, name, value)
                break
    return next_fun(*args, **kwargs)


Fields = dict[str, Any]
Full = Callable[[], Any]


def _shape(params: Any, *path: str) -> tuple[int, ...] | None:
    """Of one array; None if there is none, for Flax to say what is missing."""
    for key in path:
        params = params.get(key) if isinstance(params, Mapping) else None
    return None if params is None else meta.unbox(params).shape


def _of_conv(layer: nn.Conv, inputs: jax.Array, full: Full) -> Fields:
    if layer.feature_group_count == 1 or not layer.has_variable("params", "kernel"):
        return {}
    kernel = meta.unbox(layer.get_variable("params", "kernel"))
    return {"feature_group_count": inputs.shape[-1] // kernel.shape[-2]}


def _of_dense_general(layer: nn.DenseGeneral, inputs: jax.Array, full: Full) -> Fields:
    if not layer.has_variable("params", "kernel"):
        return {}
    kernel = meta.unbox(layer.get_variable("params", "kernel"))
    rank = 1 if isinstance(layer.features, int) else len(layer.features)
    return {"features": kernel.shape[kernel.ndim - rank :]}


def _of_einsum(layer: nn.Einsum, inputs: jax.Array, full: Full) -> Fields:
    if not layer.has_variable("params", "kernel"):
        return {}
    return {"shape": meta.unbox(layer.get_variable("params", "kernel")).shape}


def _of_embed(layer: nn.Embed, inputs: jax.Array, full: Full) -> Fields:
    return {"features": layer.embedding.shape[-1]}


def _of_group_norm(layer: nn.GroupNorm, inputs: jax.Array, full: Full) -> Fields:
    width = inputs.shape[-1]
    if layer.group_size is None and layer.num_groups and width % layer.num_groups == 0:
        return {}
    # Tracing the initialisers tells how many channels there were.
    scale = _shape(full(), *layer.path, "scale") or _shape(full(), *layer.path, "bias")
    if scale is None:
        return {}
    if layer.group_size is not None:
        return {"num_groups": scale[-1] // layer.group_size, "group_size": None}
    # A group a channel: instance normalisation stays it.
    return {"num_groups": width} if layer.num_groups == scale[-1] else {}


def _of_attention(layer: nn.MultiHeadDotProductAttention, inputs: jax.Array, full: Full) -> Fields:
    query = _shape(layer.get_variable("params", "query"), "kernel")
    if query is None:
        return {}
    if layer.qkv_features is None:
        kernel = _shape(full(), *layer.path, "query", "kernel") or query
        width = kernel[-1]
    else:
        width = layer.qkv_features // layer.num_heads
    # All else is in the kernels of the projections; but the number of heads must divide this.
    fields: Fields = {"qkv_features": layer.num_heads * width}
    if query[-1] != width and layer.attention_fn is nn.dot_product_attention:
        fields["attention_fn"] = _scaled_attention(math.sqrt(query[-1] / width))
    return fields


@functools.cache
def _scaled_attention(factor: float) -> Callable[..., jax.Array]:
    """`nn.dot_product_attention` of queries times a factor.

    It divides them by the root of their width. Where that was cut, the products that are left must
    be divided by what they were trained with.
    """

    @functools.wraps(nn.dot_product_attention)
    def attention(query: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        return nn.dot_product_attention(query * factor, *args, **kwargs)

    return attention


# What a layer computes with besides its parameters: kind -> fields of a layer, given its inputs.
_FIELDS: dict[type[nn.Module], Callable[[Any, jax.Array, Full], Fields]] = {
    nn.Conv: _of_conv,
    nn.DenseGeneral: _of_dense_general,
    nn.Einsum: _of_einsum,
    nn.Embed: _of_embed,
    nn.GroupNorm: _of_group_norm,
    nn.MultiHeadDotProductAttention: _of_attention,
}
