"""Pretrained weights in: files of other frameworks, and our own checkpoints."""

import os
import pathlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.models.checkpoint import load_checkpoint
from ctl_jax.models.network import with_head
from ctl_jax.models.resnet import ResNet

Path = tuple[str, ...]

# Where a file's kernels have height, width, inputs and outputs. The first is the likelier one.
_LAYOUTS = {"OIHW": (2, 3, 1, 0), "HWIO": (0, 1, 2, 3)}

_OF_PYTORCH = "files of PyTorch are not read"
_OF_KERAS = "files of Keras are not read: numpy.savez writes .npz"
_FOREIGN = {
    **dict.fromkeys([".pth", ".pt", ".bin", ".ckpt", ".safetensors"], _OF_PYTORCH),
    **dict.fromkeys([".h5", ".hdf5", ".keras"], _OF_KERAS),
    ".npy": "it holds one array",
}

# Keras' names of a layer's arrays.
_CONV_ARRAYS = {"kernel": "weight", "bias": "bias"}
_BATCH_NORM_ARRAYS = {"scale": "gamma", "bias": "beta", "mean": "mean", "var": "var"}


def load_weights(
    path: str | os.PathLike[str], module: nn.Module, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Variables with the backbone from a file and a zero task head.

    Args:
      path: a `.npz` file with the names of Keras Applications' ResNets v1 (such as
        `conv2_block1_0_conv.weight`; kernels all OIHW, as in PyTorch, or all HWIO, as in Keras), or
        a directory, also `gs://bucket/path`, that `save_checkpoint` wrote, whose widths may be
        pruned.
      module: the network that the weights are for.
      variables: its variables, or `jax.ShapeDtypeStruct`s for them, which say what names and
        shapes to expect; the head gets as many outputs as theirs.

    Returns:
      {"params": ..., "batch_stats": ...}; every array but the head's is from the file.

    Raises:
      UserError: a missing, damaged or unknown file, or an array that is missing, surplus,
        mis-shaped, no float, not finite, or a variance below 0.
    """
    if files.is_remote(path) or _is_dir(path):
        loaded = _from_checkpoint(path, variables)
    elif str(path).lower().endswith(".npz"):
        loaded = _from_keras(pathlib.Path(path), module, variables)
    else:
        suffix = pathlib.Path(path).suffix.lower()
        hint = f"; {_FOREIGN[suffix]}" if suffix in _FOREIGN else ""
        raise UserError(
            f"weights {path}: unknown type; expected .npz or a checkpoint's directory{hint}"
        )
    return with_head(loaded, variables["params"]["head"]["kernel"].shape[-1])


def _is_dir(path: str | os.PathLike[str]) -> bool:
    """Whether it is a directory, where it is anything at all."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise UserError(f"weights {path}: no such file or directory") from None
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"weights {str(path)!r}: cannot be read ({reason})") from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):  # A pipe would be waited for.
        raise UserError(f"weights {path}: neither a file nor a directory")
    return stat.S_ISDIR(mode)


def _from_keras(
    path: pathlib.Path, module: nn.Module, variables: Mapping[str, Any]
) -> dict[str, Any]:
    if not isinstance(module, ResNet) or module.version != "v1":
        found = getattr(module, "version", type(module).__name__)
        raise UserError(f"weights {path} are of a ResNet v1; the model's version is {found}")
    arrays = _read_npz(path)
    expected = {p: leaf for p, leaf in flatten_dict(variables).items() if p[1] != "head"}
    keys = {p: _keras_key(p[1:]) for p in expected}
    _check_names(path, arrays, keys.values())
    layout = _layout((arrays[keys[p]].shape, leaf.shape) for p, leaf in expected.items())
    loaded = {p: _convert(path, keys[p], arrays[keys[p]], expected[p], layout) for p in expected}
    head = {("params", "head"): variables["params"]["head"]}
    return unflatten_dict(loaded | head)


