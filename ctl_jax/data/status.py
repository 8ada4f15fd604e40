"""What there is of a stream's data, and what to do about the rest."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ctl_jax.data import duplicates, embedded, loading, prepare
from ctl_jax.data.dataset import Places
from ctl_jax.data.sources import folders
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError

# What a task may be, and words for it.
STATES = {
    "ready": "ready",
    "can_be_prepared": "can be prepared",
    "by_hand": "needs a download by hand",
    "damaged": "damaged",
}
_DM_NEVIS = "https://github.com/google-deepmind/dm_nevis"


@dataclasses.dataclass(frozen=True)
class Status:
    """How one task stands.

    Attributes:
      spec: the task.
      state: one of `STATES`.
      instruction: what to do, in one line; "" where it is ready.
      origin: the form its data has, see `DataSet`; "" where there is none.
      path: where it lies; "" where there is none, or where it is made on first use.
      num_classes: number of classes; None where it is not known.
      examples: of each split; empty where they are not known.
      num_bytes: what it takes on disk; None where there is nothing.
      notes: a line for each thing that was put right, or that may not be as it should.
      passed_over: how many files beside the examples are none, by their kind.
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


def look(specs: Sequence[TaskSpec], places: Places, tfds_dir: pathlib.Path) -> list[Status]:
    """How each task of a stream stands; reads descriptions and names of files, but no image.

    Args:
      specs: from `catalogue.stream`.
      places: where to look.
      tfds_dir: the TFDS folder that instructions name.

    Returns:
      One status a task, in their order.

    Raises:
      UserError: one of the places does not exist.
    """
    known: dict[str, Status] = {}
    for spec in specs:
        if spec.dataset not in known:
            known[spec.dataset] = _look(spec, places, tfds_dir)
    # A set that comes twice is looked at once.
    return [dataclasses.replace(known[spec.dataset], spec=spec) for spec in specs]


def instruction(spec: TaskSpec, tfds_dir: pathlib.Path) -> tuple[str, str]:
    """The state of a task that has no data, and what to do about it in one line."""
    if spec.source == "tfds":
        command = f"python -m ctl_jax.data prepare {spec.dataset} --tfds_dir={tfds_dir}"
        if (manual := prepare.by_hand(spec.dataset, tfds_dir)) is not None:
            return "by_hand", f"{manual}; then {command}"
        return "can_be_prepared", command
    name = spec.dataset.replace("/", "_")
    # What its script is set to; a set that it cannot download, it names.
    text = (
        f"run ./build_dataset.sh -b -d {name} of {_DM_NEVIS} (needs Docker), which writes to "
        "~/nevis/nevis_data_dir, and give --nevis_dir=~/nevis/nevis_data_dir"
    )
    if spec.kind == "single_label":
        text += (
            f"; or put the images into DIR/{name}/SPLIT/CLASS/ or DIR/{name}.zip and give "
            "--folder_dir=DIR"
        )
    return "by_hand", text


def _look(spec: TaskSpec, places: Places, tfds_dir: pathlib.Path) -> Status:
    if spec.source == "embedded":
        task = embedded.TASKS[spec.dataset]
        examples = dict(zip(SPLITS, task.sizes, strict=True))
        return Status(
            spec, "ready", origin="embedded", num_classes=len(task.classes), examples=examples
        )
    found = loading.find_set(spec, places)
    if found is None:
        state, words = instruction(spec, tfds_dir)
        hint = loading.elsewhere(spec, places)
        return Status(spec, state, f"{hint}; or {words}" if hint else words)
    origin, path = found
    size = num_bytes(path)
    try:
        dataset = loading.open_set(spec, places)
        contents = folders.contents(dataset)
    except UserError as error:
        return Status(
            spec, "damaged", str(error), origin=origin, path=os.fspath(path), num_bytes=size
        )
    notes = dataset.notes
    if contents is not None:
        numbers, labels = ({name: pair[i] for name, pair in contents.items()} for i in (0, 1))
        notes += duplicates.notes(numbers, labels, dataset.num_classes)
    return Status(
        spec,
        "ready",
        origin=dataset.origin,
        path=os.fspath(path),
        num_classes=dataset.num_classes,
        examples={name: len(dataset.splits[name]) for name in SPLITS},
        num_bytes=size,
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
