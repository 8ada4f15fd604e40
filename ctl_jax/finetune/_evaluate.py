"""The metrics of a whole split, each example once."""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from ctl_jax import models
from ctl_jax.data import streaming
from ctl_jax.finetune import sharding
from ctl_jax.finetune._losses import mask_padding
from ctl_jax.finetune.metrics import (
    accuracy_interval,
    mean_average_precision,
    mean_average_precision_interval,
)
from ctl_jax.trees import Tree

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
      interval: both ends of the 95% confidence interval of `value`, where that was asked for.
    """

    metric: str
    value: float
    top5: float | None
    interval: tuple[float, float] | None = None


def evaluate(
    module: nn.Module,
    preprocess: str | models.Preprocess,
    variables: Tree,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    batch_size: int = 128,
    compute_dtype: str = "float32",
    mesh: Mesh | None = None,
    interval: bool = False,
) -> Scores:
    """Top-1 and top-5 accuracy, or mean average precision; the form of the labels decides.

    The last batch is filled up with blank images that never count: no example is dropped, none is
    counted twice, and every batch runs the same program. Images are taken a batch at a time, so
    they may be memory-mapped and larger than the memory.

    Args:
      module: the network.
      preprocess: what the network expects of an image, or its text (see `models.Preprocess`).
      variables: parameters and statistics.
      images: uint8 [examples, height, width, 3].
      labels: int [examples], or uint8 [examples, num_classes] of 0 and 1.
      num_classes: outputs beyond it are padding of the head.
      batch_size: images a compiled call; rounded up to a multiple of the number of devices.
      compute_dtype: as the recipe's.
      mesh: the devices that share each batch; without it, all of all processes of the group, each
        of which calls this with the same arguments.
      interval: whether to say how far the score may be from the true one.

    Returns:
      See `Scores`. Of equal outputs the one of the smaller number counts as the larger.
    """
    if labels.ndim == 2:
        how: Any = {"batch_size": batch_size, "compute_dtype": compute_dtype, "mesh": mesh}
        found = logits(module, preprocess, variables, images, **how)
        return score(found, labels, num_classes=num_classes, interval=interval)
    mesh = sharding.make_mesh() if mesh is None else mesh
    batch_size = -(-batch_size // mesh.size) * mesh.size
    variables = sharding.replicate(mesh, variables)
    network = (module, models.Preprocess.parse(preprocess), compute_dtype)
    classes = sharding.replicate(mesh, np.int32(num_classes))
    call = functools.partial(_compiled(mesh, _largest), *network, variables, classes)
    largest = over_batches(call, images, batch_size, mesh)
    return _of_largest(largest, labels, num_classes, interval)


def logits(
    module: nn.Module,
    preprocess: str | models.Preprocess,
    variables: Tree,
    images: np.ndarray,
    *,
    batch_size: int = 128,
    compute_dtype: str = "float32",
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Logits of a whole split, float32 [examples, outputs]; the arguments are as for `evaluate`."""
    mesh = sharding.make_mesh() if mesh is None else mesh
    batch_size = -(-batch_size // mesh.size) * mesh.size
    network = (module, models.Preprocess.parse(preprocess), compute_dtype)
    call = functools.partial(
        _compiled(mesh, _logits), *network, sharding.replicate(mesh, variables)
    )
    return over_batches(call, images, batch_size, mesh)


def score(
    logits: np.ndarray, labels: np.ndarray, *, num_classes: int, interval: bool = False
) -> Scores:
    """The scores of logits that were computed already; see `evaluate`.

    Args:
      logits: float [examples, outputs], finite.
      labels: as for `evaluate`.
      num_classes: outputs beyond it do not count.
      interval: as for `evaluate`.
    """
    logits = logits[:, :num_classes]
    if labels.ndim == 2:
        ends = mean_average_precision_interval(labels, logits) if interval else None
        return Scores("mAP", mean_average_precision(labels, logits), None, ends)
    largest = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    return _of_largest(largest, labels, num_classes, interval)


def _of_largest(
    largest: np.ndarray, labels: np.ndarray, num_classes: int, interval: bool
) -> Scores:
    """Accuracies by the numbers of the largest outputs, [examples, up to 5]."""
    hits = largest == labels[:, None]
    top5 = float(hits.any(axis=1).mean()) if num_classes >= TOP else None
    ends = accuracy_interval(int(hits[:, 0].sum()), len(hits)) if interval else None
    return Scores("accuracy", float(hits[:, 0].mean()), top5, ends)


def over_batches(
    call: Callable[[jax.Array], jax.Array], images: np.ndarray, batch_size: int, mesh: Mesh
) -> np.ndarray:
    """The results of a function of a batch for all images, [examples, ...]."""
    results: list[np.ndarray] = []
    pending: collections.deque[jax.Array] = collections.deque()
    rows = sharding.rows(mesh, batch_size)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size][rows]
        if lacking := rows.stop - rows.start - len(batch):
            batch = np.pad(batch, ((0, lacking), (0, 0), (0, 0), (0, 0)))
        # The device works while the host gets the next batch ready, but not further ahead.
        if len(pending) == _AHEAD:
            results.append(jax.device_get(pending.popleft()))
            streaming.release(images)
        pending.append(call(sharding.shard(mesh, batch)))
    results.extend(map(jax.device_get, pending))
    return np.concatenate(results)[: len(images)]


@functools.cache
def _compiled(mesh: Mesh, function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Compiled; each process gets the whole result."""
    backend = mesh.devices.flat[0].platform
    return jax.jit(
        models.tuned(backend)(function),
        static_argnums=(0, 1, 2),
        out_shardings=sharding.replicated(mesh),
        compiler_options=models.compiler_options(backend),
    )


def _logits(
    module: nn.Module, preprocess: models.Preprocess, dtype: str, variables: Tree, images: jax.Array
) -> jax.Array:
    return models.apply(module, variables, preprocess(images), dtype=dtype)


def _largest(
    module: nn.Module,
    preprocess: models.Preprocess,
    dtype: str,
    variables: Tree,
    num_classes: jax.Array,
    images: jax.Array,
) -> jax.Array:
    """The numbers of the five largest outputs (fewer where there are fewer), largest first."""
    logits = _logits(module, preprocess, dtype, variables, images)
    return jax.lax.top_k(mask_padding(logits, num_classes), min(TOP, logits.shape[-1]))[1]
