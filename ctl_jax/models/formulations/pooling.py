"""Max-pooling whose gradient is a handful of selections.

XLA:CPU computes the gradient of a pooling by carrying the place of each maximum through a window
reduction: ten times the time of the forward pass.
"""

import functools

import jax
import jax.numpy as jnp


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
    first = jnp.zeros(y.shape, jnp.int8)
    for place, element in reversed(list(enumerate(_windows(x)))):
        first = jnp.where(element == y, jnp.int8(place), first)

    def given(i: int, j: int) -> jax.Array:
        """What element (i, j) of each window gets."""
        return jnp.where(first == 3 * i + j, of_result, 0)

    def next_row(part: jax.Array) -> jax.Array:
        return jnp.pad(part[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))

    def next_column(part: jax.Array) -> jax.Array:
        return jnp.pad(part[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))

    # An even row is the middle of one window; an odd row the end of one and the start of the next.
    even_even = given(1, 1)
    even_odd = given(1, 2) + next_column(given(1, 0))
    odd_even = given(2, 1) + next_row(given(0, 1))
    odd_odd = (
        given(2, 2) + next_column(given(2, 0)) + next_row(given(0, 2) + next_column(given(0, 0)))
    )
    even, odd = jnp.stack([even_even, even_odd], 3), jnp.stack([odd_even, odd_odd], 3)
    count, height, width, channels = y.shape
    of_x = jnp.stack([even, odd], 2).reshape(count, 2 * height, 2 * width, channels)
    return (of_x[:, : x.shape[1], : x.shape[2]],)


max_pool.defvjp(_forward, _backward)
