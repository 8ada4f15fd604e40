"""Convolutions in groups of channels.

XLA:CPU (jaxlib 0.10) runs a depthwise convolution at half a GFLOP/s, and needs seconds for the
gradients of a grouped one of a few MFLOP. Here a depthwise convolution is a sum of shifted images,
each times its place of the kernel, at some tens of GFLOP/s; and the gradients of a grouped one are
those of a convolution of all channels, whose kernel is zero between groups.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Of rows and columns; and what is added before and after each.
Strides = tuple[int, int]
Pads = tuple[tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(images: jax.Array, kernel: jax.Array, strides: Strides, pads: Pads) -> jax.Array:
    """A convolution of each channel with a kernel of its own.

    Args:
      images: [N, H, W, C].
      kernel: [h, w, 1, C].
      strides: of rows and columns.
      pads: rows before and after, columns before and after.

    Returns:
      [N, H', W', C].
    """
    images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    sides = zip(images.shape[1:3], kernel.shape[:2], strides, strict=True)
    height, width = ((size - window) // stride + 1 for size, window, stride in sides)
    parts = _shifted(images, kernel.shape[:2], (height, width), strides)
    return functools.reduce(jnp.add, (kernel[place] * part for place, part in parts))


def _shifted(
    images: jax.Array, window: tuple[int, ...], shape: tuple[int, int], strides: Strides
) -> Iterator[tuple[tuple[slice, slice], jax.Array]]:
    """The places of a kernel [h, w, 1, C], and what each meets of padded images [..., H, W, C]."""
    (height, width), (down, right) = shape, strides
    for row in range(window[0]):
        for column in range(window[1]):
            rows = slice(row, row + down * (height - 1) + 1, down)
            columns = slice(column, column + right * (width - 1) + 1, right)
            yield np.s_[row : row + 1, column : column + 1], images[..., rows, columns, :]


def _depthwise_forward(
    images: jax.Array, kernel: jax.Array, strides: Strides, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise_conv(images, kernel, strides, pads), (images, kernel)


def _depthwise_backward(
    strides: Strides,
    pads: Pads,
    residuals: tuple[jax.Array, jax.Array],
    of_result: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    images, kernel = residuals
    # Of the images: that of the result with zeros between, by the kernel turned round.
    around = [(0, 0, 0)]
    for axis, ((before, _), stride) in enumerate(zip(pads, strides, strict=True)):
        size, window = images.shape[1 + axis], kernel.shape[axis]
        spread = stride * (of_result.shape[1 + axis] - 1) + 1
        around.append((window - 1 - before, size + before - spread, stride - 1))
    spaced = lax.pad(of_result, jnp.zeros((), of_result.dtype), [*around, (0, 0, 0)])
    of_images = depthwise_conv(spaced, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)))
    return of_images, _of_depthwise_kernel(images, kernel, strides, pads, of_result)


def _of_depthwise_kernel(
    images: jax.Array, kernel: jax.Array, strides: Strides, pads: Pads, of_result: jax.Array
) -> jax.Array:
    """The gradient of the kernel; image by image, since sums over long axes are slow."""
    shape = of_result.shape[1], of_result.shape[2]

    def add(total: jax.Array, of_one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        image, of_its_result = of_one
        parts = _shifted(image, kernel.shape[:2], shape, strides)
        return total + jnp.stack([(part * of_its_result).sum(0) for _, part in parts]), None

    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    nothing = jnp.zeros((kernel.size // kernel.shape[-1], *of_result.shape[2:]), kernel.dtype)
    total, _ = lax.scan(add, nothing, (padded, of_result))
    return total.sum(1).reshape(kernel.shape)


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def grouped_conv(
    images: jax.Array, kernel: jax.Array, strides: Strides, pads: Pads, groups: int
) -> jax.Array:
    """A convolution of groups of channels.

    Args:
      images: [N, H, W, C].
      kernel: [h, w, C / groups, F].
      strides: of rows and columns.
      pads: rows before and after, columns before and after.
      groups: how many.

    Returns:
      [N, H', W', F].
    """
    return _conv(images, kernel, strides, pads, groups)


def _conv(
    images: jax.Array, kernel: jax.Array, strides: Strides, pads: Pads, groups: int = 1
) -> jax.Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _grouped_forward(
    images: jax.Array, kernel: jax.Array, strides: Strides, pads: Pads, groups: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return grouped_conv(images, kernel, strides, pads, groups), (images, kernel)


def _grouped_backward(
    strides: Strides,
    pads: Pads,
    groups: int,
    residuals: tuple[jax.Array, jax.Array],
    of_result: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    def of_all_channels(images: jax.Array, kernel: jax.Array) -> jax.Array:
        inputs, outputs = kernel.shape[2:]
        first = jnp.arange(groups * inputs)[:, None] // inputs
        second = jnp.arange(outputs)[None, :] // (outputs // groups)
        whole = jnp.where(first == second, jnp.tile(kernel, (1, 1, groups, 1)), 0)
        return _conv(images, whole, strides, pads)

    of_images, of_kernel = jax.vjp(of_all_channels, *residuals)[1](of_result)
    return of_images, of_kernel


grouped_conv.defvjp(_grouped_forward, _grouped_backward)
