"""Image folders and zip archives: NAME/SPLIT/CLASS/file, or NAME.zip with that in it."""

import builtins
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ctl_jax.data import duplicates
from ctl_jax.data.dataset import DataSet, Example, Places, Records
from ctl_jax.data.names import printable
from ctl_jax.data.formats import identity, layout, leftovers, zips
from ctl_jax.data.formats.classes import listed
from ctl_jax.data.formats.cut import split_of
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError


def find(spec: TaskSpec, places: Places) -> pathlib.Path | None:
    """NAME/ or else NAME.zip in the first of `folder_dirs` that has it, or is NAME/ itself.

    Upper or lower case does not matter where no name fits exactly.

    Raises:
      UserError: one of `folder_dirs` does not exist, or has several that differ in case only.
    """
    name = spec.dataset.replace("/", "_")
    for data_dir in places.existing("folder_dirs"):
        if (data_dir / name).is_dir():
            return data_dir / name
        if (data_dir / f"{name}.zip").is_file():
            return data_dir / f"{name}.zip"
        if (other := _in_other_case(data_dir, name)) is not None:
            return other
        if data_dir.absolute().name.casefold() == name.casefold() and has_splits(data_dir):
            return data_dir
    return None


def has_splits(folder: pathlib.Path) -> bool:
    """Whether a folder holds a split, so that it is a data set's own."""
    try:
        return any(split_of(name) and (folder / name).is_dir() for name in os.listdir(folder))
    except OSError:
        return False


def _in_other_case(data_dir: pathlib.Path, name: str) -> pathlib.Path | None:
    try:
        there = os.listdir(data_dir)
    except OSError as error:
        raise UserError(f"{str(data_dir)!r} cannot be read: {error.strerror}") from error
    found = {
        other
        for other in there
        if (other.casefold() == name.casefold() and (data_dir / other).is_dir())
        or (other.casefold() == f"{name}.zip".casefold() and (data_dir / other).is_file())
    }
    if len(found) > 1:
        raise UserError(f"{str(data_dir)!r} has {listed(found)}; expected one of them as {name!r}")
    return data_dir / found.pop() if found else None


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
    if path.is_dir():
        names, inner = _walk(path)
        plan = layout.arrange(str(path), names, inner)
        return _data_set(
            "folder",
            path,
            plan,
            {
                split: FolderRecords(path, [names[i] for i in chosen], plan.labels[chosen])
                for split, chosen in plan.splits.items()
            },
        )
    entries = zips.index(path)
    plan = layout.arrange(str(path), entries.names, entries.folders)
    return _data_set(
        "zip",
        path,
        plan,
        {
            split: ZipRecords(entries.take(chosen), plan.labels[chosen])
            for split, chosen in plan.splits.items()
        },
    )


def _data_set(
    origin: str, path: pathlib.Path, plan: layout.Layout, splits: Mapping[str, Records]
) -> DataSet:
    names = tuple(map(printable, plan.class_names))
    return DataSet(
        origin,
        str(path),
        len(names),
        names,
        "single_label",
        splits,
        notes=plan.notes,
        passed_over=plan.passed_over,
    )


def contents(dataset: DataSet) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """What tells which images of a folder or archive are the same, without decoding any.

    Few are read: see `duplicates.number_files`; of an archive, those of equal size and CRC-32,
    which is weak for PNG files as they end with a CRC-32 of their own.

    Returns:
      For each split a number for each example's bytes, int64 [N], and its label; None for other
      sources.

    Raises:
      UserError: a file cannot be read.
    """
    splits = dataset.splits
    ends = np.cumsum([len(records) for records in splits.values()])
    paths: list[str] = []
    tables: list[np.ndarray] = []
    for records in splits.values():
        if isinstance(records, FolderRecords):
            paths += records.paths()
        elif isinstance(records, ZipRecords):
            tables.append(records.checksums())
        else:
            return None

    def digests(places: Sequence[int]) -> Iterator[bytes]:
        for place in places:
            split = int(np.searchsorted(ends, place, side="right"))
            records = list(splits.values())[split]
            inner = place - int(ends[split]) + len(records)
            yield duplicates.digest(records.read(inner, inner + 1)[0].content)

    if paths:
        numbers = duplicates.number_files(paths)
    else:
        numbers = duplicates.number(np.concatenate(tables), digests)
    return {
        split: (found, records.labels)
        for (split, records), found in zip(
            splits.items(), np.split(numbers, ends[:-1]), strict=True
        )
        if isinstance(records, FolderRecords | ZipRecords)
    }


