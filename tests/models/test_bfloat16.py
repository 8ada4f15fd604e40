"""Networks that compute in bfloat16, on parameters and statistics in float32."""

import functools
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models

# Each family small, and its image size.
CASES = {
    "resnet50": ({"stages": (1, 1), "width": 4}, 16),
    "densenet121": ({"stages": (2,), "growth": 4, "width": 6}, 32),
    "efficientnet_b0": ({"stages": (1, 1), "width_multiplier": 0.25}, 16),
    "convnext_tiny": ({"stages": (1,), "width": 8}, 16),
    "vit_s16": ({"heads": 2, "depth": 1, "head_width": 4, "patch": 4}, 8),
    "unet": ({"depth": 1, "width": 4}, 8),
    "shufflenet_v2_x1_0": ({"stages": (1,), "width": 8, "stem_width": 8}, 32),
}
PRODUCT = re.compile(r"stablehlo\.(?:convolution|dot_general).*: \((.*)\) -> (\S+)")


@pytest.mark.parametrize("name", CASES)
def test_products_are_of_bfloat16_and_all_that_stays_is_float32(name):
    options, size = CASES[name]
    module = models.create(name, 3, **options)
    variables = jax.eval_shape(lambda key: models.init(module, key, size), jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)

    def loss(params, statistics, images):
        variables = {"params": params, "batch_stats": statistics}
        logits, of_batch = models.apply(module, variables, images, train=True, dtype="bfloat16")
        return logits.sum(), (logits, of_batch)

    arguments = variables["params"], variables["batch_stats"], images
    lowered = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments)
    products = PRODUCT.findall(lowered.as_text())
    assert len(products) > 3
    assert all("bf16>" in operands + out for operands, out in products)
    assert not [product for product in products if "f32>" in "".join(product)]
    (_, (logits, of_batch)), gradients = lowered.out_info
    assert logits.dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(
        *(
            jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
            for tree in ((of_batch, gradients), (variables["batch_stats"], variables["params"]))
        )
    )


def test_outputs_are_those_of_float32_but_for_rounding(small):
    module, variables = small
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 3)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(dtype):
        return [models.apply(module, variables, images, train=t, dtype=dtype) for t in (0, 1)]

    full, half = (jax.tree.leaves(outputs(dtype)) for dtype in ("float32", "bfloat16"))
    for one, other in zip(full, half, strict=True):
        spread = np.abs(one).max()
        np.testing.assert_allclose(one / spread, other / spread, atol=0.05)
        assert (one != other).any()


def test_batch_norm_keeps_its_own_precision():
    """Statistics far from what bfloat16 can tell apart, and a scale that it can not hold."""
    norm = models.layers.BatchNorm(epsilon=1e-5, use_running_average=False)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1000, 1, (64, 8, 8, 2)), jnp.bfloat16)
    variables = {
        "params": {"scale": jnp.full(2, 1.001), "bias": jnp.full(2, 0.001)},
        "batch_stats": {"mean": jnp.zeros(2), "var": jnp.ones(2)},
    }
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], exact.mean((0, 1, 2)), rtol=1e-6)
    assert y.dtype == jnp.bfloat16
    wide, _ = norm.apply(variables, x.astype(jnp.float32), mutable=["batch_stats"])
    assert wide.dtype == jnp.float32
    chex.assert_trees_all_equal(y, wide.astype(jnp.bfloat16))


def test_parameters_of_batch_norm_are_not_rounded(small):
    """Nor are those of a network's other layers before they are used."""
    module, variables = small
    seen = {}

    def look(next_fun, args, kwargs, context):
        if context.method_name == "__call__":
            params = context.module.variables.get("params", {})
            kind = type(context.module).__name__
            seen.setdefault(kind, set()).update(
                leaf.dtype.name for leaf in params.values() if not isinstance(leaf, dict)
            )
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(look):
        apply = functools.partial(models.apply, module, dtype="bfloat16")
        jax.eval_shape(apply, variables, jnp.zeros((1, 16, 16, 3)))
    assert seen["BatchNorm"] == {"float32"}
    assert seen["Conv"] == seen["Dense"] == {"bfloat16"}
