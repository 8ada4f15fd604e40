"""Prepared TFDS sets: their versions on disk, their descriptions, and data sets made of them."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ctl_jax.data import splits
from ctl_jax.data.dataset import DataSet, Records
from ctl_jax.data.sources.tfds import fields
from ctl_jax.data.sources.tfds.record_files import FORMATS, RecordFiles, first_line
from ctl_jax.data.sources.tfds.records import Column, Piece, TfdsRecords
from ctl_jax.errors import UserError

_VERSION = re.compile(r"\d+\.\d+\.\d+")
# The configuration that TFDS takes where the name has none.
DEFAULT_CONFIG = {"sun397": "tfds"}


def latest(data_dir: pathlib.Path, dataset: str) -> pathlib.Path | None:
    """The folder of the highest version of a TFDS set, if there is one."""
    found = versions(data_dir / dataset / DEFAULT_CONFIG.get(dataset, ""))
    return found[max(found)] if found else None


def versions(base: pathlib.Path) -> dict[tuple[int, ...], pathlib.Path]:
    """The folders of a set's versions in a folder."""
    # What TFDS has not finished has another form of name.
    return {
        tuple(map(int, folder.name.split("."))): folder
        for folder in base.glob("*")
        if is_version(folder.name)
    }


def is_version(name: str) -> bool:
    """Whether a folder of this name may be a version of a set."""
    return _VERSION.fullmatch(name) is not None


def open_builder(folder: pathlib.Path, needed: Sequence[str]) -> Any:
    """TFDS's description of a prepared data set.

    Args:
      folder: of a version.
      needed: splits that must be there, with their files.

    Raises:
      UserError: the description cannot be read, or something is missing.
    """
    import tensorflow_datasets as tfds  # Takes half a second.

    try:
        builder = tfds.builder_from_directory(folder)
        file_format = builder.info.file_format.value
    except Exception as error:  # TFDS lets through whatever its JSON and protocol parsers raise.
        raise UserError(
            f"{str(folder)!r} is not a prepared TFDS data set: {first_line(error)}"
        ) from error
    if file_format not in FORMATS:
        raise UserError(
            f"{str(folder)!r} has file format {file_format}; expected {' or '.join(FORMATS)}"
        )
    for split in needed:
        if split not in builder.info.splits:
            raise UserError(
                f"{str(folder)!r} has no split {split!r}; it has {sorted(builder.info.splits)}"
            )
        for file in builder.info.splits[split].filepaths:
            if not file.exists():
                raise UserError(f"file {str(file)!r} is missing")
    return builder


def assemble(
    origin: str,
    dataset: str,
    path: pathlib.Path,
    builders: Mapping[str, Any],
    parts: Mapping[str, Sequence[splits.Part]],
) -> DataSet:
    """Makes a data set of parts of prepared ones.

    Args:
      origin: of the data set.
      dataset: TFDS name, which decides where the label is.
      path: where it is.
      builders: from `open_builder`, by the names that `parts` has.
      parts: for each split of the task, where its examples are.

    Raises:
      UserError: the features are not those of images with such labels, or a split has no
        examples.
    """
    labels = _labels(dataset, builders)
    files: dict[tuple[str, str], RecordFiles] = {}
    columns: dict[tuple[str, str, str], Column] = {}
    everything = [part for found in parts.values() for part in found]

    def piece(part: splits.Part) -> Piece:
        where = (part.dataset, part.split)
        if where not in files:
            files[where] = files_of(builders[part.dataset], part.split)
        if not part.field:
            return Piece(files[where], part.start, part.stop)
        key = (*where, part.field)
        if key not in columns:
            # Between them, the splits of a task take all values that there are.
            allowed = [value for one in everything if one.field == key[2] for value in one.values]
            columns[key] = Column(files[where], part.field, allowed)
        return Piece(files[where], part.start, part.stop, columns[key], part.values)

    records: dict[str, Records] = {}
    for name, found in parts.items():
        if not sum(part.stop - part.start for part in found):
            raise UserError(f"{str(path)!r} has too few examples: none is left for split {name!r}")
        records[name] = TfdsRecords([piece(part) for part in found], labels)
    return DataSet(origin, str(path), labels.num_classes, labels.class_names, labels.kind, records)


def _labels(dataset: str, builders: Mapping[str, Any]) -> fields.Labels:
    """Where the labels are, the same in all of them."""
    found: fields.Labels | None = None
    for builder in builders.values():
        try:
            labels = fields.of_features(dataset, builder.info.features)
        except ValueError as error:
            raise UserError(f"{str(builder.data_dir)!r} has {error}") from error
        if found is not None and labels != found:
            raise UserError(
                f"{str(builder.data_dir)!r} has other classes than the other configurations of "
                f"{dataset!r}"
            )
        found = labels
    assert found is not None, "a data set has a source"
    return found


def files_of(builder: Any, split: str) -> RecordFiles:
    """The files of a split of a prepared set."""
    info = builder.info.splits[split]
    paths = [str(path) for path in info.filepaths]
    return RecordFiles(paths, info.shard_lengths, builder.info.file_format.value)
