"""A stand-in for TensorFlow, with which official TFDS builders prepare data without it.

TFDS itself gets by without it, but to read the files that they have downloaded and to encode an
array as an image most builders call a handful of its functions. Here is this handful, on the
standard library and Pillow: the same bytes for PNG; for JPEG the same quality and subsampling.
"""

import contextlib
import importlib.util
import io
import os
import pathlib
import shutil
import sys
import types
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """For as long as it lasts, TFDS takes the functions below for TensorFlow's.

    Does nothing where TensorFlow is installed. Not for several threads at once.
    """
    if importlib.util.find_spec("tensorflow") is not None:
        yield
        return
    from tensorflow_datasets.core.utils import lazy_imports_utils

    missing = lazy_imports_utils.tensorflow
    taken = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("tensorflow_datasets.") and vars(module).get("tf") is missing
    ]
    for module in taken:
        vars(module)["tf"] = _TENSORFLOW
    try:
        yield
    finally:
        for module in taken:
            vars(module)["tf"] = missing


class _Namespace(types.SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        raise ImportError(f"it needs {self.prefix}.{name} of TensorFlow, which is not installed")


class _NeverRaisedError(Exception):
    """Stands for TensorFlow's own errors in `except` clauses."""


class _Eager:
    """A result that is ready."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def numpy(self) -> Any:
        return self._value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._value, dtype)

    def __getitem__(self, index: Any) -> "_Eager":
        return _Eager(self._value[index])


class _GFile:
    """A file that is read on after it was closed, as TensorFlow's are: celeb_a's builder does."""

    def __init__(self, path: str | os.PathLike[str], mode: str = "r") -> None:
        self._arguments: Any = (path, mode, -1, None if "b" in mode else "utf-8")
        self._file: IO[Any] = open(*self._arguments)  # noqa: SIM115

    def _opened(self) -> IO[Any]:
        if self._file.closed and self._arguments[1].startswith("r"):
            self._file = open(*self._arguments)  # noqa: SIM115
        return self._file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened(), name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._opened())

    def __enter__(self) -> "_GFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __del__(self) -> None:
        # Nothing was opened where `open` has failed.
        if "_file" in vars(self):
            self._file.close()


def _copy(source: str, destination: str, overwrite: bool = False) -> None:
    if not overwrite and os.path.exists(destination):
        raise FileExistsError(destination)
    shutil.copyfile(source, destination)


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else os.fspath(value)


def _decode(content: bytes, channels: int = 0) -> _Eager:
    """An encoded image as uint8 [H, W, C], with the channels that it has or those asked for."""
    with Image.open(io.BytesIO(content)) as image:
        modes = {1: "L", 3: "RGB", 4: "RGBA"}
        mode = modes[channels] if channels else image.mode
        # What TensorFlow does not know either.
        if mode not in modes.values():
            mode = "RGBA" if "transparency" in image.info else "RGB"
        array = np.asarray(image.convert(mode))
    return _Eager(array if array.ndim == 3 else array[..., None])


def _encode_png(array: Any) -> _Eager:
    return _encode(array, "PNG")


def _encode_jpeg(array: Any, format: str = "", quality: int = 95) -> _Eager:
    if format not in ("", "rgb", "grayscale"):
        raise ValueError(f"JPEG of format {format!r}; expected 'rgb' or 'grayscale'")
    return _encode(array, "JPEG", quality=quality, subsampling="4:2:0")


def _encode(array: Any, kind: str, **options: Any) -> _Eager:
    pixels = np.asarray(array)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, kind, **options)
    return _Eager(file.getvalue())


_TENSORFLOW = _Namespace(
    prefix="tf",
    executing_eagerly=lambda: True,
    shape=lambda value: np.asarray(value).shape,
    compat=_Namespace(prefix="tf.compat", as_text=_as_text),
    errors=_Namespace(
        prefix="tf.errors",
        ResourceExhaustedError=_NeverRaisedError,
        UnimplementedError=_NeverRaisedError,
    ),
    image=_Namespace(
        prefix="tf.image",
        decode_image=_decode,
        decode_jpeg=_decode,
        decode_png=_decode,
        encode_jpeg=_encode_jpeg,
        encode_png=_encode_png,
    ),
    io=_Namespace(
        prefix="tf.io",
        encode_jpeg=_encode_jpeg,
        gfile=_Namespace(
            prefix="tf.io.gfile",
            GFile=_GFile,
            copy=_copy,
            exists=os.path.exists,
            isdir=os.path.isdir,
            listdir=lambda path: sorted(os.listdir(path)),
            makedirs=lambda path: pathlib.Path(path).mkdir(parents=True, exist_ok=True),
            remove=os.remove,
            walk=os.walk,
        ),
    ),
)
