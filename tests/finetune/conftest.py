"""A network that compiles fast, and a task that it learns."""

import chex
import jax
import numpy as np
import pytest

from ctl_jax import finetune, models
from ctl_jax.finetune import _compiled_step


@pytest.fixture(scope="session")
def module():
    """A few hundred parameters, with BatchNorm and a residual."""
    return models.create("resnet18", num_outputs=1, stages=(1,), width=4, stem="cifar")


@pytest.fixture(scope="session")
def variables(module):
    return models.with_head(models.init(module, jax.random.key(0), 8), 16)


@pytest.fixture(scope="session")
def split():
    """Images of 8 px whose brightness tells which of three classes they are of."""
    labels = np.arange(60, dtype=np.int32) % 3
    noise = np.random.default_rng(0).integers(0, 40, (60, 8, 8, 3))
    return (noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels


@pytest.fixture(scope="session")
def recipe():
    return finetune.Recipe("nevis", finetune.Augmentation())


@pytest.fixture(scope="session")
def make_step_once(module, recipe):
    """chunk -> a step that may be traced once, whatever the tests train it on."""

    def make(chunk):
        @chex.assert_max_traces(n=1)
        def train_steps(*args):
            return original(*args)

        original = _compiled_step.train_steps
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_compiled_step, "train_steps", train_steps)
            return finetune.make_step(module, recipe, chunk=chunk)

    return make


@pytest.fixture(scope="session")
def plain(make_step_once):
    """One update a call."""
    return make_step_once(1)


@pytest.fixture(scope="session")
def chunked(make_step_once):
    """Up to four; no number of them is 10 or 23 updates."""
    return make_step_once(4)
