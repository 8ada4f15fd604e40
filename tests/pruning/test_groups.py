"""What the groups say of themselves."""

import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError

VARIABLES = {
    "params": {
        "stem": jnp.ones((3, 4)),
        "bias": jnp.ones((1, 4)),
        "block": [jnp.ones((4, 6)), jnp.ones((6, 4))],
        "head": jnp.ones((4, 2)),
    }
}


@pytest.fixture(scope="module")
def groups() -> pruning.Groups:
    def apply(v, x):
        p = v["params"]
        x = x @ p["stem"] + p["bias"]
        return (x + jnp.tanh(x @ p["block"][0]) @ p["block"][1]) @ p["head"]

    return pruning.trace(apply, VARIABLES, np.ones((2, 3), np.float32))


def test_explain_names_the_group_and_its_other_parameters(groups):
    assert groups.explain("params/block/0").splitlines() == [
        "params/block/0 [4, 6]",
        "  axis 0 (4): in of group 'params/stem' (4 channels, whole in scope filters: residual "
        "addition) with params/bias[1] elementwise, params/block/1[1] out, params/head[0] in, "
        "params/stem[1] out",
        "  axis 1 (6): out of group 'params/block/0' (6 channels) with params/block/1[0] in",
    ]
    assert groups.explain("params/bias").splitlines()[1] == "  axis 0 (1): not cut: of size 1"
    assert groups.explain().count("\n") == 2 * 5 + 5 - 1


def test_explain_unknown_path(groups):
    with pytest.raises(UserError, match="path is 'params/nobody', expected a parameter"):
        groups.explain("params/nobody")


def test_summary(groups):
    assert str(groups) == groups.summary()
    assert groups.summary().splitlines() == [
        "group            size   out   in elem  kept whole by",
        "params/stem         4     2    2    1  filters (residual addition)",
        "params/block/0      6     1    1    0  -",
        "1 axes not cut: of size 1",
        "1 axes not cut: output of the function",
        "1 axes not cut: input of the function",
    ]


def test_scopes(groups):
    assert groups.in_scope("filters") == ("params/block/0",)
    assert groups.in_scope("channels") == ("params/stem", "params/block/0")
    with pytest.raises(UserError, match="scope is 'layers', expected one of filters, channels"):
        groups.in_scope("layers")
