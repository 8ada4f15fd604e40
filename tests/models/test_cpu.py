"""The formulations of layers agree with XLA's own in values and gradients."""

import functools
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ctl_jax import models
from ctl_jax.models import cpu
from ctl_jax.models.cpu import batch_norm, small_conv, stem_conv
from ctl_jax.models.cpu.max_pool import max_pool
from ctl_jax.models.cpu.relu import relu

NHWC = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
TINY = {
    "resnet50": {"stages": (1, 1), "width": 8},
    "densenet121": {"stages": (1, 1)},
    "resnext50_32x4d": {"stages": (1, 1), "width": 16},
    "convnext_atto": {"stages": (1, 1), "width": 16},
}


def _xla_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def _primitives(function, *arguments):
    """The text of a function's jaxpr, which names all primitives, also those of nested jaxprs."""
    # A function of its own: jax remembers what it traced of another one.
    return str(jax.make_jaxpr(lambda *arguments: function(*arguments))(*arguments))


def _check_same(function, expected, *arguments):
    """Both functions have the same results and gradients."""

    @functools.partial(jax.jit, static_argnums=0)
    def call(function, *arguments):
        result, gradient = jax.vjp(function, *arguments)
        size = math.prod(result.shape)
        return result, gradient(jnp.sin(jnp.arange(size, dtype=jnp.float32)).reshape(result.shape))

    found, wanted = (call(f, *arguments) for f in (function, expected))
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "channels", "features", "stride"),
    [
        ((2, 1, 1), 2, 3, 1),
        ((2, 2, 2), 3, 5, 1),
        ((2, 1, 3), 5, 2, 1),
        ((2, 4, 5), 2, 3, 1),
        ((2, 4, 4), 3, 2, 2),
        ((2, 3, 1), 2, 3, 2),
        ((2, 2, 5), 4, 2, 2),
        ((2, 3, 2), 2, 4, 1),
        ((2, 6, 6), 3, 2, 1),
        ((2, 11, 8), 2, 3, 2),
    ],
)
def test_a_3x3_convolution_equals_xlas(shape, channels, features, stride):
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], (*shape, channels))
    kernel = jax.random.normal(keys[1], (3, 3, channels, features))

    def expected(images, kernel):
        pads = ((1, 1), (1, 1))
        return lax.conv_general_dilated(images, kernel, (stride, stride), pads, **NHWC)

    _check_same(lambda *arrays: small_conv.tap_conv(*arrays, stride), expected, images, kernel)


@pytest.mark.parametrize(
    ("shape", "window", "strides", "padding", "groups", "channels", "features"),
    [
        # Each channel for itself,
        ((2, 7, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), 5, 5, 5),
        ((1, 7, 6), (3, 3), (2, 2), ((1, 1), (1, 1)), 3, 3, 3),
        ((3, 8, 8), (5, 5), (2, 2), "SAME", 2, 2, 2),
        ((2, 6, 9), (3, 3), (2, 2), "SAME", 4, 4, 4),
        ((2, 2, 1), (5, 3), (1, 2), ((2, 2), (1, 1)), 3, 3, 3),
        ((1, 8, 5), (7, 7), (1, 1), ((3, 3), (3, 3)), 2, 2, 2),
        ((2, 5, 5), (2, 2), (2, 2), "VALID", 3, 3, 3),
        ((2, 6, 6), (3, 3), (3, 3), ((0, 1), (2, 0)), 2, 2, 2),
        # two from each, and several from several.
        ((2, 7, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), 3, 3, 6),
        ((3, 8, 8), (3, 3), (2, 2), "SAME", 2, 6, 4),
        ((2, 6, 6), (1, 1), (1, 1), ((0, 0), (0, 0)), 2, 4, 4),
    ],
)
def test_a_convolution_of_groups_equals_xlas(
    shape, window, strides, padding, groups, channels, features
):
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], (*shape, channels))
    kernel = jax.random.normal(keys[1], (*window, channels // groups, features))

    def call(conv, images, kernel):
        return conv(images, kernel, strides, padding, feature_group_count=groups, **NHWC)

    ours = functools.partial(call, cpu.conv_general_dilated)
    with cpu.tuned("cpu"):
        _check_same(ours, functools.partial(call, lax.conv_general_dilated), images, kernel)
        assert "custom_vjp" in _primitives(ours, images, kernel)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2), (2, 7, 4), (2, 4, 9)])
@pytest.mark.parametrize("levels", [2, 1000])
def test_max_pooling_equals_xlas_also_where_elements_are_equal(shape, levels):
    generator = np.random.default_rng(levels)
    x = jnp.asarray(generator.integers(-levels, levels, (*shape, 3)), jnp.float32)
    _check_same(max_pool, _xla_pool, x)


def test_the_gradient_of_max_pooling_is_no_windows_maxima_for_each_pixel():
    """What its barriers are for: XLA would find the maximum of nine for each that reads it."""

    def gradient(x, of_result):
        return jax.vjp(max_pool, x)[1](of_result)

    shapes = [jax.ShapeDtypeStruct((1, size, size, 4), jnp.float32) for size in (8, 4)]
    program = jax.jit(gradient).lower(*shapes).compile()
    largest = [part for part in program.as_text().split("\n\n") if "f32[1,4,2,4,2,4]" in part]
    assert largest
    assert not any("maximum(" in part for part in largest if "fused_computation" in part)


