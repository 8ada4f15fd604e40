"""A run small enough for a test: two embedded tasks, a tiny network, saved weights."""

import io
import os
import pathlib

import jax
import pytest
import rich.console

from ctl_jax import experiment, models


@pytest.fixture(scope="session", autouse=True)
def embedded_data(tmp_path_factory):
    """Embedded tasks are made in a folder of the test session, not in the user's cache."""
    folder = tmp_path_factory.mktemp("embedded")
    before = os.environ.get("CTL_JAX_DATA")
    os.environ["CTL_JAX_DATA"] = str(folder)
    yield folder
    if before is None:
        del os.environ["CTL_JAX_DATA"]
    else:
        os.environ["CTL_JAX_DATA"] = before


@pytest.fixture
def console():
    """Keeps what a run prints: `console.file.getvalue()`."""
    return rich.console.Console(file=io.StringIO(), width=140)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> pathlib.Path:
    """Random weights of the small network, as a checkpoint."""
    path = tmp_path_factory.mktemp("weights") / "checkpoint"
    config = _network(experiment.default_config())
    module = models.create("resnet18", num_outputs=1, stages=(1, 1), width=8)
    models.save_checkpoint(path, models.init(module, jax.random.key(1), config.data.image_size))
    return path


@pytest.fixture
def config(weights):
    """2 tasks x 3 methods x 2 budgets x 1 seed x 2 learning rates = 24 trials."""
    config = _network(experiment.default_config())
    config.stream.variant = "digits+shapes"
    config.data.max_eval_examples = 40
    config.weights = str(weights)
    config.methods = ("dense", "filters@0.5", "scratch")
    config.budgets.min_flops = 4e7
    config.budgets.max_flops = 1.2e8
    config.budgets.num = 2
    config.finetune.batch_size = 8
    config.finetune.learning_rates = (0.02, 0.2)
    config.finetune.log_every = 4
    return config


def _network(config):
    config.data.image_size = 16
    config.model.name = "resnet18"
    config.model.stages = (1, 1)
    config.model.width = 8
    return config
