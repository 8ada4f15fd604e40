"""Names and options: known ones build, unknown ones say what is known."""

import functools

import chex
import jax
import jax.numpy as jnp
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError

# Of torchvision's models with 1000 outputs.
PARAMS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def abstract(module):
    return jax.eval_shape(functools.partial(models.init, module, image_size=64), jax.random.key(0))


@pytest.mark.parametrize("name", PARAMS)
def test_parameter_count(name):
    assert models.count_params(abstract(models.create(name, 1000))) == PARAMS[name]


@pytest.mark.parametrize("name", models.NAMES)
def test_every_name_builds(name):
    module = models.create(name, 7)
    assert module.num_outputs == 7
    assert hash(module) == hash(models.create(name, 7))


@pytest.mark.parametrize("name", models.NAMES)
def test_options_are_fields_with_valid_defaults(name):
    """What the module's fields say by default could be given as an option too."""
    module = models.create(name, 7)
    assert models.options_of(name)
    for option in models.options_of(name):
        value = getattr(module, option)
        assert models.create(name, 7, **{option: value}) == module
        with pytest.raises(UserError, match=f"option {option} of model {name} is .*; expected"):
            models.create(name, 7, **{option: object()})


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("version", ["v1", "v1.5"])
def test_shapes(name, stem, version):
    module = models.create(name, 10, stages=[1, 1, 2], stem=stem, version=version, width=8)
    variables = abstract(module)
    images = jax.ShapeDtypeStruct((3, 50, 34, 3), jnp.float32)
    channels = 8 * 4 * (4 if module.bottleneck else 1)
    features = jax.eval_shape(functools.partial(models.features, module), variables, images)
    chex.assert_shape(features, (3, channels))
    logits = jax.eval_shape(functools.partial(models.apply, module), variables, images)
    chex.assert_shape(logits, (3, 10))
    train = functools.partial(models.apply, module, train=True)
    logits, stats = jax.eval_shape(train, variables, images)
    chex.assert_shape(logits, (3, 10))
    chex.assert_trees_all_equal_shapes_and_dtypes(stats, variables["batch_stats"])


def test_paths_are_readable():
    module = models.create("resnet50", 3, stages=(1, 2), conv_bias=True)
    params = abstract(module)["params"]
    assert set(params) == {
        "stem_conv",
        "stem_bn",
        "stage1_block1",
        "stage2_block1",
        "stage2_block2",
        "head",
    }
    layers = {f"{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3)}
    assert set(params["stage2_block1"]) == layers | {"shortcut_conv", "shortcut_bn"}
    assert set(params["stage2_block2"]) == layers
    assert set(params["stage2_block2"]["conv1"]) == {"kernel", "bias"}


def test_equal_options_make_equal_modules():
    """So that a jitted function takes a module as a static argument without a second trace."""
    one = models.create("resnet50", 3, stages=[1, 2])
    assert one == models.create("resnet50", 3, stages=(1, 2))
    assert hash(one) == hash(models.create("resnet50", 3, stages=(1, 2)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet49", {}, "unknown model 'resnet49'; expected one of resnet18, resnet34, resnet50"),
        ("vit_s16", {"stages": (1, 1)}, "unknown option 'stages' of model vit_s16; .*heads, depth"),
        ("resnet18", {"witdh": 3}, "unknown option 'witdh' of model resnet18; expected.*width"),
        ("resnet18", {"bottleneck": True}, "unknown option 'bottleneck'"),
        ("resnet18", {"stages": ()}, r"option stages of model resnet18 is \(\); expected"),
        ("resnet18", {"stages": (1, 0)}, "option stages"),
        ("resnet18", {"stages": 3}, "option stages"),
        ("resnet18", {"version": "v2"}, "option version .* 'v2'; expected 'v1' or 'v1.5'"),
        ("resnet18", {"stem": "mnist"}, "option stem .* 'mnist'; expected 'imagenet' or 'cifar'"),
        ("resnet18", {"stem": ["cifar"]}, "option stem"),
        ("resnet18", {"conv_bias": 1}, "option conv_bias .* is 1; expected True or False"),
        ("resnet18", {"width": 0}, "option width .* is 0; expected a positive int"),
        ("resnet18", {"width": 8.0}, "option width"),
        ("resnet18", {"epsilon": 0.0}, "option epsilon .* is 0.0; expected a positive float"),
        ("resnet18", {"epsilon": float("nan")}, "option epsilon"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        models.create(name, 3, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_outputs", [0, -1, 2.0, True, None])
def test_bad_num_outputs(num_outputs):
    with pytest.raises(UserError, match=r"num_outputs is .*; expected a positive int"):
        models.create("resnet18", num_outputs)


def test_options_of_an_unknown_name():
    with pytest.raises(UserError, match="unknown model 'vit'; expected one of resnet18"):
        models.options_of("vit")
