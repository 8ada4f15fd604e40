"""The content of a finished step's file: a record a line, and a last line that seals them.

The last line holds the step's id, and SHA-256 of all lines before it: a file that was cut off,
changed or renamed is told from one that is whole, whatever is left of it.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

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
