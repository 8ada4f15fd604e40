"""Maps: what enters the trained part of a network, computed once an image.

Where the lowest layers are frozen and images do not vary, every update on an image would compute
the same of it. `divided` finds where the trained part begins; `compute` gives what enters it, and
`fit` then trains on that instead of images.
"""

import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from ctl_jax import models
from ctl_jax.data import streaming
from ctl_jax.finetune import phases, sharding
from ctl_jax.finetune._evaluate import over_batches
from ctl_jax.finetune.step import Recipe
from ctl_jax.trees import Tree, leaf_paths

# Images a compiled call, and those that are copied at a time.
_BATCH, _PART = 128, 4096
_DTYPE = np.float16

# From a network's variables and images uint8 [B, H, W, 3] to maps float16 [B, ...].
Lower = Callable[[Tree, jax.Array], jax.Array]


def divided(module: nn.Module, recipe: Recipe, variables: Tree, image_size: int) -> Recipe:
    """The recipe with the entrance to its trained part.

    Args:
      module: the network.
      recipe: how it is trained.
      variables: {"params": ..., "batch_stats": ...} with the head that is trained; abstract arrays
        do.
      image_size: side of the images, in pixels.

    Returns:
      The recipe as it is where its phase asks for no maps, where images vary, or where there is no
      layer below which nothing changes and at which the network can be entered.
    """
    phase = recipe.phase
    if not phase.cached or phase.lora or recipe.varies:
        return recipe
    trained, _ = phases.partition(phase, variables["params"])
    paths = [path for path, _ in leaf_paths(trained)]
    by_batch = phases.by_batch(phase, variables)
    for path, _ in leaf_paths(variables["batch_stats"]):
        layer = path.rpartition("/")[0]
        if by_batch(layer) if callable(by_batch) else by_batch:
            paths.append(path)
    changing = {path.partition("/")[0] for path in paths}
    layer = models.entrance(module, variables, changing, image_size)
    return dataclasses.replace(recipe, entrance=(layer, image_size)) if layer else recipe


def enter(module: nn.Module, recipe: Recipe, variables: Tree, images: jax.Array) -> jax.Array:
    """Maps of a batch, float16; what is beyond its range becomes the nearest number in it.

    Args:
      module: the network.
      recipe: from `divided`, with an entrance.
      variables: {"params": ..., "batch_stats": ...}.
      images: uint8 [B, H, W, 3].
    """
    assert recipe.entrance is not None
    x = models.Preprocess.parse(recipe.preprocess)(images)
    layer, _ = recipe.entrance
    found = models.entering(module, variables, x, layer, dtype=jnp.dtype(recipe.compute_dtype))
    most = float(np.finfo(_DTYPE).max)
    return jnp.clip(found, -most, most).astype(_DTYPE)


def lower(module: nn.Module, recipe: Recipe, mesh: Mesh) -> Lower:
    """`enter` compiled; each process of a group gets the whole result."""
    backend = mesh.devices.flat[0].platform
    return jax.jit(
        models.tuned(backend)(functools.partial(enter, module, recipe)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=models.compiler_options(backend),
    )


def compute(
    call: Lower, mesh: Mesh, variables: Tree, images: jax.Array | np.ndarray, index: np.ndarray
) -> np.ndarray:
    """Maps of some images.

    Args:
      call: from `lower`.
      mesh: the devices that share each batch.
      variables: {"params": ..., "batch_stats": ...}; of a group, each process has them.
      images: uint8 [examples, height, width, 3]; may be memory-mapped.
      index: which ones.

    Returns:
      float16 [examples, ...], in a file that is gone with the array; zeros in the place of images
      that were not asked for. For the same arguments the same, bit for bit.
    """
    call = functools.partial(call, sharding.replicate(mesh, variables))
    batch_size = -(-_BATCH // mesh.size) * mesh.size
    shape: tuple[int, ...] = ()
    with tempfile.TemporaryFile() as file:
        for start in range(0, len(index), _PART):
            rows = index[start : start + _PART]
            found = over_batches(call, np.asarray(images[rows]), batch_size, mesh)
            # Written, not mapped: where the disk is full, that is an error and no crash.
            for row, each in zip(rows, found, strict=True):
                file.seek(int(row) * each.nbytes)
                file.write(np.ascontiguousarray(each).data)
            shape = len(images), *found.shape[1:]
        file.truncate(math.prod(shape) * np.dtype(_DTYPE).itemsize)
        return np.memmap(file, _DTYPE, "r", shape=shape)


def seen(
    examples: int, batch_size: int, seed: int, updates: int, among: np.ndarray | None = None
) -> np.ndarray:
    """Which examples the first updates of a training are of, ascending; see `streaming.Order`."""
    possible = np.arange(examples) if among is None else np.sort(among)
    if updates * batch_size >= len(possible):
        return possible
    order = streaming.Order(examples, batch_size, seed, among)
    batches = [order[batch] for batch in range(updates)]
    return np.sort(np.concatenate(batches or [np.arange(0)]))


def affordable(budget: int, step: int, each: int, batch_size: int, examples: int) -> int:
    """How many updates a budget pays for.

    Args:
      budget: FLOPs.
      step: FLOPs of an update.
      each: FLOPs of an image's map, paid for once; 0 without maps.
      batch_size: images an update.
      examples: images that there are.
    """
    before_all_are_seen = budget // (step + batch_size * each)
    return max(before_all_are_seen, (budget - examples * each) // step)
