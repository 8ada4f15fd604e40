"""Balanced orders of images, and halves of each class."""

import chex
import hypothesis
import numpy as np
from hypothesis import strategies as st

from ctl_jax.data import balance

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@hypothesis.given(LABELS, st.integers(0, 3))
def test_any_beginning_has_as_many_of_each_class_as_there_can_be(labels, seed):
    order = balance.order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    chex.assert_trees_all_equal(order, balance.order(labels, seed))
    totals = np.bincount(labels, minlength=6)
    for count in range(len(labels)):
        taken = np.bincount(labels[order[:count]], minlength=6)
        # A class that has images left is behind no other by more than one.
        assert (taken >= np.minimum(totals, taken.max() - 1)).all()


def test_an_image_of_several_classes_counts_for_the_rarest():
    labels = np.zeros((30, 3), np.uint8)
    labels[:, 0] = 1
    labels[:10, 1] = 1
    labels[:2, 2] = 1
    order = balance.order(labels, 0)
    # Two rounds of each class, by the rarest; an image of none is of a class of its own.
    assert labels[order[:6]].sum(axis=0).tolist() == [6, 4, 2]
    labels[29] = 0
    assert 29 in balance.order(labels, 1)[:4]


def test_another_seed_is_another_order():
    labels = np.arange(40) % 4
    assert (balance.order(labels, 0) != balance.order(labels, 1)).any()


@hypothesis.given(LABELS, st.integers(0, 3))
def test_halves_have_half_of_each_class(labels, seed):
    halves = [balance.order(labels, seed, half) for half in (1, 2)]
    assert [len(half) for half in halves] == [balance.size(len(labels), half) for half in (1, 2)]
    # Together they are all images, each once.
    assert sorted(np.concatenate(halves)) == list(range(len(labels)))
    first, second = (np.bincount(labels[half], minlength=6) for half in halves)
    assert (abs(first - second) <= 1).all()
    for half in halves:
        # Each is in an order like that of all.
        counts = np.bincount(labels[half], minlength=6)
        start = half[: (counts > 0).sum()]
        assert len(set(labels[start])) == len(start)


def test_halves_of_images_of_several_classes():
    labels = np.zeros((8, 2), np.uint8)
    labels[:, 0] = 1
    labels[:4, 1] = 1
    for half in (1, 2):
        assert labels[balance.order(labels, 0, half)].sum(axis=0).tolist() == [4, 2]
