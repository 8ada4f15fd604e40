"""Ridge regression beside scikit-learn's, and beside fits without one image."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ctl_jax.heads import Shard, calibration, shards
from ctl_jax.heads.shards import Features
from ctl_jax.heads.solver import Problem
from ctl_jax.heads.solvers import ridge

CLASSES = 4


def _data(count: int, width: int, multi_label: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and the targets 0 and 1."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((count, width)) * rng.uniform(0.1, 3, width) + 5
    scores = features @ rng.standard_normal((width, CLASSES)) + 3 * rng.standard_normal(
        (count, CLASSES)
    )
    if multi_label:
        labels = (scores > scores.mean(0)).astype(np.uint8)
        return features.astype(np.float32), labels, labels
    classes = scores.argmax(1).astype(np.int32)
    return features.astype(np.float32), classes, np.eye(CLASSES)[classes]


@pytest.mark.parametrize(("count", "width"), [(30, 50), (80, 20)], ids=["dual", "primal"])
@pytest.mark.parametrize("multi_label", [False, True], ids=["single", "multi"])
def test_is_scikit_learns(count: int, width: int, multi_label: bool) -> None:
    features, labels, targets = _data(count, width, multi_label)
    shard = Shard(features, labels)
    standardised = Features([shard], shards.moments([shard]))
    fitted = ridge.fit(Problem(standardised, labels, CLASSES, seed=0))
    scaled = (features - features.mean(0)) / features.std(0)
    reference = Ridge(alpha=fitted.notes["coefficient"]).fit(scaled, targets)

    ours = scaled @ fitted.head["kernel"] + fitted.head["bias"]
    theirs = fitted.notes["temperature"] * reference.predict(scaled)
    # Calibration adds an offset to each class of a multi-label task.
    offset = (ours - theirs).mean(0) if multi_label else 0
    np.testing.assert_allclose(ours - offset, theirs, atol=1e-4)

    left_out = np.empty((count, CLASSES))
    for image in range(count):
        others = np.arange(count) != image
        reference.fit(scaled[others], targets[others])
        left_out[image] = reference.predict(scaled[[image]])[0]
    _, _, entropy = calibration.temperature(left_out, labels)
    assert fitted.notes["cross_entropy"] == pytest.approx(entropy, rel=1e-5)
