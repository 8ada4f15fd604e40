"""Importance of channels to a task: criteria of pruning that look at images, on one batch.

Gradients need a head. A new one is zero, and lets none through; the criteria's authors score
networks that were trained on the task (Molchanov et al. 2017 and 2019), which costs more than the
finetuning that follows here. So the head is that of one gradient step from zero on the batch: each
class's weights are the mean of its standardised features, relative to the other classes'.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ctl_jax import compute, models, pruning
from ctl_jax.finetune._losses import loss
from ctl_jax.trees import Tree

# Vectors of random signs for "hessian": each costs about as much as two training steps.
_PROBES = 1


def importance(
    module: nn.Module,
    preprocess: str | models.Preprocess,
    groups: pruning.Groups,
    variables: Tree,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    criterion: str,
    num_classes: int,
    normalise: str = "none",
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of all channels by one batch of a task.

    Args:
      module: the network.
      preprocess: what it expects of an image, or its text (see `models.Preprocess`).
      groups: of the whole network, traced on a batch of as many images of this size.
      variables: its parameters and statistics; the head is not used.
      images: uint8 [examples, height, width, 3].
      labels: int32 [examples], or uint8 [examples, num_classes] of 0 and 1.
      criterion: one of `pruning.CRITERIA`.
      num_classes: of the task.
      normalise: as for `pruning.score`.
      seed: of what is drawn.

    Returns:
      See `pruning.score`.
    """
    x = models.Preprocess.parse(preprocess)(jnp.asarray(images))
    score = functools.partial(pruning.score, groups, variables, criterion, normalise=normalise)
    needs = pruning.CRITERIA[criterion].needs
    if needs == "activations":
        return score(batches=[x])
    if needs != "gradients":
        return score(seed=seed)
    features = jax.jit(functools.partial(models.representation, module))(variables, x)
    head = mean_head(features, labels, num_classes)
    batches = [(x, labels)]
    return score(loss=_loss(module, head), batches=batches, seed=seed, probes=_PROBES)


def importance_flops(
    module: nn.Module,
    groups: pruning.Groups,
    variables: Tree,
    images: jax.ShapeDtypeStruct,
    labels: jax.ShapeDtypeStruct,
    *,
    criterion: str,
    num_classes: int,
) -> int:
    """FLOPs of `importance`, on abstract variables, images (float32) and labels."""
    count = functools.partial(pruning.score_flops, groups, variables, criterion)
    needs = pruning.CRITERIA[criterion].needs
    if needs == "activations":
        return count(images)
    if needs != "gradients":
        return 0
    read = functools.partial(models.representation, module)
    features = jax.eval_shape(read, variables, images).shape[-1]
    head = {"kernel": np.zeros((features, num_classes)), "bias": np.zeros(num_classes)}
    head = jax.tree.map(np.float32, head)
    step = count((images, labels), loss=_loss(module, head), probes=_PROBES)
    return step + compute.flops(read, variables, images)


def mean_head(
    features: np.ndarray | jax.Array, labels: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """The head that a gradient step from zero gives, on standardised features.

    Args:
      features: [examples, F].
      labels: int32 [examples], or uint8 [examples, num_classes] of 0 and 1.
      num_classes: of the task.

    Returns:
      {"kernel": [F, num_classes], "bias": [num_classes]}, float32, for features as they are. The
      mean square of its logits on these examples is 1, or 0 where features or labels are all alike.
    """
    x = np.asarray(features, np.float64)
    targets = labels if labels.ndim == 2 else np.eye(num_classes)[labels]
    targets = targets - targets.mean(axis=0)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    kernel = ((x - mean) * scale).T @ targets
    size = np.sqrt(np.mean(np.square((x - mean) * scale @ kernel)))
    kernel = scale[:, None] * kernel / (size or 1)
    return {
        "kernel": kernel.astype(np.float32),
        "bias": (-mean @ kernel).astype(np.float32),
    }


def _loss(module: nn.Module, head: Tree) -> Callable[[Tree, Any], jax.Array]:
    """Of variables and a batch; the head is this one, whatever theirs is."""

    def of_batch(variables: Tree, batch: Any) -> jax.Array:
        images, labels = batch
        logits = models.apply(module, models.set_head(variables, head), images)
        return loss(logits, labels, head["bias"].shape[-1])

    return of_batch
