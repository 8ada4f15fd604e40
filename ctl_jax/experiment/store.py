"""A run's folder: the config it was made with, and what is done.

workdir/
  config.json          the config; another one is refused
  pretrained/          weights that the run made itself
  keep/METHOD.json     which channels each pruned network kept
  trials/ID.jsonl      records of one finished trial, written at once
  leases/              who works on what; see leases.py
  scratch/ID/          of a trial that is not done: its checkpoints
  records.jsonl        all records, in the plan's order
  results.csv, report.html, figures/

It may be shared by many workers, on a disk, on NFS or in an object store (gs://bucket/run).
"""

import json
import os
from collections.abc import Iterable, Set
from typing import Any

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import flatten

Record = dict[str, Any]


class Store:
    """The folder of one run. What is in it is whole: files appear under their names when done."""

    def __init__(self, workdir: str | os.PathLike[str], config: dict[str, Any]):
        self.workdir = files.path(workdir)
        # Through JSON and back, so that tuples compare as the lists that a file holds.
        self._config = json.loads(json.dumps(config))
        self._trials = self.workdir / "trials"
        self._scratch = self.workdir / "scratch"
        self._config_path = self.workdir / "config.json"

    def check(self) -> None:
        """Sees whether what the folder holds belongs to this config; writes nothing.

        Raises:
          UserError: the folder was made by another config; the differing keys are named.
        """
        try:
            if not files.exists(self._config_path):
                return
            there = json.loads(files.read_text(self._config_path))
        except ValueError:
            raise UserError(f"{self._config_path}: expected the JSON that a run wrote") from None
        except OSError as error:
            raise _unusable(self.workdir, "read", error) from None
        _check_same(self.workdir, there, self._config)

    def create(self) -> None:
        """Makes the folder where it is not there yet.

        Raises:
          UserError: it cannot be written, or a worker with another config has just made it.
        """
        content = json.dumps(self._config, indent=2) + "\n"
        try:
            for folder in (self._trials, self.leases):
                files.make_folder(folder)
            created = files.create_bytes(self._config_path, content.encode())
        except OSError as error:
            raise _unusable(self.workdir, "written", error) from None
        if not created:
            self.check()

    @property
    def pretrained(self) -> files.Path:
        """Where weights made by the run itself are kept."""
        return self.workdir / "pretrained"

    @property
    def leases(self) -> files.Path:
        """Where workers say what they work on."""
        return self.workdir / "leases"

    def scratch(self, trial_id: str) -> files.Path:
        """The folder of what an unfinished trial keeps, e.g. checkpoints; not made here."""
        return self._scratch / trial_id

    def scratches(self) -> set[str]:
        """Ids of the trials that have a scratch folder."""
        return set(files.names(self._scratch))

    def remove_scratch(self, trial_ids: Iterable[str]) -> None:
        """Removes scratch folders, those that are there."""
        for trial_id in trial_ids:
            files.remove_tree(self.scratch(trial_id))

    def sweep_trials(self) -> None:
        """Removes what killed workers left half-written, once all trials are done."""
        files.sweep(self._trials)

    def sweep_report(self) -> None:
        """Removes what a killed worker left half-written of the report, for the next writer."""
        for folder in (self.workdir, self.workdir / "figures"):
            files.sweep(folder)

    def is_done(self, trial_id: str) -> bool:
        """Whether the trial's records are there now, whoever made them."""
        return files.exists(self._trial_path(trial_id))

    def done(self) -> Set[str]:
        """Ids of all trials whose records are there, by one listing."""
        names = files.names(self._trials)
        return {n.removesuffix(".jsonl") for n in names if n.endswith(".jsonl") and n[0] != "."}

    def save_trial(self, trial_id: str, records: Iterable[Record]) -> bool:
        """Keeps the records of a finished trial, unless they are there already.

        Returns:
          Whether these are the ones that were kept.
        """
        return files.create_bytes(self._trial_path(trial_id), _to_lines(records).encode())

    def load_trial(self, trial_id: str) -> list[Record]:
        """The records of a finished trial."""
        path = self._trial_path(trial_id)
        try:
            return [json.loads(line) for line in files.read_text(path).splitlines()]
        except ValueError:
            raise UserError(
                f"{path}: expected JSON lines; delete the damaged file to run its trial again"
            ) from None

    def save_keep(self, method: str, text: str) -> None:
        """Keeps which channels a method kept, so that its network can be made again."""
        files.write_text(self.workdir / "keep" / f"{method}.json", text + "\n")

    def save_records(self, records: Iterable[Record]) -> files.Path:
        """Writes records.jsonl anew."""
        path = self.workdir / "records.jsonl"
        files.write_text(path, _to_lines(records))
        return path

    def _trial_path(self, trial_id: str) -> files.Path:
        return self._trials / f"{trial_id}.jsonl"


def _to_lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _unusable(workdir: files.Path, what: str, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"--workdir={workdir}: expected a folder that can be {what} ({reason})")


def _check_same(workdir: files.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
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
