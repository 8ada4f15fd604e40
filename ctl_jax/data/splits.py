"""Nevis'22's split rules: what of an official TFDS set is train, dev, dev_test and test."""

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
_TRAIN_VALIDATION_TEST = frozenset(
    {"dtd", "oxford_flowers102", "patch_camelyon", "sun397", "voc/2007", "celeb_a"}
)
_TRAIN_VALIDATION = frozenset({"imagenet2012", "voc/2012"})

# Viewing angles of coil100, in steps of 5 degrees: the front, one side, the other; test is the
# rest.
_ANGLES = {
    "train": (70, 71, 0, 1, 2),
    "dev": (16, 17, 18, 19, 20),
    "dev_test": (50, 51, 52, 53, 54),
}
# Objects of each category that smallnorb's train shows; its test shows others.
_INSTANCES = {"train": (7, 8, 9), "dev": (4,), "dev_test": (6,)}

# domainnet learns from some kinds of pictures and is tested on another.
_DOMAINS = ("real", "painting", "clipart", "quickdraw", "infograph")
_HELD_OUT_DOMAIN = "sketch"


@dataclasses.dataclass(frozen=True)
class Part:
    """Some examples of a TFDS split, in its order.

    Attributes:
      dataset: TFDS name, with the configuration where there are several: "domainnet/real".
      split: as TFDS names it.
      start: first example.
      stop: end, exclusive.
      field: a feature that chooses among them; "" for all.
      values: those of the field that belong to the part.
    """

    dataset: str
    split: str
    start: int
    stop: int
    field: str = ""
    values: tuple[int, ...] = ()


def datasets() -> tuple[str, ...]:
    """The data sets that there are rules for, sorted."""
    others = {"smallnorb", "coil100", "domainnet"}
    return tuple(sorted(_TRAIN_TEST | _TRAIN_VALIDATION_TEST | _TRAIN_VALIDATION | others))


def sources(dataset: str) -> dict[str, tuple[str, ...]]:
    """The splits that a data set's rule takes, by TFDS name; empty for an unknown set.

    All but domainnet come from one TFDS set, which has their own name.
    """
    if dataset in _TRAIN_TEST or dataset == "smallnorb":
        return {dataset: ("train", "test")}
    if dataset in _TRAIN_VALIDATION_TEST:
        return {dataset: ("train", "validation", "test")}
    if dataset in _TRAIN_VALIDATION:
        return {dataset: ("train", "validation")}
    if dataset == "coil100":
        return {dataset: ("train",)}
    if dataset == "domainnet":
        return {
            f"{dataset}/{domain}": ("train", "test") for domain in (*_DOMAINS, _HELD_OUT_DOMAIN)
        }
    return {}


def parts(dataset: str, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[Part, ...]]:
    """Where the examples of each split of a task are.

    Args:
      dataset: TFDS name for which `sources` gives something.
      sizes: number of examples by TFDS name and split, for all that `sources` gives.

    Returns:
      Parts of train, dev, dev_test and test, in the order of their examples.
    """
    if dataset == "domainnet":
        return _domains(dataset, sizes)
    own = sizes[dataset]
    if dataset == "coil100":
        return _by_angle(dataset, own["train"])
    if dataset == "smallnorb":
        chosen = {
            name: (Part(dataset, "train", 0, own["train"], "instance", values),)
            for name, values in _INSTANCES.items()
        }
        return {**chosen, "test": (Part(dataset, "test", 0, own["test"]),)}
    return {
        name: (Part(dataset, split, start, stop),)
        for name, (split, start, stop) in zip(SPLITS, _cuts(dataset, own), strict=True)
    }


def _cuts(dataset: str, sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Split, start and stop of train, dev, dev_test and test, where ranges are all there is to it.

    Rounding is dm_nevis's: each fraction by itself, downwards, in floating point.
    """
    total = sizes["train"]
    if dataset in _TRAIN_VALIDATION_TEST or dataset == "voc/2012":
        cut = int(total * 0.8)
        first = [("train", 0, cut), ("train", cut, total)]
        held = sizes["validation"]
        if dataset == "voc/2012":
            # The official test set is without labels.
            half = int(held * 0.5)
            return [*first, ("validation", 0, half), ("validation", half, held)]
        return [*first, ("validation", 0, held), ("test", 0, sizes["test"])]
    train, dev, last = (
        (0.9, 0.05, "validation") if dataset == "imagenet2012" else (0.7, 0.15, "test")
    )
    one = int(total * train)
    two = one + int(total * dev)
    return [("train", 0, one), ("train", one, two), ("train", two, total), (last, 0, sizes[last])]


def _by_angle(dataset: str, total: int) -> dict[str, tuple[Part, ...]]:
    taken = {angle for angles in _ANGLES.values() for angle in angles}
    rest = tuple(angle for angle in range(72) if angle not in taken)
    return {
        name: (Part(dataset, "train", 0, total, "angle_label", angles),)
        for name, angles in {**_ANGLES, "test": rest}.items()
    }


def _domains(dataset: str, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[Part, ...]]:
    def whole(domain: str, split: str) -> Part:
        name = f"{dataset}/{domain}"
        return Part(name, split, 0, sizes[name][split])

    return {
        "train": tuple(whole(domain, "train") for domain in _DOMAINS),
        "dev": tuple(whole(domain, "test") for domain in _DOMAINS),
        "dev_test": (whole(_HELD_OUT_DOMAIN, "train"),),
        "test": (whole(_HELD_OUT_DOMAIN, "test"),),
    }
