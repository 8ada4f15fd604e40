"""3x3 convolutions of tiny images, one matrix product for each place of the kernel.

On 2x2 images XLA:CPU takes a path that runs at 0.8 GFLOP/s (jaxlib 0.10). Here each place of the
kernel is multiplied with those pixels alone that it meets: nothing is multiplied with padding,
which on such images is more than half of a convolution.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ctl_jax.models.formulations.pointwise import transposed_product

# Sides of images up to which this is the faster way.
LARGEST = 2


class Tap(NamedTuple):
    """A place of the kernel, and the rows or columns of the result that it has a part in.

    Attributes:
      place: 0 .. 2 along the kernel.
      start: the first of them.
      stop: one after the last.
    """

    place: int
    start: int
    stop: int

    @property
    def source(self) -> slice:
        """The rows or columns of the image that it reads for them."""
        return slice(self.start + self.place - 1, self.stop + self.place - 1)

    @property
    def target(self) -> slice:
        """The rows or columns of the result."""
        return slice(self.start, self.stop)


@jax.custom_vjp
def tap_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
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
    result = jnp.zeros((count, height, width, kernel.shape[-1]), images.dtype)
    for row, column in _taps(height, width):
        seen = images[:, row.source, column.source]
        part = seen.reshape(-1, seen.shape[-1]) @ kernel[row.place, column.place]
        around = (
            (0, 0, 0),
            (row.start, height - row.stop, 0),
            (column.start, width - column.stop, 0),
            (0, 0, 0),
        )
        part = part.reshape(*seen.shape[:-1], -1)
        result += jax.lax.pad(part, jnp.zeros((), part.dtype), around)
    return result


def _forward(images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(images, kernel), (images, kernel)


def _backward(
    residuals: tuple[jax.Array, jax.Array], of_result: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = residuals
    of_images = _conv(of_result, turned(kernel))
    of_kernel = {
        (row.place, column.place): transposed_product(
            _rows(images[:, row.source, column.source]),
            _rows(of_result[:, row.target, column.target]),
        )
        for row, column in _taps(*images.shape[1:3])
    }
    # Some places of the kernel meet no pixel at all.
    nothing = jnp.zeros_like(kernel[0, 0])
    places = [of_kernel.get((i, j), nothing) for i in range(3) for j in range(3)]
    return of_images, jnp.stack(places).reshape(kernel.shape)


tap_conv.defvjp(_forward, _backward)


def turned(kernel: jax.Array) -> jax.Array:
    """The kernel [h, w, F, C] of the gradient with respect to the images."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _taps(height: int, width: int) -> Iterator[tuple[Tap, Tap]]:
    for row in _along(height):
        for column in _along(width):
            yield row, column


def _along(size: int) -> list[Tap]:
    taps = [Tap(place, max(0, 1 - place), min(size, size + 1 - place)) for place in range(3)]
    return [tap for tap in taps if tap.start < tap.stop]


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])
