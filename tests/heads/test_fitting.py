"""What holds of every solver."""

from typing import Any

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl_jax import heads, models
from ctl_jax.errors import UserError
from ctl_jax.heads import Shard
from ctl_jax.heads import shards as sharded

CLASSES, WIDTH = 3, 40


def _shard(count: int, *, multi_label: bool = False, seed: int = 0, width: int = WIDTH) -> Shard:
    """Classes whose means differ, features of different scales and one that is constant."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, count)
    centres = np.random.default_rng(9).standard_normal((CLASSES, width))
    features = rng.standard_normal((count, width)) + 1.5 * centres[classes]
    features = (features * np.linspace(0.5, 2, width) + 5).astype(np.float32)
    features[:, 0] = 7
    if not multi_label:
        return Shard(features, classes.astype(np.int32))
    labels = np.eye(CLASSES, dtype=np.uint8)[classes]
    labels[:, 0] |= labels[:, 1]
    return Shard(features, labels)


def _logits(head: dict[str, Any], features: np.ndarray) -> np.ndarray:
    return np.asarray(models.apply_head(head, features.astype(np.float32)))


SOLVERS = pytest.mark.parametrize("solver", heads.SOLVERS)
FORMS = pytest.mark.parametrize("multi_label", [False, True], ids=["single", "multi"])


@SOLVERS
@FORMS
@pytest.mark.parametrize("count", [36, 120], ids=["dual", "primal"])
def test_finds_the_classes(solver: str, multi_label: bool, count: int) -> None:
    fitted = heads.fit(
        solver, [_shard(count, multi_label=multi_label)], CLASSES, multi_label=multi_label
    )
    other = _shard(200, multi_label=multi_label, seed=1)
    logits = _logits(fitted.head, other.features)
    chex.assert_shape(logits, (200, CLASSES))
    chex.assert_tree_all_finite(fitted.head)
    if multi_label:
        assert np.mean((logits > 0) == other.labels) > 0.9
    else:
        assert np.mean(logits.argmax(1) == other.labels) > 0.9
    assert fitted.head["kernel"].dtype == fitted.head["bias"].dtype == np.float32


@SOLVERS
@pytest.mark.parametrize("count", [20, 60], ids=["dual", "primal"])
def test_is_the_same_however_images_are_cut_into_shards(
    solver: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "BLOCK", 9)
    whole = _shard(count)
    parts = [
        Shard(*(part[low:high] for part in whole))
        for low, high in ((0, 1), (1, 1), (1, 13), (13, count))
    ]
    first, again, cut = (heads.fit(solver, shards, CLASSES) for shards in ([whole], [whole], parts))
    chex.assert_trees_all_equal(first.head, again.head, cut.head)
    assert first.flops == again.flops == cut.flops


@SOLVERS
def test_reads_float16_from_a_file(solver: str, tmp_path) -> None:
    shard = _shard(40)
    np.save(tmp_path / "features.npy", shard.features.astype(np.float16))
    mapped = Shard(np.load(tmp_path / "features.npy", mmap_mode="r"), shard.labels)
    held = Shard(np.array(mapped.features, np.float32), shard.labels)
    fitted, expected = (heads.fit(solver, [one], CLASSES) for one in (mapped, held))
    chex.assert_trees_all_close(fitted.head, expected.head, atol=1e-5)


@SOLVERS
@FORMS
@settings(max_examples=25)
@given(
    count=st.integers(1, 12),
    width=st.integers(1, 8),
    classes=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_any_shape_has_a_finite_head_within_the_flops_said_before(
    solver: str, multi_label: bool, count: int, width: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Few values: some features are constant, and some images equal.
    features = rng.integers(0, 2, (count, width)).astype(np.float16)
    labels = (
        rng.integers(0, 2, (count, classes)).astype(np.uint8)
        if multi_label
        else rng.integers(0, classes, count).astype(np.int32)
    )
    fitted = heads.fit(solver, [Shard(features, labels)], classes, multi_label=multi_label)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        fitted.head, heads.shapes(solver, count, width, classes)
    )
    chex.assert_tree_all_finite(fitted.head)
    most = [heads.flops(solver, n, width, classes, multi_label) for n in range(1, count + 2)]
    assert fitted.flops <= most[count - 1]
    assert most == sorted(most)


@SOLVERS
def test_a_class_without_images_is_not_predicted(solver: str) -> None:
    shard = _shard(60)
    fitted = heads.fit(solver, [shard], CLASSES + 2)
    assert _logits(fitted.head, shard.features).argmax(1).max() < CLASSES


@SOLVERS
def test_selected_features_are_all_that_a_head_reads(solver: str) -> None:
    """The first ten tell the classes apart, and eight hundred others nothing."""
    rng = np.random.default_rng(0)
    train, dev = (_shard(60, seed=seed, width=10) for seed in (0, 1))
    train, dev = (
        Shard(np.hstack([each.features, rng.standard_normal((60, 800), np.float32)]), each.labels)
        for each in (train, dev)
    )
    fitted = heads.fit(solver, [train], CLASSES, select=True, dev=dev)
    assert fitted.notes["selected"] < 810
    assert fitted.flops <= heads.flops(solver, 60, 810, CLASSES, select=True)
    layer = fitted.head.get("hidden", fitted.head)
    of_features = layer["scale"] if "scale" in layer else np.abs(layer["kernel"]).sum(1)
    assert 0 < np.count_nonzero(of_features) <= fitted.notes["selected"]
    assert np.mean(_logits(fitted.head, dev.features).argmax(1) == dev.labels) > 0.8


def test_nan_is_refused_with_how_many() -> None:
    shard = _shard(9)
    shard.features[4, 2:5] = np.nan
    shard.features[5, 1] = np.inf
    with pytest.raises(UserError, match="4 numbers of 2 of 18 images are NaN or infinite"):
        heads.fit("ridge", [_shard(9), shard], CLASSES)
    with pytest.raises(UserError, match="4 numbers of 2 of 9 images are NaN or infinite"):
        heads.fit("ridge", [_shard(9)], CLASSES, dev=shard)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((0, 4), np.float32), np.zeros(0, np.int32), "no image; expected at least 1"),
        (np.zeros((3, 4), np.float32), np.zeros(2, np.int32), r"shape \[3, 4\]; expected \[2, 4\]"),
        (np.zeros((3, 4)), np.zeros(3, np.int32), "float64; expected float16 or float32"),
        (np.zeros((3, 4), np.float32), np.full(3, 3, np.int32), "labels: 3 to 3; expected 0 to 2"),
        (np.zeros((3, 4), np.float32), np.zeros((3, 3), np.uint8), r"labels: shape \[3, 3\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    features: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        heads.fit("ridge", [Shard(features, labels)], CLASSES)


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(UserError, match=r"solver 'rigde'; expected one of .*ridge"):
        heads.flops("rigde", 1, 1, 1)
