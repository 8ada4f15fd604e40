"""Sums over slices against plain NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.errors import UserError
from ctl_jax.pruning._groups import Member
from ctl_jax.pruning.criteria import slices

PLAIN = {
    slices.absolutes: lambda rows: np.abs(rows).sum(axis=1),
    slices.squares: lambda rows: np.square(rows).sum(axis=1),
    slices.largest: lambda rows: np.abs(rows).max(axis=1),
}


def rows_of(kernel, axis):
    """[size of the axis, all other weights], in double precision."""
    return np.moveaxis(np.asarray(kernel, np.float64), axis, 0).reshape(kernel.shape[axis], -1)


def whole(kernel, axis):
    return Member("kernel", axis, "out", np.arange(kernel.shape[axis])[:, None])


def plain_distances(rows):
    return np.array([sum(np.linalg.norm(row - other) for other in rows) for row in rows])


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    data=st.data(),
    dtype=st.sampled_from([np.float32, np.float64, np.float16, jnp.bfloat16]),
)
def test_any_axis_of_any_shape(shape, data, dtype):
    axis = data.draw(st.integers(0, len(shape) - 1))
    values = np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)
    kernel = slices.kernel_of("kernel", {"kernel": values})
    rows = rows_of(values, axis)
    for measure, plain in PLAIN.items():
        found = measure(kernel, axis)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, plain(rows), rtol=1e-6)
    found = slices.distances(kernel, whole(kernel, axis))
    np.testing.assert_allclose(found, plain_distances(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((9000, 40), 1), ((40, 9000), 0), ((3, 300, 700), 1), ((2, 70_000), 0), ((70_000, 2), 1)],
)
def test_kernels_of_many_blocks(shape, axis):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for measure, plain in PLAIN.items():
        np.testing.assert_allclose(measure(kernel, axis), plain(rows_of(kernel, axis)), rtol=2e-6)


def test_distances_in_blocks_of_rows(monkeypatch):
    kernel = np.random.default_rng(0).normal(size=(6, 37)).astype(np.float32)
    monkeypatch.setattr(slices, "_BLOCK", 8)  # three rows at a time
    found = slices.distances(kernel, whole(kernel, 1))
    np.testing.assert_allclose(found, plain_distances(rows_of(kernel, 1)), rtol=1e-5)


def test_distances_of_near_filters_far_from_zero():
    near = 100 + np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    found = slices.distances(near, whole(near, 1))
    np.testing.assert_allclose(found, plain_distances(rows_of(near, 1)), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-25, 1e-40, 1e25])
def test_squares_beyond_single_precision(scale):
    kernel = (np.random.default_rng(0).uniform(1, 2, size=(8, 4)) * scale).astype(np.float32)
    rows = rows_of(kernel, 1)
    np.testing.assert_allclose(slices.squares(kernel, 1), PLAIN[slices.squares](rows), rtol=1e-6)
    found = slices.distances(kernel, whole(kernel, 1))
    np.testing.assert_allclose(found, plain_distances(rows), rtol=1e-3)


@pytest.mark.parametrize("measure", PLAIN)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_not_finite_shows_at_its_position(measure, value, axis):
    kernel = np.ones((2, 3, 4), np.float32)
    kernel[1, 2, 3] = value
    wrong = ~np.isfinite(measure(kernel, axis))
    assert np.flatnonzero(wrong).tolist() == [(1, 2, 3)[axis]]


def test_channels_at_several_positions():
    kernel = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    member = Member("kernel", 0, "in", np.array([[0, 3], [1, 4], [2, 5]]))
    rows = rows_of(kernel, 0)[member.positions].reshape(3, -1)
    by_sum = slices.by_channel(slices.squares(kernel, 0), member)
    np.testing.assert_allclose(by_sum, np.square(rows).sum(axis=1), rtol=1e-6)
    by_max = slices.by_channel(slices.largest(kernel, 0), member, largest=True)
    np.testing.assert_allclose(by_max, np.abs(rows).max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(
        slices.distances(kernel, member), plain_distances(rows), rtol=1e-5, atol=1e-6
    )


def test_values_are_not_copied():
    array = jnp.ones((3, 4))
    assert np.shares_memory(slices.kernel_of("k", {"k": array}), np.asarray(array))


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (np.array([1, -2], np.int8), np.array([1, -2], np.float32)),
        (np.array([2**24 + 1], np.int32), np.array([2**24 + 1], np.float64)),
        (np.array([3 + 4j], np.complex64), np.array([[3, 4]], np.float32)),
        (jnp.ones(2, jnp.bfloat16), np.ones(2, np.float32)),
    ],
)
def test_other_numbers(leaf, expected):
    found = slices.kernel_of("k", {"k": leaf})
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_leaves_without_numbers():
    with pytest.raises(UserError, match=r"k is ShapeDtypeStruct.*without values"):
        slices.kernel_of("k", {"k": jax.ShapeDtypeStruct((3,), np.float32)})
    with pytest.raises(UserError, match="k is of dtype bool, expected numbers"):
        slices.kernel_of("k", {"k": np.array([True])})
