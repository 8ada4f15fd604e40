"""The split rules of Nevis'22 on sizes that are known."""

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax import data
from ctl_jax.data import splits


def _bounds(dataset: str, **sizes: int) -> dict[str, tuple[str, int, int]]:
    cuts = splits.rule(dataset, sizes)
    assert tuple(cuts) == data.SPLITS
    return {name: (cut.split, cut.start, cut.stop) for name, cut in cuts.items()}


def test_train_and_test() -> None:
    assert _bounds("mnist", train=60000, test=10000) == {
        "train": ("train", 0, 42000),
        "dev": ("train", 42000, 51000),
        "dev_test": ("train", 51000, 60000),
        "test": ("test", 0, 10000),
    }


def test_train_validation_and_test() -> None:
    assert _bounds("dtd", train=1880, validation=1881, test=1882) == {
        "train": ("train", 0, 1504),
        "dev": ("train", 1504, 1880),
        "dev_test": ("validation", 0, 1881),
        "test": ("test", 0, 1882),
    }


def test_imagenet() -> None:
    # dm_nevis states 64,058 images of dev.
    assert _bounds("imagenet2012", train=1281167, validation=50000) == {
        "train": ("train", 0, 1153050),
        "dev": ("train", 1153050, 1217108),
        "dev_test": ("train", 1217108, 1281167),
        "test": ("validation", 0, 50000),
    }


@hypothesis.given(
    st.sampled_from(["cifar10", "sun397", "imagenet2012"]), st.integers(1, 10**7), st.integers(1, 9)
)
def test_every_example_of_train_is_used_once(dataset: str, train: int, other: int) -> None:
    sizes = {"train": train, "validation": other, "test": other}
    parts = [cut for cut in splits.rule(dataset, sizes).values() if cut.split == "train"]
    assert parts[0].start == 0
    assert parts[-1].stop == train
    assert all(a.stop == b.start for a, b in itertools.pairwise(parts))


def test_each_tfds_set_of_the_catalogue_has_a_rule_or_none_yet() -> None:
    # Those with a rule of their own come later.
    without = {
        spec.dataset
        for spec in data.stream("FULL", stop_year=2022)
        if spec.source == "tfds" and splits.needed(spec.dataset) is None
    }
    assert without == {"coil100", "smallnorb", "domainnet", "voc/2007", "voc/2012", "celeb_a"}


@pytest.mark.parametrize("dataset", ["coil100", "celeb_a", "nothing"])
def test_no_rule(dataset: str) -> None:
    assert splits.needed(dataset) is None
