"""What holds for every network: one table of small ones, at least one of each family."""

import functools

import chex
import jax
import numpy as np
import pytest

from ctl_jax import models

KEY = jax.random.key(0)
CIFAR = {"stages": (1, 1), "groups": 4, "stem": "cifar", "width_per_group": 32}
VGG = {"stages": (1, 2), "pool": 2}
STAGES = {"stages": (1, 1)}
SHUFFLE_V1 = {"stages": (1, 2), "groups": 2}
TOKENS = {"depth": 2, "head_width": 4, "patch": 8}

# Name, options, widths, narrower widths, and the shape of an image's features.
CASES = {
    "resnet": ("resnext50_32x4d", CIFAR, {"width": 8}, {"width": 4}, (64,)),
    "vgg": ("vgg11", VGG, {"width": 4, "hidden": 12}, {"width": 3, "hidden": 7}, (12,)),
    "vgg_bn": ("vgg11_bn", VGG, {"width": 4, "hidden": 12}, {"width": 3, "hidden": 7}, (12,)),
    # Without hidden layers: 2 x 2 pixels of 8 channels.
    "vgg_flat": ("vgg11_bn", VGG | {"hidden": 0}, {"width": 4}, {"width": 3}, (2 * 2 * 8,)),
    # A dense layer adds 4 channels, a transition leaves half of them.
    "densenet": (
        "densenet121",
        {"stages": (1, 2)},
        {"growth": 4, "width": 6},
        {"growth": 3, "width": 3},
        ((6 + 4) // 2 + 2 * 4,),
    ),
    "mobilenet_v1": (
        "mobilenet_v1", STAGES, {"width_multiplier": 0.5}, {"width_multiplier": 0.25}, (64,),
    ),
    "mobilenet_v2": (
        "mobilenet_v2", STAGES, {"width_multiplier": 0.75}, {"width_multiplier": 0.5}, (1280,),
    ),
    "mobilenet_v3": (
        "mobilenet_v3_small", STAGES, {"width_multiplier": 0.75}, {"width_multiplier": 0.5},
        (1024,),
    ),
    "efficientnet": (
        "efficientnet_b0", STAGES, {"width_multiplier": 0.75}, {"width_multiplier": 0.5}, (4 * 24,),
    ),
    "shufflenet_v1": (
        "shufflenet_v1_g3",
        SHUFFLE_V1,
        {"width": 24, "stem_width": 4},
        {"width": 16, "stem_width": 2},
        (48,),
    ),
    "shufflenet_v2": (
        "shufflenet_v2_x1_0",
        {"stages": (1, 2)},
        {"width": 12, "stem_width": 6, "last_width": 20},
        {"width": 8, "stem_width": 4, "last_width": 10},
        (20,),
    ),
    "squeezenet": (
        "squeezenet1_1", {"stages": (1, 2), "stem_width": 6}, {"width": 4}, {"width": 2}, (64,),
    ),
    # Features of each pixel.
    "unet": ("unet", {"depth": 2}, {"width": 4}, {"width": 3}, (36, 40, 4)),
    "convnext": ("convnext_tiny", {"stages": (1, 2)}, {"width": 6}, {"width": 4}, (12,)),
    "vit": ("vit_s16", TOKENS, {"heads": 3}, {"heads": 2}, (12,)),
    "vit_remat": ("vit_s16", TOKENS | {"remat": True}, {"heads": 3}, {"heads": 2}, (12,)),
    "vit_scan": ("vit_s16", TOKENS | {"scan": True}, {"heads": 3}, {"heads": 2}, (12,)),
    "dinov2": (
        "vit_s14_dinov2",
        TOKENS | {"registers": 3, "pool": "token+mean"},
        {"heads": 3},
        {"heads": 2},
        (24,),
    ),
    "mixer": (
        "mixer_s16",
        {"depth": 2, "patch": 8},
        {"width": 6, "token_hidden": 5},
        {"width": 4, "token_hidden": 3},
        (6,),
    ),
}  # fmt: skip
# Of networks of tokens, which are made for images of one size.
SIZES = dict.fromkeys(("vit", "vit_remat", "vit_scan", "dinov2", "mixer"), (32, 32))


def test_every_family_is_in_the_table():
    tested = {type(models.create(name, 5)) for name, *_ in CASES.values()}
    assert tested == {type(models.create(name, 5)) for name in models.NAMES}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A module, a narrower one, images, features' shape, (variables, images) -> logits, features.

    Shared by the tests of a network, so that its program is compiled once.
    """
    name, options, widths, narrower, features = CASES[request.param]
    module, narrow = (models.create(name, 5, **options, **each) for each in (widths, narrower))
    size = SIZES.get(request.param, (36, 40))
    images = np.random.default_rng(2).normal(size=(4, *size, 3)).astype(np.float32)
    apply = functools.partial(models.apply, module)
    both = jax.jit(lambda v, x: (apply(v, x), models.features(module, v, x)))
    return module, narrow, images, features, both


def test_the_head_starts_at_zero_over_finite_features(case):
    module, _, images, features, both = case
    logits, got = both(models.init(module, KEY, images.shape[1]), images)
    chex.assert_shape(got, (4, *features))
    assert np.all(np.isfinite(got))
    assert np.std(got, axis=0).max() > 0
    chex.assert_trees_all_equal(logits, np.zeros((4, *features[:-1], 5)))


def test_training_mode_takes_the_batchs_statistics(case, random_variables):
    """Evaluation with them gives the same."""
    module, _, images, _, both = case
    variables = random_variables(module)
    train = jax.jit(functools.partial(models.apply, module, train=True))
    logits, stats = train(variables, images)
    chex.assert_trees_all_equal_shapes_and_dtypes(stats, variables["batch_stats"])
    again, _ = both({**variables, "batch_stats": stats}, images)
    chex.assert_trees_all_close(again, logits, rtol=1e-3, atol=1e-3 * np.abs(logits).max())
    other, _ = both(variables, images)
    assert (np.abs(other - logits).max() > 1e-3 * np.abs(logits).max()) == bool(stats)


def test_logits_are_linear_in_the_features(case, random_variables):
    module, _, images, _, both = case
    variables = random_variables(module)
    logits, features = both(variables, images)
    kernel, bias = (np.asarray(variables["params"]["head"][key]) for key in ("kernel", "bias"))
    expected = np.asarray(features) @ kernel + bias
    chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


def test_widths_follow_from_the_arrays(case, random_variables):
    """With a narrower module's variables it is that module's program."""
    module, narrow, images, _, _ = case

    def program(module, variables):
        return str(jax.make_jaxpr(functools.partial(models.apply, module))(variables, images))

    small = random_variables(narrow)
    assert program(module, small) == program(narrow, small)
    assert program(module, random_variables(module)) != program(module, small)
