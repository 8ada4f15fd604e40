"""Keras's HDF5 files: `.h5` of the older versions, `.weights.h5` and `.keras` of the newer."""

import importlib
import io
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from ctl_jax.models.formats import File, Format, needs

_MAGIC = b"\x89HDF\r\n\x1a\n"
_WEIGHTS = "model.weights.h5"


def _matches(path: pathlib.Path, head: bytes) -> bool:
    if not head.startswith(b"PK"):
        return head.startswith(_MAGIC)
    try:
        with zipfile.ZipFile(path) as archive:
            return _WEIGHTS in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _read(path: pathlib.Path) -> File:
    try:
        h5py = importlib.import_module("h5py")
    except ImportError:
        raise needs("h5py", "keras") from None
    source: Any = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read(_WEIGHTS))
    with h5py.File(source, "r") as file:
        return File(dict(_arrays(file, h5py)))


def _arrays(group: Any, h5py: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a group by path; those that Keras only numbers, by layer and kind."""
    if set(group) == {"vars"} and 0 < len(group["vars"]) <= 4:
        layer = group.attrs.get("name", path.rpartition("/")[2])
        layer = layer.decode() if isinstance(layer, bytes) else layer
        arrays = [np.asarray(group["vars"][key]) for key in sorted(group["vars"], key=int)]
        named = zip(_names(arrays, layer), arrays, strict=True)
        yield from ((f"{layer}/{name}", array) for name, array in named)
        return
    for key, item in group.items():
        inside = f"{path}/{key}" if path else key
        if isinstance(item, h5py.Group):
            if key != "optimizer_weights" and key != "optimizer":
                yield from _arrays(item, h5py, inside)
        else:
            yield inside, np.asarray(item)


def _names(arrays: list[np.ndarray], layer: str) -> tuple[str, ...]:
    """What the arrays of a layer are, which Keras 3 writes in this order."""
    if arrays[0].ndim > 1:
        kernel = "depthwise_kernel" if "depthwise" in layer or "dwconv" in layer else "kernel"
        return (kernel, "bias")[: len(arrays)]
    if len(arrays) == 3:
        return ("mean", "variance", "count")
    return ("gamma", "beta", "moving_mean", "moving_variance")[: len(arrays)]


FORMAT = Format(
    "HDF5 file of Keras",
    (".h5", ".hdf5", ".keras"),
    _matches,
    _read,
    (KeyError, RuntimeError, zipfile.BadZipFile),
)
