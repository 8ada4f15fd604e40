"""Networks and variables that several files use."""

import jax
import numpy as np
import pytest

from ctl_jax import models

KERAS_FILE = "pretrained/resnet50_imagenet_keras_conv1-conv4.npz"


def _random_variables(module, seed=0):
    """Variables with every array random, the head and the statistics too."""
    shapes = jax.eval_shape(lambda key: models.init(module, key, 32), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            value = rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
        elif name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = rng.normal(0, 0.2, leaf.shape)
        return jax.numpy.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="session")
def random_variables():
    """module -> variables; a module's `init` leaves out what a test of equality needs."""
    return _random_variables


@pytest.fixture(scope="session")
def small():
    """A bottleneck ResNet of a few thousand parameters and its random variables."""
    module = models.create("resnet50", 5, stages=(1, 2), width=4, version="v1", conv_bias=True)
    return module, _random_variables(module)


@pytest.fixture(scope="session")
def keras_file(shared_dir):
    """Real ImageNet weights, of a developer's machine."""
    path = shared_dir / KERAS_FILE
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="session")
def keras_module():
    """The network that those weights are for."""
    return models.create(
        "resnet50", 7, stages=(3, 4, 6), version="v1", conv_bias=True, epsilon=1.001e-5
    )
