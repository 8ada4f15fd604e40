"""Decoded splits on disk, each made once: a folder with images, labels, hashes and a description.

    loaded = cache.load_split(records, image_size=64, num_classes=10)

The folder's name is a hash of everything that decides what is in it, so that it never has to be
brought up to date. It is written under another name and renamed when it is whole. Nothing is ever
deleted but what an ended process left unfinished: folders of data that changed stay until the
user removes them, all or some, at any time.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import logging
import os
import pathlib
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import PIL

import ctl_jax
from ctl_jax import files, home
from ctl_jax.data import decoding, images, streaming
from ctl_jax.data.dataset import Records
from ctl_jax.data.task import Split
from ctl_jax.errors import UserError

# Changes with the form of the folders.
_VERSION = 2
# A split up to this size is read into memory; a larger one stays on disk, memory-mapped.
MEMORY_BYTES = 256 << 20
# Unfinished folders that nobody has written to for so long are of processes that have ended.
STALE_S = 24 * 3600
# Corrupt examples that a message names.
_EXAMPLES = 3

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LoadedSplit:
    """A decoded split.

    Attributes:
      split: images and labels; the images are read-only, and memory-mapped where they are large.
      fingerprint: SHA-256 of images and labels, wherever they came from.
      corrupt: a line for each example that was left out.
      contents: int64 [N], a hash of each example's encoded image.
    """

    split: Split
    fingerprint: str
    corrupt: tuple[str, ...]
    contents: np.ndarray


def cache_dir() -> pathlib.Path:
    """Where decoded splits are kept: CTL_JAX_CACHE, else ctl_jax/images in the user's cache."""
    return home.from_variable("CTL_JAX_CACHE") or home.cache() / "images"


