"""Sets as dm_nevis leaves them: whole, unfinished, broken; one label, several, biwi's."""

import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax import data
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.sources import dm_nevis
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError

SIZES = {"train": 9, "dev": 4, "dev-test": 3, "test": 5}
Make = Callable[..., Any]


@pytest.fixture
def records(example: Make, picture: Make) -> dict[str, list[bytes]]:
    """Example i of a split has label i % 3 and an image that tells split and i."""
    return {
        split: [
            example(png_encoded_image=picture(100 * number + i), label=[i % 3]) for i in range(size)
        ]
        for number, (split, size) in enumerate(SIZES.items())
    }


@pytest.fixture
def whole(write_nevis: Make, records: Mapping[str, Sequence[bytes]]) -> pathlib.Path:
    path = write_nevis(
        "umist", records, num_classes=3, about={"label_to_id": {"a": 0, "b": 1, "c": 2}}
    )
    assert isinstance(path, pathlib.Path)
    return path


@pytest.fixture
def umist(make_spec: Make) -> TaskSpec:
    spec = make_spec("umist")
    assert isinstance(spec, TaskSpec)
    return spec


def everything(dataset: DataSet, split: str) -> list[tuple[bytes, int]]:
    found = dataset.splits[split]
    return [(one.content, int(one.label)) for one in found.read(0, len(found))]


def test_a_whole_set(umist: TaskSpec, whole: pathlib.Path, picture: Make) -> None:
    places = (whole.parent,)
    path = dm_nevis.find(umist, places)
    assert path == whole
    dataset = dm_nevis.open(umist, path)
    assert (dataset.origin, dataset.path) == ("dm_nevis", str(whole))
    assert (dataset.num_classes, dataset.class_names) == (3, ("a", "b", "c"))
    assert tuple(dataset.splits) == SPLITS
    for number, (split, size) in enumerate(zip(SPLITS, SIZES.values(), strict=True)):
        # Shard after shard; examples were dealt to them in turn.
        order = [*range(0, size, 2), *range(1, size, 2)]
        assert everything(dataset, split) == [(picture(100 * number + i), i % 3) for i in order]
    found = dataset.splits["train"].read(5, 6)[0]
    assert found.where == f"{str(whole / 'train' / 'data-00001-of-00002')!r}, record 0"


def test_real_sets(shared_dir: pathlib.Path, make_spec: Make) -> None:
    places = (shared_dir / "real_data" / "dm_nevis",)
    for name, sizes in {"semeion": (880, 194, 218, 301), "usps": (5139, 1068, 1084, 2007)}.items():
        path = dm_nevis.find(make_spec(name), places)
        assert path is not None
        dataset = dm_nevis.open(make_spec(name), path)
        assert tuple(len(dataset.splits[split]) for split in SPLITS) == sizes
        assert dataset.num_classes == 10
        labels = [label for _, label in everything(dataset, "train")]
        assert set(labels) == set(range(10))
        assert everything(dataset, "dev")[0][0].startswith(b"\x89PNG")


@hypothesis.given(start=st.integers(0, 12), stop=st.integers(0, 12))
@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=50
)
def test_any_range(umist: TaskSpec, whole: pathlib.Path, start: int, stop: int) -> None:
    train = dm_nevis.open(umist, whole).splits["train"]
    every = train.read(0, 9)
    assert list(train.read(start, stop)) == list(every)[start:stop]


def test_threads_read_the_same(umist: TaskSpec, whole: pathlib.Path) -> None:
    train = dm_nevis.open(umist, whole).splits["train"]
    with futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: train.read(0, 9), range(64)))
    assert all(answer == answers[0] for answer in answers)


