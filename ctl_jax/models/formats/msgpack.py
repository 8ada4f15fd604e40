"""The bytes of `flax.serialization`: a tree of arrays, whose paths become names with slashes."""

import pathlib
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
from flax import serialization
from flax.traverse_util import flatten_dict

from ctl_jax.models.formats import File, Format

# How a map of 1 to 15, of up to 2**16 or of up to 2**32 entries begins.
_MAPS = {*range(0x81, 0x90), 0xDE, 0xDF}


def _matches(path: pathlib.Path, head: bytes) -> bool:
    return path.suffix.lower() in FORMAT.suffixes and head[:1] != b"" and head[0] in _MAPS


def _read(path: pathlib.Path) -> File:
    tree: Any = serialization.msgpack_restore(path.read_bytes())
    if not isinstance(tree, dict):
        raise TypeError(f"it holds a {type(tree).__name__}; expected a tree of arrays")
    flat = flatten_dict(tree, sep="/")
    return File({name: np.asarray(leaf) for name, leaf in flat.items() if hasattr(leaf, "shape")})


FORMAT = Format(
    "msgpack file of flax.serialization",
    (".msgpack", ".flax"),
    _matches,
    _read,
    (msgpack.UnpackException, TypeError, KeyError),
)
