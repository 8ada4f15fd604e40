"""The learning rate over a trial."""

import jax
import jax.numpy as jnp


def warmup_cosine(
    step: jax.typing.ArrayLike,
    *,
    peak: jax.typing.ArrayLike,
    total_steps: jax.typing.ArrayLike,
    warmup_steps: jax.typing.ArrayLike,
) -> jax.Array:
    """Linear warm-up to `peak`, then half a cosine that is zero when the budget is spent.

    All arguments are values, not constants of the compiled program, so that one program serves
    every budget and learning rate. (optax's schedules take their lengths as Python constants.)

    Args:
      step: updates already made; the result is the rate of the next one.
      peak: the highest rate, used by update number `warmup_steps`.
      total_steps: updates that the budget pays for; the rate at `total_steps` is exactly zero.
      warmup_steps: updates before the peak, fewer than `total_steps`. The first update already
        moves: its rate is `peak / (warmup_steps + 1)`.

    Returns:
      The learning rate, a float32 scalar.
    """
    step = jnp.asarray(step, jnp.float32)
    total_steps = jnp.asarray(total_steps, jnp.float32)
    warmup_steps = jnp.asarray(warmup_steps, jnp.float32)
    rising = (step + 1) / (warmup_steps + 1)
    left = (total_steps - step) / jnp.maximum(total_steps - warmup_steps, 1)
    # sin^2 instead of (1 + cos) / 2: the same curve, but exactly zero at the end in float32.
    falling = jnp.sin(0.5 * jnp.pi * jnp.clip(left, 0, 1)) ** 2
    return jnp.asarray(peak, jnp.float32) * jnp.where(step < warmup_steps, rising, falling)
