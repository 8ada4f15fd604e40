"""Files of finished steps: sealed when they are written, checked when read, set aside if damaged.

A file holds a record a line, and a last line that seals them: the step's id, and SHA-256 of all
lines before it. A file that was cut off, changed or renamed is told from one that is whole,
whatever is left of it.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from typing import Any

from ctl_jax import files
from ctl_jax.errors import UserError

Record = dict[str, Any]

_SEAL = "seal"


class Damaged(ValueError):
    """Content that is not what was written; its text goes on after the name of the file."""


def to_lines(records: Iterable[Record]) -> str:
    """JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def seal(step_id: str, records: Iterable[Record]) -> bytes:
    """The content of the file that keeps a finished step's records."""
    body = to_lines(records).encode()
    return body + to_lines([{"type": _SEAL, "id": step_id, "sha256": _sum(body)}]).encode()


def unseal(step_id: str, content: bytes) -> list[Record]:
    """The records that `seal` was given.

    Args:
      step_id: of the step that the file is named after.
      content: of the file.

    Raises:
      Damaged: the content is not what was written, or of another step.
    """
    if not content.strip(b"\0"):
        raise Damaged("is filled with zeros" if content else "is empty")
    if not content.endswith(b"\n"):
        raise Damaged("is cut off")
    try:
        # Not `splitlines`, which takes more than what was written for an end of line.
        *records, last = map(json.loads, content.decode().split("\n")[:-1])
    except (ValueError, RecursionError):
        raise Damaged("is not JSON lines") from None
    if not isinstance(last, dict) or last.get("type") != _SEAL:
        raise Damaged("lacks its last line")
    if last.get("sha256") != _sum(content[: content.rfind(b"\n", 0, -1) + 1]):
        raise Damaged("is not what was written")
    if last.get("id") != step_id:
        raise Damaged(f"is of another step, {last.get('id')!r:.40}")
    return records


def _sum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


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
    """Raises a `UserError` where a local path is not a folder, or cannot be made or written."""
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
