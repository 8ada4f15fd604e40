"""Training and evaluation on images that stay on disk: the numbers of a task in memory."""

import pathlib

import chex
import numpy as np
import pytest

from ctl_jax import finetune
from ctl_jax.finetune import Augmentation, Hyper, Recipe

CLASSES = 3
RECIPE = Recipe("nevis", Augmentation())


@pytest.fixture(scope="module")
def step(module):
    return finetune.make_step(module, RECIPE)


@pytest.fixture
def mapped(tmp_path: pathlib.Path) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_streamed_task_gives_the_same_numbers(module, step, variables, mapped, multi_label):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (60, 16)) if multi_label else rng.integers(0, CLASSES, 60)
    labels = labels.astype(np.uint8 if multi_label else np.int32)

    def fit(images, device_bytes):
        return finetune.fit(
            [finetune.Leg(step, RECIPE, Hyper(0.05, 12, 1, CLASSES))],
            variables,
            images,
            labels,
            batch_size=8,
            seed=2,
            device_bytes=device_bytes,
            log_every=5,
        )

    kept, streamed = fit(np.array(mapped), mapped.nbytes), fit(mapped, mapped.nbytes - 1)
    chex.assert_trees_all_equal(kept.variables, streamed.variables)
    assert [entry[:3] for entry in kept.history] == [entry[:3] for entry in streamed.history]
    scores = [
        finetune.evaluate(
            module,
            "nevis",
            kept.variables,
            images,
            labels[:, :CLASSES] if multi_label else labels,
            num_classes=CLASSES,
            batch_size=32,
        )
        for images in (np.array(mapped), mapped)
    ]
    assert scores[0] == scores[1]


def test_a_streamed_training_that_diverges_ends(step, variables, mapped):
    result = finetune.fit(
        [finetune.Leg(step, RECIPE, Hyper(1e30, 100, 0, CLASSES))],
        variables,
        mapped,
        np.zeros(60, np.int32),
        batch_size=8,
        seed=0,
        device_bytes=0,
        log_every=5,
    )
    assert result.diverged
    assert result.steps < 100
