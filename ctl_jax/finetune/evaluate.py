"""The metrics of a whole split, each example once."""

import collections
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from ctl_jax import models
from ctl_jax.data import streaming
from ctl_jax.finetune.metrics import mean_average_precision
from ctl_jax.finetune.step import Tree, mask_padding

TOP = 5
# Batches that may be on their way to the device at once.
_AHEAD = 4


class Scores(NamedTuple):
    """How good a model is on a split.

    Attributes:
      metric: "accuracy" (top-1), or "mAP" for a multi-label task: what `value` is.
      value: in 0 .. 1.
      top5: the fraction of examples whose label is among the five largest outputs; None for
        multi-label tasks and for fewer than five classes.
    """

    metric: str
    value: float
    top5: float | None


def evaluate(
    module: nn.Module,
    preprocess: str,
    variables: Tree,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    batch_size: int = 128,
) -> Scores:
    """Top-1 and top-5 accuracy, or mean average precision; the form of the labels decides.

    The last batch is filled up with blank images that never count: no example is dropped, none is
    counted twice, and every batch runs the same program. Images are taken a batch at a time, so
    they may be memory-mapped and larger than the memory.

    Args:
      module: the network.
      preprocess: name of an entry of `models.PREPROCESS`.
      variables: parameters and statistics.
      images: uint8 [examples, height, width, 3].
      labels: int [examples], or uint8 [examples, num_classes] of 0 and 1.
      num_classes: outputs beyond it are padding of the head.
      batch_size: images a compiled call.

    Returns:
      See `Scores`. Of equal outputs the one of the smaller number counts as the larger.
    """
    if labels.ndim == 2:
        call = functools.partial(_logits, module, preprocess, variables)
        logits = _over_batches(call, images, batch_size)[:, :num_classes]
        return Scores("mAP", mean_average_precision(labels, logits), None)
    call = functools.partial(_largest, module, preprocess, variables, num_classes)
    hits = _over_batches(call, images, batch_size) == labels[:, None]
    top5 = float(hits.any(axis=1).mean()) if num_classes >= TOP else None
    return Scores("accuracy", float(hits[:, 0].mean()), top5)


def _over_batches(
    call: Callable[[np.ndarray], jax.Array], images: np.ndarray, batch_size: int
) -> np.ndarray:
    """The results of a function of a batch for all images, [examples, ...]."""
    results: list[np.ndarray] = []
    pending: collections.deque[jax.Array] = collections.deque()
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        if lacking := batch_size - len(batch):
            batch = np.pad(batch, ((0, lacking), (0, 0), (0, 0), (0, 0)))
        # The device works while the host gets the next batch ready, but not further ahead.
        if len(pending) == _AHEAD:
            results.append(np.asarray(pending.popleft()))
            streaming.release(images)
        pending.append(call(batch))
    results.extend(map(np.asarray, pending))
    return np.concatenate(results)[: len(images)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(module: nn.Module, preprocess: str, variables: Tree, images: jax.Array) -> jax.Array:
    return models.apply(module, variables, models.PREPROCESS[preprocess](images), train=False)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _largest(
    module: nn.Module,
    preprocess: str,
    variables: Tree,
    num_classes: jax.typing.ArrayLike,
    images: jax.Array,
) -> jax.Array:
    """The numbers of the five largest outputs (fewer where there are fewer), largest first."""
    images = models.PREPROCESS[preprocess](images)
    logits = mask_padding(models.apply(module, variables, images, train=False), num_classes)
    return jax.lax.top_k(logits, min(TOP, logits.shape[-1]))[1]
