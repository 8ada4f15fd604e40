"""NumPy's archives of arrays."""

import pathlib
import zipfile
import zlib

import numpy as np

from ctl_jax.models.formats import File, Format


def _matches(path: pathlib.Path, head: bytes) -> bool:
    if not head.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read(path: pathlib.Path) -> File:
    # Opened here because np.load leaves a damaged file open.
    with open(path, "rb") as raw:
        file = np.load(raw, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise TypeError("it is a single array")
        arrays = {key: file[key] for key in file.files}
    if others := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise TypeError(f"its {others[0]!r} is no array")
    return File(arrays)


FORMAT = Format(
    ".npz file", (".npz",), _matches, _read, (TypeError, zipfile.BadZipFile, zlib.error)
)
