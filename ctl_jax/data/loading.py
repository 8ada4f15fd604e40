"""From a spec to a task in memory."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from ctl_jax.data import embedded, prepared, splits
from ctl_jax.data.catalogue import embedded_spec
from ctl_jax.data.task import SPLITS, Split, Task, TaskSpec, fingerprint
from ctl_jax.errors import UserError

Path = str | os.PathLike[str]


def embedded_data_dir() -> pathlib.Path:
    """Where embedded data is kept: CTL_JAX_DATA, else ctl_jax/tfds in the user's cache folder."""
    if chosen := os.environ.get("CTL_JAX_DATA"):
        return pathlib.Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "ctl_jax" / "tfds"


def availability(spec: TaskSpec, data_dirs: Sequence[Path] = ()) -> str | None:
    """Whether a task can be loaded; reads descriptions of data sets, but no image.

    Args:
      spec: from `stream`.
      data_dirs: TFDS data folders.

    Returns:
      None, or one line that says why not.

    Raises:
      UserError: a data folder does not exist.
    """
    if spec.source == "embedded":
        return None
    # Also checks the folders, whatever the task.
    folder = prepared.find(spec.dataset, data_dirs)
    if spec.kind == "multi_label":
        return "tasks with several labels an image are not supported yet"
    if spec.source == "nevis":
        return "data sets that dm_nevis prepares are not supported yet"
    wanted = splits.needed(spec.dataset)
    if wanted is None:
        return f"the split rule of {spec.dataset!r} is not supported yet"
    if folder is None:
        looked = ", ".join(repr(os.fspath(data_dir)) for data_dir in data_dirs)
        return f"TFDS data set {spec.dataset!r} is not in {looked or 'any folder: none was given'}"
    try:
        return prepared.defect(prepared.open_builder(folder), wanted)
    except UserError as error:
        return str(error)


def load(
    spec: TaskSpec,
    image_size: int = 64,
    data_dirs: Sequence[Path] = (),
    data_dir: Path | None = None,
    on_prepare: Callable[[str], None] | None = None,
) -> Task:
    """Reads a task.

    Args:
      spec: from `stream`.
      image_size: S; the short side is resized to it and the middle is cut out.
      data_dirs: TFDS data folders, for tasks of source "tfds".
      data_dir: where embedded tasks are kept; None for `embedded_data_dir()`.
      on_prepare: called with an embedded task's name before it is made, which takes seconds.

    Returns:
      The task with all four splits, uint8 [N, S, S, 3].

    Raises:
      UserError: the task is not available (see `availability`), or its data is damaged.
    """
    if image_size < 1:
        raise UserError(f"image_size {image_size!r} is not a size in pixels; expected 1 or more")
    if spec.source == "embedded":
        if spec.dataset not in embedded.TASKS:
            raise UserError(f"unknown embedded task {spec.dataset!r}; {_known(embedded.TASKS)}")
        return _load_embedded(spec, embedded.TASKS[spec.dataset], image_size, data_dir, on_prepare)
    reason = availability(spec, data_dirs)
    if reason is not None:
        raise UserError(f"task {spec.name!r} is not available: {reason}")
    folder = prepared.find(spec.dataset, data_dirs)
    assert folder is not None, "availability has found it"
    builder = prepared.open_builder(folder)
    cuts = splits.rule(spec.dataset, prepared.sizes(builder))
    return _task(
        spec, builder.info.features["label"].num_classes, prepared.load(builder, cuts, image_size)
    )


def load_source(
    name: str,
    image_size: int = 32,
    data_dir: Path | None = None,
    on_prepare: Callable[[str], None] | None = None,
) -> Task:
    """Reads a task to pretrain on, made on first use.

    Args:
      name: "embedded_source".
      image_size: S.
      data_dir: where it is kept; None for `embedded_data_dir()`.
      on_prepare: called with the name before it is made, which takes seconds.

    Returns:
      A task like any other.

    Raises:
      UserError: unknown name, or the folder is not writable.
    """
    if name not in embedded.SOURCES:
        raise UserError(f"unknown source task {name!r}; {_known(embedded.SOURCES)}")
    if image_size < 1:
        raise UserError(f"image_size {image_size!r} is not a size in pixels; expected 1 or more")
    task = embedded.SOURCES[name]
    return _load_embedded(embedded_spec(task), task, image_size, data_dir, on_prepare)


def _known(names: Mapping[str, object]) -> str:
    return f"expected {', '.join(map(repr, names))}"


def _load_embedded(
    spec: TaskSpec,
    task: embedded.EmbeddedTask,
    image_size: int,
    data_dir: Path | None,
    on_prepare: Callable[[str], None] | None,
) -> Task:
    from ctl_jax.data.embedded import builder as embedded_builder  # Imports TFDS.

    where = embedded_data_dir() if data_dir is None else pathlib.Path(data_dir)
    builder = prepared.open_builder(embedded_builder.prepare(task, where, on_prepare))
    cuts = {
        name: splits.Slice(name, 0, size) for name, size in zip(SPLITS, task.sizes, strict=True)
    }
    return _task(spec, len(task.classes), prepared.load(builder, cuts, image_size))


def _task(spec: TaskSpec, num_classes: int, parts: Mapping[str, Split]) -> Task:
    return Task(spec, num_classes, parts, fingerprint(num_classes, parts))
