"""Cutting by class."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.data.formats import stratified
from ctl_jax.errors import UserError

GIVEN = [
    (),
    ("test",),
    ("dev",),
    ("dev", "test"),
    ("dev_test", "test"),
    ("dev", "dev_test", "test"),
]


@pytest.mark.parametrize("given", GIVEN)
def test_shares_are_all_there_is(given: tuple[str, ...]) -> None:
    shares = stratified.fractions(("train", *given))
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) | set(given) == {"train", "dev", "dev_test", "test"}
    assert not set(shares) & set(given)


@hypothesis.given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=12),
    given=st.sampled_from(GIVEN),
    copies=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_every_class_has_its_share(
    sizes: list[int], given: tuple[str, ...], copies: int, seed: int
) -> None:
    shares = stratified.fractions(("train", *given))
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(sizes)), sizes)
    rank = rng.permutation(len(classes)).astype(np.uint64)[:, None]
    twice = rng.integers(len(classes), size=copies)
    labels, ranks = np.concatenate([classes, classes[twice]]), np.concatenate([rank, rank[twice]])
    pool = rng.permutation(len(labels))
    try:
        parts = stratified.cut("set", pool, shares, labels, ranks)
    except UserError:
        assert len(classes) < len(sizes) + len(shares)
        return
    assert list(parts) == list(shares)
    whole = np.concatenate(list(parts.values()))
    assert sorted(whole.tolist()) == list(range(len(labels)))
    assert set(labels[parts["train"]].tolist()) == set(range(len(sizes)))
    owners = {split: set(ranks[places, 0].tolist()) for split, places in parts.items()}
    assert sum(map(len, owners.values())) == len(classes)  # Copies are together.
    for split, places in parts.items():
        assert places.tolist() == sorted(places.tolist())
        units = np.unique(ranks[places, 0])
        # Each class within one of its share, unless train or an empty split had to get one.
        counts = np.bincount(
            classes[np.argsort(rank[:, 0])][units.astype(int)], minlength=len(sizes)
        )
        small = np.asarray(sizes) * min(shares.values()) < 1
        assert (abs(counts - shares[split] * np.asarray(sizes)) < 1 + small + 1e-6).all()
    # The order in which they come changes nothing.
    again = stratified.cut("set", pool[::-1], shares, labels, ranks)
    for split in parts:
        np.testing.assert_array_equal(parts[split], again[split])


def test_the_cut_is_the_same_for_ever() -> None:
    rank = np.asarray([5, 3, 8, 1, 9, 2, 7, 4, 6, 0], np.uint64)[:, None]
    labels = np.asarray([0, 1] * 5)
    parts = stratified.cut("set", np.arange(10), stratified.fractions(("train",)), labels, rank)
    assert {split: places.tolist() for split, places in parts.items()} == {
        "train": [0, 3, 5, 6, 8, 9],
        "test": [1, 2],
        "dev": [4],
        "dev_test": [7],
    }


def test_many_labels_are_cut_by_the_rarest() -> None:
    labels = np.asarray([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]], np.uint8)
    assert stratified.strata(labels, ["c", "a", "b"]).tolist() == [0, 2, -1, 1, 2]


def test_an_image_stays_in_the_last_split_that_has_it() -> None:
    given = {"train": np.arange(6), "dev": np.arange(6, 9), "test": np.arange(9, 11)}
    numbers = np.asarray([0, 1, 2, 3, 0, 4, 1, 5, 6, 6, 0])
    kept, notes = stratified.without_copies(given, numbers)
    assert {split: places.tolist() for split, places in kept.items()} == {
        "train": [2, 3, 5],
        "dev": [6, 7],
        "test": [9, 10],
    }
    assert notes == [
        "left out of dev, as the same files are in test: 1 of 3",
        "left out of train, as the same files are in test: 2 of 6",
        "left out of train, as the same files are in dev: 1 of 6",
    ]
