"""Layers computed in other ways on CPU, where XLA's own is slow. The values are the same.

The networks are written once, with `conv_general_dilated`, `max_pool` and `relu` of this package.
These are XLA's own unless a program is traced inside `tuned`, where they take the form that is
fastest on the backend. Programs that run are traced so (`finetune`); programs that are only looked
at are not, so that FLOPs, channel groups and costs come from the plain definition, the same on
every backend.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ctl_jax.models.cpu import batch_norm, grouped_conv, small_conv, stem_conv
from ctl_jax.models.cpu.max_pool import max_pool as _max_pool
from ctl_jax.models.cpu.pointwise_conv import pointwise_conv
from ctl_jax.models.cpu.relu import relu as _relu

_backend: contextvars.ContextVar[str | None] = contextvars.ContextVar("backend", default=None)

# What flax gives beside images, kernel, strides and padding, where a convolution is a plain one.
_PLAIN: dict[str, Any] = {
    "lhs_dilation": (1, 1),
    "rhs_dilation": (1, 1),
    "batch_group_count": 1,
    "precision": None,
}


@contextlib.contextmanager
def tuned(backend: str | None = None) -> Iterator[None]:
    """What is traced inside takes the formulations that are fastest on a backend.

    Reverse-mode derivatives only: some formulations have a gradient of their own. jax remembers
    what it traced by function and shapes, and knows nothing of this: a function that is also traced
    outside must be another object there (a `functools.partial` of its own does).

    Args:
      backend: "cpu", "gpu" or "tpu"; the default backend if None. Only "cpu" has formulations of
        its own: on the others XLA's are fast.
    """
    token = _backend.set(jax.default_backend() if backend is None else backend)
    try:
        yield
    finally:
        _backend.reset(token)


@functools.cache
def compiler_options(backend: str) -> dict[str, str]:
    """Options of XLA for tuned programs, to be given to `jax.jit`.

    On CPU, which of its libraries does what: YNNPACK sums and multiplies, and Eigen convolves. By
    default it takes YNNPACK for all three, whose convolutions gain little from a second core: a
    ResNet-50 step at 64 px takes 10% longer. The option is experimental: a version of XLA that has
    it no more does without.

    Args:
      backend: "cpu", "gpu" or "tpu".
    """
    if backend != "cpu":
        return {}
    kinds = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    options = {"xla_cpu_experimental_ynn_fusion_type": kinds}
    nothing = jax.jit(lambda: jnp.zeros(()), compiler_options=options)
    try:
        nothing.lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **kwargs: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` for NHWC images, to be given to `nn.Conv`.

    Args:
      lhs: images [N, H, W, C].
      rhs: kernel [h, w, C / groups, F].
      window_strides: of the two spatial dimensions.
      padding: (before, after) of the two spatial dimensions, or "SAME".
      **kwargs: the other arguments of `lax.conv_general_dilated`.

    Returns:
      An array [N, H', W', F].
    """
    is_plain = all(kwargs.get(name, value) == value for name, value in _PLAIN.items())
    if _backend.get() == "cpu" and is_plain and lhs.dtype == rhs.dtype:
        strides = window_strides[0], window_strides[1]
        groups = kwargs.get("feature_group_count", 1)
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
        pads = tuple((before, after) for before, after in padding)
        if groups > 1:
            if groups == lhs.shape[-1] == rhs.shape[-1] and lhs.dtype == jnp.float32:
                return grouped_conv.depthwise_conv(lhs, rhs, strides, pads)
            return grouped_conv.grouped_conv(lhs, rhs, strides, pads, groups)
        match rhs.shape[:2], strides, pads:
            case (1, 1), _, ((0, 0), (0, 0)):
                return pointwise_conv(lhs, rhs, strides)
            case (3, 3), (1, 1) | (2, 2), ((1, 1), (1, 1)) if small_conv.is_worth_it(
                lhs, rhs, strides[0]
            ):
                return small_conv.tap_conv(lhs, rhs, strides[0])
            case (7, 7), (2, 2), ((3, 3), (3, 3)) if stem_conv.is_worth_it(lhs, rhs):
                return stem_conv.stem_conv(lhs, rhs)
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 max-pooling of stride 2 of [N, H, W, C], padded by one on every side."""
    if _backend.get() == "cpu":
        return _max_pool(x)
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), of any shape."""
    return _relu(x) if _backend.get() == "cpu" else nn.relu(x)


def batch_norm_in_training(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array | None:
    """BatchNorm of x [..., C] by the batch's own statistics; None where XLA's own way is as good.

    Args:
      x: float32 [..., C].
      scale: [C].
      bias: [C].
      epsilon: added to the variance.
    """
    if _backend.get() == "cpu":
        return batch_norm.batch_norm(x, scale, bias, epsilon)
    return None
