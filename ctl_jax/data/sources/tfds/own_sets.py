"""TFDS sets that the catalogue does not know: where their images and labels are, and which."""

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctl_jax.data import _tfrecord
from ctl_jax.data.formats import columns, remembered
from ctl_jax.data.formats.encoded import Places, Whole
from ctl_jax.data.formats.file_state import file_state
from ctl_jax.data.formats.listing import Listing
from ctl_jax.data.sources.tfds.record_files import RecordFiles
from ctl_jax.errors import UserError

_BATCH = 512


class _Fields(NamedTuple):
    """Where image and label are in a record.

    Attributes:
      image: the field of the encoded image.
      label: the field of the label, or labels.
      several: whether an image has any number of them.
      class_names: what numbers mean; empty where the description does not say.
    """

    image: str
    label: str
    several: bool
    class_names: tuple[str, ...]


def listing(path: pathlib.Path, builder: Any, files: Mapping[str, RecordFiles]) -> Listing:
    """What a set lists; its records are read, once, for labels and sizes.

    Args:
      path: the folder of its version.
      builder: from `tfds_sets.open_builder`.
      files: of each of its splits.

    Raises:
      UserError: its features have no image and label, it has no train, or a record is damaged.
    """
    fields = _fields(path, builder.info)
    known = {split: columns.split_of(split) for split in files}
    if len(files) == 1:
        known = dict.fromkeys(files, "train")
    if over := sorted(split for split, meant in known.items() if meant is None):
        notes = [f"splits left out, by their names: {', '.join(over)}"]
    else:
        notes = []
    # Of two names for one split, the one that is there.
    used = {meant: split for split, meant in known.items() if meant is not None}
    images = _Images([files[split] for split in used.values()], fields)
    ends = np.cumsum([len(files[split]) for split in used.values()])
    splits = dict(zip(used, np.split(np.arange(len(images.sizes)), ends[:-1]), strict=True))
    labels, names = images.labels(fields)
    labelled = labels >= 0 if labels.ndim == 1 else np.ones(len(labels), bool)
    count = int(np.sum(~labelled))
    return Listing(
        "tfds",
        path,
        images,
        labels,
        names,
        {split: places[labelled[places]] for split, places in splits.items()},
        [f"features: image {fields.image!r}, label {fields.label!r}", *notes],
        {"unlabelled": count} if count else {},
    )


def _fields(path: pathlib.Path, info: Any) -> _Fields:
    import tensorflow_datasets as tfds

    known = dict(info.features.items())
    images = [name for name, feature in known.items() if type(feature) is tfds.features.Image]
    if not images:
        raise UserError(
            f"{str(path)!r} has the features {', '.join(sorted(known))}; expected an image"
        )
    labels: dict[str, tuple[bool, tuple[str, ...]]] = {}
    for name, feature in known.items():
        several = isinstance(feature, tfds.features.Sequence)
        inner = feature.feature if several else feature
        # Of objects in a picture, which kinds there are.
        parts = inner.items() if several and hasattr(inner, "items") else [("", inner)]
        for part, one in parts:
            if isinstance(one, tfds.features.ClassLabel):
                labels[f"{name}/{part}" if part else name] = several, _names(one)
    supervised = [key for key in info.supervised_keys or () if key in labels]
    usual = columns.usual_labels(labels)
    if not (chosen := usual or supervised or list(labels)) or (
        len(labels) > 1 and not usual and not supervised
    ):
        what = f"one of {', '.join(sorted(labels))} as 'label'" if labels else "a label of classes"
        raise UserError(
            f"{str(path)!r} has the features {', '.join(sorted(known))}; expected {what}"
        )
    image = "image" if "image" in images else images[0]
    return _Fields(image, chosen[0], *labels[chosen[0]])


def _names(feature: Any) -> tuple[str, ...]:
    return tuple(feature.names) if feature.num_classes else ()


class _Images(Whole):
    """The images of some splits, one after the other."""

    def __init__(self, files: Sequence[RecordFiles], fields: _Fields) -> None:
        """Reads all records, unless that has been done before."""
        self._files = tuple(files)
        self._starts = np.cumsum([0, *map(len, files)])
        self._fields = fields
        state = [repr(fields).encode(), *self.state(np.arange(0))]
        self._found = remembered.arrays(state, self._scan)
        self.sizes = self._found["sizes"]

    def _scan(self) -> dict[str, np.ndarray]:
        sizes: list[int] = []
        counts: list[int] = []
        labels: list[int] = []
        for files in self._files:
            for start in range(0, len(files), _BATCH):
                positions = range(start, min(start + _BATCH, len(files)))
                for position, record in zip(positions, files.read(positions), strict=True):
                    image, numbers = self._parse(files, position, record)
                    sizes.append(len(image))
                    counts.append(len(numbers))
                    labels += numbers
        return {
            name: np.asarray(found, np.int64)
            for name, found in (("sizes", sizes), ("counts", counts), ("labels", labels))
        }

    def _parse(self, files: RecordFiles, position: int, record: bytes) -> tuple[bytes, list[int]]:
        try:
            features = _tfrecord.parse(record)
            images = _tfrecord.values(features, self._fields.image, "bytes_list")
            labels = list(_tfrecord.values(features, self._fields.label, "int64_list"))
            if len(images) != 1:
                raise ValueError(f"has {len(images)} images; expected 1")
            if not self._fields.several and len(labels) != 1:
                raise ValueError(f"has {len(labels)} labels; expected 1")
            return images[0], labels
        except ValueError as error:
            raise UserError(f"{files.where(position)} {error}") from error

    def labels(self, fields: _Fields) -> tuple[np.ndarray, tuple[str, ...]]:
        """Labels as a listing has them, and names of classes."""
        numbers, counts = self._found["labels"], self._found["counts"]
        names = fields.class_names or tuple(map(str, range(int(numbers.max(initial=0)) + 1)))
        odd = numbers[numbers >= len(names)]
        if odd.size:
            raise UserError(
                f"{self._files[0].where(0)}: label {odd[0]}; expected 0 to {len(names) - 1}"
            )
        if not fields.several:
            return numbers.astype(np.int32), names
        labels = np.zeros((len(counts), len(names)), np.uint8)
        labels[np.repeat(np.arange(len(counts)), counts), numbers] = 1
        return labels, names

    def _place(self, place: int) -> tuple[RecordFiles, int]:
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._files[number], place - int(self._starts[number])

    def read(self, places: Sequence[int]) -> list[bytes]:
        """See `encoded.Images`."""
        found: list[bytes] = []
        where = [self._place(place) for place in places]
        for files, group in itertools.groupby(where, key=lambda one: one[0]):
            positions = [position for _, position in group]
            records = files.read(positions)
            found += [
                self._parse(files, position, record)[0]
                for position, record in zip(positions, records, strict=True)
            ]
        return found

    def where(self, place: int) -> str:
        """See `encoded.Images`."""
        files, position = self._place(place)
        return files.where(position)

    def state(self, places: Places) -> Iterator[bytes]:
        """See `encoded.Images`."""
        for files in self._files:
            yield from map(file_state, files.paths)
        yield np.asarray(places, np.int64).tobytes()
