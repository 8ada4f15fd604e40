"""Data sets that TFDS has prepared on disk, ArrayRecord or TFRecord, read without TensorFlow."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctl_jax.data import images, tfrecord
from ctl_jax.data.splits import Slice
from ctl_jax.data.task import Split
from ctl_jax.errors import UserError

# The configuration that TFDS takes where the name has none.
_DEFAULT_CONFIG = {"sun397": "tfds"}


def find(dataset: str, data_dirs: Sequence[str | os.PathLike[str]]) -> pathlib.Path | None:
    """The folder of a data set's highest version, in the first data folder that has it.

    Raises:
      UserError: a data folder does not exist.
    """
    base = pathlib.Path(dataset, _DEFAULT_CONFIG.get(dataset, ""))
    for data_dir in map(pathlib.Path, data_dirs):
        if not data_dir.is_dir():
            raise UserError(f"data_dir {str(data_dir)!r} is not a folder; expected a TFDS data_dir")
    for data_dir in map(pathlib.Path, data_dirs):
        # What TFDS has not finished has another form of name.
        versions = [
            (tuple(map(int, folder.name.split("."))), folder)
            for folder in (data_dir / base).glob("*")
            if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)
        ]
        if versions:
            return max(versions)[1]
    return None


def open_builder(folder: pathlib.Path) -> Any:
    """TFDS's description of a prepared data set.

    Raises:
      UserError: the folder's description cannot be read.
    """
    import tensorflow_datasets as tfds  # Takes half a second.

    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS lets through whatever its JSON and protocol parsers raise.
        raise UserError(
            f"{str(folder)!r} is not a prepared TFDS data set: {_line(error)}"
        ) from error


def defect(builder: Any, splits: Sequence[str]) -> str | None:
    """Why a prepared set cannot be loaded as images with one label each, if so; reads no image."""
    import tensorflow_datasets as tfds

    folder, features = str(builder.data_dir), builder.info.features
    kind = builder.info.file_format.value
    if kind not in _READERS:
        return f"{folder!r} has file format {kind}; expected {' or '.join(_READERS)}"
    if "image" not in features or not isinstance(features["image"], tfds.features.Image):
        return f"{folder!r} has no feature 'image' that is an image"
    if "label" not in features or not isinstance(features["label"], tfds.features.ClassLabel):
        return f"{folder!r} has no feature 'label' that is a class"
    for split in splits:
        if split not in builder.info.splits:
            return f"{folder!r} has no split {split!r}; it has {sorted(builder.info.splits)}"
        for path in builder.info.splits[split].filepaths:
            if not path.exists():
                return f"file {str(path)!r} is missing"
    return None


def sizes(builder: Any) -> dict[str, int]:
    """Examples in each TFDS split."""
    return {name: info.num_examples for name, info in builder.info.splits.items()}


def load(builder: Any, cuts: Mapping[str, Slice], image_size: int) -> dict[str, Split]:
    """Reads and decodes slices of a prepared set.

    Args:
      builder: from `open_builder`, without `defect`.
      cuts: for each wanted split a slice of one of TFDS's.
      image_size: S.

    Returns:
      uint8 images [N, S, S, 3] and int32 labels of each.

    Raises:
      UserError: a file is damaged.
    """
    whole = {}
    for name in dict.fromkeys(cut.split for cut in cuts.values()):
        stop = max(cut.stop for cut in cuts.values() if cut.split == name)
        whole[name] = _load_split(builder, name, stop, image_size)
    return {
        name: Split(
            whole[cut.split].images[cut.start : cut.stop],
            whole[cut.split].labels[cut.start : cut.stop],
        )
        for name, cut in cuts.items()
    }


def _load_split(builder: Any, name: str, count: int, image_size: int) -> Split:
    """The first `count` examples of a TFDS split, a file at a time."""
    info = builder.info
    pixels = np.empty((count, image_size, image_size, 3), np.uint8)
    labels = np.empty(count, np.int32)
    start = 0
    split = info.splits[name]
    for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
        if start >= count:
            break
        records = _READERS[info.file_format.value](path)
        if len(records) != length:
            raise UserError(f"{str(path)!r} has {len(records)} records; expected {length}")
        stop = min(start + length, count)
        try:
            contents, labels[start:stop] = _parse(info.features, records[: stop - start])
            images.decode_into(pixels[start:stop], contents)
        except (OSError, ValueError) as error:
            raise UserError(f"{str(path)!r}: {_line(error)}") from error
        start = stop
    classes = info.features["label"].num_classes
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise UserError(
            f"{str(builder.data_dir)!r}: example {outside[0]} of split {name!r} has label "
            f"{labels[outside[0]]}; expected 0 to {classes - 1}"
        )
    return Split(pixels, labels)


def _parse(features: Any, records: Sequence[bytes]) -> tuple[list[bytes], list[int]]:
    """Encoded images and labels.

    Raises:
      ValueError: a record is something else; the message starts with its number.
    """
    import tensorflow_datasets as tfds

    # The others may be costly: segmentation masks are images too.
    wanted = tfds.features.FeaturesDict({key: features[key] for key in ("image", "label")})
    raw = {"image": tfds.decode.SkipDecoding()}
    contents, labels = [], []
    for index, record in enumerate(records):
        try:
            example = wanted.deserialize_example_np(record, decoders=raw)
            contents.append(bytes(example["image"]))
            labels.append(int(example["label"]))
        except Exception as error:  # Protocol buffers have exceptions of their own.
            raise ValueError(
                f"record {index} is not an example with image and label: {error}"
            ) from error
    return contents, labels


def _line(error: Exception) -> str:
    """The first line of what other libraries say."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def _read_array_record(path: str | os.PathLike[str]) -> list[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(os.fspath(path))
        try:
            records: list[bytes] = reader.read_all()
        finally:
            reader.close()
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(
            f"{os.fspath(path)!r} is not a whole ArrayRecord file: {_line(error)}"
        ) from error
    return records


_READERS = {"array_record": _read_array_record, "tfrecord": tfrecord.read}
