"""Shares: every trial is one worker's, none has much more to do than another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.cluster import Worker
from ctl_jax.experiment.shares import order

COSTS = st.lists(st.integers(0, 10**17), max_size=60)


@given(COSTS, st.integers(1, 9))
def test_shares_cover_everything_once_in_stretches_of_equal_cost(costs, count):
    orders = [order(costs, Worker(index, count)) for index in range(count)]
    assert [index for own, _ in orders for index in own] == list(range(len(costs)))
    for own, others in orders:
        assert sorted(own + others) == list(range(len(costs)))
        amount = sum(costs[index] for index in own)
        assert amount <= sum(costs) / count + max(costs, default=0) * (1 + 1e-9)


def test_the_next_worker_is_helped_first_and_from_its_end():
    costs = [1] * 6
    assert order(costs, Worker(0, 3)) == ([0, 1], [3, 2, 5, 4])
    assert order(costs, Worker(1, 3)) == ([2, 3], [5, 4, 1, 0])
    assert order(costs, Worker(2, 3)) == ([4, 5], [1, 0, 3, 2])


@pytest.mark.parametrize("costs", [[0] * 4, [1] * 4])
def test_without_costs_the_numbers_are_equal(costs):
    assert [order(costs, Worker(index, 2))[0] for index in range(2)] == [[0, 1], [2, 3]]


def test_one_dear_trial_is_a_share():
    assert [order([1, 1, 1, 9, 1, 1], Worker(i, 2))[0] for i in range(2)] == [[0, 1, 2], [3, 4, 5]]
    assert order([5], Worker(0, 2)) == ([], [0])
    assert order([5], Worker(1, 2)) == ([0], [])
    assert order([], Worker(1, 2)) == ([], [])
