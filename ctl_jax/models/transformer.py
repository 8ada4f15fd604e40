"""Parts that vision transformers, MLP-Mixers and ConvNeXts share."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ctl_jax.errors import UserError

# Hidden units of a block's MLP, per channel.
MLP_RATIO = 4


def kernel_init(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """Normal, cut at two standard deviations, of 0.02 before the cut, as DeiT and ConvNeXt start.

    XLA compiles a draw again for each shape, a quarter of a second each. Drawing powers of four
    and cutting them leaves a handful of shapes in all.
    """
    size = math.prod(shape)
    drawn = jax.random.truncated_normal(key, -2, 2, (4 ** math.ceil(math.log(size, 4)),), dtype)
    return 0.02 * drawn[:size].reshape(shape)


def layer_norm(name: str, epsilon: float = 1e-6) -> nn.LayerNorm:
    """LayerNorm over the last axis."""
    return nn.LayerNorm(epsilon=epsilon, name=name)


def layer_scale(module: nn.Module, name: str, x: jax.Array, start: float) -> jax.Array:
    """x times a learnt number a channel (Touvron et al. 2021, arXiv:2103.17239).

    To be called in a module's compact method.

    Args:
      module: whose parameter it is.
      name: of the parameter, [channels].
      x: [..., channels].
      start: what all the numbers start at.
    """
    scale = module.param(name, nn.initializers.constant(start, jnp.float32), (x.shape[-1],))
    return scale.reshape((1,) * (x.ndim - 1) + scale.shape) * x


def patch_conv(features: int, size: int, name: str) -> nn.Conv:
    """A convolution that reads each `size` x `size` patch once."""
    return nn.Conv(
        features, (size, size), strides=size, padding=0, kernel_init=kernel_init, name=name
    )


def patch_tokens(images: jax.Array, width: int, patch: int) -> jax.Array:
    """Images [B, H, W, 3] as tokens [B, H / patch * W / patch, width], row by row.

    To be called in a module's compact method; its layer is named "patch_conv".

    Raises:
      UserError: the patches do not fill the image.
    """
    _, height, width_px, _ = images.shape
    if height % patch or width_px % patch or not height or not width_px:
        raise UserError(
            f"images are {height} x {width_px} px; expected multiples of the patch, {patch} px"
        )
    x = patch_conv(width, patch, "patch_conv")(images)
    return x.reshape(x.shape[0], -1, x.shape[-1])


class Mlp(nn.Module):
    """Two dense layers with GELU between them; as many outputs as inputs."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Over the last axis of x."""
        y = nn.Dense(self.hidden, kernel_init=kernel_init, name="fc1")(x)
        y = nn.gelu(y, approximate=False)
        return nn.Dense(x.shape[-1], kernel_init=kernel_init, name="fc2")(y)
