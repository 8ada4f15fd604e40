"""Decoding on several threads: order, labels, and what is left out."""

import io
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ctl_jax.data import decoding
from ctl_jax.data.dataset import Example
from ctl_jax.errors import UserError


def encode(value: int, side: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), value % 256).save(file, "PNG")
    return file.getvalue()


class Listed:
    """Records of a list. Those at `unreadable` cannot be read, nor any range that has one."""

    def __init__(self, contents: Sequence[bytes], labels: Sequence, unreadable=()) -> None:
        self.contents, self.labels, self.unreadable = contents, labels, set(unreadable)

    def __len__(self) -> int:
        return len(self.contents)

    def read(self, start: int, stop: int) -> list[Example]:
        for index in range(start, stop):
            if index in self.unreadable:
                raise UserError(f"'file', record {index}: wrong checksum")
        return [
            Example(self.contents[i], self.labels[i], f"'file', record {i}")
            for i in range(start, stop)
        ]

    def fingerprint(self) -> str:
        return "0" * 64


def decode(records, num_classes=10, multi_label=False, threads=3, size=4):
    chunks = list(decoding.decode(records, size, num_classes, multi_label, threads))
    images, labels = (
        np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("images", "labels")
    )
    return images, labels, [line for chunk in chunks for line in chunk.corrupt]


@given(
    examples=st.integers(1, 600),
    threads=st.integers(1, 5),
    unreadable=st.sets(st.integers(0, 599), max_size=4),
    no_image=st.sets(st.integers(0, 599), max_size=4),
)
def test_order_is_kept_and_corrupt_ones_are_left_out(examples, threads, unreadable, no_image):
    contents = [b"no image" if i in no_image else encode(i) for i in range(examples)]
    labels = [i % 10 for i in range(examples)]
    good = [i for i in range(examples) if i not in unreadable | no_image]
    images, found, corrupt = decode(Listed(contents, labels, unreadable), threads=threads)
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.asarray(good, int) % 256)
    np.testing.assert_array_equal(found, np.asarray(good, int) % 10)
    assert found.dtype == np.int32
    lost = [i for i in range(examples) if i in unreadable | no_image]
    assert len(corrupt) == len(lost)
    for index in lost:
        reason = "wrong checksum" if index in unreadable else "not an image"
        assert any(f"'file', record {index}: {reason}" in line for line in corrupt)


def test_labels_of_several_classes():
    vectors = np.random.default_rng(0).integers(0, 2, (40, 5)).astype(np.uint8)
    _, labels, _ = decode(Listed([encode(0)] * 40, list(vectors)), 5, multi_label=True)
    np.testing.assert_array_equal(labels, vectors)
    assert labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("label", "multi_label", "expected"),
    [
        (10, False, r"label 10; expected 0 to 9"),
        (-1, False, r"label -1; expected 0 to 9"),
        (np.zeros(10, np.uint8), False, r"expected 0 to 9"),
        (3, True, r"label 3; expected 10 of 0 and 1"),
        (np.zeros(9, np.uint8), True, r"expected 10 of 0 and 1"),
        (np.full(10, 2, np.uint8), True, r"expected 10 of 0 and 1"),
    ],
)
def test_a_label_that_does_not_fit_is_named(label, multi_label, expected):
    good = np.zeros(10, np.uint8) if multi_label else 0
    labels = [good] * 20 + [label] + [good] * 5
    with pytest.raises(UserError, match=rf"^'file', record 20: .*{expected}"):
        decode(Listed([encode(0)] * 26, labels), multi_label=multi_label)


def test_a_file_that_is_gone_ends_it():
    class Gone(Listed):
        def read(self, start, stop):
            if stop > 30:
                raise FileNotFoundError(2, "No such file or directory", "shard-3")
            return super().read(start, stop)

    with pytest.raises(UserError, match=r"No such file or directory: 'shard-3'"):
        decode(Gone([encode(0)] * 40, [0] * 40))


@pytest.mark.parametrize("side", [4, 1000])
def test_what_is_in_memory_is_bounded(side: int):
    """However slow the consumer is: large images are taken a few at a time."""
    content = encode(7, 4) + bytes(1 << 20) if side == 1000 else encode(7)
    records = Listed([content] * 3000, [0] * 3000)
    read, lock = [0], threading.Lock()
    original = records.read

    def counting(start, stop):
        with lock:
            read[0] += stop - start
        return original(start, stop)

    records.read = counting
    consumed, ahead = 0, 0
    for chunk in decoding.decode(records, 4, 10, False, 2):
        consumed += len(chunk.labels)
        ahead = max(ahead, read[0] - consumed)
        if consumed > 1500:
            break
    limit = 2 * 2 * (4 if side == 1000 else 256) + 8
    assert 0 < ahead <= limit


def test_an_abandoned_decoding_leaves_no_threads():
    before = threading.active_count()
    chunks = decoding.decode(Listed([encode(0)] * 3000, [0] * 3000), 4, 10, False, 4)
    next(chunks)
    chunks.close()
    assert threading.active_count() == before
