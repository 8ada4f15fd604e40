"""The stream's tasks: which there are, what they hold, and their images when they are needed."""

import collections
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ctl_jax import data
from ctl_jax.data import images
from ctl_jax.errors import UserError, naming
from ctl_jax.experiment.config import Data, Stream

# Images that stay in memory between trials. Beyond it the oldest task is dropped, and read again
# when its trials come.
MEMORY_BYTES = 4 << 30
# The splits that `data.max_eval_examples` limits.
_LIMITED = ("dev", "dev_test")
# Images whose size is looked at.
_SAMPLED = 32


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """A task as a plan sees it: what is known before any image is decoded.

    Attributes:
      spec: the task's names and kind.
      num_classes: how many classes it has.
      examples: of each split that is used, after `data.max_eval_examples`; those among them that
        turn out not to be readable are counted.
      fingerprint: hash of which examples there are and how they become pixels; the same where the
        data is a copy.
      notes: what was put right in its data, or may not be as it should.
      passed_over: how many files beside the examples are not examples, by their kind.
      class_names: in the order of the labels; empty where they are not known.
    """

    spec: data.TaskSpec
    num_classes: int
    examples: Mapping[str, int]
    fingerprint: str
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What steps depend on, as plain values."""
        return {
            "name": self.spec.name,
            "fingerprint": self.fingerprint,
            "num_classes": self.num_classes,
            "examples": dict(self.examples),
        }


def find_tasks(
    settings: Stream, loader: "TaskLoader"
) -> tuple[tuple[data.TaskSpec, ...], tuple[tuple[data.TaskSpec, str], ...]]:
    """Which tasks of the stream there is data for.

    Args:
      settings: which stream it is.
      loader: of its tasks; its `info` of those that are found costs nothing more.

    Returns:
      The tasks that can be loaded, and those that cannot, each with the reason.

    Raises:
      UserError: tasks are lacking and `stream.missing` is "error", or none is left.
    """
    with naming(f"config.stream.variant={settings.variant!r}"):
        specs = data.stream(
            settings.variant,
            settings.stop_year,
            ablation=settings.ablation,
            num_tasks=settings.num_tasks,
            shuffle=settings.shuffle,
            seed=settings.seed,
        )
    loader.check_dirs()
    found: list[data.TaskSpec] = []
    missing: list[tuple[data.TaskSpec, str]] = []
    for spec in specs:
        try:
            found.append(loader.info(spec).spec)
        except UserError as error:
            missing.append((spec, str(error)))
    if missing and (settings.missing == "error" or not found):
        listed = "; ".join(f"{spec.title}: {reason}" for spec, reason in missing)
        advice = "; config.stream.missing='skip' goes on without them" if found else ""
        raise UserError(
            f"config.stream.variant={settings.variant!r}: {len(missing)} of {len(specs)} "
            f"tasks lack their data{advice}: {listed}"
        )
    return tuple(found), tuple(missing)


class TaskLoader:
    """Describes tasks without decoding an image, and loads them.

    Of the loaded ones as many stay as fit into `memory_bytes`. `on_prepare` is called with the name
    of a synthetic task that has to be made first.
    """

    def __init__(
        self,
        settings: Data,
        on_prepare: Callable[[str], None] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ):
        self._settings = settings
        self._on_prepare = on_prepare
        self._memory_bytes = memory_bytes
        # By data set, of which a stream may have several tasks.
        self._infos: dict[str, TaskInfo] = {}
        # By name, size of the images, and whether it is whole.
        self._loaded: collections.OrderedDict[tuple[str, int, bool], data.Task]
        self._loaded = collections.OrderedDict()

    def check_dirs(self) -> None:
        """Raises a UserError where a folder that is named for data is not there."""
        with naming("config.data.dirs"):
            data.check_dirs(self._settings.dirs)

    def info(self, spec: data.TaskSpec, *, whole: bool = False) -> TaskInfo:
        """The task without its images, none of which is read.

        Args:
          spec: of the stream, or from `data.source_spec`.
          whole: whether dev and dev_test are spared from `data.max_eval_examples`.

        Raises:
          UserError: its data is nowhere, or damaged.
        """
        if spec.key not in self._infos:
            dataset = data.open_set(spec, self._settings.dirs)
            about = f"{images.VERSION} {dataset.identity()}"
            self._infos[spec.key] = TaskInfo(
                dataclasses.replace(spec, kind=dataset.kind),
                dataset.num_classes,
                {name: len(records) for name, records in dataset.splits.items()},
                hashlib.sha256(about.encode()).hexdigest(),
                dataset.notes,
                dataset.passed_over,
                dataset.class_names,
            )
        info = self._infos[spec.key]
        info = dataclasses.replace(info, spec=dataclasses.replace(spec, kind=info.spec.kind))
        most = None if whole else self._settings.max_eval_examples
        if not most:
            return info
        limited = {name: min(most, info.examples[name]) for name in _LIMITED}
        return dataclasses.replace(info, examples={**info.examples, **limited})

    def load(self, spec: data.TaskSpec, *, image_size: int = 0, whole: bool = False) -> data.Task:
        """The task with its images.

        Args:
          spec: as for `info`.
          image_size: side of the images in pixels; 0 is that of the config.
          whole: as for `info`.

        Raises:
          UserError: its data is nowhere, or damaged.
        """
        image_size = image_size or self._settings.image_size
        key = (spec.name, image_size, whole)
        if key not in self._loaded:
            settings = self._settings
            task = data.load(
                spec,
                image_size=image_size,
                dirs=settings.dirs,
                max_corrupt=settings.max_corrupt,
                on_prepare=self._on_prepare,
            )
            if settings.max_eval_examples and not whole:
                limited = {
                    name: _limit(task.splits[name], settings.max_eval_examples) for name in _LIMITED
                }
                task = dataclasses.replace(task, splits={**task.splits, **limited})
            self._loaded[key] = task
            while (
                len(self._loaded) > 1
                and sum(map(_size, self._loaded.values())) > self._memory_bytes
            ):
                self._loaded.popitem(last=False)
        return self._loaded[key]

    def native_side(self, spec: data.TaskSpec) -> int:
        """The median of the short sides of some training images as they are on disk, in pixels.

        Args:
          spec: of a task that was loaded, so that its images are there.
        """
        records = data.open_set(spec, self._settings.dirs).splits["train"]
        places = np.unique(np.linspace(0, len(records) - 1, _SAMPLED).astype(int))
        sides = []
        for place in places:
            with contextlib.suppress(OSError, UserError):
                (example,) = records.read(int(place), int(place) + 1)
                sides.append(images.short_side(example.content))
        return int(np.median(sides)) if sides else self._settings.image_size


def loaded(task: data.Task) -> dict[str, Any]:
    """What only decoding tells of a task, as records have it."""
    return {
        "task": task.spec.name,
        "examples": {name: len(split) for name, split in task.splits.items()},
        "corrupt": len(task.corrupt),
        "notes": list(task.notes),
        "passed_over": dict(task.passed_over),
        "content": task.fingerprint,
        "image_size": task.splits["train"].images.shape[1],
    }


def _limit(split: data.Split, examples: int) -> data.Split:
    """At most `examples` of the split: always the same ones, drawn at random.

    Not the first ones, nor every n-th: sets on disk may be sorted by class, or go round them.
    """
    if len(split.labels) <= examples:
        return split
    index = np.sort(np.random.default_rng(0).permutation(len(split.labels))[:examples])
    return data.Split(split.images[index], split.labels[index])


def _size(task: data.Task) -> int:
    return sum(split.images.nbytes for split in task.splits.values())