def _layout(shapes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    """How a file has its kernels, by where their heights and widths are.

    Args:
      shapes: of each array in the file, and the one that it should have (of kernels HWIO).
    """
    votes = dict.fromkeys(_LAYOUTS, 0)
    for found, expected in shapes:
        if len(found) == len(expected) == 4:
            for layout, (*spatial, _, _) in _LAYOUTS.items():
                votes[layout] += [found[i] for i in spatial] == list(expected[:2])
    return max(votes, key=lambda layout: votes[layout])


def _keras_key(path: Path) -> str:
    """("stage1_block2", "bn3", "scale") -> "conv2_block2_3_bn.gamma"."""
    *block, layer, array = path
    kind = "bn" if "bn" in layer else "conv"
    name = (_BATCH_NORM_ARRAYS if kind == "bn" else _CONV_ARRAYS)[array]
    if not block:
        return f"conv1_{kind}.{name}"
    # Keras counts the stem as the first stage and the projection as a block's layer 0.
    stage, number = map(int, re.findall(r"\d+", block[0]))
    index = layer.removeprefix(kind) if layer.startswith(kind) else "0"
    return f"conv{stage + 1}_block{number}_{index}_{kind}.{name}"


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # Opened here because np.load leaves a damaged file open.
        with open(path, "rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise zipfile.BadZipFile("it is a single array")
            return {key: np.asarray(file[key]) for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"weights {path}: no readable .npz file ({reason})") from error


def _convert(
    path: pathlib.Path, key: str, array: np.ndarray, expected: Any, layout: str
) -> jnp.ndarray:
    shape, axes = expected.shape, None
    if len(shape) == 4:
        axes = _LAYOUTS[layout]
        shape = tuple(shape[axes.index(i)] for i in range(4))
    if array.shape != shape:
        note = f" ({layout})" if axes else ""
        raise UserError(f"weights {path}: {key} has shape {array.shape}; expected {shape}{note}")
    _check_values(path, key, array, is_variance=key.endswith(".var"))
    return jnp.asarray(array if axes is None else array.transpose(axes), expected.dtype)


def _check_values(
    path: str | os.PathLike[str], name: str, array: np.ndarray, *, is_variance: bool
) -> None:
    """Sees that they are numbers that a network can have, also once they are float32."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"weights {path}: {name} has dtype {array.dtype}; expected a float")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(
            f"weights {path}: {name} holds NaN or infinity as float32; expected finite numbers"
        )
    if is_variance and (array < 0).any():
        raise UserError(
            f"weights {path}: {name} holds {array.min()}; expected variances of at least 0"
        )


def _check_names(
    path: str | os.PathLike[str], found: Iterable[str], expected: Iterable[str]
) -> None:
    found, expected = set(found), set(expected)
    hint = "" if found & expected else f"; the file has {_some(found)}"
    for name in sorted(expected - found):
        raise UserError(f"weights {path}: {name} is missing; the model has it{hint}")
    for name in sorted(found - expected):
        raise UserError(f"weights {path}: {name} is surplus; the model has nothing for it")


def _some(names: set[str]) -> str:
    """A few names, for one line."""
    if not names:
        return "no array at all"
    return f"{len(names)} others, such as {min(names)!r}"


def _from_checkpoint(path: str | os.PathLike[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    """The same arrays, with the same kernel sizes; channels may differ."""
    if not files.is_remote(path) and (inside := sorted(pathlib.Path(path).glob("*.npz"))):
        raise UserError(
            f"weights {path}: a folder of .npz files; expected one, such as {inside[0]}"
        )
    tree = load_checkpoint(path)
    loaded = flatten_dict(tree, sep="/")
    expected = flatten_dict(variables, sep="/")
    _check_names(path, loaded, expected)
    for name, leaf in expected.items():
        array = loaded[name]
        if array.ndim != len(leaf.shape) or array.shape[:-2] != leaf.shape[:-2]:
            raise UserError(
                f"weights {path}: {name} has shape {array.shape}; "
                f"expected {leaf.shape}, but for the channels"
            )
        _check_values(path, name, np.asarray(array), is_variance=name.endswith("/var"))
        loaded[name] = array.astype(leaf.dtype)
    # Of a network without BatchNorm an empty collection of statistics is part of the tree.
    return unflatten_dict(flatten_dict(tree, keep_empty_nodes=True, sep="/") | loaded, sep="/")
