"""Exactness on real weights whose network is a plain function in torch's layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ctl_jax import compute, pruning

torch = pytest.importorskip("torch")

NCHW = ("NCHW", "OIHW", "NCHW")


@pytest.fixture(scope="module")
def weights(shared_dir):
    path = shared_dir / "pretrained" / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip(f"no {path}")
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    return {
        key.removeprefix("module."): jnp.asarray(value.numpy())
        for key, value in state.items()
        if "num_batches" not in key
    }


def conv(x, kernel, stride):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(1, 1), (1, 1)], dimension_numbers=NCHW
    )


def norm(v, name, x):
    keys = "running_mean", "running_var", "weight", "bias"
    mean, var, scale, bias = (v[f"{name}.{key}"].reshape(1, -1, 1, 1) for key in keys)
    return (x - mean) * lax.rsqrt(var + 1e-5) * scale + bias


def resnet20(v, x):
    """Shortcuts of kind A: every other pixel, and as many channels of zeros on either side."""
    x = jax.nn.relu(norm(v, "bn1", conv(x, v["conv1.weight"], 1)))
    for stage in (1, 2, 3):
        for block in range(3):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = jax.nn.relu(norm(v, f"{name}.bn1", conv(x, v[f"{name}.conv1.weight"], stride)))
            y = norm(v, f"{name}.bn2", conv(y, v[f"{name}.conv2.weight"], 1))
            if stride > 1:
                zeros = 4 * 2 ** (stage - 1)
                x = jnp.pad(x[..., ::2, ::2], ((0, 0), (zeros, zeros), (0, 0), (0, 0)))
            x = jax.nn.relu(x + y)
    return x.mean((2, 3)) @ v["linear.weight"].T + v["linear.bias"][None]


@pytest.mark.parametrize("scope", ["filters", "channels"])
def test_resnet20_of_cifar(check_exact, weights, scope):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 32, 32)), jnp.float32)
    groups = check_exact(resnet20, weights, x, scope=scope, criteria=("l2", "fpgm"))
    assert len(groups.in_scope("filters")) == 9
    # The stream of the first stage; the later ones' other channels meet the padding's zeros.
    assert set(groups.in_scope("channels")) - set(groups.in_scope("filters")) == {"conv1.weight"}
    assert "pad" in groups.explain("layer3.0.conv2.weight")


def test_to_a_target(weights):
    x = jax.ShapeDtypeStruct((1, 3, 32, 32), jnp.float32)
    groups = pruning.trace(resnet20, weights, x)
    keep = pruning.select(
        groups, pruning.score(groups, weights), flops=0.5, scope="channels", allocation="global"
    )
    small = pruning.prune(weights, groups, keep)
    share = compute.flops(resnet20, small, x) / compute.flops(resnet20, weights, x)
    assert 0.495 < share <= 0.5
