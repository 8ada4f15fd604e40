"""The order of examples, reading them ahead, and the memory that it takes."""

import pathlib
import threading

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


def index_of(item: int) -> np.ndarray:
    """Two batches an item, of three each."""
    return (np.arange(6, dtype=np.int32).reshape(2, 3) + 5 * item) % EXAMPLES


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
def test_items_come_in_order_with_their_labels(mapped, labels):
    found = list(streaming.read_ahead(mapped, labels, index_of, 20))
    assert len(found) == 20
    for item, (images, of_images) in enumerate(found):
        np.testing.assert_array_equal(images, np.asarray(mapped)[index_of(item)])
        np.testing.assert_array_equal(of_images, labels[index_of(item)])


def test_nothing_is_read_for_no_items(mapped):
    assert list(streaming.read_ahead(mapped, np.arange(EXAMPLES), index_of, 0)) == []


@pytest.mark.parametrize("buffer_bytes", [0, 4 * 6 * 48, 1 << 30])
def test_few_items_are_read_ahead(mapped, monkeypatch, buffer_bytes):
    monkeypatch.setattr(streaming, "_BUFFER_BYTES", buffer_bytes)
    read, lock = [], threading.Lock()
    original = streaming._Source.__getitem__

    def recorded(source, item):
        with lock:
            read.append(item)
        return original(source, item)

    monkeypatch.setattr(streaming._Source, "__getitem__", recorded)
    items = streaming.read_ahead(mapped, np.arange(EXAMPLES), index_of, 1000)
    ahead = 0
    for taken, _ in zip(range(1, 60), items, strict=False):
        ahead = max(ahead, len(read) - taken)
    items.close()
    assert 1 < ahead <= {0: 2, 1152: 4, 1 << 30: 16}[buffer_bytes] + 1


def test_an_abandoned_stream_leaves_no_threads(mapped):
    before = set(threading.enumerate())
    items = streaming.read_ahead(mapped, np.arange(EXAMPLES), index_of, 1000)
    next(items)
    items.close()
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
    order = Order(3000, 10, seed=0)
    for _ in streaming.read_ahead(images, labels, order.__getitem__, 40):
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
