"""Image folders and zip archives: NAME/SPLIT/CLASS/file, or NAME.zip with that in it."""

import builtins
import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ctl_jax.data.dataset import DataSet, Example, Places, Records
from ctl_jax.data.sources import identity, layout, zips
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError


def find(spec: TaskSpec, places: Places) -> pathlib.Path | None:
    """NAME/ or else NAME.zip in the first of `folder_dirs` that has it.

    Raises:
      UserError: one of `folder_dirs` does not exist.
    """
    name = spec.dataset.replace("/", "_")
    for data_dir in places.existing("folder_dirs"):
        if (data_dir / name).is_dir():
            return data_dir / name
        if (data_dir / f"{name}.zip").is_file():
            return data_dir / f"{name}.zip"
    return None


def open(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Lists the images of a folder or archive; reads none. See `layout.arrange` for the splits.

    Args:
      spec: of kind "single_label".
      path: from `find`.

    Returns:
      The data set with all four splits; classes are in the order of their sorted names.

    Raises:
      UserError: not such a folder or archive, or an archive with entries that are not safe.
    """
    if spec.kind != "single_label":
        raise UserError(
            f"{str(path)!r}: {spec.title} has several labels an image, which folders cannot "
            "express; expected a data set of TFDS or dm_nevis"
        )
    splits: dict[str, Records]
    if path.is_dir():
        origin, names = "folder", _walk(path)
        plan = layout.arrange(str(path), names)
        splits = {
            split: FolderRecords(path, [names[i] for i in chosen], plan.labels[chosen])
            for split, chosen in plan.splits.items()
        }
    else:
        origin, entries = "zip", zips.index(path)
        plan = layout.arrange(str(path), entries.names)
        splits = {
            split: ZipRecords(entries.take(chosen), plan.labels[chosen])
            for split, chosen in plan.splits.items()
        }
    return DataSet(origin, str(path), len(plan.class_names), plan.class_names, spec.kind, splits)


class FolderRecords:
    """Image files with their classes."""

    def __init__(self, folder: pathlib.Path, names: Sequence[str], labels: np.ndarray) -> None:
        self._folder = str(folder)
        self._names = tuple(names)
        self._labels = labels

    def __len__(self) -> int:
        return len(self._names)

    def read(self, start: int, stop: int) -> list[Example]:
        """Examples `start` to `stop` (exclusive).

        Raises:
          UserError: a file cannot be read.
        """
        return [self._example(place) for place in range(len(self))[start:stop]]

    def fingerprint(self) -> str:
        """SHA-256 of the files' paths, sizes and times, and of their labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self._labels, "<i4").tobytes())
        for name in self._names:
            digest.update(identity.of_file(os.path.join(self._folder, name)))
        return digest.hexdigest()

    def _example(self, place: int) -> Example:
        path = os.path.join(self._folder, self._names[place])
        try:
            with builtins.open(path, "rb") as file:
                return Example(file.read(), int(self._labels[place]), repr(path))
        except OSError as error:
            raise UserError(f"{path!r} cannot be read: {error.strerror}") from error


class ZipRecords:
    """Entries of an archive with their classes."""

    def __init__(self, entries: zips.Entries, labels: np.ndarray) -> None:
        self._entries = entries
        self._labels = labels

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, start: int, stop: int) -> list[Example]:
        """Examples `start` to `stop` (exclusive).

        Raises:
          UserError: an entry is damaged.
        """
        places = range(len(self))[start:stop]
        contents = zips.read(self._entries, places)
        return [
            Example(content, int(self._labels[place]), self._entries.where(place))
            for place, content in zip(places, contents, strict=True)
        ]

    def fingerprint(self) -> str:
        """SHA-256 of the entries' names, sizes and checksums, and of their labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self._labels, "<i4").tobytes())
        digest.update(self._entries.table["size"].tobytes())
        digest.update(self._entries.table["crc"].tobytes())
        digest.update("\n".join(self._entries.names).encode(errors="surrogateescape"))
        return digest.hexdigest()


def _walk(folder: pathlib.Path) -> list[str]:
    """Paths of all files in a folder, relative to it; links are followed.

    Raises:
      UserError: a folder cannot be read, or holds a link to what encloses it.
    """
    names: list[str] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        inner, above = waiting.pop()
        outer = os.path.join(folder, inner)
        try:
            facts = os.stat(outer)
            here = (facts.st_dev, facts.st_ino)
            if here in above:
                raise UserError(f"{outer!r} is a link to a folder that it lies in")
            with os.scandir(outer) as found:
                for entry in found:
                    if entry.is_dir():
                        waiting.append((f"{inner}{entry.name}/", above | {here}))
                    elif entry.is_file():
                        names.append(inner + entry.name)
                    elif entry.is_symlink():
                        raise UserError(f"{entry.path!r} is a link to nothing")
        except OSError as error:
            raise UserError(f"{outer!r} cannot be read: {error.strerror}") from error
    return names
