"""init, apply, features, with_head: what holds for every network."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models import layers, transformer
from ctl_jax.trees import leaf_paths

KEY = jax.random.key(0)
APPLY = jax.jit(models.apply, static_argnums=0)
TRAIN = jax.jit(functools.partial(models.apply, train=True), static_argnums=0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(4, 20, 20, 3)).astype(np.float32)


# One network a family: its options, small.
SMALL = {
    "resnet18": {"stages": (1, 1), "width": 4},
    "resnet50": {"stages": (1, 1), "width": 4},
    "vgg11": {"stages": (1, 1), "width": 4, "hidden": 8, "pool": 2},
    "densenet121": {"stages": (1, 1), "width": 4, "growth": 4},
    "mobilenet_v1": {"stages": (1, 1), "width_multiplier": 0.25},
    "mobilenet_v2": {"stages": (1, 1), "width_multiplier": 0.25},
    "mobilenet_v3_small": {"stages": (1, 1), "width_multiplier": 0.25},
    "efficientnet_b0": {"stages": (1, 1), "width_multiplier": 0.25},
    "shufflenet_v1_g2": {"stages": (1, 1), "width": 8, "stem_width": 4},
    "shufflenet_v2_x1_0": {"stages": (1, 1), "width": 8, "stem_width": 4, "last_width": 8},
    "squeezenet1_1": {"stages": (1, 1), "width": 2, "stem_width": 4},
    "convnext_tiny": {"stages": (1, 1), "width": 4},
    "vit_s16": {"heads": 2, "depth": 1, "head_width": 4, "patch": 4},
    "mixer_s16": {"width": 8, "depth": 1, "token_hidden": 4, "patch": 4},
}


@pytest.mark.parametrize("name", SMALL)
def test_logits_start_at_zero(name, images):
    module = models.create(name, 7, **SMALL[name])

    # One program: layer by layer each kernel's draw would be one of its own.
    @jax.jit
    def made(key, images):
        variables = models.init(module, key, 20)
        logits = models.apply(module, variables, images)
        features = models.features(module, variables, images)
        return variables["params"]["head"]["kernel"], logits, features

    kernel, logits, features = jax.device_get(made(KEY, images))
    assert not np.any(kernel)
    chex.assert_trees_all_equal(logits, np.zeros((4, 7), np.float32))
    assert np.all(np.isfinite(features))
    assert np.std(features) > 1e-3


def test_every_family_is_tested():
    kinds, tested = ({type(models.create(n, 1)) for n in names} for names in (models.NAMES, SMALL))
    # A U-Net has logits at every pixel; see its own tests.
    assert kinds - tested == {type(models.create("unet", 1))}


# U-Nets too: types do not depend on there being a classifier.
ALL = {**SMALL, "unet": {"depth": 1, "width": 4}}


@pytest.mark.parametrize("name", ALL)
def test_float32_whatever_jaxs_default_is(name):
    module = models.create(name, 7, **ALL[name])
    images = jax.ShapeDtypeStruct((4, 20, 20, 3), jnp.float32)

    def step(key, images):
        def loss(params):
            logits, stats = models.apply(module, {**variables, "params": params}, images, True)
            return jnp.mean(logits), stats

        variables = models.init(module, key, 20)
        grads, stats = jax.grad(loss, has_aux=True)(variables["params"])
        return variables, grads, stats, models.apply(module, variables, images)

    with jax.enable_x64(True):
        program, made = jax.make_jaxpr(step, return_shape=True)(KEY, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    # One number, such as the square root of a width, may be float64, but no array.
    assert re.findall(r"f64\[\d[^\]]*\]", str(program)) == []


@pytest.mark.parametrize("name", ALL)
def test_each_batch_norm_layer_asks(name, images):
    """Those that do not normalise by the batch give back the very arrays that they were given."""
    module = models.create(name, 7, **ALL[name])
    variables = jax.eval_shape(functools.partial(models.init, module, image_size=20), KEY)
    paths = sorted({path.rpartition("/")[0] for path, _ in leaf_paths(variables["batch_stats"])})
    chosen = set(paths[::2])
    asked = []

    def by_batch(path):
        asked.append(path)
        return path in chosen

    def program(train):
        apply = functools.partial(models.apply, module, train=train)
        return jax.make_jaxpr(apply)(variables, images).jaxpr

    some, none = program(by_batch), program(lambda path: False)
    assert sorted(asked) == paths
    assert str(none.eqns) == str(program(False).eqns)
    statistics = leaf_paths(variables["batch_stats"])
    given = some.invars[: len(statistics)]
    for (path, _), before, after in zip(statistics, given, some.outvars[1:], strict=True):
        assert (after is before) == (path.rpartition("/")[0] not in chosen)
    assert none.outvars[1:] == none.invars[: len(statistics)]


@pytest.mark.parametrize("draw", [layers.kernel_init, transformer.kernel_init])
def test_random_kernels_are_the_same_where_jax_has_64_bits(draw):
    expected = draw(KEY, (3, 3, 4, 8), jnp.float32)
    with jax.enable_x64(True):
        chex.assert_trees_all_equal(draw(KEY, (3, 3, 4, 8), jnp.float32), expected)


def test_networks_without_statistics(images):
    """The same form as with BatchNorm: an empty dict, in and out."""
    module = models.create("vit_s16", 7, **SMALL["vit_s16"])
    variables = models.init(module, KEY, 20)
    assert variables["batch_stats"] == {}
    logits, stats = TRAIN(module, variables, images)
    assert logits.shape == (4, 7)
    assert stats == {}
    alone = {"params": variables["params"]}
    chex.assert_trees_all_equal(TRAIN(module, alone, images), (logits, {}))


def test_init_follows_the_key_and_not_the_image_size():
    module = models.create("resnet18", 3, stages=(1,), width=4)
    one = models.init(module, KEY, 20)
    chex.assert_trees_all_equal(one, models.init(module, KEY, 64))
    other = models.init(module, jax.random.key(1), 20)
    assert np.any(one["params"]["stem_conv"]["kernel"] != other["params"]["stem_conv"]["kernel"])
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(one))


def test_kernels_start_with_hes_variance():
    module = models.create("resnet18", 3, stages=(1, 1))
    kernel = models.init(module, KEY, 20)["params"]["stage2_block1"]["conv2"]["kernel"]
    fan_out = 3 * 3 * 128
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_out), rtol=0.02)


def test_training_gives_the_statistics_of_the_batch(small, images):
    module, variables = small
    logits, stats = TRAIN(module, variables, images)
    assert logits.shape == (4, 5)
    kernel, bias = (variables["params"]["stem_conv"][key] for key in ("kernel", "bias"))
    x = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), ((3, 3), (3, 3)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = np.asarray(x) + np.asarray(bias).reshape(1, 1, 1, -1)
    expected = {"mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}
    chex.assert_trees_all_close(stats["stem_bn"], expected, rtol=1e-4, atol=1e-5)


def test_evaluation_ignores_the_rest_of_the_batch(small, images):
    module, variables = small
    whole = APPLY(module, variables, images)
    chex.assert_trees_all_close(APPLY(module, variables, images[:1]), whole[:1], atol=1e-5)
    train, _ = TRAIN(module, variables, images)
    assert np.abs(train - whole).max() > 1e-3


def test_features_are_what_the_head_reads(small, images):
    module, variables = small
    head = variables["params"]["head"]
    features = jax.jit(models.features, static_argnums=0)(module, variables, images)
    logits = features @ head["kernel"] + head["bias"][None]
    chex.assert_trees_all_close(APPLY(module, variables, images), logits, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet20", {}, 4),
        ("resnet20", {"stages": (1, 1)}, 2),
        ("resnet18", {}, 32),
        ("resnet18", {"stages": (1, 1)}, 8),
        ("vgg11", {}, 16),
        ("convnext_tiny", {}, 32),
        ("vit_ti16", {"depth": 1}, 1),
        ("mixer_s16", {"depth": 1}, 1),
    ],
)
def test_by_how_much_the_last_map_is_smaller_than_the_images(name, options, expected):
    module = models.create(name, 1, **options)
    shapes = jax.eval_shape(lambda key: models.init(module, key, 64), KEY)
    assert models.reduction(module, shapes, 64) == expected


def test_with_head(small, images):
    module, variables = small
    headed = models.with_head(variables, 11)
    assert APPLY(module, headed, images).shape == (4, 11)
    assert headed["params"]["head"]["kernel"].shape == (32, 11)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(headed["params"]["head"]))
    old, new = (
        {"params": {**tree["params"], "head": 0}, "batch_stats": tree["batch_stats"]}
        for tree in (variables, headed)
    )
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, old, new)))
    assert variables["params"]["head"]["kernel"].shape == (32, 5)


@pytest.mark.parametrize("num_outputs", [0, -2])
def test_with_head_of_nothing(small, num_outputs):
    with pytest.raises(UserError, match=f"num_outputs is {num_outputs}; expected a positive int"):
        models.with_head(small[1], num_outputs)


@pytest.mark.parametrize("image_size", [0, -3, 2.5])
def test_init_at_no_size(small, image_size):
    with pytest.raises(UserError, match=r"image_size is .*; expected a positive int"):
        models.init(small[0], KEY, image_size)


def test_count_params():
    variables = {"params": {"a": jnp.ones((2, 3)), "b": jnp.ones(())}, "batch_stats": jnp.ones(9)}
    assert models.count_params(variables) == 7