def test_where_sets_are_looked_for(
    make_spec: Make, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert dm_nevis.find(make_spec("umist"), ()) is None
    assert dm_nevis.find(make_spec("usps"), (whole.parent,)) is None
    # As dm_nevis lays out NEVIS_DATA_DIR.
    stable = tmp_path / "data" / "stable" / "emnist_balanced"
    shutil.copytree(whole, stable)
    places = (whole.parent, tmp_path / "data")
    assert dm_nevis.find(make_spec("emnist/balanced", source="tfds"), places) == stable
    # A folder of images is not one of dm_nevis.
    (tmp_path / "data" / "pacs" / "train" / "dog").mkdir(parents=True)
    assert dm_nevis.find(make_spec("pacs"), places) is None


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda p: (p / "status").write_text("not_ready"), "status 'not_ready'; expected 'ready'"),
        (lambda p: (p / "status").write_bytes(b"\xff\xfe"), "expected 'ready'"),
        (lambda p: (p / "status").unlink(), "status' cannot be read"),
        (lambda p: shutil.rmtree(p / "dev-test"), "no folder 'dev-test'"),
        (lambda p: (p / "dev" / "data-00001-of-00002").unlink(), "data-00001-of-00002' is missing"),
        (lambda p: (p / "dev" / "data-00000-of-00002").unlink(), "data-00000-of-00002' is missing"),
        (
            lambda p: (p / "dev" / "data-00002-of-00002").touch(),
            "3 shards of 2: there is 'data-00002",
        ),
        (lambda p: (p / "dev" / "data-00000-of-00009").touch(), "mixes shards of 2 and 9 files"),
        (
            lambda p: [shard.unlink() for shard in (p / "test").iterdir()],
            "test' has no shards; expected 'data-00000-of-00010'",
        ),
        (lambda p: cut(p / "train" / "data-00001-of-00002"), "record 3 .*ends within the record"),
        (
            lambda p: shutil.copy(
                p / "dev" / "data-00000-of-00002", p / "train" / "data-00000-of-00002"
            ),
            "train' has 6 records; its metadata says 9",
        ),
    ],
)
def test_broken_sets(
    umist: TaskSpec, whole: pathlib.Path, harm: Callable[[pathlib.Path], None], named: str
) -> None:
    harm(whole)
    with pytest.raises(UserError, match=named) as caught:
        dm_nevis.open(umist, whole)
    assert str(whole) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_record_is_named_and_the_others_can_be_read(
    umist: TaskSpec, whole: pathlib.Path
) -> None:
    flip(whole / "train" / "data-00001-of-00002")
    train = dm_nevis.open(umist, whole).splits["train"]
    with pytest.raises(UserError, match=r"data-00001-of-00002'.* record 0 at byte 0: the checksum"):
        train.read(0, 9)
    assert len(train.read(0, 5)) == 5
    assert len(train.read(6, 9)) == 3


@pytest.mark.parametrize(
    ("features", "named"),
    [
        ({"label": [1]}, "has 0 images; expected 1"),
        ({"png_encoded_image": [3], "label": [1]}, "has png_encoded_image as a int64_list"),
        ({"png_encoded_image": b"x"}, "has 0 labels; expected 1"),
        ({"png_encoded_image": b"x", "label": b"cat"}, "has label as a bytes_list"),
        ({"png_encoded_image": b"x", "label": [3]}, "has label 3; expected 0 to 2"),
        ({"png_encoded_image": b"x", "label": [-1]}, "has label -1; expected 0 to 2"),
        ({"png_encoded_image": b"x", "label": [1, 2]}, "has 2 labels; expected 1"),
        ({"png_encoded_image": b"x", "multi_label": [1]}, "has 1 labels; expected 1|several"),
    ],
)
def test_records_that_are_no_examples(
    umist: TaskSpec,
    write_nevis: Make,
    records: dict[str, list[bytes]],
    example: Make,
    features: dict[str, Any],
    named: str,
) -> None:
    records["dev"][1] = example(**features)
    path = write_nevis("umist", records, num_classes=3, shards=1)
    dev = dm_nevis.open(umist, path).splits["dev"]
    with pytest.raises(UserError, match=named) as caught:
        dev.read(0, 4)
    assert "data-00000-of-00001', record 1: " in str(caught.value)


def test_classes_are_counted_without_metadata(
    umist: TaskSpec, whole: pathlib.Path, write_nevis: Make, example: Make
) -> None:
    known = dm_nevis.open(umist, whole)
    (whole / "metadata").write_bytes(b"hostile")
    counted = dm_nevis.open(umist, whole)
    assert (counted.num_classes, counted.class_names) == (3, ())
    assert everything(counted, "test") == everything(known, "test")
    enormous = example(png_encoded_image=b"x", label=[1 << 62])
    path = write_nevis("mall", {split: [enormous] for split in SIZES}, shards=1)
    with pytest.raises(UserError, match=f"has label {1 << 62}; expected"):
        dm_nevis.open(umist, path)
    path = write_nevis("mpeg7", {split: [b"no example"] for split in SIZES}, shards=1)
    with pytest.raises(UserError, match="record 0: is not an example"):
        dm_nevis.open(umist, path)


def test_fewer_examples_than_shards(umist: TaskSpec, write_nevis: Make, example: Make) -> None:
    one = [example(png_encoded_image=b"x", label=[0])]
    path = write_nevis("umist", dict.fromkeys(SIZES, one), shards=10, num_classes=2)
    assert everything(dm_nevis.open(umist, path), "dev_test") == [(b"x", 0)]
    path = write_nevis("umd", {**dict.fromkeys(SIZES, one), "dev": []}, num_classes=2)
    with pytest.raises(UserError, match="dev' has no record"):
        dm_nevis.open(umist, path)


