"""The same picture several times: in two splits, twice in one, or under two classes."""

import collections
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures

import numpy as np

from ctl_jax.data.formats.file_state import file_size
from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError

# Digests of the examples at some places.
Look = Callable[[Sequence[int]], Iterable[bytes]]

# Reading small files waits for the disk or the network.
_THREADS = 16
_BLOCK = 64
# Of files of equal size the ends are compared first; most have differed there by then.
_TAIL = 4096


def notes(
    contents: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], num_classes: int
) -> tuple[str, ...]:
    """What splits have in common, and which classes they do not.

    Examples that are in train and in another split count for both; nothing is left out, as the
    benchmark's own splits have some.

    Args:
      contents: for each split a number for every example, [N]: the same for the same bytes.
      labels: int [N], or of 0 and 1 [N, num_classes].
      num_classes: how many there are.

    Returns:
      A line for each thing that was found; none where the splits are as they should be.
    """
    return (*_repeated(contents, labels), *_unseen(labels, num_classes))


def number(keys: np.ndarray, *looks: Look) -> np.ndarray:
    """A number for each example, the same for those of the same bytes.

    Args:
      keys: [N], what is known of each without reading it, such as its size.
      looks: closer and closer ones, at those that are equal in all before.

    Returns:
      int64 [N]
    """
    _, numbers = np.unique(keys, return_inverse=True)
    for look in looks:
        again = np.flatnonzero(np.bincount(numbers)[numbers] > 1)
        seen: dict[tuple[int, bytes], int] = {}
        for place, digest in zip(again.tolist(), look(again.tolist()), strict=True):
            numbers[place] = len(keys) + seen.setdefault((numbers[place], digest), len(seen))
        _, numbers = np.unique(numbers, return_inverse=True)
    return np.asarray(numbers, np.int64)


def number_files(paths: Sequence[str]) -> np.ndarray:
    """`number` of files. Of those of equal size the ends are read, and where they are equal, all.

    Raises:
      UserError: a file cannot be read.
    """
    sizes = np.asarray([file_size(path) for path in paths], np.int64)
    with futures.ThreadPoolExecutor(_THREADS, "compare") as pool:

        def look(places: Sequence[int], last: int) -> Iterable[bytes]:
            blocks = [
                [paths[place] for place in places[start : start + _BLOCK]]
                for start in range(0, len(places), _BLOCK)
            ]
            found = pool.map(lambda block: [_digest(path, last) for path in block], blocks)
            return itertools.chain.from_iterable(found)

        return number(sizes, lambda places: look(places, _TAIL), lambda places: look(places, 0))


def digest(content: bytes) -> bytes:
    """A hash by which contents are compared."""
    return hashlib.blake2b(content, digest_size=16).digest()


def _digest(path: str, last: int) -> bytes:
    """The hash of a file, or of its last bytes, so many; 0 for all."""
    try:
        with open(path, "rb", buffering=0) as file:
            if last:
                file.seek(max(os.fstat(file.fileno()).st_size - last, 0))
            return digest(file.read())
    except OSError as error:
        raise UserError(f"{path!r} cannot be read: {error.strerror}") from error


def _repeated(contents: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> list[str]:
    every = np.concatenate([contents[split] for split in SPLITS])
    _, inverse, counts = np.unique(every, return_inverse=True, return_counts=True)
    places = np.flatnonzero(counts[inverse] > 1)
    if not places.size:
        return []
    ends = np.cumsum([len(contents[split]) for split in SPLITS])
    owners = np.searchsorted(ends, places, side="right")
    whole = np.concatenate([labels[split] for split in SPLITS])[places]
    # Of each picture that comes more than once: how often in each split, and with which labels.
    times: dict[int, np.ndarray] = collections.defaultdict(lambda: np.zeros(len(SPLITS), int))
    kinds: dict[int, set[bytes]] = collections.defaultdict(set)
    for picture, owner, label in zip(inverse[places].tolist(), owners.tolist(), whole, strict=True):
        times[picture][owner] += 1
        kinds[picture].add(label.tobytes())
    table = np.stack(list(times.values()))
    lines = []
    for place, split in enumerate(SPLITS[:-1]):
        shared = table[table[:, place] > 0, place + 1 :].sum(axis=0)
        found = [
            f"{count:,} of {len(contents[other]):,} {other}"
            for other, count in zip(SPLITS[place + 1 :], shared.tolist(), strict=True)
            if count
        ]
        if found:
            lines.append(f"the same files are in two splits: {', '.join(found)} are in {split} too")
    surplus = (table - 1).clip(0).sum(axis=0).tolist()
    found = [f"{count:,} of {split}" for split, count in zip(SPLITS, surplus, strict=True) if count]
    if found:
        lines.append(f"files repeat others of their split: {', '.join(found)}")
    if conflicts := sum(len(labels) > 1 for labels in kinds.values()):
        lines.append(f"files that come with several labels: {conflicts:,}")
    return lines


def _unseen(labels: Mapping[str, np.ndarray], num_classes: int) -> list[str]:
    """Classes that train has no example of, though another split has."""
    counts = {split: _counts(found, num_classes) for split, found in labels.items()}
    unseen = counts["train"] == 0
    lines = []
    for split in SPLITS[1:]:
        classes = np.count_nonzero(unseen & (counts[split] > 0))
        if classes:
            lines.append(
                f"train has no example of {classes:,} classes that {split} has, in "
                f"{counts[split][unseen].sum():,} of {len(labels[split]):,} examples"
            )
    return lines


def _counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    if labels.ndim == 2:
        return np.asarray(labels.sum(axis=0, dtype=np.int64))
    return np.bincount(labels, minlength=num_classes)
