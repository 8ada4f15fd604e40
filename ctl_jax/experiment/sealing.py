"""The content of a finished trial's file: a record a line, and a last line that seals them.

The last line holds the trial's id, and SHA-256 of all lines before it: a file that was cut off,
changed or renamed is told from one that is whole, whatever is left of it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from ctl_jax.errors import UserError
from ctl_jax.records import from_json

Record = dict[str, Any]

_SEAL = "seal"


class Damaged(ValueError):
    """Content that is not what was written; its text goes on after the name of the file."""


def to_lines(records: Iterable[Record]) -> str:
    """JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def seal(trial_id: str, records: Iterable[Record]) -> bytes:
    """The content of the file that keeps a finished trial's records."""
    body = to_lines(records).encode()
    return body + to_lines([{"type": _SEAL, "id": trial_id, "sha256": _sum(body)}]).encode()


def unseal(trial_id: str, content: bytes) -> list[Record]:
    """The records that `seal` was given.

    Args:
      trial_id: of the trial that the file is named after.
      content: of the file. Records without a seal, as they were written before there was one, are
        taken where the last one is a complete record of the trial.

    Raises:
      Damaged: the content is not what was written, or of another trial.
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
        _check_unsealed(trial_id, [*records, last])
        return [*records, last]
    if last.get("sha256") != _sum(content[: content.rfind(b"\n", 0, -1) + 1]):
        raise Damaged("is not what was written")
    if last.get("id") != trial_id:
        raise Damaged(f"is of another trial, {last.get('id')!r:.40}")
    return records


def _check_unsealed(trial_id: str, records: Sequence[Any]) -> None:
    """Sees whether records end as those of a trial, or a pretraining, do, and are all of it."""
    *before, last = records
    kind = last.get("type") if isinstance(last, dict) else None
    if kind not in ("trial", "pretrain"):
        raise Damaged("lacks its last record")
    try:
        from_json(last, len(records))
    except UserError as error:
        raise Damaged(f"is not what a trial writes ({error})") from None
    # A pretraining has this one record, which names no id.
    owners = {record.get("trial") if isinstance(record, dict) else None for record in before}
    if kind == "trial":
        owners.add(last["id"])
    if owners - {trial_id}:
        raise Damaged("is of another trial")


def _sum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
