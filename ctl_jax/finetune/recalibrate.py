"""BatchNorm's statistics, estimated again from images of a task.

Statistics describe the activations of the network that was trained. A cut changes what every layer
after it sees, and so does another resolution or another kind of images. On
features of three real sets statistics of 64 images mostly made a fitted head worse, not better;
`pruning.correct` is what makes up for a cut.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.trees import Tree


def statistics(
    module: nn.Module,
    preprocess: str | models.Preprocess,
    variables: Tree,
    images: np.ndarray,
    *,
    batch_size: int = 128,
    compute_dtype: str = "float32",
) -> dict[str, Any]:
    """Mean and variance of what each BatchNorm layer normalises, over all images.

    Each batch is normalised by its own statistics, layer after layer, as in training; what was
    there before has no part in it. Means are averaged over all values, and the variance is
    E[x^2] - E[x]^2 of them, so that batches are as one if they are alike. Costs one forward pass
    an image, without the head.

    Args:
      module: the network.
      preprocess: what the network expects of an image, or its text (see `models.Preprocess`).
      variables: parameters and statistics, perhaps pruned; its head is not used.
      images: uint8 [examples, height, width, 3], of one size. Each process of a group computes all
        by itself.
      batch_size: images a compiled call, at most: they are split into as few batches as that
        allows, of sizes that differ by one at most.
      compute_dtype: as the recipe's.

    Returns:
      Statistics in the form of `variables["batch_stats"]`, NumPy float32 ({} without BatchNorm).

    Raises:
      UserError: there are no images, or so few and small ones that a layer has 1 value a channel.
    """
    if not len(images):
        raise UserError("images to estimate BatchNorm's statistics of: there are 0; expected some")
    if not variables["batch_stats"]:
        return {}
    network = (module, models.Preprocess.parse(preprocess), compute_dtype)
    total: Tree = None
    for batch in np.array_split(images, -(-len(images) // batch_size)):
        share = len(batch) / len(images)
        moments = _moments(jax.device_get(_compiled()(*network, variables, batch)))
        weighted = jax.tree.map(lambda leaf, share=share: share * leaf, moments)
        total = weighted if total is None else jax.tree.map(np.add, total, weighted)
    found: dict[str, Any] = jax.tree.map(np.float32, _of_moments(total))
    return found


def _moments(statistics: Tree) -> Tree:
    """The same tree in float64, with E[x^2] in the place of each variance."""
    return _replaced(jax.tree.map(np.float64, statistics), lambda mean, var: var + np.square(mean))


def _of_moments(moments: Tree) -> Tree:
    return _replaced(moments, lambda mean, square: np.maximum(square - np.square(mean), 0))


def _replaced(tree: Tree, function: Callable[[Any, Any], Any]) -> Tree:
    """The tree with `function(mean, var)` in the place of each "var"."""
    if not isinstance(tree, Mapping):
        return tree
    return {
        key: function(tree["mean"], leaf)
        if key == "var" and "mean" in tree
        else _replaced(leaf, function)
        for key, leaf in tree.items()
    }


@functools.cache
def _compiled() -> Callable[..., Tree]:
    backend = jax.default_backend()
    return jax.jit(
        models.tuned(backend)(_of_batch),
        static_argnums=(0, 1, 2),
        compiler_options=models.compiler_options(backend),
    )


def _of_batch(
    module: nn.Module, preprocess: models.Preprocess, dtype: str, variables: Tree, images: jax.Array
) -> Tree:
    """The statistics of a batch; the compiler leaves out the head, which they do not need."""
    return models.apply(module, variables, preprocess(images), train=True, dtype=dtype)[1]
