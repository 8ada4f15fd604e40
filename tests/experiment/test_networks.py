"""The module of a config: what is not set is the network's own affair."""

import jax
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.experiment import default_config, parse_method
from ctl_jax.experiment.networks import (
    abstract_variables,
    make_module,
    make_network,
    trace_groups,
)


@pytest.fixture
def config():
    config = default_config()
    config.data.image_size = 32
    return config


@pytest.mark.parametrize("name", models.NAMES)
def test_unset_options_are_the_networks_own(config, name):
    config.model.name = name
    assert make_module(config) == models.create(name, num_outputs=1)


def test_set_options_reach_the_network(config):
    config.model.update(
        {"stages": (1, 1), "version": "v1", "stem": "cifar", "width": 8, "conv_bias": True}
    )
    config.model.epsilon = 1e-3
    assert make_module(config) == models.create(
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
        ("vit_s16", "epsilon", 1e-3),
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
        make_module(config)
    assert f"config.model.{key}={value!r}: model {name!r}" in str(error.value)
    assert known in str(error.value)


def test_an_option_that_some_other_network_has_too(config):
    config.model.name = "mobilenet_v2"
    config.model.stages = (1, 2)
    config.model.epsilon = 1e-3
    assert make_module(config).stages == (1, 2)


@pytest.mark.parametrize(("name", "stages"), [("vit_s16", ()), ("mobilenet_v2", (1, 2))])
def test_methods_apply_to_networks_that_are_no_resnets(config, name, stages):
    config.model.name, config.model.stages = name, stages
    module = make_module(config)
    whole = abstract_variables(config, module)
    groups = trace_groups(config, module, whole)
    small = make_network(config, groups, parse_method("filters@0.5"), whole)
    assert small.keep is not None
    assert 0 < models.count_params(small.variables) < models.count_params(whole)
    logits = jax.eval_shape(
        lambda v, x: models.apply(module, v, x),
        small.variables,
        jax.ShapeDtypeStruct((2, 32, 32, 3), "float32"),
    )
    assert logits.shape == (2, 1)


@pytest.mark.parametrize(
    ("round_to", "backend", "multiple"), [(0, "cpu", 8), (0, "tpu", 16), (1, "tpu", 1)]
)
def test_widths_are_rounded_as_it_suits_the_device(
    config, monkeypatch, round_to, backend, multiple
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config.model.update({"name": "resnet18", "stages": (1, 1), "width": 48})
    config.pruning.round_to = round_to
    module = make_module(config)
    abstract = abstract_variables(config, module)
    groups = trace_groups(config, module, abstract)
    keep = make_network(config, groups, parse_method("filters@0.3"), abstract).keep
    kept = [len(indices) for indices in keep.values()]
    assert kept
    assert all(width % multiple == 0 for width in kept)
    assert multiple == 1 or min(kept) < 48
    assert (multiple > 1) == all(width % 8 == 0 for width in kept)
