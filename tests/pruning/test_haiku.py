"""Exactness of Haiku's networks, and how a pruned one runs there."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning

hk = pytest.importorskip("haiku")


def at_given_widths(network: Callable[..., Any]) -> Any:
    """`hk.transform_with_state(network)` whose layers have the widths of their parameters.

    Haiku's convolutions and dense layers ask for parameters of the shape that they were built
    with, and refuse others.
    """

    def follow(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, hk.Conv2D | hk.Linear):
            held = hk.get_params().get(layer.module_name)
            if held:  # not while they are initialised
                layer.output_channels = layer.output_size = held["w"].shape[-1]
        return next_fun(*args, **kwargs)

    def intercepted(*args: Any) -> Any:
        with hk.intercept_methods(follow):
            return network(*args)

    return hk.transform_with_state(intercepted)


def logits(transformed: Any, train: bool = False) -> Callable[[Any, jax.Array], jax.Array]:
    return lambda v, x: transformed.apply(v["params"], v["state"], None, x, train)[0]


def randomised(transformed: Any, x: jax.Array) -> Any:
    """All leaves random: nothing is zero, statistics and scales are not trivial."""
    params, state = jax.eval_shape(lambda key: transformed.init(key, x, True), jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> jax.Array:
        name = path[-1].key
        if name == "counter":
            return jnp.ones(leaf.shape, leaf.dtype)
        if name == "w":
            value = rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
        elif name == "scale" or "var_ema" in path[-2].key:
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = 0.3 * rng.normal(size=leaf.shape)
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, {"params": params, "state": state})


def small_resnet(x: jax.Array, is_training: bool) -> jax.Array:
    net = hk.nets.ResNet((1, 1, 1, 1), 5, channels_per_group=(8, 16, 16, 24))
    return net(x, is_training)


def small_resnet_v2(x: jax.Array, is_training: bool) -> jax.Array:
    net = hk.nets.ResNet(
        (1, 2, 1, 1), 5, bottleneck=False, resnet_v2=True, channels_per_group=(8, 8, 16, 24)
    )
    return net(x, is_training)


def small_mobilenet(x: jax.Array, is_training: bool) -> jax.Array:
    return hk.nets.MobileNetV1((1, 2, 1), (16, 24, 32), num_classes=5)(x, is_training)


def resnet50(x: jax.Array, is_training: bool) -> jax.Array:
    return hk.nets.ResNet50(10)(x, is_training)


def mobilenet_v1(x: jax.Array, is_training: bool) -> jax.Array:
    return hk.nets.MobileNetV1(num_classes=10)(x, is_training)


@pytest.mark.parametrize(
    ("network", "size", "smallest"),
    [
        (small_resnet, 32, 0.5),
        (small_resnet_v2, 32, 0.5),
        (small_mobilenet, 32, 0.5),
        pytest.param(resnet50, 64, 0.3, marks=pytest.mark.slow),
        pytest.param(mobilenet_v1, 64, 0.3, marks=pytest.mark.slow),
    ],
)
def test_exact(check_exact, network, size, smallest):
    transformed = at_given_widths(network)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, size, size, 3)), jnp.float32)
    variables = randomised(transformed, x)
    groups = check_exact(logits(transformed), variables, x, gradients=False)
    keep = pruning.select(groups, pruning.score(groups, variables), ratio=0.5, scope="channels")
    small = pruning.prune(variables, groups, keep)
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree["params"]))  # noqa: E731
    assert count(small) < smallest * count(variables)


def test_pruned_network_trains():
    """Evaluation reads one half of the state of Haiku's moving averages, training the other.

    So what is to train on is traced as a sum of both.
    """
    transformed = at_given_widths(small_resnet)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 32, 32, 3)), jnp.float32)
    variables = randomised(transformed, x)
    evaluate, train = logits(transformed), logits(transformed, train=True)
    groups = pruning.trace(lambda v, x: evaluate(v, x) + train(v, x), variables, x)
    assert set(groups) == set(pruning.trace(evaluate, variables, x))
    keep = pruning.select(groups, pruning.score(groups, variables), ratio=0.5, scope="channels")
    small = pruning.prune(variables, groups, keep)
    _, state = transformed.apply(small["params"], small["state"], None, x, True)
    shapes = jax.tree.map(jnp.shape, state)
    assert shapes == jax.tree.map(jnp.shape, small["state"])
    assert shapes != jax.tree.map(jnp.shape, variables["state"])
    again = evaluate({"params": small["params"], "state": state}, x)
    assert again.shape == (2, 5)
    assert jnp.isfinite(again).all()


def test_full_network_is_unchanged():
    x = jnp.ones((1, 32, 32, 3))
    plain = hk.transform_with_state(small_mobilenet)
    variables = randomised(plain, x)
    np.testing.assert_array_equal(
        logits(plain)(variables, x), logits(at_given_widths(small_mobilenet))(variables, x)
    )
