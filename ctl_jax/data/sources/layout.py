"""SPLIT/CLASS/file: which files of a folder or archive are examples, of which split and class."""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError

# Names of split folders, in lower case, and the split they hold.
_SPLIT_NAMES = {
    "train": "train",
    "dev": "dev",
    "validation": "dev",
    "val": "dev",
    "dev_test": "dev_test",
    "dev-test": "dev_test",
    "test": "test",
    "train_and_dev": "train_and_dev",
}
# What missing splits are cut from, by the splits that are there: the fractions of train that
# become its parts, and what the others become. These are the benchmark's own rules.
_RULES: dict[frozenset[str], tuple[Mapping[str, float], Mapping[str, str]]] = {
    frozenset(SPLITS): ({"train": 1}, {"dev": "dev", "dev_test": "dev_test", "test": "test"}),
    frozenset({"train", "dev_test", "test"}): (
        {"train": 0.8, "dev": 0.2},
        {"dev_test": "dev_test", "test": "test"},
    ),
    frozenset({"train", "dev", "test"}): (
        {"train": 0.8, "dev": 0.2},
        {"dev": "dev_test", "test": "test"},
    ),
    frozenset({"train", "test"}): (
        {"train": 0.7, "dev": 0.15, "dev_test": 0.15},
        {"test": "test"},
    ),
    # As imagenet2012.
    frozenset({"train", "dev"}): ({"train": 0.9, "dev": 0.05, "dev_test": 0.05}, {"dev": "test"}),
    frozenset({"train"}): ({"train": 0.56, "dev": 0.12, "dev_test": 0.12, "test": 0.2}, {}),
}
# Which examples of train go where hangs on this and on their names alone.
_SEED = "0"

_JUNK_NAMES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
# Notes that lie beside images. Whatever else lies in a class folder is taken for an image.
_NOTE_SUFFIXES = frozenset(
    [
        ".txt",
        ".md",
        ".rst",
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".xml",
        ".yaml",
        ".yml",
        ".html",
        ".htm",
        ".pdf",
        ".doc",
        ".docx",
        ".xls",
        ".xlsx",
        ".mat",
        ".db",
        ".ini",
        ".log",
        ".py",
        ".sh",
        ".zip",
        ".tar",
        ".gz",
        ".md5",
        ".sha256",
    ]
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Attributes:
    class_names: sorted; a label is a place in it.
    splits: for each split of a task, int64 [N] places in the list of files, sorted by name.
    labels: int32, the label of every file of that list; -1 where it is no example.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, np.ndarray]
    labels: np.ndarray


def arrange(path: str, names: Sequence[str]) -> Layout:
    """Finds splits and classes, and cuts the splits that are missing.

    Files may lie deeper than SPLIT/CLASS, and one folder, or several nested ones, may enclose all
    split folders. Split folders are train, dev (or validation, val), dev_test (dev-test), test and
    train_and_dev, in upper or lower case; train_and_dev stands for a train that has yet to be cut,
    or is left out where train and dev are there. The rules for missing splits:

        train, test                  train is cut 70 / 15 / 15 into train, dev and dev_test
        train, validation, test      train is cut 80 / 20 into train and dev; the other is dev_test
        train, dev_test, test        train is cut 80 / 20 into train and dev
        train, validation            train is cut 90 / 5 / 5; the other is test
        train                        is cut 56 / 12 / 12 / 20

    The order that is cut is that of a hash of each file's class and name: random, not stratified,
    the same on every machine, whether from a folder or an archive.

    Args:
      path: the folder or archive, for error messages.
      names: paths of all files in it, with "/".

    Raises:
      UserError: no split folders or unknown ones, images outside of class folders, fewer than two
        classes, a combination of splits that no rule covers, or too few images to cut.
    """
    folders, examples = _examples(names)
    skip = _enclosing(set(folders.values()))
    groups, classes = _group(path, names, folders, skip, examples)
    class_names = tuple(sorted(set(classes.values())))
    if len(class_names) < 2:
        raise UserError(
            f"{path!r} has one class folder, {class_names[0]!r}; expected SPLIT/CLASS/file with "
            "two classes or more"
        )
    places = {name: label for label, name in enumerate(class_names)}
    labels = np.full(len(names), -1, np.int32)
    for index, class_name in classes.items():
        labels[index] = places[class_name]

    def draw(index: int) -> bytes:
        folder, _, file = names[index].rpartition("/")
        inner = "/".join([_SEED, *folders[folder][skip + 1 :], file])
        return hashlib.sha256(inner.encode(errors="surrogateescape")).digest()

    return Layout(class_names, _cut(path, groups, draw), labels)


