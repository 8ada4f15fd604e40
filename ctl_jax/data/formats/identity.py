"""What tells that a file is still the one that was read."""

import os

from ctl_jax.errors import UserError


def of_file(path: str | os.PathLike[str]) -> bytes:
    """Path, size and time of change of a file, to be hashed.

    Raises:
      UserError: the file is gone.
    """
    try:
        facts = os.stat(path)
    except OSError as error:
        raise UserError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from error
    return f"{os.path.abspath(path)}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(
        errors="surrogateescape"
    )
