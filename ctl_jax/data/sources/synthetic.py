"""Synthetic tasks: data that the package makes, the first time that it is read."""

import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence

from ctl_jax import home
from ctl_jax.data import synthetic
from ctl_jax.data.dataset import DataSet, Example, Records
from ctl_jax.data.source import Dirs, Source, register
from ctl_jax.data.sources.tfds import prepared
from ctl_jax.data.splits import Part
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError

_ALL = {**synthetic.TASKS, **synthetic.SOURCES}


def find(spec: TaskSpec, dirs: Dirs) -> pathlib.Path | None:
    """The folder of a synthetic task, also where it is yet to be made.

    Raises:
      UserError: there is no such task.
    """
    if spec.source != "synthetic":
        return None
    if spec.dataset not in _ALL:
        known = ", ".join(map(repr, _ALL))
        raise UserError(f"unknown synthetic task {spec.dataset!r}; expected {known}")
    return synthetic.folder(_ALL[spec.dataset], dirs[0])


def default_dir() -> pathlib.Path:
    """Where synthetic data is kept: CTL_JAX_DATA, else ctl_jax/tfds in the user's cache folder."""
    return home.in_utf8(home.from_variable("CTL_JAX_DATA") or home.cache() / "tfds")


def open(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Describes a synthetic task by its definition; makes and reads nothing.

    Args:
      spec: of a synthetic task.
      path: from `find`.
    """
    task = _ALL[spec.dataset]
    made = _Made(task, path)
    return DataSet(
        "synthetic",
        str(path),
        len(task.classes),
        task.classes,
        "single_label",
        {
            split: SyntheticRecords(made, split, size)
            for split, size in zip(SPLITS, task.sizes, strict=True)
        },
        make=made.make,
    )


class _Made:
    """A synthetic task's data set, made and opened when it is first wanted."""

    def __init__(self, task: synthetic.SyntheticTask, path: pathlib.Path) -> None:
        self.task = task
        self._path = path

    def make(self, on_make: Callable[[str], None] | None = None) -> None:
        """Makes it unless it is there."""
        if not self._path.is_dir():
            from ctl_jax.data.synthetic import builder  # Imports TFDS.

            builder.prepare(self.task, self._path.parents[2], on_make)

    @functools.cached_property
    def splits(self) -> dict[str, Records]:
        """Its records as they are on disk.

        Raises:
          UserError: the folder is not a prepared set, or lacks something.
        """
        self.make()
        name, found = self.task.name, prepared.open_builder(self._path, SPLITS)
        sizes = {split: found.info.splits[split].num_examples for split in SPLITS}
        parts = {split: (Part(name, split, 0, sizes[split]),) for split in SPLITS}
        dataset = prepared.assemble("synthetic", name, self._path, {name: found}, parts)
        return dict(dataset.splits)


class SyntheticRecords:
    """The examples of one split; see `dataset.Records`."""

    def __init__(self, made: _Made, split: str, size: int) -> None:
        self._made, self._split, self._size = made, split, size

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, stop: int) -> Sequence[Example]:
        """Examples `start` to `stop` (exclusive)."""
        return self._made.splits[self._split].read(start, stop)

    def fingerprint(self) -> str:
        """SHA-256 of which files these are."""
        return self._made.splits[self._split].fingerprint()

    def identity(self) -> str:
        """SHA-256 of the task's definition and the version of what draws it."""
        task = self._made.task
        about = (task.name, synthetic.VERSION, task.seed, task.classes, task.sizes, self._split)
        return hashlib.sha256(repr(about).encode()).hexdigest()


register(
    Source(
        "synthetic",
        "where synthetic tasks are kept",
        find,
        open,
        order=0,
        default_dirs=lambda: (default_dir(),),
        needs_dirs=False,
    )
)
