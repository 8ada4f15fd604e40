"""Losses, and labels for a head with more outputs than the task has classes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def loss(
    logits: jax.Array,
    labels: jax.Array,
    num_classes: jax.typing.ArrayLike,
    smoothing: jax.Array | float | None = None,
) -> jax.Array:
    """Mean cross-entropy of a batch, in nats; outputs beyond `num_classes` have no part in it.

    Args:
      logits: float32 [batch, outputs].
      labels: int32 [batch]: softmax cross-entropy, a mean over examples. Or uint8
        [batch, outputs] of 0 and 1: sigmoid cross-entropy, a mean over examples and classes, as
        Nevis'22 has it.
      num_classes: of the task, at most `outputs`.
      smoothing: the share of each label that goes to all classes alike (Szegedy et al., Rethinking
        the Inception Architecture, 2016, section 7); of a multi-label task to 0 and 1 alike. None:
        none, in a program without it.

    Returns:
      A scalar.
    """
    if labels.ndim == 1:
        masked = mask_padding(logits, num_classes)
        hard = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(masked, labels))
        if smoothing is None:
            return hard
        return (1 - smoothing) * hard + smoothing * _uniform(masked, num_classes)
    targets = labels.astype(logits.dtype)
    if smoothing is not None:
        targets = (1 - smoothing) * targets + smoothing / 2
    losses = optax.sigmoid_binary_cross_entropy(logits, targets)
    real = jnp.arange(logits.shape[-1]) < num_classes
    count = jnp.asarray(losses.shape[0] * num_classes, losses.dtype)
    return jnp.sum(losses, where=real[None, :]) / count


def _uniform(masked: jax.Array, num_classes: jax.typing.ArrayLike) -> jax.Array:
    """Mean cross-entropy with labels that are all classes alike; from `mask_padding`."""
    real = jnp.arange(masked.shape[-1]) < num_classes
    losses = -jax.nn.log_softmax(masked)
    count = jnp.asarray(masked.shape[0] * num_classes, losses.dtype)
    return jnp.sum(losses, where=real[None, :]) / count


def pad_labels(labels: np.ndarray, outputs: int) -> np.ndarray:
    """Labels for a head that has more outputs than the task has classes.

    Args:
      labels: int32 [N], or uint8 [N, num_classes].
      outputs: of the head, at least `num_classes`.

    Returns:
      The former as they are; the latter as [N, outputs], with zeros for the padding.
    """
    if labels.ndim == 1:
        return labels
    return np.pad(labels, ((0, 0), (0, outputs - labels.shape[1])))


def mask_padding(logits: jax.Array, num_classes: jax.typing.ArrayLike) -> jax.Array:
    """Gives outputs beyond `num_classes` no probability (and so no gradient).

    Tasks with different class counts share one padded head, hence one compiled program, and train
    as they would with a head of their own size: a zero-initialised padded output stays zero.
    """
    real = jnp.arange(logits.shape[-1]) < num_classes
    return jnp.where(real[None, :], logits, jnp.finfo(logits.dtype).min)
