"""Loading of tasks: from a spec to a data set that was found, and from that to arrays in memory."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable

from ctl_jax.data import _duplicates, _paths, cache, places
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.places import Places
from ctl_jax.data.source import Source
from ctl_jax.data.task import SPLITS, Task, TaskSpec, fingerprint
from ctl_jax.errors import UserError

# In a folder of more, nobody has data sets one level deeper.
_MOST_INNER = 200


def find_set(spec: TaskSpec, dirs: Iterable[str] = ()) -> tuple[Source, pathlib.Path] | None:
    """Where a data set is; reads nothing but the names of files.

    Args:
      spec: from `stream`.
      dirs: folders to look in as KIND:PATH, besides each source's own: "tfds:/d", "folder:~/i".

    Returns:
      Its source and its path, of the first source that has it; or None.

    Raises:
      UserError: a folder is of no known kind, or does not exist.
    """
    return _find(spec, _existing(dirs))


def open_set(spec: TaskSpec, dirs: Iterable[str] = ()) -> DataSet:
    """Opens a data set; decodes no image, and makes no synthetic task.

    Args:
      spec: from `stream`.
      dirs: as of `find_set`.

    Raises:
      UserError: it is nowhere, damaged, or of another kind than the catalogue says.
    """
    there = _existing(dirs)
    found = _find(spec, there)
    if found is None:
        hint = _elsewhere(spec, there)
        if not hint and os.path.exists(spec.dataset):
            hint = f"'./{spec.dataset}' would name what is in the current folder"
        raise UserError(
            f"data set {spec.dataset!r} is not in {_looked(there)}{f'; {hint}' if hint else ''}"
        )
    source, path = found
    if spec.path:
        return _paths.open_path(spec.path)
    try:
        dataset = source.open(spec, path)
    except UserError as error:
        if hint := _of_another_kind(spec, there, source):
            raise UserError(f"{error}; {hint}") from error
        raise
    remarks = source.remarks(spec, path, there[source])
    dataset = dataclasses.replace(dataset, notes=(*remarks, *dataset.notes))
    if spec.kind and dataset.kind != spec.kind:
        raise UserError(f"{dataset.path!r} is {dataset.kind}; expected {spec.kind}: {spec.title}")
    return dataset


def elsewhere(spec: TaskSpec, dirs: Iterable[str] = ()) -> str:
    """What may be wrong with the folders, in a few words, where they do not have a data set.

    Returns:
      That one of them holds it in another form or one folder deeper, or is the folder of another
      set; or "".
    """
    return _elsewhere(spec, _existing(dirs))


def check_dirs(dirs: Iterable[str]) -> None:
    """Raises where a folder of data is not what it should be.

    Raises:
      UserError: a folder is of no known kind, or does not exist.
    """
    _existing(dirs)


def _existing(dirs: Iterable[str]) -> Places:
    found = places.resolve(dirs)
    places.check(found)
    return found


def _find(spec: TaskSpec, there: Places) -> tuple[Source, pathlib.Path] | None:
    if spec.path:
        return _paths.locate(spec.path)[:2]
    for source, folders in there.items():
        if (path := source.find(spec, folders)) is not None:
            return source, path
    return None


def _elsewhere(spec: TaskSpec, there: Places) -> str:
    for source, folders in there.items():
        for inner in itertools.chain.from_iterable(map(_inner_folders, folders)):
            if _holds(spec, source, inner):
                return _instead(source, inner)
    for source in there:
        if hint := _of_another_kind(spec, there, source):
            return hint
    for source, folders in there.items():
        if hint := source.misplaced(spec, folders):
            return hint
    return ""


def _of_another_kind(spec: TaskSpec, there: Places, named: Source) -> str:
    """Says so where one of a source's folders holds a data set of another source."""
    for folder, source in itertools.product(there[named], there):
        # Names alone may fit several sources.
        if source is not named and _holds(spec, source, folder, opened=True):
            return _instead(source, folder)
    return ""


def _instead(source: Source, folder: pathlib.Path) -> str:
    return f"it is in {f'{source.name}:{folder}'!r}, which is to be given instead"


def _holds(spec: TaskSpec, source: Source, folder: pathlib.Path, *, opened: bool = False) -> bool:
    """Whether a folder holds a data set, by names or by opening it."""
    try:
        path = source.find(spec, [folder])
        if path is not None and opened:
            source.open(spec, path)
    except UserError:
        return False
    return path is not None


def _inner_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder, unless there are too many to look into."""
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return sorted(filter(pathlib.Path.is_dir, found)) if len(found) <= _MOST_INNER else []
    except OSError:
        return []


def availability(spec: TaskSpec, dirs: Iterable[str] = ()) -> str | None:
    """Whether a task can be loaded; reads descriptions of data sets, but no image.

    Args:
      spec: from `stream`.
      dirs: as of `find_set`.

    Returns:
      None, or one line that says why not.

    Raises:
      UserError: a folder is of no known kind, or does not exist.
    """
    dirs = tuple(dirs)
    check_dirs(dirs)
    try:
        open_set(spec, dirs)
    except UserError as error:
        return str(error)
    return None


def load(
    spec: TaskSpec,
    image_size: int = 64,
    dirs: Iterable[str] = (),
    *,
    max_corrupt: int = 0,
    on_prepare: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    """Reads a task: from the cache of decoded images, or through it.

    Args:
      spec: from `stream`.
      image_size: S; the short side is resized to it and the middle is cut out.
      dirs: as of `find_set`.
      max_corrupt: how many examples of a split may be left out because they cannot be read.
      on_prepare: called with a synthetic task's name before it is made, which takes seconds.
      progress: called with the examples done and those of the split, while a split is decoded.

    Returns:
      The task with all four splits, uint8 [N, S, S, 3]; those of large splits are memory-mapped.

    Raises:
      UserError: the task is not available (see `availability`), or its data is damaged.
    """
    if image_size < 1:
        raise UserError(f"image_size {image_size!r} is not a size in pixels; expected 1 or more")
    try:
        dataset = open_set(spec, dirs)
    except UserError as error:
        raise UserError(f"task {spec.name!r} is not available: {error}") from error
    if dataset.make is not None:
        dataset.make(on_prepare)
    return _read(spec, dataset, image_size, max_corrupt, progress)


def _read(
    spec: TaskSpec,
    dataset: DataSet,
    image_size: int,
    max_corrupt: int,
    progress: Callable[[int, int], None] | None,
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
    found = _duplicates.notes(
        {name: part.contents for name, part in loaded.items()},
        {name: part.split.labels for name, part in loaded.items()},
        dataset.num_classes,
    )
    return Task(
        dataclasses.replace(spec, kind=dataset.kind),
        dataset.num_classes,
        {name: part.split for name, part in loaded.items()},
        fingerprint(dataset.num_classes, {name: part.fingerprint for name, part in loaded.items()}),
        tuple(line for part in loaded.values() for line in part.corrupt),
        (*dataset.notes, *found),
        dataset.passed_over,
    )


def _looked(there: Places) -> str:
    folders = [folder for source, found in there.items() for folder in found if source.needs_dirs]
    if not folders:
        return "any folder: none was given"
    return (
        repr(str(folders[0])) if len(folders) == 1 else f"any of the {len(folders)} folders given"
    )
