"""7x7 convolutions of stride 2 as 4x4 convolutions of stride 1 over blocks of 2x2 pixels.

An image of three channels leaves most of a vector idle; one of twelve does not. The kernel becomes
8x8 with a row and a column of zeros. XLA:CPU is twice as fast so with few filters, and with 64 of
them, where it packs images itself, still by a sixth.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")


def is_worth_it(images: jax.Array, kernel: jax.Array) -> bool:
    """Whether it is the faster way on CPU."""
    even = images.shape[1] % 2 == images.shape[2] % 2 == 0
    return even and kernel.shape[2] <= 4


@jax.custom_vjp
def stem_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 7x7 convolution of stride 2, padded by three on every side.

    Args:
      images: [N, H, W, C], with even H and W.
      kernel: [7, 7, C, F].

    Returns:
      [N, H / 2, W / 2, F].
    """
    count, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (4, 2), (4, 2), (0, 0)))
    blocks = padded.reshape(count, height // 2 + 3, 2, width // 2 + 3, 2, channels)
    blocks = blocks.swapaxes(2, 3).reshape(count, height // 2 + 3, width // 2 + 3, 4 * channels)
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    kernel = kernel.reshape(4, 2, 4, 2, channels, -1).swapaxes(1, 2)
    kernel = kernel.reshape(4, 4, 4 * channels, -1)
    return lax.conv_general_dilated(blocks, kernel, (1, 1), "VALID", dimension_numbers=_NHWC)


def _forward(images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # The kernel's gradient needs the images transposed. Without the barrier XLA would augment them
    # twice, once in either order.
    images = lax.optimization_barrier(images)
    return stem_conv(images, kernel), (images, kernel)


def _backward(
    residuals: tuple[jax.Array, jax.Array], of_result: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # The gradients are fast as they are.
    conv = functools.partial(
        lax.conv_general_dilated,
        window_strides=(2, 2),
        padding=((3, 3), (3, 3)),
        dimension_numbers=_NHWC,
    )
    return jax.vjp(conv, *residuals)[1](of_result)


stem_conv.defvjp(_forward, _backward)
