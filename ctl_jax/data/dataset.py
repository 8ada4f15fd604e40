"""What every source of data gives: encoded images with labels, in the splits of a task."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Example(NamedTuple):
    """One image as it lies on disk.

    Attributes:
      content: an encoded image, in any format that Pillow reads.
      label: its class, or uint8 [num_classes] of 0 and 1 where it has several.
      where: file and position, for error messages.
    """

    content: bytes
    label: int | np.ndarray
    where: str


class Records(Protocol):
    """The examples of one split, in their order."""

    def __len__(self) -> int:
        """Number of examples."""

    def read(self, start: int, stop: int) -> Sequence[Example]:
        """Examples `start` to `stop` (exclusive).

        Any range, as often as wanted, from several threads at once.

        Raises:
          UserError: a file is damaged.
        """

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of what the bytes on disk are.

        Made of checksums, or of paths, sizes and times of files: as long as it stays the same,
        whatever was made from these examples holds.
        """


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that was found, before any image is read.

    Attributes:
      origin: "embedded", "tfds", "dm_nevis", "folder", "zip" or "imported".
      path: where it lies.
      num_classes: number of classes, or of labels that an image may have.
      class_names: their names; empty where they are not known.
      kind: "single_label" or "multi_label".
      splits: "train", "dev", "dev_test" and "test"; no other.
    """

    origin: str
    path: str
    num_classes: int
    class_names: tuple[str, ...]
    kind: str
    splits: Mapping[str, Records]


@dataclasses.dataclass(frozen=True)
class Places:
    """Where data sets are looked for; in this order: imported, TFDS, dm_nevis, folders and zips.

    Attributes:
      tfds_dirs: TFDS data folders.
      nevis_dirs: what dm_nevis has written; the variable NEVIS_DATA_DIR is not read here.
      folder_dirs: hold NAME/ or NAME.zip, with images under SPLIT/CLASS.
      imported_dir: holds what was imported.
    """

    tfds_dirs: tuple[pathlib.Path, ...] = ()
    nevis_dirs: tuple[pathlib.Path, ...] = ()
    folder_dirs: tuple[pathlib.Path, ...] = ()
    imported_dir: pathlib.Path | None = None