def _group(
    path: str,
    names: Sequence[str],
    folders: Mapping[str, tuple[str, ...]],
    skip: int,
    examples: Iterable[int],
) -> tuple[dict[str, list[int]], dict[int, str]]:
    """The files of each split that is there, and the class of every file."""
    groups: dict[str, list[int]] = collections.defaultdict(list)
    classes: dict[int, str] = {}
    split_folders: dict[str, str] = {}
    unknown: set[str] = set()
    for index in examples:
        parts = folders[_folder(names[index])]
        if len(parts) < skip:
            continue
        if len(parts) < skip + 2:
            _check_shallow(path, names[index])
            continue
        top, class_name = parts[skip : skip + 2]
        split = _SPLIT_NAMES.get(top.casefold())
        if split is None:
            unknown.add(top)
            continue
        if split_folders.setdefault(split, top) != top:
            raise UserError(
                f"{path!r} has folders {split_folders[split]!r} and {top!r} for the same split; "
                "expected one of them"
            )
        groups[split].append(index)
        classes[index] = class_name
    _check_folders(path, groups, unknown)
    return groups, classes


def _examples(names: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], list[int]]:
    """The parts of all folders but hidden ones and junk, and which files in them may be examples.

    The files are in the order of their names.
    """
    folders: dict[str, tuple[str, ...] | None] = {}
    examples: list[int] = []
    for index in sorted(range(len(names)), key=names.__getitem__):
        folder, _, file = names[index].rpartition("/")
        if folder not in folders:
            parts = tuple(part for part in folder.split("/") if part)
            junk = any(part.startswith(".") or part == "__MACOSX" for part in parts)
            folders[folder] = None if junk else parts
        if folders[folder] is None or file.startswith(".") or file.casefold() in _JUNK_NAMES:
            continue
        if os.path.splitext(file)[1].casefold() not in _NOTE_SUFFIXES:
            examples.append(index)
    used = {_folder(names[index]) for index in examples}
    return {name: parts for name, parts in folders.items() if parts is not None and name in used}, (
        examples
    )


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _enclosing(folders: Collection[tuple[str, ...]]) -> int:
    """How many folders enclose all others that have something in them, down to the splits."""
    skip = 0
    while True:
        tops = {parts[skip] for parts in folders if len(parts) > skip}
        if len(tops) != 1 or next(iter(tops)).casefold() in _SPLIT_NAMES:
            return skip
        skip += 1


def _check_shallow(path: str, name: str) -> None:
    """A file outside of class folders may be a note without a suffix, but no image."""
    from PIL import Image

    suffix = os.path.splitext(name)[1].casefold()
    if suffix in Image.registered_extensions():
        raise UserError(
            f"{path!r} has the image {name!r} in no class folder; expected SPLIT/CLASS/file"
        )


def _check_folders(path: str, found: Iterable[str], unknown: Iterable[str]) -> None:
    names = ", ".join(map(repr, _SPLIT_NAMES))
    if unknown := sorted(unknown):
        some = ", ".join(map(repr, unknown[:5])) + (" ..." if len(unknown) > 5 else "")
        raise UserError(
            f"{path!r} has folders {some} beside or instead of splits; "
            f"expected SPLIT/CLASS/file with SPLIT one of {names}"
        )
    if not found:
        raise UserError(
            f"{path!r} has no image; expected SPLIT/CLASS/file with SPLIT one of {names}"
        )


def _cut(
    path: str, groups: Mapping[str, list[int]], draw: Callable[[int], bytes]
) -> dict[str, np.ndarray]:
    """Makes the splits of a task of those that are there."""
    there = dict(groups)
    if "train_and_dev" in there:
        both = there.pop("train_and_dev")
        if ("train" in there) != ("dev" in there):
            alone = "train" if "train" in there else "dev"
            raise UserError(
                f"{path!r} has train_and_dev and {alone}; expected train and dev, "
                "or train_and_dev without them"
            )
        there.setdefault("train", both)
    rule = _RULES.get(frozenset(there))
    if rule is None:
        raise UserError(
            f"{path!r} has the splits {', '.join(sorted(groups))}; expected train at least, "
            "and test where there is dev_test"
        )
    fractions, given = rule
    parts = {new: there[old] for old, new in given.items()}
    pool = there["train"]
    # Sorted by name again within each part, which is how they lie on disk.
    rank = {index: place for place, index in enumerate(pool)}
    if len(fractions) > 1:
        pool = sorted(pool, key=draw)
    start = 0
    for number, (split, fraction) in enumerate(fractions.items(), 1):
        # Each fraction by itself, downwards, as for the sets of TFDS; the last has the rest.
        stop = len(pool) if number == len(fractions) else start + int(len(pool) * fraction)
        if stop == start:
            raise UserError(
                f"{path!r} has {len(pool)} images in train, too few to cut {split} from them"
            )
        parts[split] = sorted(pool[start:stop], key=rank.__getitem__)
        start = stop
    return {split: np.asarray(parts[split], np.int64) for split in SPLITS}
