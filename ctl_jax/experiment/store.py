"""A run's folder: what is done, and what came of it.

workdir/
  config.json          the config that it was last used with
  steps/ID.jsonl       records of one finished step, written at once, sealed by a last line
  models/ID/           the model that a step made, where it is needed or was asked for
  arrays/ID.safetensors  what a step made that is no model, where it is needed; see arrays.py
  keep/CUT.json        which channels each pruned network kept
  leases/              who works on what; see leases.py
  scratch/ID/          of a step that is not done: its checkpoints
  records.jsonl        all records that the config asks for, in the plan's order
  results.csv, report.html, figures/
  tensorboard/         where config.watch asks for it; see watchers/tensorboard.py

It may be shared by many workers, on a disk, on NFS or in an object store (gs://bucket/run), and
used with other configs: steps are named by all that decides their numbers.

Files appear under their names when they are whole. What a crashed disk, an interrupted copy or a
sync tool makes of them later is noticed: a damaged file gets the name NAME.damaged-XXXXXXXX, which
nothing reads, and what it held is made again. Files of other names are ignored.
"""

import contextlib
import csv
import errno
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ctl_jax import files, models, records
from ctl_jax.errors import UserError
from ctl_jax.experiment import array_files, step_files
from ctl_jax.experiment.finished import PROVISIONAL, Finished, is_id, products
from ctl_jax.experiment.step_files import Damaged, seal, to_lines, unseal

