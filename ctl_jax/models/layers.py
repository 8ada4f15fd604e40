"""The layers that the convolutional networks are made of.

Padding is explicit and symmetric, as in PyTorch's reference models ("SAME" would put the odd row
of a strided convolution at the end), so that weights trained there give the same outputs here.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.errors import UserError
from ctl_jax.models.convolution import conv_general_dilated


def check_size(images: jax.Array, least: int) -> None:
    """Raises UserError where pooling would leave nothing of images [B, H, W, C]."""
    height, width = images.shape[1:3]
    if min(height, width) < least:
        raise UserError(f"images are {height} x {width} px; expected at least {least} x {least} px")


def kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """He initialisation with the fan of the outputs, as in He et al. 2015 and in torchvision.

    XLA compiles a draw anew for each shape, a quarter of a second each. Drawing powers of four
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
    name: str,
) -> nn.Conv:
    """A convolution of a `size` x `size` kernel (odd), padded by half of it on every side."""
    pad = (size - 1) // 2
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=((pad, pad), (pad, pad)),
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


def depthwise_conv(x: jax.Array, size: int, *, stride: int = 1, name: str) -> jax.Array:
    """A convolution of each channel of x [B, H, W, C] with a `size` x `size` kernel of its own."""
    channels = x.shape[-1]
    return conv(channels, size, stride=stride, groups=channels, name=name)(x)


def batch_norm(train: bool, epsilon: float, name: str) -> nn.BatchNorm:
    """BatchNorm whose training gives back each batch's own statistics, for the trainer to average.

    Hence momentum 0.
    """
    return nn.BatchNorm(use_running_average=not train, momentum=0.0, epsilon=epsilon, name=name)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3/2 max pool, padded by one on every side: the end of most ImageNet stems."""
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def global_mean(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, C]."""
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
