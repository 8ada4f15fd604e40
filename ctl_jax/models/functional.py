"""Using a network: pure functions of a module and its variables."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from ctl_jax.errors import UserError
from ctl_jax.models import _elastic, depth, heads, layers, taps
from ctl_jax.trees import Variables

# What a head reads.
HeadInput = Literal["last", "taps"]

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
    heads.check_positive("image_size", image_size)
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
    """Logits of images. Widths and depth follow from the variables: what was cut runs as it is.

    Args:
      module: from `create`, or any Linen module of images that has BatchNorm of ours or of Linen.
      variables: {"params": ..., "batch_stats": ...}, with a head of any form (see `heads`). Under
        "ensemble" in both there may be the variables of a second network of this architecture,
        perhaps of other widths and with another head: its logits are added.
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
      Averaging them over batches is left to the training loop.
    """
    second = _second(variables)
    if second is None:
        return _apply(module, variables, images, train, dtype)
    one = _apply(module, variables, images, train, dtype)
    inner = (lambda path: train(f"{heads.ENSEMBLE}/{path}")) if callable(train) else train
    two = _apply(module, second, images, inner, dtype)
    if not train:
        return one + two
    return one[0] + two[0], {**one[1], heads.ENSEMBLE: two[1]}


def _second(variables: Variables) -> Variables | None:
    """The variables of an ensemble's second network."""
    if heads.ENSEMBLE not in variables["params"]:
        return None
    return {kind: tree.get(heads.ENSEMBLE, {}) for kind, tree in variables.items()}


def _apply(
    module: nn.Module,
    variables: Variables,
    images: jax.Array,
    train: bool | ByBatch,
    dtype: DTypeLike,
) -> Any:
    """As `apply`, of one network."""
    # In float32: numbers that a fit has made large may cancel.
    head = variables["params"].get("head", {})
    variables, images = _cast(variables, images, dtype)

    def read(layer: nn.Module, x: jax.Array, calls: Sequence[taps.Call]) -> jax.Array | None:
        if _is_layers_own(head, layer, x):
            return None
        rows = heads.inputs(head)
        found = _flat(layer, x)
        if found.shape[1] != rows:
            found = _with_taps(module, variables, found, calls)
        if found.shape[1] != rows:
            raise UserError(
                f"the head reads {rows} numbers; expected {x.shape[-1]}, the last representation, "
                f"or {found.shape[1]}, that and the taps"
            )
        logits = heads.apply_head(head, found)
        # The mean over tokens follows.
        return logits[:, None] if x.ndim == 3 else logits

    with taps.at_head(module, read):
        if not train:
            with layers.normalising(lambda path: False):
                return _run(module, variables, images).astype(jnp.float32)
        with layers.normalising(train if callable(train) else lambda path: True):
            logits, updated = _run(module, variables, images, mutable=["batch_stats"])
        return logits.astype(jnp.float32), updated.get("batch_stats", {})


def _run(module: nn.Module, variables: Variables, images: jax.Array, **options: Any) -> Any:
    """Widths and depth follow from the variables."""
    with depth.following(variables["params"]):
        return _elastic.apply(module, variables, images, **options)


def _is_layers_own(head: heads.Head, layer: nn.Module, x: jax.Array) -> bool:
    """Whether the head is linear on the last representation: the module's own layer computes it."""
    if "kernel" not in head or heads.HIDDEN in head:
        return "kernel" not in head
    rows = head["kernel"].shape[:-1]
    return len(rows) != 1 or (rows == x.shape[-1:] and not isinstance(layer, nn.Einsum))


def _flat(layer: nn.Module, x: jax.Array) -> jax.Array:
    """What a head reads, [B, F], float32: of a network with two tokens both side by side."""
    if x.ndim != 2 and not isinstance(layer, nn.Einsum):
        raise UserError(
            f"the network's head reads an array {list(x.shape)}; expected [B, F] for one with taps "
            "or hidden units"
        )
    return x.reshape(x.shape[0], -1).astype(jnp.float32)


def _with_taps(
    module: nn.Module, variables: Variables, last: jax.Array, calls: Sequence[taps.Call]
) -> jax.Array:
    """The representation with the taps behind it.

    There are none in a network of one stage, or whose blocks are a loop, or are computed again for
    the gradient.
    """
    chosen = taps.choose(module, variables["params"], calls)
    return jnp.concatenate([last, *map(taps.pooled, chosen)], axis=1)


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
        return _run(module, variables, images, return_features=True)


