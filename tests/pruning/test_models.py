"""Exactness of every network of `ctl_jax.models`: one test over models, scopes and criteria."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models, pruning
from ctl_jax.compute import flops

# Each family small, with all that is particular to it. Name, options, image size.
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet18": ("resnet18", {"stages": (1, 1), "stem": "cifar", "width": 8}, 16),
    "resnet50_v1": (
        "resnet50", {"stages": (1, 2), "version": "v1", "conv_bias": True, "width": 4}, 16,
    ),
    "resnet50_v1.5": ("resnet50", {"stages": (2, 1), "width": 4}, 16),
    "resnet_padded": ("resnet20", {"stages": (1, 1), "width": 8}, 16),
    "resnext": (
        "resnext50_32x4d", {"stages": (1, 1), "width": 8, "groups": 4, "width_per_group": 12}, 16,
    ),
    "densenet": ("densenet121", {"stages": (2, 2), "growth": 4, "width": 6}, 32),
    "mobilenet_v1": ("mobilenet_v1", {"stages": (1, 1), "width_multiplier": 0.25}, 16),
    "mobilenet": ("mobilenet_v2", {"stages": (1, 1, 2), "width_multiplier": 0.25}, 16),
    "mobilenet_v3": (
        "mobilenet_v3_small",
        {"stages": (1, 1, 1), "width_multiplier": 0.25, "padding": "same"},
        17,
    ),
    "efficientnet": ("efficientnet_b0", {"stages": (1, 2), "width_multiplier": 0.25}, 16),
    "squeezenet": ("squeezenet1_1", {"stages": (1, 1), "width": 4, "stem_width": 8}, 16),
    "convnext": ("convnext_tiny", {"stages": (1, 1), "width": 8}, 16),
    "vit": ("vit_s16", {"heads": 3, "depth": 2, "head_width": 4, "patch": 4}, 8),
    "vit_scan_remat": (
        "vit_s16",
        {"heads": 3, "depth": 2, "head_width": 4, "patch": 4, "scan": True, "remat": True},
        8,
    ),
    "deit": ("deit_s16_distilled", {"heads": 3, "depth": 1, "head_width": 4, "patch": 4}, 8),
    "dinov2": (
        "vit_s14_reg4_dinov2",
        {"heads": 3, "depth": 1, "head_width": 4, "patch": 4, "pool": "token+mean"},
        8,
    ),
    "mixer": ("mixer_s16", {"width": 8, "depth": 1, "token_hidden": 6, "patch": 4}, 8),
    "unet": ("unet", {"depth": 2, "width": 4}, 8),
    "shufflenet_v1": (
        "shufflenet_v1_g2", {"stages": (1, 1), "groups": 2, "width": 16, "stem_width": 8}, 32,
    ),
    "shufflenet_v2": (
        "shufflenet_v2_x1_0", {"stages": (2,), "width": 12, "stem_width": 6, "last_width": 8}, 32,
    ),
    "vgg": ("vgg11_bn", {"stages": (1, 1), "width": 6, "hidden": 8, "pool": 2}, 8),
}  # fmt: skip

# Where the program normalises over channels, so that the widest scope is one of its own.
NORMALISED = ("convnext", "vit", "vit_scan_remat", "deit", "dinov2", "mixer")

ZERO_SHOT = [name for name in pruning.ZERO_SHOT if name != "bn_scale"]


@functools.cache
def build(case: str) -> tuple[Any, Any, jax.Array, nn.Module]:
    """A function of (variables, images), its variables, images, and the module."""
    name, options, size = CASES[case]
    module = models.create(name, num_outputs=3, **options)
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: models.init(module, key, size))
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        """All leaves random: nothing is zero, statistics and scales are not trivial."""
        name = path[-1].key
        if name == "kernel":
            fan_in = np.prod(leaf.shape) / leaf.shape[-1]
            value = rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in)
        elif name.startswith(("scale", "var", "layer_scale")):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = 0.3 * rng.normal(size=leaf.shape)
        return jnp.asarray(value, jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    x = jnp.asarray(rng.normal(size=(2, size, size, 3)), jnp.float32)
    return lambda v, x: models.apply(module, v, x), variables, x, module


@functools.cache
def normalising_over(case: str) -> Any:
    """`masked_apply` of `check_exact`: each LayerNorm is told which channels are there."""
    _, _, _, module = build(case)

    def masked_apply(variables: Any, x: jax.Array, masks: dict[str, jax.Array]) -> jax.Array:
        def interceptor(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
            layer = context.module
            if isinstance(layer, nn.LayerNorm) and context.method_name == "__call__":
                path = "/".join(["params", *layer.path, "scale"])
                mask = masks[path].reshape((1,) * (args[0].ndim - 1) + (-1,))
                kwargs = {**kwargs, "mask": mask}
            return next_fun(*args, **kwargs)

        with nn.intercept_methods(interceptor):
            return models.apply(module, variables, x)

    return masked_apply


@pytest.mark.parametrize(
    ("case", "scope"),
    [
        (case, scope)
        for case in CASES
        for scope in pruning.SCOPES
        if scope != "all" or case in NORMALISED
    ],
)
def test_pruned_is_full_with_channels_cut_off(check_exact, case, scope):
    apply_fn, variables, x, _ = build(case)
    masked_apply = normalising_over(case) if scope == "all" else None
    groups = check_exact(
        apply_fn, variables, x, criteria=ZERO_SHOT, scope=scope, ratio=0.4,
        masked_apply=masked_apply,
    )  # fmt: skip
    assert groups.in_scope(scope)
    if case.startswith("resnet"):  # the paper's pruning: all convolutions of a block but the last
        inner = 1 if CASES[case][0] in ("resnet18", "resnet20") else 2
        assert len(groups.in_scope("filters")) == inner * sum(CASES[case][1]["stages"])
    assert any(group.normalised for group in groups.values()) == (case in NORMALISED)
    # What a task head makes are the function's outputs.
    assert all("head" not in name for name in groups)


@pytest.mark.parametrize("case", ["resnet50_v1.5", "densenet", "shufflenet_v2"])
@pytest.mark.parametrize("hidden", [False, True])
def test_heads_on_taps(check_exact, case, hidden):
    """A cut of a stage's outputs cuts the head's rows that read them."""
    apply_fn, variables, x, module = build(case)
    read = functools.partial(models.representation, module, head="taps")
    rng = np.random.default_rng(0)

    def layer(inputs: int, outputs: int) -> dict[str, Any]:
        kernel = rng.normal(size=(inputs, outputs)).astype(np.float32) / np.sqrt(inputs)
        return {"kernel": kernel, "bias": np.ones(outputs, np.float32)}

    rows = jax.eval_shape(read, variables, x).shape[1]
    head = {**layer(5, 3), "hidden": layer(rows, 5)} if hidden else layer(rows, 3)
    groups = check_exact(apply_fn, models.set_head(variables, head), x, gradients=False)
    path = "params/head/hidden/kernel" if hidden else "params/head/kernel"
    cut = {int(p) for group in groups.values() for m in group.members if m.path == path
           for p in m.positions.ravel()}  # fmt: skip
    assert cut == set(range(rows))


@pytest.mark.parametrize("case", CASES)
def test_costs_are_those_of_the_pruned_network(case):
    apply_fn, variables, x, _ = build(case)
    groups = pruning.trace(apply_fn, variables, x)
    scores = pruning.score(groups, variables, "random")
    assert groups.costs.flops() == flops(apply_fn, variables, x)
    for ratio in (0.3, 0.7):
        keep = pruning.select(groups, scores, ratio=ratio, scope="all")
        small = pruning.prune(variables, groups, keep)
        assert groups.costs.flops(keep) == flops(apply_fn, small, x)
        assert groups.costs.params(keep) == sum(leaf.size for leaf in jax.tree.leaves(small))
        again = pruning.trace(apply_fn, small, x)
        assert groups.costs.memory(keep) == again.costs.memory()


@pytest.mark.parametrize("case", CASES)
def test_what_was_pruned_can_be_pruned_again(case):
    apply_fn, variables, x, _ = build(case)
    groups = pruning.trace(apply_fn, variables, x)
    first = pruning.select(groups, pruning.score(groups, variables), ratio=0.3, scope="all")
    small = pruning.prune(variables, groups, first)
    again = pruning.trace(apply_fn, small, x)
    second = pruning.select(again, pruning.score(again, small), ratio=0.3, scope="all")
    smaller = pruning.prune(small, again, second)
    at_once = pruning.prune(variables, groups, first.compose(second))
    jax.tree.map(np.testing.assert_array_equal, smaller, at_once)
