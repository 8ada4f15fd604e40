"""All official sets of Nevis'22 under their official features: splits and labels.

TFDS's own reader says what is in the sets.
"""

import functools
import itertools
import pathlib
import pickle
from collections.abc import Callable
from concurrent import futures
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ctl_jax import data
from ctl_jax.data.dataset import DataSet

Opened = Callable[[str, pathlib.Path], DataSet]

# TFDS split, start and stop of the splits of a task, for the sizes that the sets are made with.
_TWO = [("train", 0, 14), ("train", 14, 17), ("train", 17, 21), ("test", 0, 6)]
_THREE = [("train", 0, 8), ("train", 8, 11), ("validation", 0, 4), ("test", 0, 5)]
CUTS = {
    "mnist": _TWO,
    "cifar10": _TWO,
    "cifar100": _TWO,
    "caltech101": _TWO,
    "caltech_birds2011": _TWO,
    "emnist/balanced": _TWO,
    "fashion_mnist": _TWO,
    "oxford_iiit_pet": _TWO,
    "stanford_dogs": _TWO,
    "stl10": _TWO,
    "svhn_cropped": _TWO,
    "dtd": _THREE,
    "oxford_flowers102": _THREE,
    "voc/2007": _THREE,
    "patch_camelyon": _THREE,
    "sun397": _THREE,
    "celeb_a": _THREE,
    "imagenet2012": [("train", 0, 36), ("train", 36, 38), ("train", 38, 41), ("validation", 0, 5)],
    "voc/2012": [("train", 0, 8), ("train", 8, 11), ("validation", 0, 3), ("validation", 3, 7)],
}
SETS = (*CUTS, "coil100", "smallnorb", "domainnet")
LEARNED = ("real", "painting", "clipart", "quickdraw", "infograph")


@functools.cache
def reference(folder: pathlib.Path, split: str) -> list[Any]:
    """What TFDS reads, with the image as it is encoded."""
    builder = tfds.builder_from_directory(folder)
    raw = {"image": tfds.decode.SkipDecoding()}
    return list(builder.as_data_source(split, decoders=raw))


def expected_label(dataset: str, found: Any) -> int | list[int]:
    if dataset.startswith("voc"):
        return [int(label in set(map(int, found["labels"]))) for label in range(20)]
    if dataset == "celeb_a":
        return [int(found["attributes"][name]) for name in sorted(found["attributes"])]
    name = {"coil100": "object_id", "smallnorb": "label_category"}.get(dataset, "label")
    return int(found[name])


def expected(
    data_dir: pathlib.Path, dataset: str, version: Callable[[pathlib.Path, str], pathlib.Path]
) -> dict[str, list[Any]]:
    """The examples of each split, by the rules of Nevis'22 written down once more."""
    if dataset == "domainnet":
        parts = {
            domain: version(data_dir, f"domainnet/{domain}") for domain in (*LEARNED, "sketch")
        }
        return {
            name: [found for domain in domains for found in reference(parts[domain], split)]
            for name, domains, split in (
                ("train", LEARNED, "train"),
                ("dev", LEARNED, "test"),
                ("dev_test", ("sketch",), "train"),
                ("test", ("sketch",), "test"),
            )
        }
    folder = version(data_dir, dataset)
    if dataset == "coil100":
        rows = reference(folder, "train")
        degrees = [int(row["angle_label"]) * 5 for row in rows]
        front = [row for row, angle in zip(rows, degrees, strict=True) if (angle + 10) % 360 <= 20]
        one = [row for row, angle in zip(rows, degrees, strict=True) if 80 <= angle <= 100]
        other = [row for row, angle in zip(rows, degrees, strict=True) if 250 <= angle <= 270]
        taken = {id(row) for row in (*front, *one, *other)}
        rest = [row for row in rows if id(row) not in taken]
        return {"train": front, "dev": one, "dev_test": other, "test": rest}
    if dataset == "smallnorb":
        rows = reference(folder, "train")
        return {
            "train": [row for row in rows if row["instance"] >= 7],
            "dev": [row for row in rows if row["instance"] == 4],
            "dev_test": [row for row in rows if row["instance"] == 6],
            "test": reference(folder, "test"),
        }
    return {
        name: reference(folder, split)[start:stop]
        for name, (split, start, stop) in zip(data.SPLITS, CUTS[dataset], strict=True)
    }


def plain(label: int | np.ndarray) -> int | list[int]:
    if isinstance(label, np.ndarray):
        assert label.dtype == np.uint8
        whole: list[int] = label.tolist()
        return whole
    return label


def test_every_official_set_is_here() -> None:
    specs = data.stream("FULL", stop_year=2022)
    named = {spec.dataset for spec in specs if spec.source == "tfds"}
    assert named == set(SETS)
    assert len(SETS) == 22


