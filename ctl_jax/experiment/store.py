"""A run's folder: the config it was made with, and what is done.

workdir/
  config.json          the config; another one is refused
  pretrained/          weights that the run made itself
  keep/METHOD.json     which channels each pruned network kept
  trials/ID.jsonl      records of one finished trial, written at once, sealed by a last line
  leases/              who works on what; see leases.py
  scratch/ID/          of a trial that is not done: its checkpoints
  records.jsonl        all records, in the plan's order
  results.csv, report.html, figures/

It may be shared by many workers, on a disk, on NFS or in an object store (gs://bucket/run).

Files appear under their names when they are whole. What a crashed disk, an interrupted copy or a
sync tool makes of them later is noticed: a damaged file gets the name NAME.damaged-XXXXXXXX, which
nothing reads, and what it held is made again. Files of other names are nobody's business here.
"""

import concurrent.futures
import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.experiment import folder
from ctl_jax.experiment.config import flatten
from ctl_jax.experiment.sealing import Damaged, Record, seal, to_lines, unseal

# Files that are read at once: an object store takes some time for each.
_READERS = 16


class Store:
    """The folder of one run.

    Args:
      workdir: of the run; nothing is made yet.
      config: of the run, plain values.
      on_damage: called with a line about each thing that is damaged, once each.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        config: dict[str, Any],
        on_damage: Callable[[str], None] = lambda line: None,
    ):
        self.workdir = files.path(workdir)
        # Through JSON and back, so that tuples compare as the lists that a file holds.
        self._config = json.loads(json.dumps(config))
        self._trials = self.workdir / "trials"
        self._scratch = self.workdir / "scratch"
        self._config_path = self.workdir / "config.json"
        self._on_damage = on_damage
        self._said: set[str] = set()
        # Trials that were found whole: they are not read again to know whether they are done.
        self._whole: set[str] = set()

    def check(self) -> None:
        """Sees whether the folder can be used and belongs to this config; writes nothing.

        Raises:
          UserError: it cannot be a run's folder, cannot be written, or was made by another config,
            whose differing keys are named.
        """
        if not files.is_remote(self.workdir):
            folder.check_place(self.workdir)
        try:
            there = self._read_config()
        except FileNotFoundError:
            if any(name.endswith(".jsonl") for name in files.names(self._trials)):
                self.tell("config.json is gone; it is written again")
            return
        except Damaged as error:
            self.tell(f"config.json {error} (damaged); it is written again")
            return
        _check_same(self.workdir, there, self._config)

    def create(self) -> None:
        """Makes the folder where it is not there yet.

        Raises:
          UserError: it cannot be written, or a worker with another config has just made it.
        """
        content = json.dumps(self._config, indent=2) + "\n"
        try:
            for inside in (self._trials, self.leases):
                files.make_folder(inside)
            if not files.create_bytes(self._config_path, content.encode()):
                with contextlib.suppress(FileNotFoundError):
                    self._set_aside_config()
                files.create_bytes(self._config_path, content.encode())
        except OSError as error:
            raise folder.unusable(self.workdir, "written", error) from None
        self.check()

    def tell(self, line: str) -> None:
        """Says once that something is damaged, and what follows from it."""
        if line not in self._said:
            self._said.add(line)
            self._on_damage(line)

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
        for inside in (self.workdir, self.workdir / "figures"):
            files.sweep(inside)

    def is_done(self, trial_id: str) -> bool:
        """Whether the trial's records are there now, and whole, whoever made them."""
        problem = self._problem(trial_id)
        self._note(trial_id, problem)
        return problem == ""

    def done(self, trial_ids: Iterable[str]) -> set[str]:
        """Those of the trials whose records are there and whole, by one listing.

        Each file is read once, when it is first seen. A damaged one is told of, and not done.
        """
        names = set(files.names(self._trials))
        there = [trial_id for trial_id in trial_ids if f"{trial_id}.jsonl" in names]
        new = [trial_id for trial_id in there if trial_id not in self._whole]
        with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
            for trial_id, problem in zip(new, readers.map(self._problem, new), strict=True):
                self._note(trial_id, problem)
        return self._whole.intersection(there)

    def tell_of_lost(self, trial_ids: Iterable[str]) -> None:
        """Says which trials have a result in results.csv, but no file of records any more."""
        try:
            text = folder.read(self.workdir / "results.csv").decode(errors="replace")
            reported = {row.get("trial") for row in csv.DictReader(text.splitlines())}
        except (FileNotFoundError, Damaged, csv.Error):
            return
        names = set(files.names(self._trials))
        lost = [i for i in trial_ids if i in reported and f"{i}.jsonl" not in names]
        if lost:
            self.tell(
                f"trials of {len(lost)} results are gone, e.g. trials/{lost[0]}.jsonl; they are "
                f"done again"
            )

    def set_aside(self, trial_id: str, *, whole: bool = False) -> None:
        """Moves what stands in the place of a trial's records out of the way.

        For who holds the trial's lease: only what was committed meanwhile, should the lease have
        been lost, is put back.

        Args:
          trial_id: of the trial.
          whole: also records that are whole, where something else that belongs to them is damaged.
        """
        path = self._trial_path(trial_id)
        self._whole.discard(trial_id)
        with contextlib.suppress(FileNotFoundError):
            aside = folder.set_aside(path)
            with contextlib.suppress(Damaged):
                content = folder.read(aside)
                unseal(trial_id, content)
                if not whole:
                    files.create_bytes(path, content)

    def save_trial(self, trial_id: str, records: Iterable[Record]) -> bool:
        """Keeps the records of a finished trial, unless they are there already.

        Returns:
          Whether these are the ones that were kept.
        """
        return files.create_bytes(self._trial_path(trial_id), seal(trial_id, records))

    def load_trial(self, trial_id: str) -> list[Record]:
        """The records of a finished trial.

        Raises:
          UserError: its file was damaged, or removed, since it was looked at.
        """
        path = self._trial_path(trial_id)
        try:
            return unseal(trial_id, folder.read(path))
        except FileNotFoundError:
            reason = "is gone"
        except Damaged as error:
            reason = f"{error} (damaged)"
        raise UserError(f"{path} {reason}; the same command does that trial again")

    def set_aside_weights(self) -> None:
        """Moves what stands in the place of the run's own weights out of the way."""
        # Objects are only replaced, file by file, as they are written.
        if not files.is_remote(self.pretrained):
            with contextlib.suppress(FileNotFoundError):
                folder.set_aside(self.pretrained)

    def save_keep(self, method: str, text: str) -> None:
        """Keeps which channels a method kept, so that its network can be made again."""
        path, content = self.workdir / "keep" / f"{method}.json", f"{text}\n".encode()
        try:
            if folder.read(path) == content:
                return
        except FileNotFoundError:
            pass
        except Damaged:
            folder.set_aside(path)
        else:
            self.tell(f"keep/{path.name} is not what it should be; it is written again")
        files.write_bytes(path, content)

    def save_records(self, records: Iterable[Record]) -> files.Path:
        """Writes records.jsonl anew."""
        path = self.workdir / "records.jsonl"
        files.write_text(path, to_lines(records))
        return path

    def _trial_path(self, trial_id: str) -> files.Path:
        return self._trials / f"{trial_id}.jsonl"

    def _problem(self, trial_id: str) -> str | None:
        """What is wrong with a trial's file; "" where it is whole, None where there is none."""
        path = self._trial_path(trial_id)
        # Asks the folder anew, as reading alone does not on NFS.
        if not files.is_remote(path) and not files.exists(path) and not os.path.islink(path):
            return None
        try:
            unseal(trial_id, folder.read(path))
        except FileNotFoundError:
            return None
        except Damaged as error:
            return str(error)
        return ""

    def _note(self, trial_id: str, problem: str | None) -> None:
        if problem == "":
            self._whole.add(trial_id)
            return
        self._whole.discard(trial_id)
        if problem:
            self.tell(f"trials/{trial_id}.jsonl {problem} (damaged); that trial is done again")

    def _read_config(self) -> dict[str, Any]:
        """The config that made the folder.

        Raises:
          FileNotFoundError: there is none.
          Damaged: it is no JSON object, and the folder is a run's.
          UserError: it is something else's, or cannot be read.
        """
        try:
            found = _parse_config(folder.read(self._config_path))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise folder.unusable(self.workdir, "read", error) from None
        except Damaged:
            # Nobody else's file is moved away.
            if {"trials", "leases"}.intersection(files.names(self.workdir)):
                raise
            raise UserError(f"{self._config_path}: expected the JSON that a run wrote") from None
        if found != self._config and not found.keys() & self._config.keys():
            keys = ", ".join(f"{key!r:.40}" for key in sorted(found)[:3]) or "none"
            raise UserError(
                f"{self._config_path}: expected the config that a run wrote, found keys {keys}; "
                f"--workdir takes a new folder or a run's"
            )
        return found

    def _set_aside_config(self) -> None:
        """Moves a damaged config away."""
        try:
            self._read_config()
        except Damaged:
            aside = folder.set_aside(self._config_path)
            # Another worker may have been faster, and this be the one that it wrote.
            with contextlib.suppress(Damaged):
                _parse_config(content := folder.read(aside))
                files.create_bytes(self._config_path, content)


def _parse_config(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise Damaged("is not JSON" if content.strip(b"\0 \n") else "is empty") from None
    if not isinstance(found, dict):
        raise Damaged("is not what a run writes")
    return found


def _check_same(workdir: files.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    before, now = dict(flatten(old)), dict(flatten(new))
    differing = [
        f"config.{key}={now.get(key)!r} (there: {before.get(key)!r})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise UserError(
            f"--workdir={workdir} was made by another config, that of its config.json; expected a "
            f"new folder or the same values: {', '.join(differing)}"
        )