def test_relu_equals_flaxs():
    x = jnp.asarray([[-2.0, -0.0, 0.0], [1e-30, 3.0, jnp.inf]])
    _check_same(relu, nn.relu, x)
    assert jnp.isnan(relu(jnp.nan))


def test_relu_is_not_computed_again_by_those_who_read_it():
    """What it is for: the sum of two arrays is read by one instruction, not by all three."""

    def chain(x, y, z, matrix):
        first = relu(x + y)
        second = relu(first + z)
        return first @ matrix, second @ matrix, second

    shapes = [jax.ShapeDtypeStruct((64, 32), jnp.float32)] * 3
    shapes.append(jax.ShapeDtypeStruct((32, 16), jnp.float32))

    program = jax.jit(chain).lower(*shapes).compile()
    assert program.as_text().count(" add(") == 2


def test_a_stem_convolution_equals_xlas():
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], (2, 10, 6, 3))
    kernel = jax.random.normal(keys[1], (7, 7, 3, 4))

    def expected(images, kernel):
        return lax.conv_general_dilated(images, kernel, (2, 2), ((3, 3), (3, 3)), **NHWC)

    _check_same(stem_conv.stem_conv, expected, images, kernel)


def test_batch_norm_equals_flaxs():
    keys = jax.random.split(jax.random.key(0), 3)
    x = 3 + jax.random.normal(keys[0], (4, 3, 5, 6))
    scale, bias = (jax.random.normal(key, (6,)) for key in keys[1:])

    def of_flax(x, scale, bias):
        statistics = {"mean": jnp.zeros(6), "var": jnp.ones(6)}
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": statistics}
        module = nn.BatchNorm(use_running_average=False, epsilon=1e-3)
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    def ours(x, scale, bias):
        return batch_norm.batch_norm(x, scale, bias, 1e-3)

    _check_same(ours, of_flax, x, scale, bias)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "groups"),
    [(1, 1, 0, 1), (1, 2, 0, 1), (1, 2, 1, 1), (1, 1, 0, 2), (3, 1, 0, 1), (3, 2, 1, 1)],
)
def test_any_convolution_equals_xlas(size, stride, padding, groups):
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], (2, 7, 8, 4))
    kernel = jax.random.normal(keys[1], (size, size, 4 // groups, 6))
    pads = ((padding, padding), (padding, padding))

    def call(conv, images, kernel):
        return conv(images, kernel, (stride, stride), pads, feature_group_count=groups, **NHWC)

    expected = functools.partial(call, lax.conv_general_dilated)
    with cpu.tuned("cpu"):
        _check_same(functools.partial(call, cpu.conv_general_dilated), expected, images, kernel)


@pytest.mark.parametrize(
    ("images", "kernel", "own"),
    [
        ((1, 4, 4, 2), (1, 1, 2, 3), True),
        ((1, 8, 8, 2), (3, 3, 2, 3), False),
        ((1, 2, 2, 2), (3, 3, 2, 3), True),
        ((1, 6, 6, 128), (3, 3, 128, 128), True),
        ((1, 6, 6, 128), (3, 3, 128, 127), False),
        ((1, 7, 6, 128), (3, 3, 128, 128), False),
        ((1, 9, 8, 3), (7, 7, 3, 64), False),
    ],
)
def test_the_backend_decides_in_a_tuned_program_alone(images, kernel, own):
    pad, stride = kernel[0] // 2, 2 if kernel[0] == 7 else 1

    def conv(images, kernel):
        pads = ((pad, pad), (pad, pad))
        return cpu.conv_general_dilated(images, kernel, (stride, stride), pads, **NHWC)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (images, kernel)]
    for backend in ("gpu", "tpu"):
        with cpu.tuned(backend):
            assert "conv_general_dilated" in _primitives(conv, *shapes)
    assert "conv_general_dilated" in _primitives(conv, *shapes)
    with cpu.tuned("cpu"):
        assert ("conv_general_dilated" not in _primitives(conv, *shapes)) == own


def test_options_of_the_compiler_are_known_to_it():
    assert cpu.compiler_options("gpu") == {}
    options = cpu.compiler_options("cpu")
    assert list(options) == ["xla_cpu_experimental_ynn_fusion_type"]


def test_an_option_that_the_compiler_has_no_more_is_left_out(monkeypatch):
    def without(*_, **__):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option")

    cpu.compiler_options.cache_clear()
    monkeypatch.setattr(jax.stages.Lowered, "compile", without)
    assert cpu.compiler_options("cpu") == {}
    cpu.compiler_options.cache_clear()


@pytest.mark.parametrize("name", sorted(TINY))
def test_networks_and_their_gradients_are_the_same(name):
    module = models.create(name, num_outputs=4, **TINY[name])
    variables = models.init(module, jax.random.key(0), 32)
    head = variables["params"]["head"]
    head["kernel"] = jax.random.normal(jax.random.key(2), head["kernel"].shape)
    images = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))

    def loss(params):
        logits, _ = models.apply(module, {**variables, "params": params}, images, train=True)
        return jnp.mean(jnp.sin(logits))

    def tuned(params):
        with cpu.tuned("cpu"):
            return loss(params)

    plain, fast = (jax.jit(jax.value_and_grad(f))(variables["params"]) for f in (loss, tuned))
    chex.assert_trees_all_close(fast, plain, rtol=1e-4, atol=1e-4)
    # What is only looked at is the plain definition.
    assert "custom_vjp" not in _primitives(loss, variables["params"])
    assert "custom_vjp" in _primitives(tuned, variables["params"])