class FolderRecords:
    """Image files with their classes, `labels`."""

    def __init__(self, folder: pathlib.Path, names: Sequence[str], labels: np.ndarray) -> None:
        self._folder = str(folder)
        self._names = tuple(names)
        self.labels = labels

    def __len__(self) -> int:
        return len(self._names)

    def read(self, start: int, stop: int) -> list[Example]:
        """Examples `start` to `stop` (exclusive).

        Raises:
          UserError: a file cannot be read.
        """
        return [self._example(place) for place in range(len(self))[start:stop]]

    def paths(self) -> list[str]:
        """Where the files lie, in order."""
        return [os.path.join(self._folder, name) for name in self._names]

    def fingerprint(self) -> str:
        """SHA-256 of the files' paths, sizes and times, and of their labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.labels, "<i4").tobytes())
        for path in self.paths():
            digest.update(identity.of_file(path))
        return digest.hexdigest()

    def _example(self, place: int) -> Example:
        path = os.path.join(self._folder, self._names[place])
        try:
            with builtins.open(path, "rb") as file:
                return Example(file.read(), int(self.labels[place]), repr(path))
        except OSError as error:
            raise UserError(f"{path!r} cannot be read: {error.strerror}") from error


class ZipRecords:
    """Entries of an archive with their classes, `labels`."""

    def __init__(self, entries: zips.Entries, labels: np.ndarray) -> None:
        self._entries = entries
        self.labels = labels

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
            Example(content, int(self.labels[place]), self._entries.where(place))
            for place, content in zip(places, contents, strict=True)
        ]

    def checksums(self) -> np.ndarray:
        """CRC-32 and size of the entries, int64 [N]."""
        table = self._entries.table
        return (table["crc"].astype(np.int64) << 31) | table["size"]

    def fingerprint(self) -> str:
        """SHA-256 of the entries' names, sizes and checksums, and of their labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.labels, "<i4").tobytes())
        digest.update(self._entries.table["size"].tobytes())
        digest.update(self._entries.table["crc"].tobytes())
        digest.update("\n".join(self._entries.names).encode(errors="surrogateescape"))
        return digest.hexdigest()


def _walk(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Paths of all files in a folder, relative to it, and those of folders; links are followed.

    Raises:
      UserError: a folder cannot be read, is there twice by a link, or holds one to what encloses
        it. Links among what is passed over are not followed.
    """
    names: list[str] = []
    folders: list[str] = []
    seen: dict[tuple[int, int], str] = {}
    waiting: list[tuple[str, frozenset[tuple[int, int]], bool]] = [("", frozenset(), False)]
    while waiting:
        inner, above, passed_over = waiting.pop()
        outer = os.path.join(folder, inner)
        try:
            facts = os.stat(outer)
            here = (facts.st_dev, facts.st_ino)
            if here in above:
                raise UserError(f"{outer!r} is a link to a folder that it lies in")
            if not passed_over and seen.setdefault(here, outer) != outer:
                raise UserError(f"{outer!r} and {seen[here]!r} are one folder; expected it once")
            with os.scandir(outer) as found:
                for entry in found:
                    name = inner + entry.name
                    below = passed_over or leftovers.of_folder(entry.name) is not None
                    if _is(entry.is_dir) and not (below and entry.is_symlink()):
                        waiting.append((f"{name}/", above | {here}, below))
                        folders.append(name)
                    elif below or leftovers.of_file(entry.name) or _is(entry.is_file):
                        names.append(name)
                    elif entry.is_symlink():
                        raise UserError(f"{entry.path!r} is a link to nothing")
        except OSError as error:
            if not passed_over:
                raise UserError(f"{outer!r} cannot be read: {error.strerror}") from error
    return names, folders


def _is(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:  # A link to itself.
        return False
