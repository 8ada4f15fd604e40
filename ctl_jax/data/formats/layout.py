"""SPLIT/CLASS/file: which files of a folder or archive are examples, of which split and class."""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ctl_jax.data.formats import classes, cut, doubts
from ctl_jax.data.formats.search import Search
from ctl_jax.errors import UserError

_Parts = tuple[str, ...]
# Which examples of train go where depends on this and on their names alone.
_SEED = "0"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Attributes:
    class_names: sorted; a label is a place in it.
    splits: for each split, int64 [N] places in the list of files, sorted by name.
    labels: int32, the label of every file of that list; -1 where it is no example.
    passed_over: how many files are no examples, by their kind (see `leftovers`).
    notes: a line for each thing that was put right, or that may not be what was meant.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, np.ndarray]
    labels: np.ndarray
    passed_over: Mapping[str, int]
    notes: tuple[str, ...]

    def of_examples(self, names: Sequence[str]) -> tuple[list[int], "Layout"]:
        """The places of the examples in the order of their names, and the layout of these alone."""
        places = sorted(np.flatnonzero(self.labels >= 0).tolist(), key=names.__getitem__)
        new = np.full(len(names), -1, np.int64)
        new[places] = np.arange(len(places))
        splits = {split: new[chosen] for split, chosen in self.splits.items()}
        return places, dataclasses.replace(self, labels=self.labels[places], splits=splits)


def arrange(path: str, names: Sequence[str], folders: Collection[str] = ()) -> Layout:
    """Finds splits and classes, and cuts the splits that are missing.

    Files may be deeper than SPLIT/CLASS, and one folder, or several nested ones, may enclose all
    split folders. Split folders are train (or training), dev (validation, val, valid), dev_test
    (dev-test), test (testing) and train_and_dev (trainval), in upper or lower case; train_and_dev
    stands for a train that has yet to be cut, or is left out where train and dev are there. A
    folder between a split and all of its classes is skipped where its name says that it is no
    class: that of the split or the set again, "images", "data" and the like. Class names are united
    by `classes.unite`. The rules for missing splits:

        train, test                  train is cut 70 / 15 / 15 into train, dev and dev_test
        train, validation, test      train is cut 80 / 20 into train and dev; the other is dev_test
        train, dev_test, test        train is cut 80 / 20 into train and dev
        train, validation            train is cut 90 / 5 / 5; the other is test
        train                        is cut 56 / 12 / 12 / 20

    The order that is cut is that of a hash of each file's class and name: random, not stratified,
    the same on every machine, whether from a folder or an archive.

    Args:
      path: the folder or archive, for error messages; its name may be that of a folder to skip.
      names: paths of all files in it, with "/".
      folders: paths of folders in it, of which those without an image are mentioned.

    Raises:
      UserError: no split folders or unknown ones, images outside of class folders, fewer than two
        classes, classes that train lacks, names that may be a split's or a class's, a combination
        of splits that no rule covers, or too few images to cut.
    """
    found = Search(path, names)
    there = cut.given(path, found.groups())
    inner, plan = _plan(path, names, folders, found, there)

    def draw(index: int) -> bytes:
        file = names[index].rpartition("/")[2]
        text = "/".join([_SEED, *inner[index], file])
        return hashlib.sha256(text.encode(errors="surrogateescape")).digest()

    return dataclasses.replace(plan, splits=cut.cut(path, there, draw))


def of_user(path: str, names: Sequence[str], folders: Collection[str] = ()) -> Layout:
    """Finds splits and classes of a user's own set, as they are given.

    As `arrange`, but the split folders may be missing altogether; test may be called "eval" or
    "evaluation" as well, which are dev where there is a test; and pictures in no class folder are
    passed over, as long as they are fewer than the others.

    Returns:
      A layout of the splits that are there, at least of train.

    Raises:
      UserError: as for `arrange`.
    """
    found = Search(path, names, of_user=True)
    there = cut.with_train(path, found.groups())
    return _plan(path, names, folders, found, there)[1]


def _plan(
    path: str,
    names: Sequence[str],
    folders: Collection[str],
    found: Search,
    there: dict[str, list[int]],
) -> tuple[dict[int, _Parts], Layout]:
    """Of each example the folders from its class on; and the layout, its splits as they are."""
    inner = found.unwrap(there)
    raw = {index: parts[0] for index, parts in inner.items()}
    by_top: dict[str, set[str]] = {found.tops[split]: set() for split in there}
    for split, group in there.items():
        by_top[found.tops[split]].update(raw[index] for index in group)
    found.check_class_folders(there, inner)
    doubts.check(path, set(raw.values()))
    united, notes = classes.unite(path, by_top, found.tops["train"])
    class_names = tuple(sorted(set(united.values())))
    if len(class_names) < 2:
        raise UserError(
            f"{path!r} has one class folder, {class_names[0]!r}; expected {found.expected} with "
            "two classes or more, and nothing between SPLIT and CLASS"
        )
    places = {name: label for label, name in enumerate(class_names)}
    labels = np.full(len(names), -1, np.int32)
    for index, name in raw.items():
        labels[index] = places[united[name]]
    splits = {split: np.asarray(group, np.int64) for split, group in there.items()}
    notes = [*found.notes, *notes, *found.empty(folders), *doubts.notes(inner, names)]
    return inner, Layout(class_names, splits, labels, dict(found.passed_over), tuple(notes))
