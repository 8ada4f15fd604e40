"""Embedded tasks as data sets."""

import io
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from ctl_jax.data import SPLITS, embedded
from ctl_jax.data.embedded import builder
from ctl_jax.data.sources import embedded as source
from ctl_jax.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return builder.prepare(embedded.TASKS["digits"], tmp_path_factory.mktemp("embedded"))


def test_digits(prepared: pathlib.Path) -> None:
    task = embedded.TASKS["digits"]
    found = source.open(task, prepared)
    assert (found.origin, found.kind, found.num_classes) == ("embedded", "single_label", 10)
    assert tuple(found.splits) == SPLITS
    assert tuple(map(len, found.splits.values())) == task.sizes
    drawn = embedded.examples(task)
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
        source.open(embedded.TASKS["digits"], copy)
