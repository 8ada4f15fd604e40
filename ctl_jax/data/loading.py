"""From a spec to a data set that was found, and from that to a task in memory."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ctl_jax import home
from ctl_jax.data import cache, duplicates, embedded
from ctl_jax.data.catalogue import embedded_spec
from ctl_jax.data.dataset import DataSet, Places
from ctl_jax.data.sources import dm_nevis, folders, imported, tfds
from ctl_jax.data.sources import embedded as embedded_source
from ctl_jax.data.task import SPLITS, Task, TaskSpec, fingerprint
from ctl_jax.errors import UserError

NOWHERE = Places()
# In a folder of more, nobody has data sets one level deeper.
_MOST_INNER = 200

# In the order in which they are tried.
_SOURCES = {"imported": imported, "tfds": tfds, "dm_nevis": dm_nevis, "folder": folders}


def embedded_data_dir() -> pathlib.Path:
    """Where embedded data is kept: CTL_JAX_DATA, else ctl_jax/tfds in the user's cache folder."""
    return home.in_utf8(home.from_variable("CTL_JAX_DATA") or home.cache() / "tfds")


def find_set(spec: TaskSpec, places: Places) -> tuple[str, pathlib.Path] | None:
    """Where a data set lies; reads nothing but the names of files.

    Args:
      spec: from `stream`; not of an embedded task, which is made where it is needed.
      places: where to look.

    Returns:
      The form that it has ("imported", "tfds", "dm_nevis" or "folder") and its path, of the first
      that there is in this order; or None.

    Raises:
      UserError: one of the places does not exist.
    """
    places.check()
    for origin, source in _SOURCES.items():
        path = source.find(spec, places)
        if path is not None:
            return origin, path
    return None


def open_set(
    spec: TaskSpec,
    places: Places = NOWHERE,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    on_prepare: Callable[[str], None] | None = None,
) -> DataSet:
    """Opens a data set; decodes no image.

    Args:
      spec: from `stream`.
      places: where to look.
      data_dir: where embedded tasks are kept; None for `embedded_data_dir()`.
      on_prepare: called with an embedded task's name before it is made, which takes seconds.

    Raises:
      UserError: it is nowhere, damaged, or of another kind than the catalogue says.
    """
    if spec.source == "embedded":
        if spec.dataset not in embedded.TASKS:
            raise UserError(f"unknown embedded task {spec.dataset!r}; {_known(embedded.TASKS)}")
        return _open_embedded(embedded.TASKS[spec.dataset], data_dir, on_prepare)
    found = find_set(spec, places)
    if found is None:
        hint = elsewhere(spec, places)
        raise UserError(
            f"data set {spec.dataset!r} is not in {_looked(places)}{f'; {hint}' if hint else ''}"
        )
    origin, path = found
    dataset = _SOURCES[origin].open(spec, path)
    dataset = dataclasses.replace(dataset, notes=(*_taken(spec, path, places), *dataset.notes))
    if dataset.kind != spec.kind:
        raise UserError(f"{dataset.path!r} is {dataset.kind}; expected {spec.kind}: {spec.title}")
    return dataset


def elsewhere(spec: TaskSpec, places: Places) -> str:
    """What may be wrong with the places, in a few words, where they do not have a data set.

    Returns:
      That one of them holds it one folder deeper, or is the folder of another set; or "".
    """
    for field in ("tfds_dirs", "nevis_dirs", "folder_dirs"):
        for given in places.existing(field):
            for inner in _inner_folders(given):
                deeper: dict[str, Any] = {field: (inner,)}
                if _holds(spec, Places(**deeper)):
                    return f"it is in {str(inner)!r}, which is to be given instead"
    for given in places.folder_dirs:
        if folders.has_splits(given):
            name = spec.dataset.replace("/", "_")
            return (
                f"{str(given)!r} has splits itself; expected a folder that holds {name}/, "
                "with splits in it"
            )
    return ""


def _holds(spec: TaskSpec, places: Places) -> bool:
    try:
        return any(source.find(spec, places) for source in _SOURCES.values())
    except UserError:
        return False


