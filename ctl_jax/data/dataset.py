"""What every source of data gives: encoded images with labels, in the splits of a task."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ctl_jax.errors import UserError


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
      class_names: their names, which can be printed; empty where they are not known.
      kind: "single_label" or "multi_label".
      splits: "train", "dev", "dev_test" and "test"; no other.
      notes: a line for each thing that was put right, or that may not be what was meant.
      passed_over: how many files beside the examples are none, by their kind.
    """

    origin: str
    path: str
    num_classes: int
    class_names: tuple[str, ...]
    kind: str
    splits: Mapping[str, Records]
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)


# Of each list of places: what one is called, and what is expected to be there.
_FOLDERS = {
    "tfds_dirs": ("data_dir", "a TFDS data_dir"),
    "nevis_dirs": ("nevis_dir", "what dm_nevis has written"),
    "folder_dirs": ("folder_dir", "one that holds data sets"),
}


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

    def existing(self, field: str) -> tuple[pathlib.Path, ...]:
        """The folders of `tfds_dirs`, `nevis_dirs` or `folder_dirs`.

        Raises:
          UserError: one of them is no folder.
        """
        folders: tuple[pathlib.Path, ...] = getattr(self, field)
        name, expected = _FOLDERS[field]
        for folder in folders:
            if not folder.is_dir():
                instead = f", such as {str(folder.parent)!r}" if folder.is_file() else ""
                raise UserError(
                    f"{name} {str(folder)!r} is not a folder; expected {expected}{instead}"
                )
        return folders

    def check(self) -> None:
        """Raises if any of the folders is none; where imports go need not be there yet.

        Raises:
          UserError: as `existing`.
        """
        for field in _FOLDERS:
            self.existing(field)
