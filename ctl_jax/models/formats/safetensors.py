"""safetensors: a header of names, types and places, then the arrays; nothing in it is executed."""

import pathlib

import safetensors

from ctl_jax.models.formats import File, Format


def _matches(path: pathlib.Path, head: bytes) -> bool:
    return head[8:9] == b"{"


def _read(path: pathlib.Path) -> File:
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return File(arrays, file.metadata() or {})


FORMAT = Format(
    "safetensors file",
    (".safetensors",),
    _matches,
    _read,
    (safetensors.SafetensorError, TypeError, AttributeError),
)