@pytest.mark.parametrize("dataset", SETS)
def test_each_example_lands_in_its_split_with_its_label(
    array_records: pathlib.Path,
    data_dir: pathlib.Path,
    opened: Opened,
    version: Callable[[pathlib.Path, str], pathlib.Path],
    dataset: str,
) -> None:
    found = opened(dataset, data_dir)
    (spec,) = data.stream(dataset)
    assert found.origin == "tfds"
    assert found.kind == spec.kind
    assert tuple(found.splits) == data.SPLITS
    for name, rows in expected(array_records, dataset, version).items():
        records = found.splits[name]
        assert len(records) == len(rows) > 0
        examples = records.read(0, len(rows))
        assert [one.content for one in examples] == [row["image"] for row in rows]
        labels = [plain(one.label) for one in examples]
        assert labels == [expected_label(dataset, row) for row in rows]
        assert all(str(data_dir) in one.where for one in examples)
        assert len({one.where for one in examples}) == len(examples)


@pytest.mark.parametrize(
    ("dataset", "classes", "names"),
    [
        ("mnist", 10, ()),
        ("coil100", 100, ("obj1", "obj2")),
        ("smallnorb", 5, ("four-legged animals", "human figures")),
        ("domainnet", 345, ("aircraft_carrier", "airplane")),
        ("voc/2007", 20, ("aeroplane", "bicycle")),
        ("voc/2012", 20, ("aeroplane", "bicycle")),
        ("celeb_a", 40, ("5_o_Clock_Shadow", "Arched_Eyebrows")),
        ("imagenet2012", 1000, ("n01440764", "n01443537")),
        ("sun397", 397, ("/a/abbey", "/a/airplane_cabin")),
    ],
)
def test_classes(
    array_records: pathlib.Path, opened: Opened, dataset: str, classes: int, names: tuple[str, ...]
) -> None:
    found = opened(dataset, array_records)
    assert found.num_classes == classes
    assert len(found.class_names) in (0, classes)
    assert found.class_names[: len(names)] == names
    assert bool(found.class_names) == bool(names)


@pytest.mark.parametrize("dataset", ["mnist", "coil100", "domainnet"])
def test_any_range_from_several_threads(
    data_dir: pathlib.Path, opened: Opened, dataset: str
) -> None:
    for records in opened(dataset, data_dir).splits.values():
        count = len(records)
        whole = records.read(0, count)
        ranges = list(itertools.combinations(range(0, count + 1, max(1, count // 7)), 2))
        with futures.ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda ends, read=records.read: read(*ends), ranges))
        for (start, stop), part in zip(ranges, parts, strict=True):
            assert [one.where for one in part] == [one.where for one in whole[start:stop]]
            assert [one.content for one in part] == [one.content for one in whole[start:stop]]
        assert list(records.read(1, 1)) == []
        for start, stop in ((-1, 1), (0, count + 1), (1, 0)):
            with pytest.raises(IndexError):
                records.read(start, stop)


@pytest.mark.parametrize("dataset", ["mnist", "smallnorb", "domainnet"])
def test_records_travel_to_another_process(
    data_dir: pathlib.Path, opened: Opened, dataset: str
) -> None:
    for records in opened(dataset, data_dir).splits.values():
        whole = records.read(0, len(records))
        copy = pickle.loads(pickle.dumps(records))
        assert copy.fingerprint() == records.fingerprint()
        assert [one.where for one in copy.read(0, len(copy))] == [one.where for one in whole]


def test_no_image_is_decoded(
    array_records: pathlib.Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(Image, "open", fail)
    monkeypatch.setattr(tfds.features.Image, "decode_example_np", fail)
    for dataset in ("coil100", "smallnorb"):
        for records in opened(dataset, array_records).splits.values():
            assert len(records.read(0, len(records))) == len(records)


@pytest.mark.parametrize(
    ("name", "classes", "sizes"),
    [
        ("mnist", 10, (7000, 1500, 1500, 2000)),
        ("cifar10", 10, (5600, 1200, 1200, 2000)),
        ("caltech101", 102, (2142, 459, 459, 1530)),
    ],
)
def test_real_data(
    shared_dir: pathlib.Path, opened: Opened, name: str, classes: int, sizes: tuple[int, ...]
) -> None:
    found = opened(name, shared_dir / "real_data" / "tfds")
    assert found.num_classes == classes
    assert tuple(map(len, found.splits.values())) == sizes
    seen: set[Any] = set()
    for records in found.splits.values():
        for start in range(0, len(records), 256):
            for one in records.read(start, min(start + 256, len(records))):
                seen.add(one.label)
                assert one.content[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0")
    assert seen == set(range(classes))
