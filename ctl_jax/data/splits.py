"""Which examples of a TFDS set are train, dev, dev_test and test: the rules of Nevis'22."""

import dataclasses
from collections.abc import Mapping

from ctl_jax.data.task import SPLITS

_TRAIN_TEST = frozenset(
    {
        "mnist",
        "cifar10",
        "cifar100",
        "caltech101",
        "caltech_birds2011",
        "emnist/balanced",
        "fashion_mnist",
        "oxford_iiit_pet",
        "stanford_dogs",
        "stl10",
        "svhn_cropped",
    }
)
_TRAIN_VALIDATION_TEST = frozenset({"dtd", "oxford_flowers102", "patch_camelyon", "sun397"})


@dataclasses.dataclass(frozen=True)
class Slice:
    """Examples `start` to `stop` (exclusive) of a split as TFDS names it."""

    split: str
    start: int
    stop: int


def needed(dataset: str) -> tuple[str, ...] | None:
    """The TFDS splits that a data set's rule takes; None where there is no rule yet."""
    if dataset in _TRAIN_TEST:
        return ("train", "test")
    if dataset in _TRAIN_VALIDATION_TEST:
        return ("train", "validation", "test")
    if dataset == "imagenet2012":
        return ("train", "validation")
    return None


def rule(dataset: str, sizes: Mapping[str, int]) -> dict[str, Slice]:
    """Cuts a data set's TFDS splits, in order, into those of a task.

    Args:
      dataset: TFDS name for which `needed` gives splits.
      sizes: number of examples of each of these.

    Returns:
      Slices of train, dev, dev_test and test.
    """
    total = sizes["train"]
    # Rounding as in dm_nevis: each fraction by itself, downwards, in floating point.
    if dataset in _TRAIN_VALIDATION_TEST:
        cut = int(total * 0.8)
        parts = [
            Slice("train", 0, cut),
            Slice("train", cut, total),
            Slice("validation", 0, sizes["validation"]),
            Slice("test", 0, sizes["test"]),
        ]
    else:
        train, dev, last = (
            (0.9, 0.05, "validation") if dataset == "imagenet2012" else (0.7, 0.15, "test")
        )
        first = int(total * train)
        second = first + int(total * dev)
        parts = [
            Slice("train", 0, first),
            Slice("train", first, second),
            Slice("train", second, total),
            Slice(last, 0, sizes[last]),
        ]
    return dict(zip(SPLITS, parts, strict=True))
