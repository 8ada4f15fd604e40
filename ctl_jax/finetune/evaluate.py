"""Accuracy over a whole split, each example once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ctl_jax import models
from ctl_jax.finetune.step import Tree, mask_padding


def evaluate(
    module: nn.Module,
    preprocess: str,
    variables: Tree,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    batch_size: int = 128,
) -> float:
    """Top-1 accuracy.

    The last batch is filled up with blank images that carry the label -1 and so never count:
    no example is dropped, none is counted twice, and every batch runs the same program.

    Args:
      module: the network.
      preprocess: name of an entry of `models.PREPROCESS`.
      variables: parameters and statistics.
      images: uint8 [examples, height, width, 3].
      labels: int [examples].
      num_classes: outputs beyond it are padding of the head.
      batch_size: images a compiled call.

    Returns:
      The fraction of examples whose largest output is their label's.
    """
    correct = []
    for start in range(0, len(labels), batch_size):
        batch, truth = images[start : start + batch_size], labels[start : start + batch_size]
        lacking = batch_size - len(truth)
        if lacking:
            batch = np.pad(batch, ((0, lacking), (0, 0), (0, 0), (0, 0)))
            truth = np.pad(truth, (0, lacking), constant_values=-1)
        correct.append(_count_correct(module, preprocess, variables, batch, truth, num_classes))
    return int(sum(correct)) / len(labels)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _count_correct(
    module: nn.Module,
    preprocess: str,
    variables: Tree,
    images: jax.Array,
    labels: jax.Array,
    num_classes: jax.typing.ArrayLike,
) -> jax.Array:
    images = models.PREPROCESS[preprocess](images)
    logits = mask_padding(models.apply(module, variables, images, train=False), num_classes)
    return jnp.sum(jnp.argmax(logits, axis=-1) == labels)
