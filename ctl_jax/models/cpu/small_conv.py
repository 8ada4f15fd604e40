"""3x3 convolutions of tiny images, one matrix product for each place of the kernel.

Where the result is 2x2, as in the last stage of a ResNet at 64 px, XLA:CPU takes paths that run at
a few GFLOP/s (jaxlib 0.10). Here each place of the kernel is multiplied with those pixels alone
that it meets: nothing is multiplied with padding, more than half of a convolution of such images.
Of somewhat larger ones with many channels the result and the gradient of the images are up to a
third faster, too.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ctl_jax.models.cpu.pointwise_conv import transposed_product

# Sides of results up to which this is the faster way, with any channels and with many.
_LARGEST, _LARGEST_OF_MANY = 2, 6
# Many channels, of images and of results: the sums of the products cost little beside those.
_MANY = 128
# Sides of results up to which this is the faster way to the gradient of the kernel.
_LARGEST_OF_GRADIENT = 3


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


def is_worth_it(images: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Whether it is the faster way on CPU."""
    largest = _LARGEST_OF_MANY if min(kernel.shape[2:]) >= _MANY else _LARGEST
    return max(_steps(size, stride) for size in images.shape[1:3]) <= largest


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
    of_images = [
        _put(
            of_result[:, row.target, column.target] @ matrix.T,
            row.source,
            column.source,
            images.shape,
        )
        for row, column, matrix in _taps(images, kernel, stride)
    ]
    if max(of_result.shape[1:3]) <= _LARGEST_OF_GRADIENT:
        of_kernel = _of_kernel(images, kernel, stride, of_result)
    else:
        conv = functools.partial(
            lax.conv_general_dilated,
            images,
            window_strides=(stride, stride),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        (of_kernel,) = jax.vjp(conv, kernel)[1](of_result)
    return functools.reduce(jnp.add, of_images), of_kernel


tap_conv.defvjp(_forward, _backward)


def _of_kernel(
    images: jax.Array, kernel: jax.Array, stride: int, of_result: jax.Array
) -> jax.Array:
    """The gradient of the kernel, one product for each of its places."""
    products = {
        (row.place, column.place): transposed_product(
            _rows(images[:, row.source, column.source]),
            _rows(of_result[:, row.target, column.target]),
        )
        for row, column, _ in _taps(images, kernel, stride)
    }
    # Some places of the kernel meet no pixel at all.
    nothing = jnp.zeros_like(kernel[0, 0])
    places = [products.get((i, j), nothing) for i in range(3) for j in range(3)]
    return jnp.stack(places).reshape(kernel.shape)


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
