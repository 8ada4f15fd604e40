"""Using a network: pure functions of a module and its variables."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from ctl_jax.errors import UserError
from ctl_jax.models import layers, widths

Variables = Mapping[str, Any]

# What a network may compute in.
DTYPES = ("float32", "bfloat16")


def init(module: nn.Module, key: jax.Array, image_size: int) -> dict[str, Any]:
    """Random variables; the task head's kernel is zero.

    Args:
      module: from `create`.
      key: a PRNG key.
      image_size: height and width of the images. Only networks of tokens (ViT, Mixer) have arrays
        whose shapes depend on it, and run at that size alone.

    Returns:
      {"params": ..., "batch_stats": ...}, float32; without BatchNorm "batch_stats" is {}.

    Raises:
      UserError: `image_size` is no positive int.
    """
    _check_positive("image_size", image_size)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return {"batch_stats": {}, **module.lazy_init(key, images)}


# Whether the BatchNorm layer of a path, such as "stage1_block1/bn1", normalises by the batch.
ByBatch = Callable[[str], bool]


@overload
def apply(
    module: nn.Module,
    variables: Variables,
    images: jax.Array,
    train: Literal[False] = False,
    dtype: DTypeLike = ...,
) -> jax.Array: ...
@overload
def apply(
    module: nn.Module,
    variables: Variables,
    images: jax.Array,
    train: Literal[True] | ByBatch,
    dtype: DTypeLike = ...,
) -> tuple[jax.Array, dict[str, Any]]: ...
def apply(
    module: nn.Module,
    variables: Variables,
    images: jax.Array,
    train: bool | ByBatch = False,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array | tuple[jax.Array, dict[str, Any]]:
    """Logits of images. Widths follow from the variables, so pruned ones run as they are.

    Args:
      module: from `create`, or any Linen module of images that has BatchNorm of ours or of Linen.
      variables: {"params": ..., "batch_stats": ...}.
      images: float32 [B, H, W, 3], preprocessed (see `PREPROCESS`).
      train: which BatchNorm layers normalise by the batch instead of by
        `variables["batch_stats"]`: all, none, or those for whose path ("stage1_block1/bn1") a
        function returns True.
      dtype: of convolutions, products and activations, float32 or bfloat16. The variables are
        float32 either way, and so is BatchNorm's arithmetic.

    Returns:
      Logits [B, num_outputs] (of a U-Net: [B, H, W, num_outputs]), float32; unless `train` is
      False, also the statistics in the form of `variables["batch_stats"]` ({} without BatchNorm):
      those of this batch, of the layers that normalise by it, and the others as they were.
      Averaging them over batches is the trainer's affair.
    """
    variables, images = _cast(variables, images, dtype)
    if not train:
        with layers.normalising(lambda path: False):
            return widths.apply(module, variables, images).astype(jnp.float32)
    with layers.normalising(train if callable(train) else lambda path: True):
        logits, updated = widths.apply(module, variables, images, mutable=["batch_stats"])
    return logits.astype(jnp.float32), updated.get("batch_stats", {})


def _cast(variables: Variables, images: jax.Array, dtype: DTypeLike) -> tuple[Variables, jax.Array]:
    """The images and the parameters but BatchNorm's: what its layers compute with is theirs."""
    if dtype == jnp.float32:
        return variables, images
    statistics = jax.tree_util.tree_leaves_with_path(variables.get("batch_stats", {}))
    of_batch_norm = {path[:-1] for path, _ in statistics}
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if path[:-1] in of_batch_norm else leaf.astype(dtype),
        variables["params"],
    )
    return {**variables, "params": params}, images.astype(dtype)


def features(module: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    """The representation under the task head, [B, F] (of a U-Net: [B, H, W, F]), in evaluation.

    Args:
      module: from `create`.
      variables: {"params": ..., "batch_stats": ...}.
      images: float32 [B, H, W, 3], preprocessed.
    """
    with layers.normalising(lambda path: False):
        return widths.apply(module, variables, images, return_features=True)


def with_head(variables: Variables, num_outputs: int) -> dict[str, Any]:
    """The same variables with a new task head, whose kernel and bias are zero.

    Args:
      variables: {"params": ..., "batch_stats": ...}, perhaps pruned: the inputs of the new head
        are those of the old.
      num_outputs: outputs of the new head; `apply` needs no new module for it.

    Returns:
      New variables; every array but the head's is the same object.

    Raises:
      UserError: `num_outputs` is not positive.
    """
    _check_positive("num_outputs", num_outputs)
    old = variables["params"]["head"]
    head = {
        name: jnp.zeros((*leaf.shape[:-1], num_outputs), leaf.dtype) for name, leaf in old.items()
    }
    return {**variables, "params": {**variables["params"], "head": head}}


def count_params(variables: Variables) -> int:
    """Number of trained numbers, BatchNorm's running statistics not among them."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def _check_positive(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name} is {value!r}; expected a positive int")
