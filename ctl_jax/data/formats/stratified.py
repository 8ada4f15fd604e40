"""Cutting the splits that a set lacks from train, class by class, and keeping copies together."""

from collections.abc import Mapping, Sequence

import numpy as np

from ctl_jax.errors import UserError

# Shares of what is cut from train: test first, of all; dev and dev_test of what is left.
TEST, DEV, DEV_TEST = 0.2, 0.15, 0.15
# An image that is in several given splits stays in the last of them.
_PRIORITY = ("test", "dev_test", "dev", "train")


def fractions(given: Sequence[str]) -> dict[str, float]:
    """What becomes of train, by the splits that are there: which are cut, and how much each gets.

    train, dev, dev_test, test   nothing is cut
    train, dev, test             dev_test has 15%
    train, test                  dev and dev_test have 15% each
    train, dev                   test has 20%, dev_test 12%
    train                        test has 20%, dev and dev_test have 12% each
    """
    rest = 1.0 if "test" in given else 1 - TEST
    shares = {} if "test" in given else {"test": TEST}
    for split, share in (("dev", DEV), ("dev_test", DEV_TEST)):
        if split not in given:
            shares[split] = rest * share
    return {"train": 1 - sum(shares.values()), **shares}


def without_copies(
    given: Mapping[str, np.ndarray], numbers: np.ndarray
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Leaves out of train what is in another split too, of dev what is in dev_test or test, ...

    Args:
      given: for each split the places of its images.
      numbers: int [places], the same for images of the same bytes.

    Returns:
      The splits without them, and a line for each that lost some.
    """
    kept: dict[str, np.ndarray] = {}
    notes = []
    for split in (split for split in _PRIORITY if split in given):
        places = given[split]
        lost = np.zeros(len(places), bool)
        for other, others in kept.items():
            same = np.isin(numbers[places], numbers[others]) & ~lost
            lost |= same
            if count := np.count_nonzero(same):
                notes.append(
                    f"left out of {split}, as the same files are in {other}: "
                    f"{count:,} of {len(places):,}"
                )
        kept[split] = places[~lost]
    return {split: kept[split] for split in given}, notes


def cut(
    path: str,
    pool: np.ndarray,
    shares: Mapping[str, float],
    strata: np.ndarray,
    rank: np.ndarray,
) -> dict[str, np.ndarray]:
    """Cuts a pool of images, so that each split has its share of each class.

    Of a class each split gets its share rounded down or up, so that the totals come out right;
    train gets one at least. Copies of an image stay together. Which images go where follows from
    `rank` alone: it is the same in any form and order of the same files.

    Args:
      path: the data set, for error messages.
      pool: places of the images.
      shares: of each split, from `fractions`.
      strata: int [places], the class of every image; classes are gone through in this order.
      rank: [places, K], from `encoded.rank`: equal for copies, and random.

    Returns:
      For each split its places, sorted.

    Raises:
      UserError: there are too few images.
    """
    if len(shares) == 1:
        return {"train": np.sort(pool)}
    _, first, unit_of = np.unique(rank[pool], axis=0, return_index=True, return_inverse=True)
    unit_of = unit_of.reshape(-1)
    # A picture that comes under several classes counts for the first of them.
    stratum = np.full(len(first), np.iinfo(np.int64).max, np.int64)
    np.minimum.at(stratum, unit_of, strata[pool])
    order = np.argsort(stratum, kind="stable")  # np.unique has sorted them by their rank
    _, sizes = np.unique(stratum, return_counts=True)
    counts = _apportion(sizes, np.asarray(list(shares.values())))
    _fill(path, counts, list(shares), len(pool))
    owner = np.empty(len(first), np.int64)
    owner[order] = np.repeat(np.tile(np.arange(len(shares)), len(sizes)), counts.reshape(-1))
    owner = owner[unit_of]
    return {split: np.sort(pool[owner == number]) for number, split in enumerate(shares)}


def _apportion(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How many of each class go into each split, int64 [classes, splits]; the first is train."""
    counts = np.floor(sizes[:, None] * shares + 1e-9).astype(np.int64)
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    wanted, had = np.zeros(len(shares)), np.zeros(len(shares), np.int64)
    for row, size in zip(counts, sizes.tolist(), strict=True):
        wanted += size * shares
        had += row
        # One more for the splits that lack most.
        left = size - int(row.sum())
        more = np.argsort(had - wanted, kind="stable")[:left]
        row[more] += 1
        had[more] += 1
    return counts


def _fill(path: str, counts: np.ndarray, splits: Sequence[str], images: int) -> None:
    """Gives a split that would be empty an image of the class that has most in train."""
    for number in np.flatnonzero(counts.sum(axis=0) == 0):
        largest = int(np.argmax(counts[:, 0]))
        if counts[largest, 0] < 2:
            one = "one image each" if (counts.sum(axis=1) == 1).all() else "too few of each"
            raise UserError(
                f"{path!r} has {images:,} images of {len(counts):,} classes, {one}; expected more "
                f"images of a class, to cut {', '.join(splits[1:])} from them"
            )
        counts[largest, 0] -= 1
        counts[largest, number] += 1


def strata(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """What images are cut by: their class, or the rarest of their labels, in the order of names.

    Args:
      labels: int [N], or of 0 and 1 [N, num_classes].
      class_names: whose order is that of other forms of the same set, too.

    Returns:
      int64 [N]; -1 for an image without any label.
    """
    position = np.empty(len(class_names), np.int64)
    position[sorted(range(len(class_names)), key=class_names.__getitem__)] = np.arange(
        len(class_names)
    )
    if labels.ndim == 1:
        return position[labels]
    totals = labels.sum(axis=0, dtype=np.int64)
    # Of two that are as rare the first by name.
    rarity = np.empty(len(totals), np.int64)
    rarity[np.lexsort((position, totals))] = np.arange(len(totals))
    rarest = np.where(labels > 0, rarity, len(totals)).argmin(axis=1)
    return np.where(labels.any(axis=1), position[rarest], -1)
