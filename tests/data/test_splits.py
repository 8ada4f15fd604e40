"""The split rules of Nevis'22 on sizes that are known."""

import itertools

import hypothesis
from hypothesis import strategies as st

from ctl_jax import data
from ctl_jax.data import splits


def _bounds(dataset: str, **sizes: int) -> dict[str, tuple[str, int, int]]:
    return {name: part for name, (part,) in _parts(dataset, **sizes).items()}


def _parts(dataset: str, **sizes: int) -> dict[str, list[tuple[str, int, int]]]:
    found = splits.parts(dataset, {dataset: sizes})
    assert tuple(found) == data.SPLITS
    assert all(not part.field for parts in found.values() for part in parts)
    assert {part.dataset for parts in found.values() for part in parts} == {dataset}
    return {
        name: [(part.split, part.start, part.stop) for part in parts]
        for name, parts in found.items()
    }


def test_celeb_a() -> None:
    assert _parts("celeb_a", train=162770, validation=19867, test=19962) == {
        "train": [("train", 0, 130216)],
        "dev": [("train", 130216, 162770)],
        "dev_test": [("validation", 0, 19867)],
        "test": [("test", 0, 19962)],
    }


def test_voc_2012() -> None:
    # The official test set has no labels.
    assert _parts("voc/2012", train=5717, validation=5823, test=10991) == {
        "train": [("train", 0, 4573)],
        "dev": [("train", 4573, 5717)],
        "dev_test": [("validation", 0, 2911)],
        "test": [("validation", 2911, 5823)],
    }


def test_coil100_by_angle() -> None:
    found = splits.parts("coil100", {"coil100": {"train": 7200}})
    values = {name: part.values for name, (part,) in found.items()}
    assert {part for (part,) in found.values()} == {
        splits.Part("coil100", "train", 0, 7200, "angle_label", chosen)
        for chosen in values.values()
    }
    assert values["train"] == (70, 71, 0, 1, 2)
    assert values["dev"] == (16, 17, 18, 19, 20)
    assert values["dev_test"] == (50, 51, 52, 53, 54)
    assert sorted(sum(values.values(), ())) == list(range(72))


def test_smallnorb_by_instance() -> None:
    found = splits.parts("smallnorb", {"smallnorb": {"train": 24300, "test": 24300}})
    (test,) = found.pop("test")
    assert test == splits.Part("smallnorb", "test", 0, 24300)
    assert {name: part.values for name, (part,) in found.items()} == {
        "train": (7, 8, 9),
        "dev": (4,),
        "dev_test": (6,),
    }
    assert {(part.split, part.start, part.stop, part.field) for (part,) in found.values()} == {
        ("train", 0, 24300, "instance")
    }


def test_domainnet_by_domain() -> None:
    sizes = {
        name: {"train": 10 + number, "test": number + 1}
        for number, name in enumerate(splits.sources("domainnet"))
    }
    found = splits.parts("domainnet", sizes)
    learned = [
        f"domainnet/{name}" for name in ("real", "painting", "clipart", "quickdraw", "infograph")
    ]
    whole = {name: [(part.dataset, part.split) for part in parts] for name, parts in found.items()}
    assert whole == {
        "train": [(name, "train") for name in learned],
        "dev": [(name, "test") for name in learned],
        "dev_test": [("domainnet/sketch", "train")],
        "test": [("domainnet/sketch", "test")],
    }
    for parts in found.values():
        for part in parts:
            assert (part.start, part.stop) == (0, sizes[part.dataset][part.split])
            assert not part.field


def test_sources() -> None:
    assert splits.sources("imagenet2012") == {"imagenet2012": ("train", "validation")}
    assert splits.sources("coil100") == {"coil100": ("train",)}
    assert splits.sources("voc/2007") == {"voc/2007": ("train", "validation", "test")}
    assert splits.sources("scenes15") == {}


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
    cuts = [cut for cut in _bounds(dataset, **sizes).values() if cut[0] == "train"]
    assert cuts[0][1] == 0
    assert cuts[-1][2] == train
    assert all(a[2] == b[1] for a, b in itertools.pairwise(cuts))


def test_each_tfds_set_of_the_catalogue_has_a_rule() -> None:
    named = {spec.dataset: spec.source for spec in data.stream("FULL", stop_year=2022)}
    assert {name for name, source in named.items() if source == "tfds"} == {
        name for name in named if splits.sources(name)
    }


def test_no_rule() -> None:
    assert splits.sources("nothing") == {}
