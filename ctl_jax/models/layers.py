"""The layers that the convolutional networks are made of.

Padding is symmetric unless a network says otherwise, as in PyTorch's reference models, so that
weights trained there give the same outputs here.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ctl_jax.errors import UserError
from ctl_jax.models import cpu

# Where a convolution of stride 2 or more has its padding. "symmetric": half of the kernel on every
# side (PyTorch). "same": as little as gives every stride an output, the odd row or column at the
# end (TensorFlow). "end": as "same" has it of images of even sides, also of odd ones.
Padding = Literal["symmetric", "same", "end"]


def check_size(images: jax.Array, least: int) -> None:
    """Raises UserError where pooling would leave nothing of images [B, H, W, C]."""
    height, width = images.shape[1:3]
    if min(height, width) < least:
        raise UserError(f"images are {height} x {width} px; expected at least {least} x {least} px")


def kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """He initialisation with the fan of the outputs, as in He et al. 2015 and in torchvision.

    XLA compiles a draw again for each shape, a quarter of a second each. Drawing powers of four
    and cutting them leaves a handful of shapes in all.
    """
    size = math.prod(shape)
    drawn = jax.random.normal(key, (4 ** math.ceil(math.log(size, 4)),), dtype)
    fan_out = size // shape[-2]
    return (drawn[:size] * math.sqrt(2 / fan_out)).reshape(shape)


def conv(
    features: int,
    size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    padding: Padding = "symmetric",
    name: str,
) -> nn.Conv:
    """A convolution of a `size` x `size` kernel (odd), padded to one output a stride."""
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=_pads(size, stride, padding),
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        conv_general_dilated=cpu.conv_general_dilated,
        name=name,
    )


def _pads(size: int, stride: int, padding: Padding) -> str | tuple[tuple[int, int], ...]:
    """Rows and columns before and after, for `nn.Conv`."""
    half = (size - 1) // 2
    # At stride 1 the three are one.
    if padding == "symmetric" or stride == 1:
        return ((half, half), (half, half))
    if padding == "same":
        return "SAME"
    pads = (max(size - stride, 0) // 2, half)
    return (pads, pads)


def depthwise_conv(
    x: jax.Array, size: int, *, stride: int = 1, padding: Padding = "symmetric", name: str
) -> jax.Array:
    """A convolution of each channel of x [B, H, W, C] with a `size` x `size` kernel of its own."""
    channels = x.shape[-1]
    return conv(channels, size, stride=stride, groups=channels, padding=padding, name=name)(x)


class BatchNorm(nn.Module):
    """`nn.BatchNorm` in float32, number for number, and faster to trace.

    Half of the time of tracing a network went into that class: into its options, and into jnp's
    promotions. Training gives back each batch's own statistics, for the trainer to average.

    Attributes:
      epsilon: added to the variance.
      use_running_average: normalise by the running statistics instead of by the batch's. No
        network sets it: inside `normalising` it is what the layer's path says.
    """

    epsilon: float
    use_running_average: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """A map [..., C] to a map [..., C] of the same type.

        Raises:
          UserError: in training, one value a channel: all that would be left of it is the bias.
        """
        channels = x.shape[-1:]
        dtype, x = x.dtype, x.astype(jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if not self.use_running_average:
            if x.size == x.shape[-1]:
                raise UserError(
                    f"BatchNorm {'/'.join(self.path)} has 1 value a channel in training; expected "
                    "more: batches of more than 1 image, or larger images"
                )
            axes = tuple(range(x.ndim - 1))
            now_mean = jnp.mean(x, axes)
            now_var = jnp.maximum(0.0, jnp.mean(lax.square(x), axes) - lax.square(now_mean))
            if not self.is_initializing():
                mean.value, var.value = now_mean, now_var
        else:
            now_mean, now_var = mean.value, var.value
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        if not self.use_running_average:
            y = cpu.batch_norm_in_training(x, scale, bias, self.epsilon)
            if y is not None:
                return y.astype(dtype)
        along = (1,) * (x.ndim - 1) + now_mean.shape
        now_mean, now_var, scale, bias = (
            lax.reshape(value, along) for value in (now_mean, now_var, scale, bias)
        )
        factor = lax.mul(lax.rsqrt(lax.add(now_var, np.float32(self.epsilon))), scale)
        return lax.add(lax.mul(lax.sub(x, now_mean), factor), bias).astype(dtype)


def batch_norm(epsilon: float, name: str) -> BatchNorm:
    """The BatchNorm of all these models."""
    return BatchNorm(epsilon, name=name)


def normalising(by_batch: Callable[[str], bool]) -> contextlib.AbstractContextManager[None]:
    """A context in which each BatchNorm layer that is called, also `nn.BatchNorm`, asks.

    Args:
      by_batch: whether the layer of a path ("stage1_block1/bn1") normalises by the statistics of
        the batch, and leaves them as its new ones; else it takes its own and leaves them as they
        are.
    """

    def tell(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, BatchNorm | nn.BatchNorm):
            # Linen freezes the fields of a bound layer; this copy of it lives for one call.
            own = not by_batch("/".join(layer.path))
            object.__setattr__(layer, "use_running_average", own)
            if isinstance(layer, nn.BatchNorm):
                # Linen's averages with the old ones by itself, and may be told by its caller.
                object.__setattr__(layer, "momentum", 0.0)
                args = args[:1]
                kwargs = {key: kwargs[key] for key in kwargs if key != "use_running_average"}
        return next_fun(*args, **kwargs)

    return nn.intercept_methods(tell)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3/2 max pool, padded by one on every side: the end of most ImageNet stems."""
    return cpu.max_pool(x)


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0)."""
    return cpu.relu(x)


# What is averaged over all of space, for who looks at it; see `taps`.
averaged: contextvars.ContextVar[list[jax.Array] | None]
averaged = contextvars.ContextVar("averaged", default=None)


def global_mean(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, C]."""
    if (seen := averaged.get()) is not None:
        seen.append(x)
    return jnp.mean(x, axis=(1, 2))


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel j of group i goes to place j * groups + i (Zhang et al. 2018, section 3.1).

    Args:
      x: [B, H, W, C].
      groups: a divisor of C, each group's channels lie side by side.
    """
    *rest, channels = x.shape
    x = x.reshape(*rest, groups, channels // groups)
    return jnp.swapaxes(x, -1, -2).reshape(*rest, channels)


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, but no less than nine tenths of it.

    As the authors of MobileNet round widths; the smallest result is `divisor`.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def head(num_outputs: int) -> nn.Dense:
    """The task head: its kernel starts at zero."""
    return nn.Dense(num_outputs, kernel_init=nn.initializers.zeros, name="head")
