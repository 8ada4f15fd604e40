"""The network of a config: what is not set is as the network has it."""

import dataclasses

import chex
import jax
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.experiment import default_config, validate
from ctl_jax.experiment.build import abstract_variables, as_model, find
from ctl_jax.experiment.config import Config, Model
from ctl_jax.experiment.kinds import prune
from ctl_jax.experiment.method_costs import cost_by_classes
from ctl_jax.experiment.methods import Cut, Method
from ctl_jax.finetune import Augmentation, Recipe


@pytest.fixture
def config():
    config = default_config()
    config.data.image_size = 32
    config.methods = ("scratch",)
    return config


@pytest.mark.parametrize("name", models.NAMES)
def test_unset_options_are_the_networks_own(name):
    module = find(Config(model=Model(name=name))).module
    assert module == models.create(name, num_outputs=1)


def test_set_options_reach_the_network(config):
    config.model.update(
        {"stages": (1, 1), "version": "v1", "stem": "cifar", "width": 8, "conv_bias": True}
    )
    config.model.epsilon = 1e-3
    assert find(validate(config)).module == models.create(
        "resnet50",
        num_outputs=1,
        stages=(1, 1),
        version="v1",
        stem="cifar",
        width=8,
        conv_bias=True,
        epsilon=1e-3,
    )


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("vit_s16", "stages", (3, 4)),
        ("mixer_s16", "epsilon", 1e-3),
        ("vit_s16", "width", 64),
        ("mobilenet_v2", "version", "v1.5"),
        ("mobilenet_v2", "stem", "imagenet"),
        ("mobilenet_v2", "conv_bias", True),
    ],
)
def test_an_option_that_the_network_does_not_have_is_refused(config, name, key, value):
    config.model.name = name
    config.model[key] = value
    known = ", ".join(models.options_of(name))
    with pytest.raises(UserError, match="no such option") as error:
        find(validate(config))
    assert f"config.model.{key}={value!r}: model {name!r}" in str(error.value)
    assert known in str(error.value)


def test_an_option_that_some_other_network_has_too(config):
    config.model.name = "mobilenet_v2"
    config.model.stages = (1, 2)
    config.model.epsilon = 1e-3
    assert find(validate(config)).module.stages == (1, 2)


@pytest.fixture
def cut(config, make_plan):
    """Cuts the network, without weights: the whole one's shapes, the keep, the cut one's shapes."""

    def cut(scope, ratio):
        config.stream.variant = "digits"
        plan = make_plan(config)
        step = plan.start(Method("random", Cut(scope, ratio)))
        return (
            plan.workspace.shapes(None),
            prune.planned(step, plan.workspace),
            plan.workspace.shapes(step),
        )

    return cut


@pytest.mark.parametrize(("name", "stages"), [("vit_s16", ()), ("mobilenet_v2", (1, 2))])
def test_methods_apply_to_networks_that_are_no_resnets(config, cut, name, stages):
    config.model.name, config.model.stages = name, stages
    whole, _, small = cut("filters", 0.5)
    assert 0 < models.count_params(small) < models.count_params(whole)
    module = find(validate(config)).module
    logits = jax.eval_shape(
        lambda v, x: models.apply(module, v, x),
        small,
        jax.ShapeDtypeStruct((2, 32, 32, 3), "float32"),
    )
    assert logits.shape == (2, 1)


