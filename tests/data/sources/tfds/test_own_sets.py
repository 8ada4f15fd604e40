"""Sets that TFDS has prepared and the catalogue does not know, and known ones by their paths."""

import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ctl_jax import data
from ctl_jax.errors import UserError

CLASSES = tfds.features.ClassLabel(names=["rose", "oak", "moss"])
IMAGE = tfds.features.Image(shape=(None, None, 3))
Make = Callable[..., Any]


@pytest.fixture
def prepared(tmp_path: pathlib.Path, picture: Make) -> Callable[..., pathlib.Path]:
    """Writes plants/1.0.0 with some features; example i of a split has label i % 3, or labels."""

    def value(feature: Any, number: int) -> Any:
        if isinstance(feature, tfds.features.Image):
            return io.BytesIO(picture(number))
        if isinstance(feature, tfds.features.Sequence):
            if hasattr(feature.feature, "items"):
                return [{key: value(f, number) for key, f in feature.feature.items()}]
            return [value(feature.feature, number)] * (number % 2)
        return number % 3

    def write(
        features: Mapping[str, Any], splits: Mapping[str, int], name: str = "plants"
    ) -> pathlib.Path:
        folder = tmp_path / name / "1.0.0"
        folder.mkdir(parents=True)
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=name, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name="x"
        )
        info = tfds.core.DatasetInfo(
            builder=identity,
            features=tfds.features.FeaturesDict(dict(features)),
            disable_shuffling=True,
        )
        writer = tfds.core.SequentialWriter(info, 16, file_format="array_record")
        writer.initialize_splits(list(splits))
        for number, (split, count) in enumerate(splits.items()):
            rows = [
                {key: value(feature, 100 * number + i) for key, feature in features.items()}
                for i in range(count)
            ]
            writer.add_examples({split: rows})
        writer.close_all()
        return tmp_path / name

    return write


def opened(path: pathlib.Path | str) -> data.DataSet:
    return data.open_set(data.stream(str(path))[0])


@pytest.mark.parametrize(
    "features",
    [
        {"image": IMAGE, "label": CLASSES},
        {"photo": IMAGE, "genus": CLASSES, "id": tfds.features.Scalar(np.int64)},
        {"image": IMAGE, "coarse_label": CLASSES, "label": CLASSES},
    ],
)
@pytest.mark.parametrize("inner", ["", "1.0.0"])
def test_any_features(features: Any, inner: str, prepared: Make, picture: Make) -> None:
    path = prepared(features, {"train": 40, "validation": 6, "test": 8, "unlabelled": 2})
    dataset = opened(path / inner)
    (spec,) = data.stream(str(path / inner))
    assert (spec.name, spec.source, dataset.origin) == ("plants", "tfds", "tfds")
    assert (dataset.kind, dataset.class_names) == ("single_label", ("rose", "oak", "moss"))
    assert [len(dataset.splits[split]) for split in data.SPLITS] == [34, 6, 6, 8]
    assert "splits left out, by their names: unlabelled" in dataset.notes
    found = dataset.splits["test"].read(0, 8)
    assert [(one.content, one.label) for one in found] == [
        (picture(200 + i), (200 + i) % 3) for i in range(8)
    ]


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (
            {"image": IMAGE, "tags": tfds.features.Sequence(CLASSES)},
            [[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]],
        ),
        (
            {"image": IMAGE, "objects": tfds.features.Sequence({"label": CLASSES})},
            [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]],
        ),
    ],
)
def test_several_labels(features: Any, labels: Any, prepared: Make) -> None:
    dataset = opened(prepared(features, {"train": 40, "validation": 6, "test": 6, "all": 3}))
    assert dataset.kind == "multi_label"
    assert [one.label.tolist() for one in dataset.splits["dev"].read(0, 6)] == labels
    task = data.load(data.stream(dataset.path)[0], 8)
    assert task.splits["train"].labels.shape == (34, 3)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"label": CLASSES}, r"plants/1\.0\.0' has the features label; expected an image"),
        ({"image": IMAGE, "n": tfds.features.Scalar(np.int64)}, "image, n; expected a label of cl"),
        (
            {"image": IMAGE, "genus": CLASSES, "family": CLASSES},
            "expected one of family, genus as 'label'",
        ),
    ],
)
def test_features_that_are_not_clear(features: Any, message: str, prepared: Make) -> None:
    with pytest.raises(UserError, match=message):
        opened(prepared(features, {"train": 9}))


def test_by_name_in_a_folder_of_sets(prepared: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = prepared({"image": IMAGE, "label": CLASSES}, {"train": 40})
    (spec,) = data.stream("tfds:plants")
    dataset = data.open_set(spec, [f"tfds:{path.parent}"])
    assert dataset.identity() == opened(path).identity()
    monkeypatch.setenv("TFDS_DATA_DIR", str(path.parent))
    assert data.open_set(spec).identity() == dataset.identity()
    with pytest.raises(UserError, match="data set 'weeds' is not in"):
        data.open_set(data.stream("tfds:weeds")[0], [f"tfds:{path.parent}"])
    assert data.stream("tfds:mnist") == data.stream("mnist")


def test_a_folder_of_sets_is_none(prepared: Make) -> None:
    for name in ("plants", "weeds"):
        path = prepared({"image": IMAGE, "label": CLASSES}, {"train": 9}, name)
    with pytest.raises(UserError, match=r"holds plants, weeds; expected the path of one TFDS set"):
        opened(path.parent)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "caltech101"])
def test_official_sets_have_the_splits_of_the_catalogue(
    shared_dir: pathlib.Path, name: str
) -> None:
    folder = shared_dir / "real_data" / "tfds"
    (spec,) = data.stream(name)
    dataset = opened(folder / name)
    assert dataset.identity() == data.open_set(spec, [f"tfds:{folder}"]).identity()
