"""Synthetic tasks as data sets."""

import io
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from ctl_jax import data
from ctl_jax.data import SPLITS, synthetic
from ctl_jax.data.sources import synthetic as source
from ctl_jax.data.synthetic import builder
from ctl_jax.errors import UserError

(DIGITS,) = data.stream("digits")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return builder.prepare(synthetic.TASKS["digits"], tmp_path_factory.mktemp("synthetic"))


def test_digits(prepared: pathlib.Path) -> None:
    task = synthetic.TASKS["digits"]
    assert source.find(DIGITS, [prepared.parents[2]]) == prepared
    found = source.open(DIGITS, prepared)
    assert (found.origin, found.kind, found.num_classes) == ("synthetic", "single_label", 10)
    assert tuple(found.splits) == SPLITS
    assert tuple(map(len, found.splits.values())) == task.sizes
    drawn = synthetic.examples(task)
    for records in found.splits.values():
        for one in records.read(0, len(records)):
            image, label = next(drawn)
            assert one.label == label
            with Image.open(io.BytesIO(one.content)) as stored:
                np.testing.assert_array_equal(np.asarray(stored), image)


def test_a_file_is_missing(prepared: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "digits" / prepared.name
    shutil.copytree(prepared, copy)
    file = min(copy.glob("*-dev_test*"))
    file.unlink()
    with pytest.raises(UserError, match=f"file '{file}' is missing"):
        source.open(DIGITS, copy).splits["train"].read(0, 1)


@pytest.mark.parametrize("name", [*synthetic.TASKS, *synthetic.SOURCES])
def test_nothing_is_made_until_it_is_read(tmp_path: pathlib.Path, name: str) -> None:
    spec = data.source_spec(name) if name in synthetic.SOURCES else data.stream(name)[0]
    dataset = data.open_set(spec, [f"synthetic:{tmp_path}"])
    made = {**synthetic.TASKS, **synthetic.SOURCES}[name]
    assert tuple(map(len, dataset.splits.values())) == made.sizes
    assert dataset.class_names == made.classes
    assert not list(tmp_path.iterdir())