@pytest.mark.parametrize(
    ("round_to", "backend", "multiple"), [(0, "cpu", 8), (0, "tpu", 16), (1, "tpu", 1)]
)
def test_widths_are_rounded_as_it_suits_the_device(
    config, cut, monkeypatch, round_to, backend, multiple
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config.model.update({"name": "resnet18", "stages": (1, 1), "width": 48})
    config.pruning.round_to = round_to
    _, keep, _ = cut("filters", 0.3)
    kept = [len(indices) for indices in keep.values()]
    assert kept
    assert all(width % multiple == 0 for width in kept)
    assert multiple == 1 or min(kept) < 48
    assert (multiple > 1) == all(width % 8 == 0 for width in kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "vit_ti16", "image_size": 20},
            "config.model.name='vit_ti16', config.data.image_size=20: images are 20 x 20 px; "
            "expected multiples of the patch, 16 px",
        ),
        (
            {"name": "mixer_s16", "image_size": 8},
            "config.model.name='mixer_s16', config.data.image_size=8: images are 8 x 8 px",
        ),
        (
            {"name": "vgg11", "image_size": 16},
            "config.model.name='vgg11', config.data.image_size=16: images are 16 x 16 px; expected "
            "at least 32 x 32 px",
        ),
        (
            {"name": "densenet121", "stages": (1,) * 7},
            "config.model.name='densenet121', config.data.image_size=32: images are 32 x 32 px",
        ),
        (
            {"name": "convnext_tiny", "image_size": 31},
            "config.model.name='convnext_tiny', config.data.image_size=31: images are 31 x 31 px",
        ),
        (
            {"name": "shufflenet_v1_g3", "width": 30},
            "config.model.name='shufflenet_v1_g3': option width is 30; expected a multiple of 12",
        ),
        (
            {"name": "shufflenet_v2_x1_0", "width": 3},
            "config.model.name='shufflenet_v2_x1_0': option width of model shufflenet_v2_x1_0 is 3",
        ),
        (
            {"name": "mobilenet_v2", "stages": (1,) * 8},
            "config.model.name='mobilenet_v2': option stages of model mobilenet_v2 is (1, 1,",
        ),
    ],
)
def test_a_network_that_cannot_have_what_is_asked_is_refused_by_name(config, changes, message):
    changes = dict(changes)
    config.data.image_size = changes.pop("image_size", 32)
    config.model.update(changes)
    checked = validate(config)
    with pytest.raises(UserError) as caught:
        abstract_variables(find(checked), checked.data.image_size)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["unet", "UNET", "resnet", " "])
def test_what_is_no_classifier_is_no_name(config, name):
    config.model.name = name
    config.pretrain.task = "synthetic_source"
    message = rf"^config.model.name='{name}': expected one of .* which classify images \(not pixels"
    with pytest.raises(UserError, match=message):
        validate(config)


def test_batches_that_leave_nothing_to_normalise_are_refused():
    """One image whose maps end at one pixel: BatchNorm would make all features constant."""
    model = Model(name="resnet18", stages=(1, 1, 1, 1), width=4)
    network, recipe = find(Config(model=model)), Recipe("nevis", Augmentation())

    def cost(batch_size, image_size):
        variables = abstract_variables(network, image_size)
        return cost_by_classes(
            network.module, recipe, variables, batch_size=batch_size, image_size=image_size
        )(5)

    assert cost(2, 33).step == 2 * cost(1, 33).step
    assert cost(2, 8).step > 0
    with pytest.raises(
        UserError,
        match=r"^a batch_size of 1 at an image_size of 8: BatchNorm stage2_block1.* has 1 value a",
    ):
        cost(1, 8)


def test_a_trained_network_expects_images_as_it_was_trained_on(config):
    config.model.update({"stages": (1,), "width": 4, "preprocess": "imagenet_bicubic"})
    network = find(validate(config))
    variables = models.init(network.module, jax.random.key(0), 32)
    network = dataclasses.replace(network, origin={"library": "timm"})
    model = as_model(network, variables, 32, "float32", notes={"task": "pets"})
    assert model.preprocess == models.PREPROCESS["imagenet"]
    assert model.notes == {"library": "timm", "task": "pets"}


def test_weights_with_another_head_start_with_a_usual_one(config, tiny_model, tmp_path):
    """What a run has trained may be two networks, whose heads read more than the last features."""
    plain, size = tiny_model.variables, tiny_model.image_size
    tapped = models.new_head(tiny_model.module, plain, 3, size, "taps")
    both = {kind: {**tapped[kind], "ensemble": plain[kind]} for kind in plain}
    model = dataclasses.replace(tiny_model, variables=both)
    models.save(tmp_path / "model", model)
    chex.assert_trees_all_equal(models.load(tmp_path / "model").variables, both)
    config.update({"weights": str(tmp_path / "model"), "methods": ("dense",)})
    config.data.image_size = size
    given = find(validate(config)).given
    chex.assert_trees_all_equal(given, models.with_head(plain, 1))
