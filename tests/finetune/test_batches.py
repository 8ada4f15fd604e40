"""Chunks of batches: the same wherever the images are and wherever a training starts."""

import itertools
import pathlib

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.data import streaming
from ctl_jax.data.streaming import Order
from ctl_jax.finetune import _batches, sharding

EXAMPLES, BATCH, LENGTH = 37, 5, 4
LABELS = np.arange(EXAMPLES)


@pytest.fixture
def mapped(tmp_path: pathlib.Path) -> np.ndarray:
    """Images of which each has its number, on disk."""
    images = np.zeros((EXAMPLES, 4, 4, 3), np.uint8)
    images += np.arange(EXAMPLES, dtype=np.uint8)[:, None, None, None]
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


def take(images, labels, *, stop=23, start=0, length=LENGTH, every=6, **options):
    """Chunks on the host."""
    found = _batches.chunks(
        images,
        labels,
        mesh=sharding.make_mesh(),
        batch_size=BATCH,
        seed=3,
        ends=_batches.ChunkEnds(start, stop, every=every, length=length),
        **options,
    )
    return jax.device_get(list(found))


def counting(chunks):
    """The labels of the batches that count."""
    return np.concatenate([chunk.labels[: chunk.updates] for chunk in chunks])


@given(
    start=st.integers(0, 50),
    more=st.integers(0, 50),
    every=st.integers(1, 12),
    length=st.integers(1, 12),
)
def test_chunks_end_at_every_look_and_are_not_too_long(start, more, every, length):
    stop = start + more
    chunk_ends = _batches.ChunkEnds(start, stop, every=every, length=length)
    ends = list(chunk_ends)
    assert len(chunk_ends) == len(ends)
    steps = [end - begin for begin, end in itertools.pairwise([start, *ends])]
    assert all(1 <= step <= length for step in steps)
    assert ends[-1:] == ([stop] if more else [])
    looks = {step for step in range(start + 1, stop + 1) if step % every == 0}
    assert looks <= set(ends)
    # No shorter than they must be.
    assert all(
        end in looks or end == stop or step == length for end, step in zip(ends, steps, strict=True)
    )


def test_as_many_chunks_as_can_be_counted_take_no_memory():
    ends = _batches.ChunkEnds(5, 2**31 - 1, every=10, length=1)
    assert len(ends) == 2**31 - 6
    assert [ends[0], ends[10**9], ends[len(ends) - 1]] == [6, 10**9 + 6, 2**31 - 1]


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("start", [0, 1, 13])
def test_batches_are_those_of_the_order(mapped, start, length):
    order = Order(EXAMPLES, BATCH, 3)
    expected = [order[batch] for batch in range(start, 23)]
    for device_bytes in (0, mapped.nbytes):
        found = take(mapped, LABELS, start=start, length=length, device_bytes=device_bytes)
        np.testing.assert_array_equal(counting(found), expected)
        for chunk in found:
            assert chunk.images.shape == (length, BATCH, 4, 4, 3)
            np.testing.assert_array_equal(chunk.images[..., 0, 0, 0], chunk.labels)


def test_several_labels_an_image(mapped):
    labels = np.eye(EXAMPLES, dtype=np.uint8)
    for device_bytes in (0, mapped.nbytes):
        found = take(mapped, labels, device_bytes=device_bytes)
        np.testing.assert_array_equal(
            np.argmax(counting(found), -1), counting(take(mapped, LABELS))
        )


def test_the_limit_decides_which_way_is_taken(mapped, monkeypatch):
    read = []
    original = streaming.read_ahead

    def recorded(*args):
        read.append(args)
        return original(*args)

    monkeypatch.setattr(streaming, "read_ahead", recorded)
    take(mapped, LABELS, device_bytes=mapped.nbytes)
    # What is on the device already is not taken back.
    take(jax.numpy.asarray(mapped), LABELS, device_bytes=0)
    assert not read
    take(mapped, LABELS, device_bytes=mapped.nbytes - 1)
    assert len(read) == 1


def test_a_set_is_put_on_the_device_once_for_many_trials(mapped, monkeypatch):
    placed = []
    original = sharding.replicate

    def recorded(mesh, tree):
        placed.append(tree)
        return original(mesh, tree)

    monkeypatch.setattr(sharding, "replicate", recorded)

    def times(images):
        return sum(tree is images for tree in placed)

    for _ in range(3):
        take(mapped, LABELS)
    assert times(mapped) == 1
    # Another set takes its place, also where it has the same content.
    other = np.array(mapped)
    other.flags.writeable = False
    take(other, LABELS)
    take(mapped, LABELS)
    assert (times(other), times(mapped)) == (1, 2)


def test_a_set_that_may_change_is_put_there_anew(mapped):
    images = np.array(mapped)
    take(images, LABELS)
    images[:] = 7
    assert all((chunk.images == 7).all() for chunk in take(images, LABELS))


def test_a_set_that_is_gone_does_not_stay_on_the_device(mapped, monkeypatch):
    # On CPU, arrays of the device may be the host's.
    monkeypatch.setattr(sharding, "replicate", lambda mesh, tree: jax.numpy.array(tree))
    images = np.array(mapped)
    images.flags.writeable = False
    take(images, LABELS)
    assert _batches._kept is not None
    del images
    assert _batches._kept is None
