"""The network whose channels most tests of criteria score."""

import jax
import numpy as np
import pytest

from ctl_jax import pruning

from ..networks import SHAPES, residual


@pytest.fixture(scope="package")
def variables():
    """Random ones of `residual`."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="package")
def groups(variables):
    """Its groups, "stem" and "one"."""
    return pruning.trace(residual, variables, jax.ShapeDtypeStruct((8, 3), np.float32))