def load_split(
    records: Records,
    image_size: int,
    *,
    num_classes: int,
    multi_label: bool = False,
    max_corrupt: int = 0,
    progress: Callable[[int, int], None] | None = None,
    directory: pathlib.Path | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> LoadedSplit:
    """A split at one size: from the cache, or decoded into it first.

    Two processes may do this at once, with the same split too.

    Args:
      records: the split.
      image_size: S; see `images.decode`.
      num_classes: labels are checked against it.
      multi_label: whether a label is a vector of 0 and 1.
      max_corrupt: how many examples may be left out because they cannot be read or decoded.
      progress: called with the examples done and all of them, while the split is decoded.
      directory: the cache; None for `cache_dir()`.
      memory_bytes: images of more bytes stay on disk.

    Returns:
      The examples in the order of `records`, without the corrupt ones.

    Raises:
      UserError: more examples are corrupt (the first are named), a label does not fit
        `num_classes`, or the cache cannot be written.
    """
    directory = cache_dir() if directory is None else directory
    name = _key(records, image_size, num_classes, multi_label)
    folder = directory / name
    there = folder.exists()
    loaded = _open(folder, memory_bytes)
    fresh = loaded is None
    if loaded is None:
        if there:
            _log.warning("decoded images in %s are damaged; they are decoded again", folder)
        # More would only wait for the interpreter's lock: with small images it is the bottleneck.
        threads = decoding.cores()
        chunks = decoding.decode(records, image_size, num_classes, multi_label, threads)
        with contextlib.closing(chunks), _unfinished(directory, name) as unfinished:
            _write(unfinished, chunks, len(records), image_size, progress)
            _publish(unfinished, folder)
        loaded = _open(folder, memory_bytes)
        if loaded is None:
            raise _no_cache(directory, "what was written cannot be read back")
    _check(loaded.corrupt, max_corrupt)
    if loaded.corrupt and fresh:
        left_out = len(loaded.corrupt)
        _log.warning("%d of %d examples left out; %s", left_out, len(records), loaded.corrupt[0])
    return loaded


def _key(records: Records, image_size: int, num_classes: int, multi_label: bool) -> str:
    parts = {
        "records": records.fingerprint(),
        "examples": len(records),
        "image_size": image_size,
        "num_classes": num_classes,
        "multi_label": multi_label,
        # They decide the pixels; and what a source makes of the same bytes can change as well.
        "versions": [_VERSION, images.VERSION, PIL.__version__, ctl_jax.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _check(corrupt: Sequence[str], max_corrupt: int) -> None:
    if len(corrupt) <= max_corrupt:
        return
    limit = f"config.data.max_corrupt={max_corrupt}"
    if len(corrupt) == 1:
        raise UserError(f"{corrupt[0]}; {limit} allows no corrupt example")
    shown = "; ".join(corrupt[:_EXAMPLES]) + (" ..." if corrupt[_EXAMPLES:] else "")
    raise UserError(
        f"{len(corrupt):,} examples are corrupt, more than {limit} allows, the first: {shown}"
    )


def _write(
    folder: pathlib.Path,
    chunks: Iterator[decoding.Chunk],
    total: int,
    image_size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fills a folder; `total` counts corrupt examples too.

    All of these are looked for, so that one who has to put them right learns of all at once.
    """
    digest = hashlib.sha256()
    labels: list[np.ndarray] = []
    contents: list[np.ndarray] = []
    corrupt: list[str] = []
    count = 0
    with open(folder / "images.npy", "wb") as file:
        file.write(_header(total, image_size))
        for chunk in chunks:
            corrupt += chunk.corrupt
            file.write(chunk.images.data)
            digest.update(chunk.images.data)
            labels.append(chunk.labels)
            contents.append(chunk.contents)
            count += len(chunk.labels)
            if progress is not None:
                progress(count + len(corrupt), total)
        if not count:
            _check(corrupt, 0)
            raise UserError("a split without examples; expected some")
        file.seek(0)
        file.write(_header(count, image_size))
        _flush(file)
    whole, hashes = np.concatenate(labels), np.concatenate(contents)
    for name, array in (("labels", whole), ("contents", hashes)):
        with open(folder / f"{name}.npy", "wb") as file:
            np.save(file, array)
            _flush(file)
    about = {
        "fingerprint": _fingerprint(digest, image_size, whole),
        "corrupt": corrupt,
        "contents": _sum(hashes),
    }
    files.write_text(folder / "stamp", _stamp(folder / "images.npy"))
    files.write_text(folder / "split.json", json.dumps(about))


def _fingerprint(pixels: "hashlib._Hash", image_size: int, labels: np.ndarray) -> str:
    pixels.update(f"{image_size} {labels.shape} {labels.dtype.str}".encode())
    pixels.update(np.ascontiguousarray(labels).data)
    return pixels.hexdigest()


def _sum(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _stamp(path: pathlib.Path) -> str:
    """What changes with a file's content, unless somebody sees to it that it does not."""
    about = path.stat()
    return f"{about.st_size} {about.st_mtime_ns}\n"


def _untouched(path: pathlib.Path) -> bool:
    """Whether nobody has written to a folder's images since they were made."""
    with contextlib.suppress(OSError, ValueError):
        return (path.parent / "stamp").read_text() == _stamp(path)
    return False


def _header(count: int, image_size: int) -> bytes:
    """What a .npy file starts with; NumPy makes it as long for any count."""
    buffer = io.BytesIO()
    shape = (count, image_size, image_size, 3)
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()


def _flush(file: BinaryIO) -> None:
    """So that a folder that has its name has its content too, even after a power cut."""
    file.flush()
    os.fsync(file.fileno())


def _open(folder: pathlib.Path, memory_bytes: int) -> LoadedSplit | None:
    """A folder's content; None where there is none, or a damaged one."""
    path = folder / "images.npy"
    try:
        about = json.loads((folder / "split.json").read_text())
        labels = np.load(folder / "labels.npy")
        contents = np.load(folder / "contents.npy")
        mapped = path.stat().st_size > memory_bytes
        pixels = np.load(path, mmap_mode="r" if mapped else None)
        # Training keeps a copy on the device.
        pixels.flags.writeable = False
        if not len(pixels) == len(labels) == len(contents):
            return None
        if _sum(contents) != about["contents"]:
            return None
        # Large ones are read as they are needed, not all of them at once.
        if path.stat().st_size <= MEMORY_BYTES or not _untouched(path):
            found = _fingerprint(hashlib.sha256(pixels), pixels.shape[1], labels)
            streaming.release(pixels)
            if found != about["fingerprint"]:
                return None
        corrupt = tuple(about["corrupt"])
        return LoadedSplit(Split(pixels, labels), about["fingerprint"], corrupt, contents)
    except (OSError, ValueError, EOFError, LookupError, TypeError):
        return None


@contextlib.contextmanager
def _unfinished(directory: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Yields a new folder, to be filled and published; removes it where it was not.

    Raises:
      UserError: for any OSError.
    """
    folder = directory / f".{name}.{uuid.uuid4().hex}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_stale(directory)
        folder.mkdir()
        yield folder
    except OSError as error:
        raise _no_cache(directory, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_cache(directory: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"cache {str(directory)!r}: {reason}; expected a folder to write decoded images to; "
        f"the environment variable CTL_JAX_CACHE names another one"
    )


def _remove_stale(directory: pathlib.Path) -> None:
    """Removes what processes that ended early have left behind."""
    for folder in directory.iterdir():
        if re.fullmatch(r"\.[0-9a-f]{64}\.[0-9a-f]{32}", folder.name):
            with contextlib.suppress(OSError):  # Another process may have finished with it.
                last = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if time.time() - last > STALE_S:
                    shutil.rmtree(folder, ignore_errors=True)


def _publish(unfinished: pathlib.Path, folder: pathlib.Path) -> None:
    """Gives a filled folder its name, unless another process was first."""
    try:
        os.rename(unfinished, folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        if _open(folder, memory_bytes=0) is None:
            shutil.rmtree(folder)
            os.rename(unfinished, folder)
