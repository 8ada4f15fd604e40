"""1x1 convolutions as matrix products.

XLA:CPU runs the gradients of a convolution at a fraction of a matrix product's speed, and a product
that is contracted over its long side at full speed only if the result is no taller than wide.
"""

import jax
from jax import lax


def pointwise_conv(images: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """A 1x1 convolution without padding.

    Args:
      images: [N, H, W, C].
      kernel: [1, 1, C, F].
      strides: of rows and of columns.

    Returns:
      [N, ceil(H / rows), ceil(W / columns), F].
    """
    rows, columns = strides
    if strides != (1, 1):
        images = images[:, ::rows, ::columns]
    return product(images, kernel[0, 0])


@jax.custom_vjp
def product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x [..., C] times matrix [C, F]."""
    return lax.dot_general(x, matrix, (((x.ndim - 1,), (0,)), ((), ())))


def _forward(x: jax.Array, matrix: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(x, matrix), (x, matrix)


def _backward(
    residuals: tuple[jax.Array, jax.Array], of_result: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, matrix = residuals
    rows = of_result.reshape(-1, of_result.shape[-1])
    of_x = lax.dot_general(rows, matrix, (((1,), (1,)), ((), ()))).reshape(x.shape)
    return of_x, transposed_product(x.reshape(-1, x.shape[-1]), rows)


product.defvjp(_forward, _backward)


def transposed_product(left: jax.Array, right: jax.Array) -> jax.Array:
    """left [M, C] transposed, times right [M, F]: [C, F]."""
    over_rows = (((0,), (0,)), ((), ()))
    if left.shape[1] <= right.shape[1]:
        return lax.dot_general(left, right, over_rows)
    # Twice as fast as the other way round for C = 4 F. Without the barrier XLA turns it back.
    return lax.optimization_barrier(lax.dot_general(right, left, over_rows)).T
