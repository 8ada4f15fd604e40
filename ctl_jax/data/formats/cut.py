"""Splits of a folder or archive: those it has, and cutting those that it lacks."""

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError

# Names of split folders, in lower case, and the split they hold.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "validation": "dev",
    "val": "dev",
    "valid": "dev",
    "dev_test": "dev_test",
    "dev-test": "dev_test",
    "test": "test",
    "testing": "test",
    "train_and_dev": "train_and_dev",
    "trainval": "train_and_dev",
}
# Others that users' own sets have.
_EVALUATION = ("eval", "evaluation")
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


def split_of(folder: str) -> str | None:
    """The split that a folder of this name holds, in upper or lower case; None for any other."""
    return SPLIT_NAMES.get(folder.casefold())


def user_names(folders: Iterable[Collection[str]]) -> dict[str, str]:
    """`SPLIT_NAMES` of a user's own set: what is for evaluation is test, or dev beside a test.

    Args:
      folders: the parts of the paths of folders.
    """
    there = {part.casefold() for parts in set(folders) for part in parts}
    meant = "dev" if there & {"test", "testing"} else "test"
    return SPLIT_NAMES | dict.fromkeys(_EVALUATION, meant)


def with_train(path: str, groups: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The splits of a user's set; train_and_dev is train where there is no other.

    Args:
      path: the data set, for error messages.
      groups: the files of each split folder.

    Raises:
      UserError: there is no train.
    """
    there = dict(groups)
    if (both := there.pop("train_and_dev", None)) is not None:
        there.setdefault("train", both)
    if "train" not in there:
        raise UserError(
            f"{path!r} has the splits {', '.join(sorted(groups))}; expected train, or no splits"
        )
    return there


def given(path: str, groups: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The splits that are there; train_and_dev is train, or left out beside train and dev.

    Args:
      path: the data set, for error messages.
      groups: the files of each split folder.

    Raises:
      UserError: a combination that no rule covers.
    """
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
    if frozenset(there) not in _RULES:
        raise UserError(
            f"{path!r} has the splits {', '.join(sorted(groups))}; expected train at least, "
            "and test where there is dev_test"
        )
    return there


def cut(
    path: str, there: Mapping[str, list[int]], draw: Callable[[int], bytes]
) -> dict[str, np.ndarray]:
    """Makes the splits of a task of those that are there.

    Args:
      path: the data set, for error messages.
      there: from `given`.
      draw: a random number of each file, which decides where it goes.

    Returns:
      For each split int64 [N], in the order of `there`.

    Raises:
      UserError: there are too few images in train.
    """
    fractions, kept = _RULES[frozenset(there)]
    parts = {new: there[old] for old, new in kept.items()}
    pool = there["train"]
    # Sorted by name again within each part, which is how they are on disk.
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
