"""Taps: where a network is read besides its last features, for heads on all of its stages.

A tap is what enters a layer, which is after the activation and the pooling before it, whatever the
family, or the map whose mean the last features are. Of each the maxima over the image are taken,
and but for that last one the means over its quarters: what is where counts, too. Which layers these
are follows from the names of the network's stages and the order in which its layers are called, and
from nothing else: the same for a pruned network, at every image size. Heads on features of several
depths: Evci et al., Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning,
2022 (arXiv:2201.03529).
"""

import collections
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from ctl_jax.models import _custom, depth, layers
from ctl_jax.models.stages import stages

# Of more stages than these the three at the quarters of the way are tapped.
MOST_STAGES = 7
# Tokens that may stand before those of a square of patches.
_PREFIXES = (0, 1, 2, 5)
# In the place of a path: what is averaged to the last features.
_END = ("",)
# Layers that are called before an activation, or read no map.
_BETWEEN = (layers.BatchNorm, nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.Dropout)


class Call(NamedTuple):
    """A layer's call: its path, its class and what enters it."""

    path: tuple[str, ...]
    kind: type[nn.Module]
    value: jax.Array


# From a head's layer, its input and the calls of layers before it to the head's output.
Read = Callable[[nn.Module, jax.Array, Sequence[Call]], Any]


@contextlib.contextmanager
def at_head(module: nn.Module, read: Read) -> Iterator[None]:
    """A context in which a network's head is asked for its output.

    Args:
      module: the network.
      read: gives the head's output, or None where the head's own layer shall.
    """
    head = (
        tuple(module.inner_head.split("/")) if isinstance(module, _custom.Own) else (_custom.HEAD,)
    )
    level = _level()
    calls: dict[tuple[str, ...], Call] = {}

    def see(next_fun: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        # Inside a loop, or what is computed again for the gradient, arrays stay there.
        if context.method_name == "__call__" and layer.path and _level() == level:
            value: Any = args[0] if args else next(iter(kwargs.values()), None)
            if layer.path == head:
                end = [Call(_END, type(module), each) for each in averaged[-1:]]
                output = read(layer, value, [*calls.values(), *end])
                return next_fun(*args, **kwargs) if output is None else output
            if getattr(value, "ndim", 0) >= 3:
                calls.setdefault(layer.path, Call(layer.path, type(layer), value))
        return next_fun(*args, **kwargs)

    averaged: list[jax.Array] = []
    token = layers.averaged.set(averaged)
    try:
        with nn.intercept_methods(see):
            yield
    finally:
        layers.averaged.reset(token)


def _level() -> Any:
    return get_opaque_trace_state(convention="flax")


def choose(module: nn.Module, params: Mapping[str, Any], calls: Sequence[Call]) -> list[Call]:
    """The calls that are tapped, in their order; none where a network has no such layers.

    Args:
      module: the network.
      params: its parameters; their names say which stages there are.
      calls: those of layers that read maps [B, H, W, C] or tokens [B, N, C], up to the head.
    """
    if isinstance(module, _custom.Own):
        return _quarters(_blocks(calls))
    end = [call for call in calls if call.path == _END]
    top = {call.path[0]: call for call in calls if len(call.path) == 1 and call.path != _END}
    groups = stages({"params": params})
    found = [
        [call for name, call in top.items() if name in groups[title]]
        for title in groups
        if title.startswith("stage")
    ]
    found = [group for group in found if group]
    if len(found) > MOST_STAGES:
        return _quarters([group[0] for group in found]) + end
    taps = [group[0] for group in found[1:]]
    # Of a shortened network what would enter the next stage: more than its mean and its maxima.
    if beyond := [call for name, call in top.items() if depth.is_beyond(name, params)]:
        taps, end = [*taps, beyond[0]], []
    # What a last convolution reads is the end of the last stage.
    taps += [
        call
        for name, call in top.items()
        if name in groups.get("head", ()) and call.kind is nn.Conv
    ]
    chosen = {call.path for call in taps}
    return [call for call in top.values() if call.path in chosen] + end


def _blocks(calls: Sequence[Call]) -> list[Call]:
    """Of any network: the layers of the commonest class, at the least depth that has some."""
    for level in range(1, max((len(call.path) for call in calls), default=0) + 1):
        # The first layer of all reads the images themselves.
        there = [c for c in calls if len(c.path) == level and c.value is not calls[0].value]
        if found := _of_commonest([c for c in there if not issubclass(c.kind, _BETWEEN)]):
            return found
    return []


def _of_commonest(calls: Sequence[Call]) -> list[Call]:
    """The calls of layers of the class that most of them have, of equals the first."""
    kinds = collections.Counter(call.kind for call in calls).most_common(1)
    return [call for call in calls if call.kind is kinds[0][0]] if kinds else []


def _quarters(calls: Sequence[Call]) -> list[Call]:
    """Of many blocks those at one, two and three quarters of the way; of few all."""
    if len(calls) <= MOST_STAGES:
        return list(calls)
    return [calls[round(len(calls) * quarter / 4)] for quarter in (1, 2, 3)]


def pooled(call: Call) -> jax.Array:
    """Means over the quarters of an image, then maxima over all of it, float32 [B, 5 C].

    Of tokens that are no square of patches the means are over all of them. Of what is averaged to
    the last features there are the maxima alone.
    """
    value = call.value.astype(jnp.float32)
    most = jnp.max(value, axis=tuple(range(1, value.ndim - 1)))
    if call.path == _END:
        return most
    if value.ndim == 3:
        sides = {count: math.isqrt(max(0, value.shape[1] - count)) for count in _PREFIXES}
        fits = [n for n, side in sides.items() if side > 1 and side**2 == value.shape[1] - n]
        if not fits:
            return jnp.concatenate([jnp.mean(value, axis=1), most], axis=1)
        side = sides[fits[0]]
        value = value[:, fits[0] :].reshape(len(value), side, side, -1)
    rows, columns = (_halves(size) for size in value.shape[1:3])
    means = [jnp.mean(value[:, row, column], axis=(1, 2)) for row in rows for column in columns]
    return jnp.concatenate([*means, most], axis=1)


def _halves(size: int) -> tuple[slice, slice]:
    """Both halves of rows or columns; of an odd number the middle one is in both."""
    return slice(0, -(-size // 2)), slice(size // 2, size)