def test_several_labels(make_spec: Make, write_nevis: Make, example: Make) -> None:
    found = [[0, 2], [], [3], [1, 1]]
    rows = [example(png_encoded_image=b"x", multi_label=labels) for labels in found]
    # Without labels, TensorFlow may leave the feature out; others write one under "label".
    rows += [example(png_encoded_image=b"x"), example(png_encoded_image=b"x", label=[2])]
    spec = make_spec("awa2", "multi_label")
    path = write_nevis("awa2", dict.fromkeys(SIZES, rows), shards=1, num_classes=4)
    wanted = np.asarray(
        [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    )
    dataset = dm_nevis.open(spec, path)
    assert (dataset.kind, dataset.num_classes) == ("multi_label", 4)
    labels = np.stack([one.label for one in dataset.splits["test"].read(0, 6)])
    np.testing.assert_array_equal(labels, wanted)
    assert labels.dtype == np.uint8
    (path / "metadata").unlink()
    assert dm_nevis.open(spec, path).num_classes == 4
    path = write_nevis("sun_attributes", dict.fromkeys(SIZES, rows), shards=1, num_classes=3)
    with pytest.raises(UserError, match="record 2: has label 3; expected 0 to 2"):
        dm_nevis.open(spec, path).splits["dev"].read(0, 6)


@hypothesis.given(angles=st.tuples(*[st.integers(0, 4)] * 3))
def test_biwi_is_put_right(angles: tuple[int, int, int]) -> None:
    # Two neighbours in their last bins cannot be told from others; see below.
    hypothesis.assume((4, 4) not in itertools.pairwise(angles))
    # dm_nevis takes the last bin of an angle for the first of the next.
    written = [5 * group + (angle if angle < 4 else 5) for group, angle in enumerate(angles)]
    counts = np.bincount(written, minlength=16)[:15]
    wanted = np.zeros((3, 5), np.uint8)
    wanted[range(3), angles] = 1
    np.testing.assert_array_equal(dm_nevis._correct_biwi(counts), wanted.reshape(-1))


def test_biwi_as_the_benchmark_has_it() -> None:
    # Written [5, 10, 11]: the second angle was in its last bin, and its spill makes the third
    # one sum to 2; the first one's spill makes it look as if it were in its first. So dm_nevis.
    counts = np.bincount([5, 10, 11], minlength=15)
    assert dm_nevis._correct_biwi(counts).nonzero()[0].tolist() == [4, 5, 11]


def test_biwi_from_disk(make_spec: Make, write_nevis: Make, example: Make) -> None:
    spec = make_spec("biwi", "multi_label")
    rows = [
        example(png_encoded_image=b"x", multi_label=labels)
        for labels in ([5, 5, 15], [1, 6, 11], [4, 8, 12], [1, 2, 6])
    ]
    path = write_nevis("biwi", dict.fromkeys(SIZES, rows), shards=1)
    train = dm_nevis.open(spec, path).splits["train"]
    labels = np.stack([one.label for one in train.read(0, 3)])
    assert [row.nonzero()[0].tolist() for row in labels] == [[4, 5, 14], [1, 6, 11], [4, 8, 12]]
    with pytest.raises(UserError, match=r"record 3: has label counts .* not biwi's angles"):
        train.read(3, 4)
    path = write_nevis("other", dict.fromkeys(SIZES, rows), shards=1, num_classes=16)
    with pytest.raises(UserError, match="has 16 labels by its metadata; biwi has 15"):
        dm_nevis.open(spec, path)


def test_fingerprints(
    umist: TaskSpec, make_spec: Make, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def prints() -> dict[str, str]:
        dataset = dm_nevis.open(umist, whole)
        return {split: found.fingerprint() for split, found in dataset.splits.items()}

    before = prints()
    assert len(set(before.values())) == 4
    assert all(len(value) == 64 for value in before.values())
    assert prints() == before
    shard = whole / "dev" / "data-00000-of-00002"
    os.utime(shard, ns=(1, 1))
    after = prints()
    assert [split for split in SPLITS if before[split] != after[split]] == ["dev"]
    # Other labels of the same bytes.
    several = dm_nevis.open(make_spec("umist", "multi_label"), whole)
    assert several.splits["dev"].fingerprint() != after["dev"]
    dataset = dm_nevis.open(umist, whole)
    shard.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        dataset.splits["dev"].fingerprint()
    with pytest.raises(UserError, match="cannot be read"):
        dataset.splits["dev"].read(0, 1)


def test_by_path(write_nevis: Make, example: Make, picture: Make) -> None:
    sizes = {"train": 9, "dev": 2, "dev-test": 2, "test": 3}
    for name, labels in (("single", {"label": [1]}), ("several", {"multi_label": [0, 2]})):
        records = {
            split: [example(png_encoded_image=picture(i), **labels) for i in range(size)]
            for split, size in sizes.items()
        }
        path = write_nevis(name, records, num_classes=3)
        (spec,) = data.stream(str(path))
        dataset = data.open_set(spec)
        kind = "single_label" if name == "single" else "multi_label"
        assert (spec.name, spec.source, dataset.kind) == (name, "nevis", kind)
        assert [len(dataset.splits[split]) for split in data.SPLITS] == list(sizes.values())
