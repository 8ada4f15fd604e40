"""Tunings: what each trains of every network, and how wrong ones are named."""

import fnmatch
import functools
import math

import jax
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.experiment import tunings
from ctl_jax.experiment.tunings import TUNINGS, Network, Tuning

# A network of each family.
NAMES = ("resnet18", "vgg11", "vit_ti16", "mixer_s16", "densenet121", "convnext_tiny")


@functools.cache
def network(name):
    module = models.create(name, num_outputs=1)
    init = functools.partial(models.init, module, image_size=32)
    variables = jax.eval_shape(init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    paths = ["/".join(key.key for key in path) for path, _ in leaves]
    return Network(models.stages(variables), paths)


def trained(phase, found):
    """The paths that a phase trains."""
    return {path for path in found.paths if any(fnmatch.fnmatch(path, p) for p in phase.train)}


def of_stages(found, stages):
    """The paths of some stages' parameters; that of the head has the last norm, too."""
    groups = [group for stage in stages for group in found.stages[stage]]
    return {path for path in found.paths if any(f"{path}/".startswith(f"{g}/") for g in groups)}


@pytest.mark.parametrize("name", NAMES)
def test_what_each_tuning_trains(name):
    found = network(name)
    everything, head = set(found.paths), {"head/kernel", "head/bias"}
    (full,) = Tuning("full").phases(found)
    assert trained(full, found) == everything
    (probe,) = Tuning("linear_probe").phases(found)
    assert (trained(probe, found), probe.batch_norm) == (head, "frozen")
    (norms,) = Tuning("head_bn").phases(found)
    scaled = {path.removesuffix("scale") for path in found.paths if path.endswith("/scale")}
    assert trained(norms, found) == head | {
        path for path in found.paths if path.rpartition("/")[0] + "/" in scaled
    }
    first, second = Tuning("lp_ft").phases(found)
    assert (trained(first, found), trained(second, found)) == (head, everything)
    assert (first.share + second.share, first.batch_norm) == (1, "frozen")
    assert (first.solver, second.solver) == ("ridge", "sgd")
    assert second.rate < first.rate == 1
    (probe,) = Tuning("probe", (), (("solver", "logistic"), ("head", "last"))).phases(found)
    assert (trained(probe, found), probe.solver, probe.head) == (head, "logistic", "last")


@pytest.mark.parametrize("name", NAMES)
def test_freeze_trains_what_comes_after_the_first_stages(name):
    found = network(name)
    stages = [stage for stage in found.stages if stage not in ("stem", "head")]
    for count in (0, 1, len(stages)):
        (phase,) = Tuning("freeze", (count,)).phases(found)
        assert trained(phase, found) == of_stages(found, [*stages[count:], "head"])
    for count in (-1, len(stages) + 1):
        with pytest.raises(UserError, match=rf"^freeze@{count}: expected 0 to {len(stages)} "):
            Tuning("freeze", (count,)).phases(found)


@pytest.mark.parametrize("name", NAMES)
def test_last_trains_the_last_stages_and_the_head(name):
    found = network(name)
    stages = [stage for stage in found.stages if stage not in ("stem", "head")]
    for count in (1, len(stages)):
        (phase,) = Tuning("last", (count,)).phases(found)
        assert trained(phase, found) == of_stages(found, [*stages[-count:], "head"])
        assert phase.cached
    for count in (0, len(stages) + 1):
        with pytest.raises(UserError, match=rf"^last@{count}: expected 1 to {len(stages)} "):
            Tuning("last", (count,)).phases(found)


@pytest.mark.parametrize("name", NAMES)
def test_adapt_trains_the_last_third_of_the_stages_on_images_of_their_own(name):
    found = network(name)
    stages = [stage for stage in found.stages if stage not in ("stem", "head")]
    first, between, last = Tuning("adapt").phases(found)
    count = max(1, len(stages) // 3)
    assert trained(between, found) == of_stages(found, [*stages[-count:], "head"])
    assert [phase.solver for phase in (first, between, last)] == ["ridge", "sgd", "ridge"]
    assert [phase.half for phase in (first, between, last)] == [1, 2, 0]
    assert (between.cached, between.vary, between.batch_norm) == (True, False, "frozen")


def test_lora_and_l2_sp_have_a_rank_and_a_strength():
    found = network(NAMES[0])
    (phase,) = Tuning("lora", (8,)).phases(found)
    assert trained(phase, found) == of_stages(found, ["head"])
    assert (phase.lora, phase.batch_norm) == (8, "frozen")
    (phase,) = Tuning("l2_sp", (0.01,)).phases(found)
    assert (phase.to_start, phase.batch_norm) == (0.01, "batch")
    for wrong in (Tuning("lora", (0,)), Tuning("l2_sp", (0.0,)), Tuning("l2_sp", (math.inf,))):
        with pytest.raises(UserError, match=f"^{wrong.text}: expected a "):
            wrong.phases(found)


def test_auto_costs_most_alike_a_probe():
    found = network(NAMES[0])
    assert Tuning("auto").phases(found) == Tuning("probe").phases(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"unknown tuning ''; expected one of full, linear_probe"),
        ("hed_bn", r"unknown tuning 'hed_bn'; .*; did you mean 'head_bn'\?$"),
        ("head_bn@2", r": expected the tuning as head_bn$"),
        ("freeze", r": expected the tuning as freeze@COUNT$"),
        ("freeze@1@2", r": expected the tuning as freeze@COUNT$"),
        ("freeze@", r"count of freeze@COUNT is ''; expected a whole number$"),
        ("freeze@1.5", r"count of freeze@COUNT is '1\.5'; expected a whole number$"),
        ("head_bn+full", r"unknown tuning 'head_bn\+full'"),
    ],
)
def test_a_wrong_tuning_is_one_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        tunings.parse(f"dense+{text}", text)
    assert str(error.value).startswith(f"config.methods: 'dense+{text}'")
    assert "\n" not in str(error.value)


def test_a_second_tuning_of_a_name_is_refused():
    with pytest.raises(UserError, match="tuning 'full': there is one of this name"):
        tunings.tuning("full")(TUNINGS["full"])


def test_all_tunings_are_tested_here():
    assert set(TUNINGS) == {
        "auto",
        "full",
        "linear_probe",
        "head_bn",
        "freeze",
        "last",
        "lora",
        "l2_sp",
        "probe",
        "lp_ft",
        "adapt",
    }
