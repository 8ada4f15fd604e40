"""Tasks: where one comes from, its images, its splits."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

SPLITS = ("train", "dev", "dev_test", "test")


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a task's examples.

    Attributes:
      images: uint8 RGB [N, S, S, 3].
      labels: int32 [N], in 0 .. num_classes - 1; of a multi-label task uint8 [N, num_classes] of
        0 and 1.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One task of a stream, before any image is read.

    Attributes:
      name: unique in its stream and fit for a file name, e.g. "mnist_2".
      title: the name that Nevis'22 uses, e.g. "MNIST".
      dataset: name at the source, e.g. "voc/2007".
      source: "synthetic", "tfds" or "nevis"; that of a task named by its path is its form's.
      domain: object, ocr, face, scene, texture, medical, counting, shape, satellite or quality;
        "own" for a task named by its path.
      kind: "single_label" or "multi_label"; "" where only opening it tells.
      year: year in the stream; None for a task that belongs to no stream of Nevis'22.
      path: where a task named by its path is, as KIND:PATH with maybe ?NAME=VALUE behind; "" for
        one that is named by its data set.
    """

    name: str
    title: str
    dataset: str
    source: str
    domain: str
    kind: str
    year: int | None
    path: str = ""

    @property
    def key(self) -> str:
        """What tells data sets apart, of which a stream may have several tasks."""
        return self.path or self.dataset

    @property
    def file_name(self) -> str:
        """The data set's name as files and folders have it, e.g. "voc_2007"."""
        return self.dataset.replace("/", "_")

    @property
    def metric(self) -> str:
        """What a model is scored by: "accuracy" (top-1), or "mAP", the mean average precision."""
        return "mAP" if self.kind == "multi_label" else "accuracy"


@dataclasses.dataclass(frozen=True)
class Task:
    """A task in memory.

    Attributes:
      spec: where it comes from.
      num_classes: number of classes.
      splits: "train", "dev", "dev_test" and "test".
      fingerprint: SHA-256 of images and labels, so that equal data can be told from different.
      corrupt: a line for each example that was left out because it cannot be read.
      notes: a line for each thing about its data that was put right, or that may not be as it
        should: the same pictures in two splits, say.
      passed_over: how many files beside the examples are not examples, by their kind.
    """

    spec: TaskSpec
    num_classes: int
    splits: Mapping[str, Split]
    fingerprint: str
    corrupt: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)


def fingerprint(num_classes: int, splits: Mapping[str, str]) -> str:
    """SHA-256 (hexadecimal) of everything that a trial can see of a task.

    Args:
      num_classes: number of classes.
      splits: for each split the hash of its images and labels.
    """
    digest = hashlib.sha256(f"{num_classes}".encode())
    for name in SPLITS:
        digest.update(f"{name} {splits[name]}".encode())
    return digest.hexdigest()
