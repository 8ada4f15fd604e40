"""One array cut, of every kind and wherever it is."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.pruning import _arrays
from ctl_jax.pruning._arrays import cut_all


def expected(leaf, stays):
    for axis, indices in stays.items():
        leaf = np.take(np.asarray(leaf), indices, axis)
    return leaf


@st.composite
def cuts(draw):
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    axes = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    stays = {}
    for axis in axes:
        kept = draw(st.sets(st.integers(0, shape[axis] - 1), min_size=1))
        stays[axis] = np.array(sorted(kept))
    dtype = draw(st.sampled_from(["float32", "bfloat16", "int8", "bool", "complex64"]))
    leaf = np.arange(np.prod(shape)).reshape(shape).astype(jnp.dtype(dtype))
    return leaf, stays


@hypothesis.given(cut=cuts(), kind=st.sampled_from([np.asarray, np.asfortranarray, jnp.asarray]))
def test_any_axes_of_any_array(cut, kind):
    leaf, stays = cut
    (small,) = cut_all([kind(leaf)], [stays])
    assert isinstance(small, type(kind(leaf)))
    assert small.dtype == leaf.dtype
    np.testing.assert_array_equal(small, expected(leaf, stays))


LARGE = {0: np.arange(0, 1200, 2), 2: np.arange(1, 1100, 3)}


def large(n=3):
    """Large enough for threads and for memory that XLA uses in place."""
    leaf = np.arange(1200 * 2 * 1100, dtype=np.float32).reshape(1200, 2, 1100)
    assert leaf.nbytes > 2 * _arrays.IN_PARALLEL
    return [leaf + i for i in range(n)]


@pytest.mark.parametrize("cpus", [1, 4])
def test_large_arrays(cpus, monkeypatch):
    monkeypatch.setattr(_arrays.os, "cpu_count", lambda: cpus)
    leaves = large()
    for kind in (np.asarray, jnp.asarray):
        small = cut_all([kind(leaf) for leaf in leaves], [LARGE] * 3)
        for leaf, found in zip(leaves, small, strict=True):
            np.testing.assert_array_equal(found, expected(leaf, LARGE))


def test_a_cut_of_many_threads_that_fails(monkeypatch):
    def fail(array, stays):
        raise MemoryError("no memory")

    monkeypatch.setattr(_arrays.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(_arrays, "_take", fail)
    with pytest.raises(MemoryError, match="no memory"):
        cut_all(large(), [LARGE] * 3)


def test_the_result_is_no_view_of_what_it_was_made_from():
    leaf = large(1)[0]
    (small,) = cut_all([jnp.asarray(leaf)], [LARGE])
    before = np.array(small)
    (again,) = cut_all([jnp.asarray(leaf) + 1], [LARGE])
    np.testing.assert_array_equal(again, before + 1)
    np.testing.assert_array_equal(small, before)


def test_memory_that_xla_uses_in_place():
    """Only aligned memory is not copied."""
    for n in range(1, 50, 7):
        memory = _arrays._aligned((n, 3), np.dtype(np.int16))
        assert (memory.shape, memory.dtype) == ((n, 3), np.int16)
        assert memory.ctypes.data % 64 == 0
        assert memory.flags.c_contiguous
    assert _arrays._take(large(1)[0], LARGE).ctypes.data % 64 == 0


def test_results_can_be_donated():
    """Memory that XLA uses in place is not an array's to be written over, and it copies."""
    (small,) = cut_all([jnp.asarray(large(1)[0])], [LARGE])
    before = np.array(small)
    after = jax.jit(lambda x: x + 1, donate_argnums=0)(small)
    np.testing.assert_array_equal(after, before + 1)


@pytest.mark.parametrize("public", [False, True])
def test_committed_or_not(public, monkeypatch):
    """With what JAX has inside, and with its public function where that is gone."""
    if public:
        monkeypatch.setattr(_arrays, "fast_put", None)
    device = jax.devices()[-1]
    leaf = jnp.arange(6.0)
    free, committed = cut_all([leaf, jax.device_put(leaf, device)], [{0: np.array([1, 4])}] * 2)
    assert (free.committed, committed.committed) == (False, True)
    assert free.devices() == leaf.devices()
    assert committed.devices() == {device}
    for found in (free, committed):
        np.testing.assert_array_equal(found, [1, 4])
        assert found.sharding.is_equivalent_to(jax.sharding.SingleDeviceSharding(device), 1)


def test_weak_types_stay_weak():
    leaves = [jnp.full(4, 2.0), jnp.arange(4.0, dtype=np.float32)]
    assert [leaf.weak_type for leaf in leaves] == [True, False]
    found = cut_all(leaves, [{0: np.array([1])}] * 2)
    assert [leaf.weak_type for leaf in found] == [True, False]
    assert {leaf.dtype for leaf in found} == {np.dtype(np.float32)}
    assert [leaf.tolist() for leaf in found] == [[2], [1]]
    abstract = jax.ShapeDtypeStruct((4,), np.float32, weak_type=True)
    (shape,) = cut_all([abstract], [{0: np.array([1, 2])}])
    assert shape == jax.ShapeDtypeStruct((2,), np.float32, weak_type=True)


def test_what_an_accelerator_cuts_itself(monkeypatch):
    """On a CPU nothing is worth it; here the branch is forced."""
    monkeypatch.setattr(_arrays, "ON_DEVICE", 16)
    monkeypatch.setattr(_arrays, "_platform", lambda sharding: "tpu")
    leaf = jnp.arange(60.0).reshape(3, 4, 5)
    stays = {1: np.array([0, 3]), 2: np.array([1, 2, 4])}
    device = jax.devices()[0]
    for array in (leaf, jax.device_put(leaf, device)):
        big, tiny = cut_all([array, array[0, 0, :2]], [stays, {0: np.array([1])}])
        np.testing.assert_array_equal(big, expected(leaf, stays))
        np.testing.assert_array_equal(tiny, leaf[0, 0, 1:2])
        assert big.committed == array.committed
