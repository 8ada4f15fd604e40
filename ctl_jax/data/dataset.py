"""Data sets as every source gives them: encoded images with labels, in the splits of a task."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Example(NamedTuple):
    """One image as it is on disk.

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

    def identity(self) -> str:
        """SHA-256 (hexadecimal) of which examples these are, the same for a copy of them.

        Made of labels and of what is known of the examples without reading them: names within the
        data set, sizes, checksums; not of where they are, and not of times.
        """


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that was found, before any image is read.

    Attributes:
      origin: "synthetic", "tfds", "dm_nevis", "folder", "zip", "tar", "table", "hf" or "imported".
      path: where it is.
      num_classes: number of classes, or of labels that an image may have.
      class_names: their names, which can be printed; empty where they are not known.
      kind: "single_label" or "multi_label".
      splits: "train", "dev", "dev_test" and "test"; no other.
      notes: a line for each thing that was put right, or that may not be what was meant.
      passed_over: how many files beside the examples are not examples, by their kind.
      make: makes the files of a set that is made on first use, unless they are there, which takes
        seconds; called with a function that it calls with the set's name before it does.
    """

    origin: str
    path: str
    num_classes: int
    class_names: tuple[str, ...]
    kind: str
    splits: Mapping[str, Records]
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)
    make: Callable[[Callable[[str], None] | None], None] | None = None

    def identity(self) -> str:
        """SHA-256 (hexadecimal) of which examples and classes these are; reads no example."""
        parts = [str(self.num_classes), *(f"{s} {r.identity()}" for s, r in self.splits.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
