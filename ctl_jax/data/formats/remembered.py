"""A cache of what took reading a whole set."""

import contextlib
import hashlib
import io
import os
import pathlib
import secrets
import time
from collections.abc import Callable, Iterable
from typing import BinaryIO

import numpy as np

from ctl_jax import files
from ctl_jax.data import cache
from ctl_jax.errors import UserError

# Changes with what is kept.
_VERSION = 1


def arrays(
    state: Iterable[bytes], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays that follow from the content of files: remembered, or made.

    Args:
      state: what tells whether the files are still the same: paths, sizes, times; and what else the
        arrays depend on.
      make: reads the files.
    """
    path = _folder("scans") / f"{_key(state)}.npz"
    damaged = contextlib.suppress(OSError, ValueError, EOFError, KeyError)
    with damaged, np.load(path, allow_pickle=False) as found:
        return dict(found)
    made = make()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **made)
    with contextlib.suppress(OSError):  # A cache that cannot be written to only costs time.
        files.write_bytes(path, buffer.getvalue())
    return made


def file(state: Iterable[bytes], suffix: str, write: Callable[[BinaryIO], None]) -> pathlib.Path:
    """A file that follows from the content of others: remembered, or written as a whole.

    Args:
      state: as for `arrays`.
      suffix: of its name.
      write: fills it.

    Raises:
      UserError: the cache cannot be written to.
    """
    path = _folder("unpacked") / f"{_key(state)}{suffix}"
    if path.is_file():
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(".*.tmp"):  # of processes that were killed
            if time.time() - other.stat().st_mtime > cache.STALE_S:
                other.unlink(missing_ok=True)
        with open(temporary, "xb") as handle:
            write(handle)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cache {str(path.parent)!r}: {error.strerror or error}; expected a folder to unpack "
            "data to; the environment variable CTL_JAX_CACHE names another one"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _key(state: Iterable[bytes]) -> str:
    digest = hashlib.sha256(f"{_VERSION}\n".encode())
    for part in state:
        digest.update(part)
    return digest.hexdigest()


def _folder(name: str) -> pathlib.Path:
    return pathlib.Path(os.path.abspath(cache.cache_dir())) / name
