"""Max-pooling whose gradient is a handful of selections.

XLA:CPU computes the gradient of a pooling by carrying the place of each maximum through a window
reduction: ten times the time of the forward pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A row or column with which no place of a window is made: those are 0 to 8.
_NOWHERE = np.int8(-9)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """3x3 max-pooling of stride 2, padded by one on every side.

    Args:
      x: [N, H, W, C].

    Returns:
      [N, ceil(H / 2), ceil(W / 2), C]. Where several elements of a window are the largest, the
      gradient goes to the first of them, as in XLA's own pooling.
    """
    return functools.reduce(jnp.maximum, _windows(x))


def _windows(x: jax.Array) -> list[jax.Array]:
    """The nine elements of each window, by rows: nine arrays [N, H', W', C]."""
    height, width = (((size + 1) // 2) for size in x.shape[1:3])
    pads = ((0, 0), (1, 2 * height - x.shape[1]), (1, 2 * width - x.shape[2]), (0, 0))
    padded = jnp.pad(x, pads, constant_values=-jnp.inf)
    return [
        padded[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
        for i in range(3)
        for j in range(3)
    ]


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x)
    return y, (x, y)


def _backward(residuals: tuple[jax.Array, jax.Array], of_result: jax.Array) -> tuple[jax.Array]:
    x, y = residuals
    # XLA would compute what stands before a barrier again for each of the pixels that read it.
    y = lax.optimization_barrier(y)
    first = jnp.zeros(y.shape, jnp.int8)
    for place, element in reversed(list(enumerate(_windows(x)))):
        first = jnp.where(element == y, jnp.int8(place), first)
    padded = (jnp.pad(each, ((0, 0), (0, 1), (0, 1), (0, 0))) for each in (first, of_result))
    first, given = lax.optimization_barrier(tuple(padded))
    count, height, width, channels = y.shape
    whole = (count, height, 2, width, 2, channels)
    # Whether a pixel's row, and its column, is odd.
    odd_row, odd_column = (lax.broadcasted_iota(jnp.int8, whole, axis) for axis in (2, 4))

    def part(below: int, right: int) -> jax.Array:
        """What each pixel gets of its window, or of the next one below or on the right."""
        rows, columns = slice(below, below + height), slice(right, right + width)
        window = (slice(None), rows, None, columns, None)
        row = jnp.where(odd_row == 1, 0, _NOWHERE) if below else 1 + odd_row
        column = jnp.where(odd_column == 1, 0, _NOWHERE) if right else 1 + odd_column
        place = 3 * row + column
        return jnp.where(jnp.broadcast_to(first[window], whole) == place, given[window], 0)

    of_x = (part(0, 0) + part(0, 1)) + (part(1, 0) + part(1, 1))
    of_x = of_x.reshape(count, 2 * height, 2 * width, channels)
    return (of_x[:, : x.shape[1], : x.shape[2]],)


max_pool.defvjp(_forward, _backward)
