"""3x3 convolutions by Winograd's algorithm: 16 products for 4 results instead of 36.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015 (arXiv:1509.09308), F(2x2,
3x3): the image is cut into tiles of 4x4 that overlap by two, each tile and the kernel are
transformed by additions, and a result of 2x2 is transformed back. The sums over channels, which
are nearly all of the work, become 16 matrix products of 1 / 2.25 of the multiplications. All
factors are 1 and 1/2, so that float32 loses no more than another order of summation does.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ctl_jax.models.formulations.pointwise import transposed_product
from ctl_jax.models.formulations.taps import turned

_barrier = lax.optimization_barrier


def is_worth_it(images: jax.Array, kernel: jax.Array) -> bool:
    """Whether the algorithm is the faster one on CPU."""
    return images.dtype == jnp.float32 and min(kernel.shape[2:]) >= 64


@jax.custom_vjp
def winograd_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution of stride 1, padded by one on every side.

    Args:
      images: [N, H, W, C].
      kernel: [3, 3, C, F].

    Returns:
      [N, H, W, F].
    """
    return _conv(images, kernel)


def _conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    count, height, width, _ = images.shape
    # Without barriers XLA computes what a tile is made of anew for each of the tiles that have it.
    kernels = _barrier(_transform_kernel(kernel))
    products = _barrier(
        [tile @ matrix for tile, matrix in zip(_transform_image(images), kernels, strict=True)]
    )
    columns = [_back_1d(products[j::4]) for j in range(4)]
    of_tiles = (count, (height + 1) // 2, (width + 1) // 2, kernel.shape[-1])
    rows = [
        jnp.stack([part.reshape(of_tiles) for part in _back_1d([c[i] for c in columns])], 3)
        for i in range(2)
    ]
    result = jnp.stack(rows, 2).reshape(count, 2 * of_tiles[1], 2 * of_tiles[2], -1)
    return _barrier(result[:, :height, :width])


def _forward(images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(images, kernel), (images, kernel)


def _backward(
    residuals: tuple[jax.Array, jax.Array], of_result: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = residuals
    of_result = _barrier(of_result)
    return _conv(of_result, turned(kernel)), _of_kernel(images, of_result)


winograd_conv.defvjp(_forward, _backward)


def _of_kernel(images: jax.Array, of_result: jax.Array) -> jax.Array:
    """The gradient of the kernel: each of the linear steps transposed."""
    _, height, width, features = of_result.shape
    of_result = jnp.pad(of_result, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    tiles = [
        part.reshape(-1, features)
        for row in _back_1d_transposed(of_result[:, 0::2], of_result[:, 1::2])
        for part in _back_1d_transposed(row[:, :, 0::2], row[:, :, 1::2])
    ]
    products = _barrier(
        [
            transposed_product(tile, of_tile)
            for tile, of_tile in zip(_transform_image(images), tiles, strict=True)
        ]
    )
    columns = [_kernel_1d_transposed(products[j::4]) for j in range(4)]
    rows = [jnp.stack(_kernel_1d_transposed([c[i] for c in columns])) for i in range(3)]
    return jnp.stack(rows)


def _transform_image(images: jax.Array) -> list[jax.Array]:
    """[N, H, W, C] to 16 arrays [tiles, C]."""
    _, height, width, channels = images.shape
    odd = (height % 2, width % 2)
    padded = jnp.pad(_barrier(images), ((0, 0), (1, 1 + odd[0]), (1, 1 + odd[1]), (0, 0)))
    tiles = [
        part.reshape(-1, channels)
        for row in _image_1d(padded, axis=1)
        for part in _image_1d(row, axis=2)
    ]
    return list(_barrier(tiles))


def _image_1d(padded: jax.Array, axis: int) -> list[jax.Array]:
    last = padded.shape[axis] - 3
    a, b, c, d = (lax.slice_in_dim(padded, i, i + last, 2, axis) for i in range(4))
    return [a - c, b + c, c - b, b - d]


def _transform_kernel(kernel: jax.Array) -> list[jax.Array]:
    """[3, 3, C, F] to 16 matrices [C, F]."""
    return [matrix for row in _kernel_1d(list(kernel)) for matrix in _kernel_1d(list(row))]


def _kernel_1d(places: Sequence[jax.Array]) -> list[jax.Array]:
    a, b, c = places
    outer, middle = 0.5 * (a + c), 0.5 * b
    return [a, outer + middle, outer - middle, c]


def _kernel_1d_transposed(parts: Sequence[jax.Array]) -> list[jax.Array]:
    a, b, c, d = parts
    outer = 0.5 * (b + c)
    return [a + outer, 0.5 * (b - c), outer + d]


def _back_1d(parts: Sequence[jax.Array]) -> list[jax.Array]:
    a, b, c, d = parts
    return [a + (b + c), (b - c) - d]


def _back_1d_transposed(even: jax.Array, odd: jax.Array) -> list[jax.Array]:
    return [even, even + odd, even - odd, -odd]
