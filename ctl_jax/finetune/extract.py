"""Features of a whole split: what a head reads, computed once an image."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.finetune import sharding
from ctl_jax.finetune._evaluate import over_batches
from ctl_jax.models.heads import ENSEMBLE
from ctl_jax.trees import Tree

# Views of an image: (mirrored, sixteenths of its side down, and to the right).
# fmt: off
_VIEWS = (
    (0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1), (0, -1, -1), (1, -1, -1), (0, 1, -1), (1, 1, -1),
)
# fmt: on
# How many there are.
VIEWS = len(_VIEWS)
# Images a call by default, and on CPU: there as many as have so many pixels, from 4 to 64.
_BATCH, _CPU_PIXELS = 256, 32 * 64 * 64


def extract(
    module: nn.Module,
    preprocess: str | models.Preprocess,
    variables: Tree,
    images: np.ndarray,
    *,
    head: str = "last",
    compute_dtype: str = "float32",
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    dtype: DTypeLike = np.float16,
    view: int = 0,
) -> np.ndarray:
    """The representation of each image, see `models.representation`.

    Images are taken a batch at a time, so they may be memory-mapped and larger than the memory; the
    last batch is filled up with blank ones. One program does for all heads, sizes of splits and
    views of an architecture at one size of images.

    Args:
      module: the network.
      preprocess: what the network expects of an image, or its text (see `models.Preprocess`).
      variables: parameters and statistics; their head is not used.
      images: uint8 [examples, height, width, 3].
      head: what a head reads, "last" or "taps".
      compute_dtype: as the recipe's.
      batch_size: images a compiled call; rounded up to a multiple of the number of devices. By
        default 256, on CPU, whose caches hold less of more, 32 of 64 pixels, more of smaller ones
        and fewer of larger ones.
      mesh: the devices that share each batch; without it, all of all processes of the group, each
        of which calls this with the same arguments.
      dtype: of the result. What is beyond its range becomes the nearest number in it.
      view: 0 for the images as they are, 1 for them mirrored, 2 up to `VIEWS` - 1 for them moved
        a little, what leaves the image at one side lacking at the other: the last row or column is
        repeated.

    Returns:
      [examples, D], each process all of it.

    Raises:
      UserError: there are no images, or there is no such head or view.
    """
    if not len(images):
        raise UserError("images to take features of: there are 0; expected some")
    if not 0 <= view < VIEWS:
        raise UserError(f"view is {view}; expected 0 to {VIEWS - 1}")
    mesh = sharding.make_mesh() if mesh is None else mesh
    if batch_size is None:
        batch_size = _default_batch(mesh, images.shape[1] * images.shape[2])
    batch_size = -(-batch_size // mesh.size) * mesh.size
    kept = {
        kind: {name: leaf for name, leaf in tree.items() if name not in ("head", ENSEMBLE)}
        for kind, tree in variables.items()
    }
    mirrored, down, right = _VIEWS[view]
    moved = np.round(np.multiply((down, right), images.shape[1:3]) / 16).astype(np.int32)
    given = sharding.replicate(mesh, (kept, np.bool_(mirrored), moved))
    network = (module, models.Preprocess.parse(preprocess), compute_dtype, head, np.dtype(dtype))
    call = functools.partial(_compiled(mesh), *network, *given)
    return over_batches(call, images, batch_size, mesh)


def _default_batch(mesh: Mesh, pixels: int) -> int:
    if mesh.devices.flat[0].platform != "cpu":
        return _BATCH
    return min(max(_CPU_PIXELS // pixels, 4), 64)


@functools.cache
def _compiled(mesh: Mesh) -> Callable[..., jax.Array]:
    """Compiled; each process gets the whole result."""
    backend = mesh.devices.flat[0].platform
    return jax.jit(
        models.tuned(backend)(_features),
        static_argnums=(0, 1, 2, 3, 4),
        out_shardings=sharding.replicated(mesh),
        compiler_options=models.compiler_options(backend),
    )


def _features(
    module: nn.Module,
    preprocess: models.Preprocess,
    compute_dtype: str,
    head: models.HeadInput,
    dtype: np.dtype,
    variables: Tree,
    mirrored: jax.Array,
    moved: jax.Array,
    images: jax.Array,
) -> jax.Array:
    images = _seen(images, mirrored, moved)
    found = models.representation(
        module, variables, preprocess(images), head, dtype=jnp.dtype(compute_dtype)
    )
    largest = float(jnp.finfo(dtype).max)
    return jnp.clip(found, -largest, largest).astype(dtype)


def _seen(images: jax.Array, mirrored: jax.Array, moved: jax.Array) -> jax.Array:
    """Images [B, H, W, 3], mirrored where that is true, moved by rows and columns [2]."""
    most = [-(-size // 16) for size in images.shape[1:3]]
    around = jnp.pad(images, ((0, 0), *((n, n) for n in most), (0, 0)), mode="edge")
    start = (0, most[0] - moved[0], most[1] - moved[1], 0)
    cut = lax.dynamic_slice(around, start, images.shape)
    return jnp.where(mirrored, jnp.flip(cut, axis=2), cut)
