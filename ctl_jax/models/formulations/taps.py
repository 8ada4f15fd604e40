"""3x3 convolutions of tiny images, one matrix product for each place of the kernel.

Where the result is 2x2, as in the last stage of a ResNet at 64 px, XLA:CPU takes paths that run at
a few GFLOP/s (jaxlib 0.10). Here each place of the kernel is multiplied with those pixels alone
that it meets: nothing is multiplied with padding, more than half of a convolution of such images.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ctl_jax.models.formulations.pointwise import transposed_product

# Sides of results up to which this is the faster way.
LARGEST = 2


class Tap(NamedTuple):
    """A place of the kernel along rows or columns, and what it connects.

    Attributes:
      place: 0 .. 2 along the kernel.
      start: the first row or column of the result that it has a part in.
      stop: one after the last.
      stride: of the convolution.
    """

    place: int
    start: int
    stop: int
    stride: int

    @property
    def source(self) -> slice:
        """The rows or columns of the image that it reads."""
        first = self.start * self.stride + self.place - 1
        return slice(first, first + (self.stop - self.start - 1) * self.stride + 1, self.stride)

    @property
    def target(self) -> slice:
        """The rows or columns of the result that it adds to."""
        return slice(self.start, self.stop)


def is_worth_it(images: jax.Array, stride: int) -> bool:
    """Whether it is the faster way on CPU."""
    return max(_steps(size, stride) for size in images.shape[1:3]) <= LARGEST


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def tap_conv(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """A 3x3 convolution padded by one on every side.

    Args:
      images: [N, H, W, C].
      kernel: [3, 3, C, F].
      stride: of rows and columns.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), F].
    """
    count, height, width, _ = images.shape
    shape = (count, _steps(height, stride), _steps(width, stride), kernel.shape[-1])
    parts = [
        _put(images[:, row.source, column.source] @ matrix, row.target, column.target, shape)
        for row, column, matrix in _taps(images, kernel, stride)
    ]
    return functools.reduce(jnp.add, parts)


def _forward(
    images: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return tap_conv(images, kernel, stride), (images, kernel)


def _backward(
    stride: int, residuals: tuple[jax.Array, jax.Array], of_result: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = residuals
    of_images, of_kernel = [], {}
    for row, column, matrix in _taps(images, kernel, stride):
        given = of_result[:, row.target, column.target]
        of_images.append(_put(given @ matrix.T, row.source, column.source, images.shape))
        seen = images[:, row.source, column.source]
        of_kernel[row.place, column.place] = transposed_product(_rows(seen), _rows(given))
    # Some places of the kernel meet no pixel at all.
    nothing = jnp.zeros_like(kernel[0, 0])
    places = [of_kernel.get((i, j), nothing) for i in range(3) for j in range(3)]
    return functools.reduce(jnp.add, of_images), jnp.stack(places).reshape(kernel.shape)


tap_conv.defvjp(_forward, _backward)


def _taps(
    images: jax.Array, kernel: jax.Array, stride: int
) -> Iterator[tuple[Tap, Tap, jax.Array]]:
    """The places of the kernel that meet a pixel, and the matrix [C, F] of each."""
    rows, columns = (_along(size, stride) for size in images.shape[1:3])
    for row in rows:
        for column in columns:
            yield row, column, kernel[row.place, column.place]


def _along(size: int, stride: int) -> list[Tap]:
    taps = [
        Tap(place, int(place == 0), min(_steps(size, stride), (size - place) // stride + 1), stride)
        for place in range(3)
    ]
    return [tap for tap in taps if tap.start < tap.stop]


def _steps(size: int, stride: int) -> int:
    return -(-size // stride)


def _put(part: jax.Array, rows: slice, columns: slice, shape: tuple[int, ...]) -> jax.Array:
    """An array of `shape` that is `part` at some rows and columns, and zero elsewhere."""
    around = [(0, 0, 0)]
    for where, size in ((rows, shape[1]), (columns, shape[2])):
        last = range(size)[where][-1]
        around.append((where.start, size - 1 - last, (where.step or 1) - 1))
    return lax.pad(part, jnp.zeros((), part.dtype), [*around, (0, 0, 0)])


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])
