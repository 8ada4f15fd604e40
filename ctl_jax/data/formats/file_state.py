"""File states: what is known of a file without reading it."""

import os

from ctl_jax.errors import UserError


def file_state(path: str | os.PathLike[str]) -> bytes:
    """Path, size and time of change of a file: what tells that it is still the one that was read.

    Raises:
      UserError: the file is gone.
    """
    facts = _stat(path)
    return f"{os.path.abspath(path)}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(
        errors="surrogateescape"
    )


def file_size(path: str | os.PathLike[str]) -> int:
    """The size of a file in bytes.

    Raises:
      UserError: the file is gone.
    """
    return _stat(path).st_size


def _stat(path: str | os.PathLike[str]) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise UserError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from error
