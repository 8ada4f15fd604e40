"""The stand-in for TensorFlow: what it encodes, what it lacks, when it steps aside."""

import importlib.util
import io
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.utils import image_utils

from ctl_jax.data import _without_tensorflow


def test_arrays_are_encoded_as_tensorflow_does(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)).resize((90, 70))
    file = io.BytesIO()
    colour.save(file, "PNG")
    with _without_tensorflow.stand_in():
        for shape in ((9, 7, 3), (9, 7, 1), (9, 7, 4)):
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            content = tfds.features.Image(shape=shape).encode_example(pixels)
            np.testing.assert_array_equal(image_utils.decode_image(content), pixels)
        jpeg = image_utils.png_to_jpeg(file.getvalue(), 95)
    with Image.open(io.BytesIO(jpeg)) as image:
        difference = np.abs(np.asarray(image, np.int16) - np.asarray(colour, np.int16))
        assert image.format == "JPEG"
    assert difference.mean() < 4


def test_what_is_not_stood_in_for_is_named() -> None:
    before = vars(image_utils)["tf"]
    with _without_tensorflow.stand_in():
        with pytest.raises(ImportError, match=r"it needs tf\.Graph of TensorFlow, which is not"):
            vars(image_utils)["tf"].Graph()
        with pytest.raises(ImportError, match=r"it needs tf\.io\.gfile\.glob of TensorFlow"):
            vars(image_utils)["tf"].io.gfile.glob("*")
    assert vars(image_utils)["tf"] is before


def test_tensorflow_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = vars(image_utils)["tf"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with _without_tensorflow.stand_in():
        assert vars(image_utils)["tf"] is before


def test_files_are_read_on_after_they_were_closed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x"
    with _without_tensorflow.stand_in():
        files = vars(image_utils)["tf"].io.gfile
        with files.GFile(path, "w") as file:
            file.write("é\nb\n")
        assert path.read_bytes() == "é\nb\n".encode()
        with pytest.raises(ValueError, match="closed file"):
            file.write("c")
        with files.GFile(path) as file:
            assert list(file) == ["é\n", "b\n"]
        file.seek(3)
        assert file.read() == "b\n"
        files.copy(path, tmp_path / "y")
        with pytest.raises(FileExistsError):
            files.copy(path, tmp_path / "y")
        assert files.listdir(tmp_path) == ["x", "y"]