def representation(
    module: nn.Module,
    variables: Variables,
    images: jax.Array,
    head: HeadInput = "last",
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """What a head of a classifier reads, [B, D], in evaluation; of an ensemble the first network's.

    Args:
      module: from `create`.
      variables: {"params": ..., "batch_stats": ...}, with any head.
      images: float32 [B, H, W, 3], preprocessed.
      head: "last", what the network's own last layer reads; or "taps", that and behind it what is
        taken of the maps of all stages, see `taps`.
      dtype: of what comes before, as for `apply`; the result is float32.

    Raises:
      UserError: another head; a network whose layers cannot be tapped, or that is no classifier.
    """
    if head not in get_args(HeadInput):
        raise UserError(f"head is {head!r}; expected {' or '.join(map(repr, get_args(HeadInput)))}")
    variables, images = _cast(variables, images, dtype)
    found: list[jax.Array] = []

    def read(layer: nn.Module, x: jax.Array, calls: Sequence[taps.Call]) -> Any:
        last = _flat(layer, x)
        found.append(last if head == "last" else _with_taps(module, variables, last, calls))
        return np.zeros((*x.shape[:-1], 1), x.dtype)

    with taps.at_head(module, read), layers.normalising(lambda path: False):
        _run(module, variables, images)
    return found[0]


def reads_last(module: nn.Module, variables: Variables, image_size: int) -> bool:
    """Whether a head is one that any network has: linear on the last representation, and alone.

    Args:
      module: from `create`.
      variables: {"params": ..., "batch_stats": ...}; abstract arrays do.
      image_size: side of images that it runs on, in pixels.
    """
    head = variables["params"]["head"]
    if heads.HIDDEN in head or heads.ENSEMBLE in variables["params"]:
        return False
    if getattr(module, "distilled", False):
        return bool(head["kernel"].ndim > 2)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    last = jax.eval_shape(functools.partial(features, module), variables, image)
    return bool(head["kernel"].shape[0] == last.shape[-1])


def reduction(module: nn.Module, variables: Variables, image_size: int) -> int:
    """By how much the sides of a network's last map are smaller than those of the images.

    1 where none of its layers reads a map.

    Args:
      module: from `create`.
      variables: {"params": ..., "batch_stats": ...}; abstract arrays do.
      image_size: side of images that it runs on, in pixels.
    """
    sides = [image_size]

    def read(layer: nn.Module, x: jax.Array, calls: Sequence[taps.Call]) -> Any:
        # The end of attention reads [B, N, heads, D], which is no map.
        maps = [call.value for call in calls if call.kind is not nn.DenseGeneral]
        sides.extend(value.shape[1] for value in maps if value.ndim == 4)
        return np.zeros((*x.shape[:-1], 1), x.dtype)

    def see(variables: Variables, image: jax.Array) -> None:
        # Here, since calls inside another trace are not seen.
        with taps.at_head(module, read), layers.normalising(lambda path: False):
            _run(module, variables, image)

    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    jax.eval_shape(see, variables, image)
    return image_size // max(1, sides[-1])


def new_head(
    module: nn.Module,
    variables: Variables,
    num_outputs: int,
    image_size: int,
    head: HeadInput = "last",
) -> dict[str, Any]:
    """Variables of one network with a linear head of zeros, whatever head they have.

    Args:
      module: from `create`.
      variables: {"params": ..., "batch_stats": ...}; of an ensemble, the first network stays.
      num_outputs: of the new head.
      image_size: side of images that it runs on, in pixels: it is traced for the head's inputs.
      head: what the head reads, as for `representation`.

    Raises:
      UserError: as `representation`, or `num_outputs` is not positive.
    """
    heads.check_positive("num_outputs", num_outputs)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    read = functools.partial(representation, module, head=head)
    rows = jax.eval_shape(read, variables, image).shape[1]
    zeros = {"kernel": jnp.zeros((rows, num_outputs)), "bias": jnp.zeros(num_outputs)}
    first = {
        kind: {name: leaf for name, leaf in tree.items() if name != heads.ENSEMBLE}
        for kind, tree in variables.items()
    }
    return heads.set_head(first, zeros)


def count_params(variables: Variables) -> int:
    """Number of trained numbers, BatchNorm's running statistics not among them."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
