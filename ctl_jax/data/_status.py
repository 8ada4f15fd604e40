"""The state of a stream's data: what is there, and what to do about the rest."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ctl_jax.data import _duplicates, _loading, places
from ctl_jax.data.formats import image_files
from ctl_jax.data.source import Instruction
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError

# What a task may be, and words for it.
STATES = {
    "ready": "ready",
    "can_be_prepared": "can be prepared",
    "by_hand": "needs a download by hand",
    "damaged": "damaged",
}


@dataclasses.dataclass(frozen=True)
class Status:
    """How one task stands.

    Attributes:
      spec: the task.
      state: one of `STATES`.
      instruction: what to do, in one line; "" where it is ready.
      origin: the form its data has, see `DataSet`; "" where there is none.
      path: where it is; "" where there is none, or where it is made on first use.
      num_classes: number of classes; None where it is not known.
      examples: of each split; empty where they are not known.
      num_bytes: what it takes on disk; None where there is nothing.
      notes: a line for each thing that was put right, or that may not be as it should.
      passed_over: how many files beside the examples are not examples, by their kind.
    """

    spec: TaskSpec
    state: str
    instruction: str = ""
    origin: str = ""
    path: str = ""
    num_classes: int | None = None
    examples: dict[str, int] = dataclasses.field(default_factory=dict)
    num_bytes: int | None = None
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For machines: plain values."""
        fields = dataclasses.asdict(self)
        return {**fields.pop("spec"), "metric": self.spec.metric, **fields}


def look(specs: Sequence[TaskSpec], dirs: Sequence[str]) -> list[Status]:
    """How each task of a stream stands; reads descriptions and names of files, but no image.

    Args:
      specs: from `catalogue.stream`.
      dirs: where to look, see `loading.find_set`.

    Returns:
      One status a task, in their order.

    Raises:
      UserError: a folder is of no known kind, or does not exist.
    """
    known: dict[str, Status] = {}
    for spec in specs:
        if spec.key not in known:
            known[spec.key] = _look(spec, dirs)
    # A set that comes twice is looked at once.
    found = [(known[spec.key], spec) for spec in specs]
    return [
        dataclasses.replace(one, spec=dataclasses.replace(spec, kind=one.spec.kind))
        for one, spec in found
    ]


def instruction(spec: TaskSpec, dirs: Sequence[str]) -> Instruction:
    """The state of a task that has no data, and what to do about it in one line."""
    found = [source.instruction(spec, there) for source, there in places.resolve(dirs).items()]
    advice = [one for one in found if one is not None]
    return Instruction(advice[0].state, "; or ".join(one.words for one in advice))


def _look(spec: TaskSpec, dirs: Sequence[str]) -> Status:
    found = _loading.find_set(spec, dirs)
    if found is None:
        state, words = instruction(spec, dirs)
        hint = _loading.elsewhere(spec, dirs)
        return Status(spec, state, f"{hint}; or {words}" if hint else words)
    source, path = found
    size = num_bytes(path)
    try:
        dataset = _loading.open_set(spec, dirs)
        contents = image_files.contents(dataset)
    except UserError as error:
        return Status(spec, "damaged", str(error), source.name, os.fspath(path), num_bytes=size)
    notes = dataset.notes
    if contents is not None:
        numbers, labels = ({name: pair[i] for name, pair in contents.items()} for i in (0, 1))
        notes += _duplicates.notes(numbers, labels, dataset.num_classes)
    return Status(
        dataclasses.replace(spec, kind=dataset.kind),
        "ready",
        origin=dataset.origin,
        path="" if dataset.make else os.fspath(path),
        num_classes=dataset.num_classes,
        examples={name: len(dataset.splits[name]) for name in SPLITS},
        num_bytes=None if dataset.make else size,
        notes=notes,
        passed_over=dataset.passed_over,
    )


def num_bytes(path: pathlib.Path) -> int:
    """The size of a file, or of all files in a folder that can be asked."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            # One may be gone by now, or have too long a path.
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
