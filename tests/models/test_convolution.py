"""The formulations of a convolution agree in values, gradients and FLOPs."""

import functools

import chex
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from ctl_jax import compute
from ctl_jax.models.convolution import conv_general_dilated

NHWC = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def _loss(conv, stride, padding, groups, images, kernel):
    out = conv(images, kernel, (stride, stride), padding, feature_group_count=groups, **NHWC)
    return jnp.sum(jnp.sin(out)), out


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_equals_xlas_own(size, stride, padding, groups):
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], (2, 7, 8, 4))
    kernel = jax.random.normal(keys[1], (size, size, 4 // groups, 6))
    pads = ((padding, padding), (padding, padding))
    results, flops = [], []
    for conv in (lax.conv_general_dilated, conv_general_dilated):
        loss = functools.partial(_loss, conv, stride, pads, groups)
        step = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        results.append(step(images, kernel))
        flops.append(compute.flops(step, images, kernel))
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-5)
    assert flops[0] == flops[1] > 0


@pytest.mark.parametrize(("size", "is_product"), [(1, True), (3, False)])
def test_a_pointwise_convolution_is_a_matrix_product_on_cpu(size, is_product):
    call = functools.partial(conv_general_dilated, window_strides=(2, 2), **NHWC)
    padding = ((size // 2, size // 2),) * 2
    images, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((size, size, 2, 3))
    jaxpr = jax.make_jaxpr(lambda x, k: call(x, k, padding=padding))(images, kernel)
    names = {eqn.primitive.name for eqn in jaxpr.eqns}
    assert ("dot_general" in names) == is_product
    assert ("conv_general_dilated" in names) != is_product
