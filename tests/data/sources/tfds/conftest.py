"""Official sets, prepared here by the official builders with made-up pictures, in both formats."""

import io
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from ctl_jax import data
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.sources import tfds as source

DOMAINS = ("real", "painting", "clipart", "quickdraw", "infograph", "sketch")
_TWO = (
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
)
_THREE = ("dtd", "oxford_flowers102", "voc/2007", "patch_camelyon", "sun397", "celeb_a")
SIZES = {
    **{name: {"train": 21, "test": 6} for name in _TWO},
    **{name: {"train": 11, "validation": 4, "test": 5} for name in _THREE},
    "imagenet2012": {"train": 41, "validation": 5, "test": 3},
    "voc/2012": {"train": 11, "validation": 7, "test": 3},
    "coil100": {"train": 160},
    "smallnorb": {"train": 33, "test": 7},
    **{f"domainnet/{name}": {"train": 3 + i, "test": 2 + i} for i, name in enumerate(DOMAINS)},
}


def picture(shape: Sequence[int | None], index: int) -> io.BytesIO:
    """A PNG that tells which example it is."""
    pixels = np.full([side or 8 for side in shape], index % 251, np.uint8)
    pixels[0, 0] = index // 251
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    file.seek(0)
    return file


def example(feature: Any, index: int, rng: np.random.Generator) -> Any:
    """Something that a feature takes."""
    kinds = tfds.features
    if isinstance(feature, kinds.FeaturesDict):
        return {key: example(part, index, rng) for key, part in feature.items()}
    if isinstance(feature, kinds.Image):
        return picture(feature.shape, index)
    if isinstance(feature, kinds.Sequence):
        return [example(feature.feature, index, rng) for _ in range(rng.integers(4))]
    if isinstance(feature, kinds.ClassLabel):
        return int(rng.integers(feature.num_classes))
    if isinstance(feature, kinds.BBoxFeature):
        return tfds.features.BBox(0.0, 0.25, 0.5, 1.0)
    if isinstance(feature, kinds.Text):
        return f"text {index}"
    return feature.np_dtype(rng.integers(2))


def make(data_dir: pathlib.Path, dataset: str, sizes: dict[str, int]) -> None:
    """Prepares a set by its official builder, which gets other pictures."""
    builder = tfds.builder(dataset, data_dir=data_dir, file_format="array_record")

    def examples(split: str) -> Iterator[tuple[int, Any]]:
        rng = np.random.default_rng(len(split))
        for index in range(sizes[split]):
            found = example(builder.info.features, index, rng)
            if dataset == "smallnorb" and split == "train":
                found["instance"] = (4, 6, 7, 8, 9)[index % 5]
            if dataset == "coil100":
                found["angle_label"] = index % 72
            yield index, found

    builder._split_generators = lambda dl_manager: {split: examples(split) for split in sizes}
    tfds.disable_progress_bar()
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=2, try_download_gcs=False)
    )


def to_tfrecord(folder: pathlib.Path, frame: Callable[[bytes], bytes]) -> None:
    """Rewrites a prepared set."""
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        for old in folder.glob(f"*-{split['name']}.array_record*"):
            reader = ArrayRecordReader(str(old))
            records = reader.read_all()
            reader.close()
            name = old.name.replace("array_record", "tfrecord")
            old.with_name(name).write_bytes(b"".join(map(frame, records)))
            old.unlink()
    info["fileFormat"] = "tfrecord"
    path.write_text(json.dumps(info))


@pytest.fixture(scope="session")
def make_official() -> Callable[[pathlib.Path, str, dict[str, int]], None]:
    """Prepares a set in a data_dir with splits of some sizes."""
    return make


@pytest.fixture(scope="session")
def array_records(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data_dir with all 22 sets."""
    folder = tmp_path_factory.mktemp("official")
    for dataset, sizes in SIZES.items():
        make(folder, dataset, sizes)
    return folder


@pytest.fixture(scope="session")
def tfrecords(
    array_records: pathlib.Path,
    frame: Callable[[bytes], bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
    """The same, in the other format."""
    folder = tmp_path_factory.mktemp("tfrecord") / "data"
    shutil.copytree(array_records, folder)
    for path in folder.rglob("dataset_info.json"):
        to_tfrecord(path.parent, frame)
    return folder


@pytest.fixture(params=["array_records", "tfrecords"])
def data_dir(request: pytest.FixtureRequest) -> pathlib.Path:
    folder: pathlib.Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="session")
def opened() -> Callable[[str, pathlib.Path], DataSet]:
    """Finds and opens a set of a data_dir."""

    def open_set(name: str, data_dir: pathlib.Path) -> DataSet:
        (spec,) = data.stream(name)
        path = source.find(spec, (data_dir,))
        assert path is not None
        return source.open(spec, path)

    return open_set


@pytest.fixture(scope="session")
def version() -> Callable[[pathlib.Path, str], pathlib.Path]:
    """The folder of a set in a data_dir."""

    def find(data_dir: pathlib.Path, dataset: str) -> pathlib.Path:
        (path,) = (data_dir / dataset).rglob("dataset_info.json")
        return path.parent

    return find


@pytest.fixture
def copied(
    data_dir: pathlib.Path,
    version: Callable[[pathlib.Path, str], pathlib.Path],
    tmp_path: pathlib.Path,
) -> Callable[[str], pathlib.Path]:
    """Copies a set that a test may damage to the data_dir tmp_path/data; gives its folder."""

    def copy(dataset: str) -> pathlib.Path:
        folder = version(data_dir, dataset)
        target = tmp_path / "data" / folder.relative_to(data_dir)
        shutil.copytree(folder, target)
        return target

    return copy
