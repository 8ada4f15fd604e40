"""Prepared TFDS sets: tiny ones made here, in both file formats, whole and damaged."""

import io
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ctl_jax import data
from ctl_jax.data import prepared
from ctl_jax.errors import UserError

SIDE = 8
SETS = {
    "mnist": {"train": 20, "test": 6},
    "dtd": {"train": 10, "validation": 4, "test": 5},
    "imagenet2012": {"train": 40, "validation": 5},
    "emnist/balanced": {"train": 20, "test": 3},
    "sun397/tfds": {"train": 5, "validation": 2, "test": 3},
}


def make(data_dir: pathlib.Path, dataset: str, sizes: dict[str, int]) -> None:
    """Prepares a set of that name with TFDS; each picture tells which example it is."""
    set_name, _, config = dataset.partition("/")
    with tfds.core.registered.skip_registration():

        class Tiny(tfds.core.GeneratorBasedBuilder):
            name = set_name
            VERSION = tfds.core.Version("3.0.1")
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

            def _info(self) -> tfds.core.DatasetInfo:
                features = {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(num_classes=3),
                    "file_name": tfds.features.Text(),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    disable_shuffling=True,
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
                return {split: self._generate_examples(split) for split in sizes}

            def _generate_examples(self, split: str) -> Iterator[Any]:
                for index in range(sizes[split]):
                    image = np.full((SIDE, SIDE, 3), list(sizes).index(split), np.uint8)
                    image[..., 0] = index
                    file = io.BytesIO()
                    Image.fromarray(image).save(file, "PNG")
                    file.seek(0)
                    yield index, {"image": file, "label": index % 3, "file_name": "x"}

    Tiny(data_dir=data_dir, file_format="array_record").download_and_prepare()


def to_tfrecord(folder: pathlib.Path, frame: Callable[[bytes], bytes]) -> None:
    """Rewrites a prepared set with two TFRecord files a split."""
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        (old,) = folder.glob(f"*-{split['name']}.array_record*")
        records = prepared._read_array_record(old)
        middle = len(records) // 2
        for shard, part in enumerate((records[:middle], records[middle:])):
            name = f"{info['name']}-{split['name']}.tfrecord-{shard:05}-of-00002"
            (folder / name).write_bytes(b"".join(map(frame, part)))
        old.unlink()
        split["shardLengths"] = [str(middle), str(len(records) - middle)]
    info["fileFormat"] = "tfrecord"
    path.write_text(json.dumps(info))


@pytest.fixture(scope="session")
def array_records(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("array_records")
    for dataset, sizes in SETS.items():
        make(folder, dataset, sizes)
    return folder


@pytest.fixture(scope="session")
def tfrecords(
    array_records: pathlib.Path,
    frame: Callable[[bytes], bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tfrecords") / "data"
    shutil.copytree(array_records, folder)
    for dataset in SETS:
        to_tfrecord(folder / dataset / "3.0.1", frame)
    return folder


@pytest.fixture(params=["array_records", "tfrecords"])
def data_dir(request: pytest.FixtureRequest) -> pathlib.Path:
    folder: pathlib.Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture
def copy(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A mnist that a test may damage; its folder."""
    folder = tmp_path / "data" / "mnist" / "3.0.1"
    shutil.copytree(data_dir / "mnist" / "3.0.1", folder)
    return folder


def contents(task: data.Task) -> dict[str, list[tuple[int, int]]]:
    """TFDS split (by its place) and number of each example."""
    return {
        name: [(int(image[0, 0, 1]), int(image[0, 0, 0])) for image in split.images]
        for name, split in task.splits.items()
    }


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("mnist", [(0, 0, 14), (0, 14, 17), (0, 17, 20), (1, 0, 6)]),
        ("dtd", [(0, 0, 8), (0, 8, 10), (1, 0, 4), (2, 0, 5)]),
        ("imagenet2012", [(0, 0, 36), (0, 36, 38), (0, 38, 40), (1, 0, 5)]),
        ("emnist/balanced", [(0, 0, 14), (0, 14, 17), (0, 17, 20), (1, 0, 3)]),
        ("sun397", [(0, 0, 4), (0, 4, 5), (1, 0, 2), (2, 0, 3)]),
    ],
)
def test_each_example_lands_in_its_split(
    data_dir: pathlib.Path, dataset: str, expected: list[tuple[int, int, int]]
) -> None:
    (spec,) = data.stream(dataset)
    assert data.availability(spec, [data_dir]) is None
    task = data.load(spec, SIDE, [data_dir])
    assert task.num_classes == 3
    assert task.spec == spec
    assert contents(task) == {
        name: [(split, k) for k in range(start, stop)]
        for name, (split, start, stop) in zip(data.SPLITS, expected, strict=True)
    }
    for name, (_, start, stop) in zip(data.SPLITS, expected, strict=True):
        split = task.splits[name]
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.labels, np.arange(start, stop) % 3)


def test_formats_give_the_same_task(array_records: pathlib.Path, tfrecords: pathlib.Path) -> None:
    (spec,) = data.stream("mnist")
    tasks = [data.load(spec, SIDE, [folder]) for folder in (array_records, tfrecords)]
    assert tasks[0].fingerprint == tasks[1].fingerprint
    assert data.load(spec, SIDE + 1, [tfrecords]).fingerprint != tasks[0].fingerprint


def test_the_first_folder_that_has_a_set_and_its_highest_version(
    array_records: pathlib.Path, tfrecords: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    found = prepared.find("mnist", [empty, tfrecords, array_records])
    assert found == tfrecords / "mnist" / "3.0.1"
    for version in ("3.0.1", "3.0.9", "3.0.10", "3.0.11.incompleteABC"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
    assert prepared.find("mnist", [tmp_path]) == tmp_path / "mnist" / "3.0.10"


def test_availability_reads_no_image(copy: pathlib.Path) -> None:
    for file in copy.glob("mnist-*"):
        file.write_bytes(b"not a record")
    (spec,) = data.stream("mnist")
    assert data.availability(spec, [copy.parents[1]]) is None


def test_unavailable_with_a_reason(tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    dirs = [str(tmp_path), str(other)]
    reasons = {
        "mnist": "TFDS data set 'mnist' is not in " + ", ".join(map(repr, dirs)),
        "coil100": "the split rule of 'coil100' is not supported yet",
        "voc/2007": "tasks with several labels an image are not supported yet",
        "COIL 20": "data sets that dm_nevis prepares are not supported yet",
    }
    for name, reason in reasons.items():
        (spec,) = data.stream(name)
        assert data.availability(spec, dirs) == reason
        with pytest.raises(UserError, match="is not available: "):
            data.load(spec, SIDE, dirs)
    assert data.availability(data.stream("mnist")[0]) == (
        "TFDS data set 'mnist' is not in any folder: none was given"
    )


def test_a_missing_data_folder_is_an_error(data_dir: pathlib.Path) -> None:
    (spec,) = data.stream("mnist")
    for function in (data.availability, lambda s, dirs: data.load(s, SIDE, dirs)):
        with pytest.raises(UserError, match=r"data_dir '/no/such/folder' is not a folder"):
            function(spec, [data_dir, "/no/such/folder"])


def test_a_missing_file_or_split_is_a_reason(copy: pathlib.Path) -> None:
    (spec,) = data.stream("mnist")
    dirs = [copy.parents[1]]
    file = min(copy.glob("mnist-test*"))
    content = file.read_bytes()
    file.unlink()
    assert data.availability(spec, dirs) == f"file {str(file)!r} is missing"
    file.write_bytes(content)

    path = copy / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] != "test"]
    path.write_text(json.dumps(info))
    reason = data.availability(spec, dirs)
    assert reason == f"{str(copy)!r} has no split 'test'; it has ['train']"
    path.write_text("{")
    reason = data.availability(spec, dirs)
    assert reason is not None
    assert reason.startswith(f"{str(copy)!r} is not a prepared TFDS data set: ")
    assert "\n" not in reason


def test_features_that_are_no_classified_image(copy: pathlib.Path) -> None:
    (spec,) = data.stream("mnist")
    path = copy / "features.json"
    whole = path.read_text()
    for name in ("image", "label"):
        features = json.loads(whole)
        table = features["featuresDict"]["features"]
        table[name] = table["file_name"]
        path.write_text(json.dumps(features))
        reason = data.availability(spec, [copy.parents[1]])
        assert reason is not None
        assert f"has no feature {name!r}" in reason


def test_damaged_files_are_named(copy: pathlib.Path) -> None:
    (spec,) = data.stream("mnist")
    file = max(copy.glob("mnist-train*"))
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\0" * 100):
        file.write_bytes(content)
        with pytest.raises(UserError) as error:
            data.load(spec, SIDE, [copy.parents[1]])
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)


def test_records_that_are_missing_or_no_examples(
    copy: pathlib.Path, frame: Callable[[bytes], bytes], tfrecords: pathlib.Path
) -> None:
    shutil.rmtree(copy)
    shutil.copytree(tfrecords / "mnist" / "3.0.1", copy)
    (spec,) = data.stream("mnist")
    dirs = [copy.parents[1]]
    file = max(copy.glob("mnist-train*"))
    whole = file.read_bytes()
    file.write_bytes(whole + frame(b"one too many"))
    with pytest.raises(UserError, match="has 11 records; expected 10"):
        data.load(spec, SIDE, dirs)
    file.write_bytes(b"".join([frame(b"\xff\xff") for _ in range(10)]))
    with pytest.raises(UserError, match="record 0 is not an example"):
        data.load(spec, SIDE, dirs)


def test_labels_outside_the_classes(copy: pathlib.Path) -> None:
    path = copy / "features.json"
    path.write_text(path.read_text().replace('"numClasses": "3"', '"numClasses": "2"'))
    (spec,) = data.stream("mnist")
    with pytest.raises(UserError, match=r"example 2 of split 'train' has label 2; expected 0 to 1"):
        data.load(spec, SIDE, [copy.parents[1]])


@pytest.mark.parametrize("size", [0, -1])
def test_image_size(data_dir: pathlib.Path, size: int) -> None:
    with pytest.raises(UserError, match=f"image_size {size} "):
        data.load(data.stream("mnist")[0], size, [data_dir])


@pytest.mark.parametrize(
    ("name", "classes", "sizes"),
    [
        ("mnist", 10, (7000, 1500, 1500, 2000)),
        ("cifar10", 10, (5600, 1200, 1200, 2000)),
        ("caltech101", 102, (2142, 459, 459, 1530)),
    ],
)
def test_real_data(
    shared_dir: pathlib.Path, name: str, classes: int, sizes: tuple[int, int, int, int]
) -> None:
    folder = shared_dir / "real_data" / "tfds"
    (spec,) = data.stream(name)
    task = data.load(spec, 16, [folder])
    assert task.num_classes == classes
    assert tuple(len(split) for split in task.splits.values()) == sizes
    assert all(split.images.shape == (len(split), 16, 16, 3) for split in task.splits.values())
    # The slices are in TFDS's own order.
    builder = prepared.open_builder(next((folder / name).iterdir()))
    labels = np.concatenate([task.splits[part].labels for part in data.SPLITS[:3]])
    if name != "mnist":
        source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
        places = [0, sizes[0] - 1, sizes[0], sizes[0] + sizes[1], len(source) - 1]
        assert [int(source[place]["label"]) for place in places] == labels[places].tolist()
    assert set(labels.tolist()) == set(range(classes))
