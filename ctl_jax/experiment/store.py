"""A run's folder: the config it was made with, and what is done.

workdir/
  config.json          the config; another one is refused
  pretrained/          weights that the run made itself
  keep/METHOD.json     which channels each pruned network kept
  trials/ID.jsonl      records of one finished trial, written at once
  records.jsonl        all records, in the plan's order
  results.csv, report.html, figures/
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import flatten

Record = dict[str, Any]


class Store:
    """The folder of one run. What is in it is whole: files appear under their names when done."""

    def __init__(self, workdir: pathlib.Path, config: dict[str, Any]):
        self.workdir = workdir
        # Through JSON and back, so that tuples compare as the lists that a file holds.
        self._config = json.loads(json.dumps(config))
        self._config_path = workdir / "config.json"

    def check(self) -> None:
        """Sees whether what the folder holds belongs to this config; writes nothing.

        Raises:
          UserError: the folder was made by another config; the differing keys are named.
        """
        if not self._config_path.exists():
            return
        try:
            there = json.loads(self._config_path.read_text())
        except json.JSONDecodeError:
            raise UserError(f"{self._config_path}: expected the JSON that a run wrote") from None
        _check_same(self.workdir, there, self._config)

    def create(self) -> None:
        """Makes the folder where it is not there yet.

        Raises:
          UserError: it cannot be written.
        """
        try:
            (self.workdir / "trials").mkdir(parents=True, exist_ok=True)
            files.write_text(self._config_path, json.dumps(self._config, indent=2) + "\n")
        except OSError as error:
            raise UserError(
                f"--workdir={self.workdir}: expected a folder that can be written "
                f"({error.strerror or error})"
            ) from None

    @property
    def pretrained(self) -> pathlib.Path:
        """Where weights made by the run itself are kept."""
        return self.workdir / "pretrained"

    def is_done(self, trial_id: str) -> bool:
        """Whether the trial's records are there."""
        return self._trial_path(trial_id).exists()

    def save_trial(self, trial_id: str, records: Iterable[Record]) -> None:
        """Keeps the records of a finished trial."""
        files.write_text(self._trial_path(trial_id), _to_lines(records))

    def load_trial(self, trial_id: str) -> list[Record]:
        """The records of a finished trial."""
        path = self._trial_path(trial_id)
        try:
            return [json.loads(line) for line in path.read_text().splitlines()]
        except json.JSONDecodeError:
            raise UserError(
                f"{path}: expected JSON lines; delete the damaged file to run its trial again"
            ) from None

    def save_keep(self, method: str, text: str) -> None:
        """Keeps which channels a method kept, so that its network can be made again."""
        files.write_text(self.workdir / "keep" / f"{method}.json", text + "\n")

    def save_records(self, records: Iterable[Record]) -> pathlib.Path:
        """Writes records.jsonl anew."""
        path = self.workdir / "records.jsonl"
        files.write_text(path, _to_lines(records))
        return path

    def _trial_path(self, trial_id: str) -> pathlib.Path:
        return self.workdir / "trials" / f"{trial_id}.jsonl"


def _to_lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _check_same(workdir: pathlib.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    before, now = dict(flatten(old)), dict(flatten(new))
    differing = [
        f"config.{key}={now.get(key)!r} (there: {before.get(key)!r})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise UserError(
            f"--workdir={workdir} was made by another config; expected a new folder or the same "
            f"values: {', '.join(differing)}"
        )
