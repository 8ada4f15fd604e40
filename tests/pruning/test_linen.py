"""Exactness of networks written in Linen, ours and others."""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models, pruning


def randomised(variables: Any, seed: int = 0) -> Any:
    """All leaves random: nothing is zero, statistics and scales are not trivial."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.Array) -> jax.Array:
        name = path[-1].key
        if name == "kernel":
            value = rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
        elif name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = 0.3 * rng.normal(size=leaf.shape)
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


def test_train_and_eval_have_the_same_groups():
    module = models.create("resnet50", num_outputs=3, stages=(1, 1), width=4)
    variables = models.init(module, jax.random.key(0), 16)
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    test = pruning.trace(lambda v, x: models.apply(module, v, x), variables, x)
    train = pruning.trace(lambda v, x: models.apply(module, v, x, train=True)[0], variables, x)
    stream = {name: group.residual for name, group in test.items()}
    assert {name: group.residual for name, group in train.items()} == stream
    assert {name: group.size for name, group in train.items()} == {
        name: group.size for name, group in test.items()
    }


class Foreign(nn.Module):
    """A stock network whose widths are fields: pruned ones come by building it with others."""

    widths: tuple[int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.widths[0], (3, 3), name="first")(x))
        y = nn.Conv(self.widths[1], (3, 3), name="second")(x)
        y = nn.BatchNorm(use_running_average=True, name="norm")(y)
        x = nn.swish(y) * nn.sigmoid(nn.Conv(self.widths[1], (1, 1), name="gate")(x))
        return nn.Dense(3, name="head")(nn.avg_pool(x, (2, 2), (2, 2)).mean((1, 2)))


def test_stock_linen(check_exact):
    def apply(variables: Any, x: jax.Array) -> jax.Array:
        widths = tuple(
            variables["params"][name]["kernel"].shape[-1] for name in ("first", "second")
        )
        return Foreign(widths).apply(variables, x)

    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    variables = randomised(Foreign((8, 6)).init(jax.random.key(0), x))
    groups = check_exact(apply, variables, x, ratio=0.5)
    assert {name: group.residual for name, group in groups.items()} == {
        "params/first/kernel": None,
        "params/second/kernel": "final representation",
    }


@pytest.mark.slow
def test_pretrained_resnet50(check_exact, shared_dir: pathlib.Path):
    path = shared_dir / "pretrained" / "resnet50_imagenet_keras_conv1-conv4.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    module = models.create(
        "resnet50", num_outputs=3, stages=(3, 4, 6), version="v1", conv_bias=True
    )
    variables = models.load_weights(path, module, models.init(module, jax.random.key(0), 64))
    head = np.random.default_rng(0).normal(size=(1024, 3)) / 32
    variables["params"]["head"]["kernel"] = jnp.asarray(head, jnp.float32)
    images = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3))
    x = models.PREPROCESS["caffe"](jnp.asarray(images, jnp.float32))
    apply_fn = lambda v, x: models.apply(module, v, x)  # noqa: E731
    for scope in ("filters", "channels"):
        check_exact(apply_fn, variables, x, scope=scope, gradients=False)
