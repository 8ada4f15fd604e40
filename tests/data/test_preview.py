"""Pictures of data sets: which samples are in them."""

import io

import numpy as np
import pytest
from PIL import Image

from ctl_jax.data import _preview
from ctl_jax.data.dataset import DataSet, Example
from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError


def _png(colour: tuple[int, int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(content, "PNG")
    return content.getvalue()


class Labelled:
    """Examples of given labels, all of one colour."""

    def __init__(self, labels: list[object], content: bytes = _png((0, 200, 0))) -> None:
        self.labels, self.content, self.reads = labels, content, 0

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, start: int, stop: int) -> list[Example]:
        assert 0 <= start < stop <= len(self)
        self.reads += stop - start
        return [
            Example(self.content, self.labels[i], f"file {i}")  # type: ignore[arg-type]
            for i in range(start, stop)
        ]

    def fingerprint(self) -> str:
        return ""


def _set(
    train: Labelled, num_classes: int, names: tuple[str, ...] = (), kind: str = "single_label"
) -> DataSet:
    others = dict.fromkeys(SPLITS[1:], Labelled([0, 0, 0]))
    return DataSet("folder", "/x", num_classes, names, kind, {"train": train, **others})


def test_samples_of_every_class() -> None:
    found = _preview.samples(Labelled([i % 7 for i in range(100)]), 3)
    assert {number: len(examples) for number, examples in found.items()} == dict.fromkeys(
        range(7), 3
    )
    assert [example.where for example in found[2]] == ["file 2", "file 9", "file 16"]


def test_an_image_with_several_labels_is_a_sample_of_each() -> None:
    labels: list[object] = [np.uint8([1, 1, 0]), np.uint8([0, 1, 0]), np.uint8([0, 0, 0])]
    found = _preview.samples(Labelled(labels), 5)
    assert {number: len(examples) for number, examples in found.items()} == {0: 1, 1: 2}


def test_a_large_set_sorted_by_class_is_read_in_part_and_all_over() -> None:
    records = Labelled([i // 20_000 for i in range(200_000)])
    found = _preview.samples(records, 4)
    assert sorted(found) == list(range(10))
    assert records.reads <= 16_384


def _pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def test_samples_are_drawn() -> None:
    names = ("$5", "\N{CJK UNIFIED IDEOGRAPH-7AE0}", "a" * 90)
    dataset = _set(Labelled([0, 1, 2] * 4), 3, names)
    pixels = _pixels(_preview.render("$title_", dataset))
    green = (pixels == [0, 200, 0]).all(axis=-1).sum()
    assert green > 3 * 4 * 500
    # An image fewer is an image fewer in the picture.
    fewer = _pixels(_preview.render("$title_", _set(Labelled([0, 1, 2] * 3), 3, names)))
    assert (fewer == [0, 200, 0]).all(axis=-1).sum() == pytest.approx(green * 3 / 4, rel=0.02)


def test_many_classes_are_thinned_out() -> None:
    many = _pixels(_preview.render("many", _set(Labelled(list(range(500))), 500)))
    twenty = _pixels(_preview.render("many", _set(Labelled(list(range(20))), 20)))
    assert many.shape == twenty.shape


def test_an_empty_set_has_a_picture() -> None:
    assert _pixels(_preview.render("empty", _set(Labelled([]), 3))).size


def test_a_damaged_image_is_named() -> None:
    with pytest.raises(UserError, match="file 0: "):
        _preview.render("damaged", _set(Labelled([0], b"no image"), 1))
