"""Every example counts once, padding never; both metrics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from ctl_jax import finetune, models

SIZE, CLASSES = 16, 7
MODULE = models.create("resnet18", num_outputs=1, stages=(1,), width=8, stem="cifar")


@pytest.fixture(scope="module")
def variables():
    """A random network whose head is not zero; its padded outputs are the largest."""
    made = models.with_head(models.init(MODULE, jax.random.key(0), SIZE), 16)
    rng = np.random.default_rng(1)
    head = {
        "kernel": rng.normal(size=made["params"]["head"]["kernel"].shape).astype(np.float32),
        "bias": np.where(np.arange(16) < CLASSES, 0, 50).astype(np.float32),
    }
    return {**made, "params": {**made["params"], "head": head}}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).integers(0, 256, (60, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def logits(variables, images):
    """Of the task's own classes, in one call."""
    x = models.PREPROCESS["nevis"](jnp.asarray(images))
    return np.asarray(models.apply(MODULE, variables, x))[:, :CLASSES]


@pytest.mark.parametrize("examples", [1, 7, 8, 9, 60])
def test_accuracy_counts_every_example_once(variables, images, logits, examples):
    # Labels that are right every other time.
    labels = np.argmax(logits, -1) ^ (np.arange(60) % 2)
    labels = (labels % CLASSES).astype(np.int32)
    found = finetune.evaluate(
        MODULE,
        "nevis",
        variables,
        images[:examples],
        labels[:examples],
        num_classes=CLASSES,
        batch_size=8,
    )
    expected = np.mean(np.argmax(logits, -1)[:examples] == labels[:examples])
    assert found.metric == "accuracy"
    assert found.value == pytest.approx(expected, abs=1e-12)
    top5 = top_k_accuracy_score(
        labels[:examples], logits[:examples], k=5, labels=np.arange(CLASSES)
    )
    assert found.top5 == pytest.approx(top5, abs=1e-12)


@pytest.mark.parametrize("examples", [3, 8, 60])
def test_mean_average_precision_of_all_examples(variables, images, logits, examples):
    rng = np.random.default_rng(3)
    labels = (logits + rng.normal(size=logits.shape) > 0).astype(np.uint8)
    labels[0] = 1  # no class without a positive
    found = finetune.evaluate(
        MODULE,
        "nevis",
        variables,
        images[:examples],
        labels[:examples],
        num_classes=CLASSES,
        batch_size=8,
    )
    expected = average_precision_score(labels[:examples], logits[:examples])
    assert found == finetune.Scores("mAP", pytest.approx(expected, abs=1e-6), None)


def test_top5_needs_five_classes(variables, images):
    labels = np.zeros(60, np.int32)
    evaluate = functools.partial(finetune.evaluate, MODULE, "nevis", variables, images, labels)
    assert evaluate(num_classes=4).top5 is None
    assert evaluate(num_classes=5).top5 == 1.0


def test_never_answers_with_padding(variables, images):
    """All logits are zero but those of the padding, which are larger."""
    head = {**variables["params"]["head"], "kernel": np.zeros((8, 16), np.float32)}
    variables = {**variables, "params": {**variables["params"], "head": head}}
    labels = np.arange(60, dtype=np.int32) % CLASSES
    found = finetune.evaluate(MODULE, "nevis", variables, images, labels, num_classes=CLASSES)
    assert found.value == pytest.approx(np.mean(labels == 0))
    assert found.top5 == pytest.approx(np.mean(labels < 5))


def test_images_may_stay_on_disk(variables, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    labels = np.arange(60, dtype=np.int32) % CLASSES
    evaluate = functools.partial(finetune.evaluate, MODULE, "nevis", variables)
    found = [
        evaluate(where, labels, num_classes=CLASSES, batch_size=8) for where in (mapped, images)
    ]
    assert found[0] == found[1]
