"""What lies in a run's folder, where it may be damaged: reading it, and setting it aside."""

import os
import secrets

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.experiment.sealing import Damaged


def read(path: files.Path) -> bytes:
    """The content of a file of the run.

    Raises:
      FileNotFoundError: there is nothing of its name.
      Damaged: there is something else than a file.
    """
    try:
        return files.read_bytes(path)
    except IsADirectoryError:
        raise Damaged("is a folder") from None
    except FileNotFoundError:
        if not files.is_remote(path) and os.path.islink(path):
            raise Damaged("is a link to nothing") from None
        raise


def set_aside(path: files.Path) -> files.Path:
    """Gives a damaged file or folder a name that nothing reads; the new path."""
    aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
    files.move(path, aside)
    return aside


def check_place(workdir: files.Path) -> None:
    """Raises a `UserError` where a local folder is none, or cannot be made or written."""
    place = workdir.absolute()
    try:
        while not os.path.lexists(place):
            place = place.parent
        if not os.path.isdir(place):
            raise NotADirectoryError(0, f"{place} is no folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(0, f"{place} may not be written")
    except OSError as error:
        raise unusable(workdir, "written", error) from None


def unusable(workdir: files.Path, what: str, error: OSError) -> UserError:
    """One line about a run's folder that cannot be read, or written."""
    reason = error.strerror or error
    where = f"{error.filename}: " if error.filename is not None else ""
    return UserError(f"--workdir={workdir}: expected a folder that can be {what} ({where}{reason})")
