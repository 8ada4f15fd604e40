"""A user's own set: which images it has, of which classes and given splits; and its data set.

What forms of sets share: copies are kept out of other splits, missing splits are cut, and the
examples are read by their places.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ctl_jax.data._names import printable
from ctl_jax.data.dataset import DataSet, Example, Records
from ctl_jax.data.formats import encoded, stratified
from ctl_jax.data.formats.classes import listed
from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError

_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Listing:
    """Attributes:
    origin: the form of the set, as `DataSet.origin`.
    path: where it is.
    images: all of them.
    labels: int32 [N], or uint8 [N, num_classes] of 0 and 1; of an image in no split anything.
    class_names: in the order of the labels.
    splits: for each split that is given, int64 places among the images; train is one.
    notes: a line for each thing that was put right, or that may not be what was meant.
    passed_over: how many files are no examples, by their kind.
    """

    origin: str
    path: pathlib.Path
    images: encoded.Images
    labels: np.ndarray
    class_names: Sequence[str]
    splits: Mapping[str, np.ndarray]
    notes: Sequence[str] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def also(
        self, notes: Sequence[str] = (), passed_over: Mapping[str, int] = _NOTHING
    ) -> "Listing":
        """The same with more to say."""
        over = {**self.passed_over, **passed_over}
        return dataclasses.replace(self, notes=(*self.notes, *notes), passed_over=over)


def data_set(listing: Listing) -> DataSet:
    """The data set with all four splits; see `stratified` for how missing ones are cut.

    Raises:
      UserError: no train, a split without an image, fewer than two classes, one that train lacks,
        or too few images to cut.
    """
    path = str(listing.path)
    _check(listing)
    rank = encoded.rank(listing.images)
    _, numbers = np.unique(rank, axis=0, return_inverse=True)
    given, notes = stratified.without_copies(listing.splits, numbers.reshape(-1))
    for split, places in given.items():
        if not len(places):
            why = "no image" if not len(listing.splits[split]) else "none but copies of others"
            raise UserError(f"{path!r} has {why} in {split}; expected images")
    strata = stratified.strata(listing.labels, listing.class_names)
    shares = stratified.fractions(tuple(given))
    splits = {**given, **stratified.cut(path, given["train"], shares, strata, rank)}
    names = tuple(map(printable, listing.class_names))
    records: dict[str, Records] = {}
    for split in SPLITS:
        records[split] = ListedRecords(listing, splits[split], rank)
    if listing.labels.ndim == 1:
        _check_train(listing, splits)
    return DataSet(
        listing.origin,
        path,
        len(names),
        names,
        "single_label" if listing.labels.ndim == 1 else "multi_label",
        records,
        (*listing.notes, *notes, *_about_cut(shares, given)),
        listing.passed_over,
    )


def _check(listing: Listing) -> None:
    path = str(listing.path)
    if "train" not in listing.splits:
        there = ", ".join(sorted(listing.splits)) or "none"
        raise UserError(f"{path!r} has the splits {there}; expected train, or no splits at all")
    if not sum(map(len, listing.splits.values())):
        raise UserError(f"{path!r} has no image with a label; expected some")
    if len(listing.class_names) < 2 and listing.labels.ndim == 1:
        raise UserError(
            f"{path!r} has one class, {listed(listing.class_names)}; expected two or more"
        )


def _check_train(listing: Listing, splits: Mapping[str, np.ndarray]) -> None:
    """No class may be missing in train: a model can only fail at what it was never shown."""
    counts = np.bincount(listing.labels[splits["train"]], minlength=len(listing.class_names))
    for split in SPLITS[1:]:
        there = np.unique(listing.labels[splits[split]])
        lacking = [printable(listing.class_names[label]) for label in there if not counts[label]]
        if lacking:
            raise UserError(
                f"{str(listing.path)!r}: train lacks {len(lacking)} of {len(there)} classes of "
                f"{split}: {listed(lacking)}; expected images of every class in train"
            )


def _about_cut(shares: Mapping[str, float], given: Mapping[str, np.ndarray]) -> list[str]:
    made = [f"{split} ({share:.0%})" for split, share in shares.items() if split != "train"]
    if not made:
        return []
    source = "train" if len(given) > 1 else "all images"
    return [f"cut from {source}, by class: {', '.join(made)}"]


class ListedRecords:
    """The examples of one split of a listing; see `dataset.Records`."""

    def __init__(self, listing: Listing, places: np.ndarray, rank: np.ndarray) -> None:
        """Reads nothing.

        Args:
          listing: of the set.
          places: int64 [N], where the examples are in it.
          rank: of all images, from `encoded.rank`.
        """
        self._images = listing.images
        self._places = places
        self._names = tuple(listing.class_names)
        self._rank = rank[places]
        self.labels = listing.labels[places]

    def __len__(self) -> int:
        return len(self._places)

    def read(self, start: int, stop: int) -> list[Example]:
        """Examples `start` to `stop` (exclusive).

        Raises:
          UserError: an image cannot be read.
        """
        places = self._places[start:stop].tolist()
        labels = self.labels[start:stop]
        return [
            Example(content, label if np.ndim(label) else int(label), self._images.where(place))
            for content, label, place in zip(self._images.read(places), labels, places, strict=True)
        ]

    def fingerprint(self) -> str:
        """SHA-256 of the images' places on disk, sizes, times and labels."""
        digest = hashlib.sha256(str(self.labels.shape).encode())
        digest.update(self.labels.tobytes())
        for part in self._images.state(self._places):
            digest.update(part)
        return digest.hexdigest()

    def identity(self) -> str:
        """SHA-256 of the images' sizes, of what was read of them, of labels and classes."""
        digest = hashlib.sha256(repr((self.labels.shape, self._names)).encode())
        digest.update(self.labels.astype(self.labels.dtype.newbyteorder("<")).tobytes())
        digest.update(self._images.sizes[self._places].astype("<i8").tobytes())
        digest.update(self._rank.astype("<u8").tobytes())
        return digest.hexdigest()
