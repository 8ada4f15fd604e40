"""What `auto` chooses from."""

import json

import pytest

from ctl_jax.experiment import parse_method
from ctl_jax.experiment.auto import candidates


@pytest.fixture
def make(config, make_plan, small_source):
    """The plan of a run of `auto` with a network of one's own pretraining."""

    def make(name, image_size, options=(), **model):
        config.weights, config.pretrain.task = "", "synthetic_source"
        config.stream.variant, config.methods = "digits", ("auto",)
        config.data.image_size = image_size
        config.model.name, config.model.options = name, options
        config.model.stages = config.model.width = None
        config.model.update({"stages": (), "width": 0, **model})
        return make_plan(config)

    return make


def names(plan):
    return [candidate.method for candidate in plan.candidates()]


def test_sizes_first_stages_and_cuts(make):
    plan = make("resnet18", 64, stages=(1, 1, 1, 1), width=8)
    # Of four stages those whose shares of a forward pass are nearest to a quarter and to a half.
    sizes = ("@32px", "@48px", "", "@96px", "@128px")
    whole = [f"dense{stages}{size}" for size in sizes for stages in ("@1stages", "")]
    cuts = [
        f"filters@{ratio}:lsq{stages}{size}"
        for ratio in (0.5, 0.25)
        for size in ("@48px", "")
        for stages in ("@1stages", "")
    ]
    assert names(plan) == [*whole, *cuts]
    by_name = {candidate.method: candidate for candidate in plan.candidates()}
    # The unit of sizes is 64 of 224 pixels, which this network was made for.
    assert by_name["dense"].recipe == (1.0, 1.0, 0.0, False)
    assert by_name["dense@96px"].recipe == (1.5, 1.0, 0.0, False)
    assert by_name["filters@0.5:lsq@48px"].recipe == (0.75, 1.0, 0.5, False)
    # Depth is that of the whole stages, also of a cut network.
    shares = {by_name[f"{name}@1stages"].recipe.depth for name in ("dense", "filters@0.5:lsq")}
    assert shares == {by_name["dense@1stages"].image_flops / by_name["dense"].image_flops}


@pytest.mark.parametrize(
    ("name", "image_size", "model", "sizes"),
    [
        # Made for 32 pixels: none is larger than 64,
        ("resnet20", 32, {"width": 4, "stages": (1, 1)}, {8, 16, 24, 32, 48, 64}),
        # and for 224.
        ("resnet18", 32, {"width": 8, "stages": (1, 1, 1)}, {32, 48, 64}),
        ("resnet18", 224, {"width": 8, "stages": (1, 1, 1)}, {56, 80, 112, 168, 224}),
    ],
)
def test_sizes_are_those_that_a_network_was_made_for(make, name, image_size, model, sizes):
    plan = make(name, image_size, **model)
    methods = map(parse_method, names(plan))
    assert {method.image_size or image_size for method in methods} == sizes
    (whole,) = (each for each in plan.candidates() if each.method == "dense")
    made = 32 if name == "resnet20" else 224
    assert whole.recipe.size == pytest.approx(image_size / made * 224 / 64)


def test_a_network_of_tokens_has_one_size(make):
    options = ("patch=8", "heads=2", "depth=2", "head_width=4")
    plan = make("vit_s16", 32, options)
    methods = list(map(parse_method, names(plan)))
    assert {method.image_size for method in methods} == {0}
    # Its blocks are its stages; of what is cut, perceptrons have filters.
    assert {(method.stages, method.cut and method.cut.ratio) for method in methods} == {
        (stages, ratio) for stages in (0, 1) for ratio in (None, 0.25, 0.5)
    }


def test_a_network_of_one_stage_is_not_shortened(make):
    plan = make("resnet18", 16, stages=(1,), width=8)
    methods = list(map(parse_method, names(plan)))
    assert {method.stages for method in methods} == {0}
    assert {method.cut.ratio for method in methods if method.cut} == {0.25, 0.5}
    assert {candidate.recipe.depth for candidate in plan.candidates()} == {1.0}


def test_a_network_of_depthwise_convolutions_is_not_cut(make):
    plan = make("mobilenet_v2", 32, ("width_multiplier=0.25",), stages=(1, 1))
    assert not any(parse_method(name).cut for name in names(plan))
    assert len(names(plan)) > 3


@pytest.mark.parametrize("round_to", [1, 64])
def test_costs_are_those_of_the_networks(config, make_plan, round_to):
    """Of all that is there, each once."""
    config.stream.variant, config.methods = "digits", ("auto",)
    config.pruning.round_to = round_to
    plan = make_plan(config)
    workspace, found = plan.workspace, plan.candidates()
    assert found is plan.candidates()
    assert len(set(names(plan))) == len(found)
    for candidate in found:
        method = parse_method(candidate.method)
        assert method.name == candidate.method
        start, size = plan.start(method), method.image_size or 16
        assert candidate.image_flops == workspace.forward(start, 0, size) > 0
        assert candidate.features == workspace.features(start, "taps", size) > 0
        assert candidate.fixed_flops == 0
        again = candidates.from_json(json.loads(json.dumps(candidate.to_json())))
        assert again == candidate
    # What stays whole when it is cut, since so few channels are never dropped, is no other one.
    assert any("filters" in candidate.method for candidate in found) == (round_to == 1)