_RECORDS = ".jsonl"


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
        config: Mapping[str, Any],
        on_damage: Callable[[str], None] = lambda line: None,
    ):
        self.workdir = files.path(workdir)
        self._config = json.dumps(config, indent=2) + "\n"
        self._keys = frozenset(config)
        self._steps = self.workdir / "steps"
        self._models = self.workdir / "models"
        self._arrays = self.workdir / "arrays"
        self._scratch = self.workdir / "scratch"
        self._config_path = self.workdir / "config.json"
        self._on_damage = on_damage
        self._said: set[str] = set()
        # Steps that were found whole: they are not read again to know whether they are done.
        self._whole: set[str] = set()
        self._results: dict[str, records.Record] = {}

    def check(self) -> None:
        """Sees whether the folder can be used; writes nothing.

        Raises:
          UserError: it cannot be a run's folder, or cannot be written.
        """
        try:
            self._read_config()
        except FileNotFoundError:
            # This also tells whether there is such a bucket.
            if any(name.endswith(_RECORDS) for name in files.names(self._steps)):
                self.tell("config.json is gone; it is written again")
        except Damaged as error:
            self._tell_of_config(error)

    def create(self) -> None:
        """Makes the folder where it is not there yet, and notes the config.

        Raises:
          UserError: it cannot be written, or is something else's.
        """
        try:
            found: bytes | None = None
            with contextlib.suppress(FileNotFoundError):
                try:
                    found = self._read_config()
                except Damaged as error:
                    self._tell_of_config(error)
                    step_files.set_aside(self._config_path)
            for inside in (self._steps, self.leases):
                files.make_folder(inside)
            if found != self._config.encode():
                files.write_text(self._config_path, self._config)
        except OSError as error:
            raise step_files.unusable(self.workdir, "written", error) from None

    def _tell_of_config(self, damage: Damaged) -> None:
        self.tell(f"config.json {damage} (damaged); it is written again")

    def tell(self, line: str) -> None:
        """Says once that something is damaged, and what follows from it."""
        if line not in self._said:
            self._said.add(line)
            self._on_damage(line)

    @property
    def leases(self) -> files.Path:
        """Where workers say what they work on."""
        return self.workdir / "leases"

    def model(self, step_id: str) -> files.Path:
        """The folder of the variables that a step made."""
        return self._models / step_id

    def has_product(self, step_id: str) -> bool:
        """Whether the model or the arrays that a step made are there now, whoever made them."""
        return step_id in products(self._listed("models", "arrays"))

    def _listed(self, *inside: str) -> dict[str, list[str]]:
        """Names of what is in some folders of the run, asked for at once."""
        found = files.at_once(files.names, [self.workdir / name for name in inside])
        return dict(zip(inside, found, strict=True))

    def scratch(self, step_id: str) -> files.Path:
        """The folder of what an unfinished step keeps, e.g. checkpoints; not made here."""
        return self._scratch / step_id

    def remove_scratch(self, step_ids: Iterable[str]) -> None:
        """Removes scratch folders, those that are there."""
        for step_id in step_ids:
            files.remove_tree(self.scratch(step_id))

    def sweep_steps(self, finished: Finished) -> None:
        """Removes what killed workers left half-written, once all steps are done."""
        for path in finished.half_written:
            files.remove_any(path)

    def sweep_report(self) -> None:
        """Removes what a killed worker left half-written of the report, for the next writer."""
        files.at_once(files.sweep, [self.workdir, self.workdir / "figures", self.workdir / "keep"])

    def is_done(self, step_id: str) -> bool:
        """Whether the step's records are there now, and whole, whoever made them."""
        return self.problem(step_id) == ""

    def problem(self, step_id: str) -> str | None:
        """What is wrong with a step's records now; "" where they are whole, None where none are."""
        problem = self._problem(step_id)
        self._note(step_id, problem)
        return problem

    def finished(self) -> Finished:
        """What is done, and what else there is, by one listing of each folder.

        Each file is read once, when it is first seen. A damaged one is told of, and not done.
        """
        # At once, although others work meanwhile: whoever then takes what is done already, or
        # misses what is there, asks for it alone once it has the lease.
        listed = self._listed("leases", "steps", "models", "arrays", "scratch")
        names = listed["steps"]
        there = {name.removesuffix(_RECORDS) for name in names if name.endswith(_RECORDS)}
        there = set(filter(is_id, there))
        new = [step_id for step_id in there if step_id not in self._whole]
        if new:
            for step_id, problem in zip(new, files.at_once(self._problem, new), strict=True):
                self._note(step_id, problem)
        return Finished(self.workdir, self.result, frozenset(self._whole & there), listed)

    def tell_of_lost(self, step_ids: Collection[str], finished: Finished) -> None:
        """Says which steps have a result in results.csv, but no file of records any more."""
        if finished.records.issuperset(step_ids):
            return
        try:
            text = step_files.read(self.workdir / "results.csv").decode(errors="replace")
            reported = {row.get("trial") for row in csv.DictReader(text.splitlines())}
        except (FileNotFoundError, Damaged, csv.Error):
            return
        names = set(files.names(self._steps))
        lost = [i for i in step_ids if i in reported and f"{i}{_RECORDS}" not in names]
        if lost:
            self.tell(
                f"records of {len(lost)} results are gone, e.g. steps/{lost[0]}{_RECORDS}; these "
                f"trials are done again"
            )

    def set_aside(self, step_id: str, *, whole: bool = False) -> None:
        """Moves what stands in the place of a step's records out of the way.

        For who holds the step's lease: only what was committed meanwhile, should the lease have
        been lost, is put back.

        Args:
          step_id: of the step.
          whole: also records that are whole, where what belongs to them has become something else.
        """
        path = self._path(step_id)
        self._whole.discard(step_id)
        self._results.pop(step_id, None)
        with contextlib.suppress(FileNotFoundError):
            aside = step_files.set_aside(path)
            with contextlib.suppress(Damaged):
                content = step_files.read(aside)
                unseal(step_id, content)
                if not whole:
                    files.create_bytes(path, content)

    def save(self, step_id: str, lines: Iterable[records.Record]) -> bool:
        """Keeps the records of a finished step, unless they are there already.

        Returns:
          Whether these are the ones that were kept.
        """
        content = seal(step_id, map(records.to_json, lines))
        return files.create_bytes(self._path(step_id), content)

    def load(self, step_id: str) -> list[records.Record]:
        """The records of a finished step.

        Raises:
          UserError: its file was damaged, or removed, since it was looked at.
        """
        path = self._path(step_id)
        try:
            found = map(records.from_json, unseal(step_id, step_files.read(path)))
            return [record for record in found if record is not None]
        except FileNotFoundError:
            reason = "is gone"
        except Damaged as error:
            reason = f"{error} (damaged)"
        raise UserError(f"{path} {reason}; the same command does that step again")

    def replace_if_other(self, step_id: str, lines: Sequence[records.Record]) -> None:
        """Replaces a step's records where its variables had to be made again, and are others.

        What depends on it and was done before started from the old ones, which is said.
        """
        old, new = (getattr(each, "weights", None) for each in (self.result(step_id), lines[-1]))
        if old not in (None, new):
            self.tell(
                f"the variables of step {step_id} are not those of before; steps that were done "
                f"before started from others"
            )
            self.set_aside(step_id, whole=True)
            self.save(step_id, lines)

    def result(self, step_id: str) -> records.Record:
        """The last record of a finished step, read once.

        Raises:
          UserError: as `load`.
        """
        if step_id not in self._results:
            self._results[step_id] = self.load(step_id)[-1]
        return self._results[step_id]

    def save_model(self, step_id: str, model: models.Model, *, provisional: bool = False) -> None:
        """Keeps the model that a step made, unless it is there already.

        Args:
          step_id: of the step.
          model: that it made.
          provisional: whether it is kept only as long as it may be asked for; see `settle_models`.
        """
        target = self.model(step_id)
        if provisional:
            files.write_bytes(self._marker(step_id), b"")
        if files.is_remote(target):
            # Objects are only replaced, file by file, as they are written.
            models.save(target, model)
            return
        # Under a name of its own: a worker that has lost the step may be at it, too.
        unfinished = target.with_name(f".{step_id}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            models.save(unfinished, model)
            files.move(unfinished, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        finally:
            files.remove_tree(unfinished)

    def save_arrays(self, step_id: str, content: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays that a step made, unless they are there already."""
        files.create_bytes(self.arrays(step_id), array_files.pack(step_id, content))

    def remove_arrays(self, step_id: str) -> None:
        """Removes the arrays that a step made."""
        files.remove(self.arrays(step_id))

    def arrays(self, step_id: str) -> files.Path:
        """The file of the arrays that a step made, for `arrays.read`."""
        return self._arrays / f"{step_id}{array_files.SUFFIX}"

    def set_aside_product(self, step_id: str, reason: object) -> None:
        """Moves a damaged model, or arrays, out of the way; the step is then done again."""
        for path in (self.model(step_id), self.arrays(step_id)):
            if path.name not in files.names(path.parent):
                continue
            self.tell(f"{path.parent.name}/{path.name} is damaged ({reason}); it is made again")
            with contextlib.suppress(FileNotFoundError):
                if files.is_remote(self.workdir):
                    files.remove_tree(path)
                    files.remove(path)
                else:
                    step_files.set_aside(path)

    def settle_models(
        self, finished: Finished, *, stay: Collection[str] = (), go: Collection[str] = ()
    ) -> None:
        """Decides what becomes of provisional models.

        Args:
          finished: what there is.
          stay: ids of steps whose models are provisional no more.
          go: ids of those whose models are removed if they are.
        """
        for step_id in finished.provisional:
            if step_id in go:
                files.remove_tree(self.model(step_id))
            if step_id in go or step_id in stay:
                files.remove(self._marker(step_id))

    def _marker(self, step_id: str) -> files.Path:
        return self._models / f".{step_id}{PROVISIONAL}"

    def save_keep(self, cut: str, text: str) -> None:
        """Keeps which channels a cut kept, for people and for `pruning.Keep.from_json`."""
        path, content = self.workdir / "keep" / f"{cut}.json", f"{text}\n".encode()
        try:
            if step_files.read(path) == content:
                return
        except FileNotFoundError:
            pass
        except Damaged:
            step_files.set_aside(path)
        else:
            self.tell(f"keep/{path.name} is not what it should be; it is written again")
        files.write_bytes(path, content)

    def save_records(self, lines: Iterable[records.Record]) -> files.Path:
        """Writes records.jsonl again."""
        path = self.workdir / "records.jsonl"
        files.write_text(path, to_lines(map(records.to_json, lines)))
        return path

    def _path(self, step_id: str) -> files.Path:
        return self._steps / f"{step_id}{_RECORDS}"

    def _problem(self, step_id: str) -> str | None:
        """What is wrong with a step's file; "" where it is whole, None where there is none."""
        path = self._path(step_id)
        # Asks the folder again, as reading alone does not on NFS.
        if not files.is_remote(path) and not files.exists(path) and not os.path.islink(path):
            return None
        try:
            unseal(step_id, step_files.read(path))
        except FileNotFoundError:
            return None
        except Damaged as error:
            return str(error)
        return ""

    def _note(self, step_id: str, problem: str | None) -> None:
        if problem == "":
            self._whole.add(step_id)
            return
        self._whole.discard(step_id)
        if problem:
            self.tell(f"steps/{step_id}{_RECORDS} {problem} (damaged); that step is done again")

    def _read_config(self) -> bytes:
        """The content of the config.

        Raises:
          FileNotFoundError: there is no config.
          Damaged: it is no JSON object, and the folder is a run's.
          UserError: the folder is something else's, or cannot be read.
        """
        if not files.is_remote(self.workdir):
            step_files.check_place(self.workdir)
        try:
            content = step_files.read(self._config_path)
            found = _parse_config(content)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise step_files.unusable(self.workdir, "read", error) from None
        except Damaged:
            # Nobody else's file is moved away.
            if {"steps", "leases"}.intersection(files.names(self.workdir)):
                raise
            raise UserError(f"{self._config_path}: expected the JSON that a run wrote") from None
        if self._keys and not found.keys() & self._keys:
            keys = ", ".join(f"{key!r:.40}" for key in sorted(found)[:3]) or "none"
            raise UserError(
                f"{self._config_path}: expected the config that a run wrote, found keys {keys}; "
                f"--workdir takes a new folder or a run's"
            )
        return content


def _parse_config(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise Damaged("is not JSON" if content.strip(b"\0 \n") else "is empty") from None
    if not isinstance(found, dict):
        raise Damaged("is not what a run writes")
    return found
