"""The learning rate over a trial."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.finetune import warmup_cosine

STEPS = np.arange(301)


def _rates(peak, total, warmup):
    # As many for every budget: of other shapes, each operation would be compiled again.
    rates = warmup_cosine(STEPS, peak=peak, total_steps=total, warmup_steps=warmup)
    return np.asarray(rates)[: total + 1]


@given(total=st.integers(1, 300), fraction=st.floats(0, 0.99), peak=st.floats(1e-4, 10))
def test_rises_to_the_peak_and_ends_at_exactly_zero(total, fraction, peak):
    warmup = int(fraction * total)
    rates = _rates(peak, total, warmup)
    assert rates[total] == 0
    assert np.argmax(rates) == warmup
    np.testing.assert_allclose(rates[warmup], peak, rtol=1e-6)
    assert (rates[:total] > 0).all()
    assert (np.diff(rates[: warmup + 1]) > 0).all()
    assert (np.diff(rates[warmup:]) < 0).all()


def test_is_half_a_cosine_after_a_straight_line():
    rates = _rates(0.8, 12, 4)
    np.testing.assert_allclose(rates[:5], 0.8 * np.arange(1, 6) / 5, rtol=1e-6)
    cosine = 0.4 * (1 + np.cos(np.pi * np.arange(9) / 8))
    np.testing.assert_allclose(rates[4:], cosine, atol=1e-7)


def test_one_program_serves_every_budget():
    @jax.jit
    @chex.assert_max_traces(1)
    def rate(step, peak, total, warmup):
        return warmup_cosine(step, peak=peak, total_steps=total, warmup_steps=warmup)

    for total in (1, 10, 1000):
        rate(np.int32(0), np.float32(0.1), np.int32(total), np.int32(total // 10))


@pytest.mark.parametrize("total", [1, 2])
def test_the_shortest_trial_moves(total):
    assert _rates(0.1, total, 0)[0] == pytest.approx(0.1)
