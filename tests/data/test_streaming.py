"""Batches in the same order wherever the images lie, and the memory that they take."""

import pathlib
import threading

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.data import streaming
from ctl_jax.data.streaming import Order

EXAMPLES = 37


@pytest.fixture
def mapped(tmp_path: pathlib.Path) -> np.ndarray:
    """Images of which each has its number, on disk."""
    images = np.zeros((EXAMPLES, 4, 4, 3), np.uint8)
    images += np.arange(EXAMPLES, dtype=np.uint8)[:, None, None, None]
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


def take(images, labels, **options):
    found = list(streaming.batches(images, labels, batch_size=5, seed=3, **options))
    return [np.asarray(i) for i, _ in found], [np.asarray(label) for _, label in found]


@given(examples=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 9))
def test_every_example_comes_equally_often(examples, batch_size, seed):
    order = Order(examples, batch_size, seed)
    drawn = np.concatenate([order[batch] for batch in range(examples)])
    counts = np.bincount(drawn, minlength=examples)
    assert (counts == batch_size).all()
    assert drawn.dtype == np.int32


def test_batches_depend_on_the_seed_alone():
    def draw(seed):
        order = Order(20, 6, seed)
        return np.stack([order[batch] for batch in range(9)])

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


def test_epochs_are_shuffled_anew():
    first, second = (Order(30, 30, 0)[epoch] for epoch in (0, 1))
    assert (first != second).any()


@given(
    examples=st.integers(1, 30),
    batch_size=st.integers(1, 70),
    asked=st.lists(st.integers(0, 25), min_size=1),
)
def test_an_order_may_be_asked_in_any_order(examples, batch_size, asked):
    order, in_turn = Order(examples, batch_size, 4), Order(examples, batch_size, 4)
    expected = [in_turn[batch] for batch in range(26)]
    for batch in asked:
        np.testing.assert_array_equal(order[batch], expected[batch])


@pytest.mark.parametrize("labels", [np.arange(EXAMPLES), np.eye(EXAMPLES, dtype=np.uint8)])
@pytest.mark.parametrize("start", [0, 1, 13])
def test_streamed_and_kept_batches_are_the_same(mapped, labels, start):
    kept = take(np.array(mapped), labels, stop=20, start=start)
    streamed = take(mapped, labels, stop=20, start=start, device_bytes=mapped.nbytes - 1)
    assert len(kept[0]) == 20 - start
    for one, other in zip(kept, streamed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_images_and_labels_belong_together(mapped):
    images, labels = take(mapped, np.arange(EXAMPLES), stop=30, device_bytes=0)
    np.testing.assert_array_equal(np.stack(images)[..., 0, 0, 0], np.stack(labels))


def test_a_training_goes_on_where_it_was(mapped):
    labels = np.arange(EXAMPLES)
    whole, _ = take(mapped, labels, stop=30, device_bytes=0)
    rest, _ = take(mapped, labels, stop=30, start=17, device_bytes=0)
    np.testing.assert_array_equal(whole[17:], rest)


def test_the_limit_decides_which_way_is_taken(mapped, monkeypatch):
    labels = np.arange(EXAMPLES)
    read = []
    original = streaming._Source.__getitem__

    def recorded(source, batch):
        read.append(batch)
        return original(source, batch)

    monkeypatch.setattr(streaming._Source, "__getitem__", recorded)
    take(mapped, labels, stop=4, device_bytes=mapped.nbytes)
    # What is on the device already is not taken back.
    take(jax.numpy.asarray(mapped), labels, stop=4, device_bytes=0)
    assert read == []
    take(mapped, labels, stop=4, device_bytes=mapped.nbytes - 1)
    assert sorted(read) == [0, 1, 2, 3]


@pytest.mark.parametrize("buffer_bytes", [0, 4 * 5 * 48, 1 << 30])
def test_few_batches_are_read_ahead(mapped, monkeypatch, buffer_bytes):
    monkeypatch.setattr(streaming, "_BUFFER_BYTES", buffer_bytes)
    read, lock = [], threading.Lock()
    original = streaming._Source.__getitem__

    def recorded(source, batch):
        with lock:
            read.append(batch)
        return original(source, batch)

    monkeypatch.setattr(streaming._Source, "__getitem__", recorded)
    batches = streaming.batches(
        mapped, np.arange(EXAMPLES), batch_size=5, seed=0, stop=1000, device_bytes=0
    )
    ahead = 0
    for taken, _ in zip(range(1, 60), batches, strict=False):
        ahead = max(ahead, len(read) - taken)
    batches.close()
    assert ahead <= {0: 2, 960: 4, 1 << 30: 16}[buffer_bytes] + 1


def test_an_abandoned_stream_leaves_no_threads(mapped):
    before = set(threading.enumerate())
    batches = streaming.batches(
        mapped, np.arange(EXAMPLES), batch_size=5, seed=0, stop=1000, device_bytes=0
    )
    next(batches)
    batches.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def _mapped_bytes(path: pathlib.Path) -> int:
    """How much of a mapped file is in the memory of this process."""
    lines = pathlib.Path("/proc/self/smaps").read_text().split("\n")
    found = [i for i, line in enumerate(lines) if line.endswith(str(path))]
    resident = [next(line for line in lines[i:] if line.startswith("Rss:")) for i in found]
    return sum(int(line.split()[1]) * 1024 for line in resident)


def test_pages_that_were_read_are_given_back(tmp_path):
    if not pathlib.Path("/proc/self/smaps").exists():
        pytest.skip("no /proc/self/smaps")
    path = tmp_path / "images.npy"
    np.save(path, np.ones((3000, 64, 64, 3), np.uint8))
    images = np.load(path, mmap_mode="r")
    assert images.sum() == images.size
    assert _mapped_bytes(path) > 0.9 * images.nbytes
    streaming.release(images[100:])
    assert _mapped_bytes(path) == 0
    labels = np.zeros(3000, np.int32)
    for _ in streaming.batches(images, labels, batch_size=10, seed=0, stop=40, device_bytes=0):
        # No more than the pages of the batches that are being read, and those around them.
        assert _mapped_bytes(path) < 0.5 * images.nbytes
    assert _mapped_bytes(path) == 0


def test_nothing_is_given_back_of_what_is_written(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((3000, 4), np.uint8))
    images = np.load(path, mmap_mode="c")
    images[:] = 7
    streaming.release(images)
    assert (images == 7).all()
    streaming.release(np.zeros(3))