def _inner_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder, unless there are too many to look into."""
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return sorted(filter(pathlib.Path.is_dir, found)) if len(found) <= _MOST_INNER else []
    except OSError:
        return []


def _taken(spec: TaskSpec, path: pathlib.Path, places: Places) -> list[str]:
    """A line where a set was found under another name, or its own folder was given."""
    name = spec.dataset.replace("/", "_")
    known = {name, spec.dataset.partition("/")[0]}
    for given in (*places.tfds_dirs, *places.nevis_dirs, *places.folder_dirs):
        parts = path.relative_to(given).parts if path.is_relative_to(given) else None
        if parts and parts[0].removesuffix(".zip").casefold() == name.casefold() not in parts:
            if parts[0] not in (name, f"{name}.zip"):
                return [f"{parts[0]!r} in {str(given)!r} is taken for {name!r}"]
        elif parts is not None and not known & set(parts):
            return [f"{str(given)!r} is taken for the folder of {name!r} itself"]
    for given in places.tfds_dirs:
        folder = tfds.data_dir(given)
        if folder != given and path.is_relative_to(folder) and not path.is_relative_to(given):
            return [f"{str(given)!r} is one set's folder; {str(folder)!r} is taken instead"]
    return []


def availability(spec: TaskSpec, places: Places = NOWHERE) -> str | None:
    """Whether a task can be loaded; reads descriptions of data sets, but no image.

    Args:
      spec: from `stream`.
      places: where to look.

    Returns:
      None, or one line that says why not.

    Raises:
      UserError: one of the places does not exist.
    """
    places.check()
    if spec.source == "embedded":
        return None
    try:
        open_set(spec, places)
    except UserError as error:
        return str(error)
    return None


def load(
    spec: TaskSpec,
    image_size: int = 64,
    places: Places = NOWHERE,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    max_corrupt: int = 0,
    on_prepare: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    """Reads a task: from the cache of decoded images, or through it.

    Args:
      spec: from `stream`.
      image_size: S; the short side is resized to it and the middle is cut out.
      places: where to look.
      data_dir: where embedded tasks are kept; None for `embedded_data_dir()`.
      max_corrupt: how many examples of a split may be left out because they cannot be read.
      on_prepare: called with an embedded task's name before it is made, which takes seconds.
      progress: called with the examples done and those of the split, while a split is decoded.

    Returns:
      The task with all four splits, uint8 [N, S, S, 3]; those of large splits are memory-mapped.

    Raises:
      UserError: the task is not available (see `availability`), or its data is damaged.
    """
    _check_size(image_size)
    try:
        dataset = open_set(spec, places, data_dir=data_dir, on_prepare=on_prepare)
    except UserError as error:
        raise UserError(f"task {spec.name!r} is not available: {error}") from error
    return _read(spec, dataset, image_size, max_corrupt, progress)


def load_source(
    name: str,
    image_size: int = 32,
    data_dir: str | os.PathLike[str] | None = None,
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
    _check_size(image_size)
    task = embedded.SOURCES[name]
    return _read(embedded_spec(task), _open_embedded(task, data_dir, on_prepare), image_size)


def _read(
    spec: TaskSpec,
    dataset: DataSet,
    image_size: int,
    max_corrupt: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    loaded = {
        name: cache.load_split(
            dataset.splits[name],
            image_size,
            num_classes=dataset.num_classes,
            multi_label=dataset.kind == "multi_label",
            max_corrupt=max_corrupt,
            progress=progress,
        )
        for name in SPLITS
    }
    found = duplicates.notes(
        {name: part.contents for name, part in loaded.items()},
        {name: part.split.labels for name, part in loaded.items()},
        dataset.num_classes,
    )
    return Task(
        spec,
        dataset.num_classes,
        {name: part.split for name, part in loaded.items()},
        fingerprint(dataset.num_classes, {name: part.fingerprint for name, part in loaded.items()}),
        tuple(line for part in loaded.values() for line in part.corrupt),
        (*dataset.notes, *found),
        dataset.passed_over,
    )


def _open_embedded(
    task: embedded.EmbeddedTask,
    data_dir: str | os.PathLike[str] | None,
    on_prepare: Callable[[str], None] | None,
) -> DataSet:
    from ctl_jax.data.embedded import builder  # Imports TFDS.

    where = embedded_data_dir() if data_dir is None else pathlib.Path(data_dir)
    return embedded_source.open(task, builder.prepare(task, where, on_prepare))


def _looked(places: Places) -> str:
    folders = [*places.tfds_dirs, *places.nevis_dirs, *places.folder_dirs]
    if not folders:
        return "any folder: none was given"
    return (
        repr(str(folders[0])) if len(folders) == 1 else f"any of the {len(folders)} folders given"
    )


def _check_size(image_size: int) -> None:
    if image_size < 1:
        raise UserError(f"image_size {image_size!r} is not a size in pixels; expected 1 or more")


def _known(names: Mapping[str, object]) -> str:
    return f"expected {', '.join(map(repr, names))}"
