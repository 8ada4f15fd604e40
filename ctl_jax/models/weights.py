"""Pretrained weights in: files of other frameworks, and our own checkpoints."""

import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from ctl_jax.errors import UserError
from ctl_jax.models.checkpoint import load_checkpoint
from ctl_jax.models.network import with_head
from ctl_jax.models.resnet import ResNet

Path = tuple[str, ...]

# Keras' names of a layer's arrays.
_CONV_ARRAYS = {"kernel": "weight", "bias": "bias"}
_BATCH_NORM_ARRAYS = {"scale": "gamma", "bias": "beta", "mean": "mean", "var": "var"}


def load_weights(
    path: str | os.PathLike[str], module: nn.Module, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Variables with the backbone from a file and a zero task head.

    Args:
      path: a `.npz` file with the names of Keras Applications' ResNets v1 (such as
        `conv2_block1_0_conv.weight`; kernels OIHW), or a directory that `save_checkpoint` wrote,
        whose widths may be pruned.
      module: the network that the weights are for.
      variables: its variables, or `jax.ShapeDtypeStruct`s for them, which say what names and
        shapes to expect; the head gets as many outputs as theirs.

    Returns:
      {"params": ..., "batch_stats": ...}; every array but the head's is from the file.

    Raises:
      UserError: a missing, damaged or unknown file, or an array that is missing, surplus,
        mis-shaped or not finite.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        loaded = load_checkpoint(path)
        _check_checkpoint(path, loaded, variables)
    elif not path.exists():
        raise UserError(f"weights {path}: no such file or directory")
    elif path.suffix == ".npz":
        loaded = _from_keras(path, module, variables)
    else:
        raise UserError(f"weights {path}: unknown type; expected .npz or a checkpoint's directory")
    return with_head(loaded, variables["params"]["head"]["kernel"].shape[-1])


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
    loaded = {p: _convert(path, keys[p], arrays[keys[p]], expected[p]) for p in expected}
    head = {("params", "head"): variables["params"]["head"]}
    return unflatten_dict(loaded | head)


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


def _convert(path: pathlib.Path, key: str, array: np.ndarray, expected: Any) -> jnp.ndarray:
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    if array.shape != expected.shape:
        layout = " (HWIO)" if len(expected.shape) == 4 else ""
        raise UserError(
            f"weights {path}: {key} has shape {array.shape}; expected {expected.shape}{layout}"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"weights {path}: {key} has dtype {array.dtype}; expected a float")
    if not np.isfinite(array).all():
        raise UserError(f"weights {path}: {key} holds NaN or infinity; expected finite numbers")
    return jnp.asarray(array, expected.dtype)


def _check_names(path: pathlib.Path, found: Iterable[str], expected: Iterable[str]) -> None:
    found, expected = set(found), set(expected)
    for name in sorted(expected - found):
        raise UserError(f"weights {path}: {name} is missing; the model has it")
    for name in sorted(found - expected):
        raise UserError(f"weights {path}: {name} is surplus; the model has nothing for it")


def _check_checkpoint(
    path: pathlib.Path, loaded: Mapping[str, Any], variables: Mapping[str, Any]
) -> None:
    """The same arrays, with the same kernel sizes; channels may differ."""
    found = flatten_dict(loaded, sep="/")
    expected = flatten_dict(variables, sep="/")
    _check_names(path, found, expected)
    for name, leaf in expected.items():
        shape = found[name].shape
        if len(shape) != len(leaf.shape) or shape[:-2] != leaf.shape[:-2]:
            raise UserError(
                f"weights {path}: {name} has shape {shape}; "
                f"expected {leaf.shape}, but for the channels"
            )
