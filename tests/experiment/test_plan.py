"""A plan says everything that can be known before any work, in one line where it is wrong."""

import dataclasses
import io

import hypothesis
import pytest
import rich.console
from hypothesis import strategies as st

from ctl_jax import experiment, finetune
from ctl_jax.compute.budgets import UNITS
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import KEYS
from ctl_jax.experiment.kinds import finetune as trial_steps
from ctl_jax.experiment.methods import Method
from ctl_jax.experiment.steps import closure
from ctl_jax.experiment.tunings import TUNINGS
from ctl_jax.finetune import Phase
from ctl_jax.records import PaceRecord


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """What a run with some changes prints before any work."""
    workdir = tmp_path_factory.mktemp("plan") / "run"

    def plan(changes):
        config = experiment.default_config()
        config.update_from_flattened_dict(SMALL | changes)
        console = rich.console.Console(file=io.StringIO(), width=140)
        experiment.run(config, workdir, console, plan_only=True)
        assert not workdir.exists()
        return console.file.getvalue()

    return plan


SMALL = {
    "stream.variant": "digits",
    "data.image_size": 16,
    "model.name": "resnet18",
    "model.stages": (1,),
    "model.width": 8,
    "methods": ("scratch",),
    "finetune.batch_size": 8,
    "finetune.learning_rates": (0.1,),
    "budgets.min_flops": 1e8,
    "budgets.max_flops": 1e9,
    "budgets.num": 2,
}


def spread(least, most, num):
    return {"budgets.min_flops": least, "budgets.max_flops": most, "budgets.num": num}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (spread(1e9, 1.0000000001e9, 3), r"budgets\.num=3: expected as many .* give 1$"),
        (spread(1e9, 1e9 + 1, 3), r"budgets\.num=3: .*min_flops=1000000000\.0 .* give 2$"),
        (spread(1, 5, 30), r"budgets\.num=30: .* give 5$"),
        (spread(1e-3, 1, 2), r"budgets\.min_flops=0\.001: expected a positive number of FLOPs, 1 "),
        (spread(1e9, 1e308, 3), r"budgets\.max_flops=1e\+308: expected .* to 1e30"),
        (spread(1e9, 1e9, 2), r"budgets\.num=2: expected 1 where"),
        (spread(1e9, 1e10, 10**9), r"budgets\.num=1000000000: expected 1 to 1000"),
        (spread(1, 1e9, 2), r"min_flops=1: expected at least one step, which costs [\d,]+ FLOPs"),
        (spread(1e9, 1e20, 2), r"max_flops=1e\+20: expected at most 2,147,483,647 steps, each "),
        ({"pretrain.steps": 3 * 10**9}, r"pretrain\.steps=3000000000: expected 1 to 2147483647"),
        ({"finetune.learning_rates": (1e39,)}, r"learning_rates=\(1e\+39,\): .*float32 can hold"),
        ({"finetune.learning_rates": (1e-46,)}, r"learning_rates=\(1e-46,\): .*float32 can hold"),
        ({"finetune.learning_rates": (0.1, 0.1 + 1e-12)}, r"each once \(as float32\)"),
        ({"finetune.weight_decay": 1e39}, r"weight_decay=1e\+39: expected zero or a positive"),
        ({"pretrain.weight_decay": float("inf")}, r"weight_decay=inf: expected zero or a"),
        ({"finetune.momentum": 1 - 1e-12}, r"momentum=0\.999999999999: expected"),
        ({"finetune.crop_area": (1e-46, 1.0)}, r"crop_area=\(1e-46, 1\.0\): expected two areas"),
        ({"finetune.crop_aspect": (1.0, float("inf"))}, r"crop_aspect=\(1\.0, inf\): expected two"),
    ],
)
def test_what_cannot_be_done_is_one_line(plan, changes, line):
    with pytest.raises(UserError, match=line) as error:
        plan(changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("there", "line"),
    [
        (
            8 * 16 * 16 * 12 - 1,
            r"finetune\.batch_size=8: its images take 0\.0 GB as float32; expected",
        ),
        (8 * 16 * 16 * 12, r"config\.model: the parameters of 'scratch' take 0\.0 GB as float32"),
    ],
)
def test_what_does_not_fit_is_one_line(plan, monkeypatch, there, line):
    monkeypatch.setattr(finetune, "memory_bytes", lambda: there)
    with pytest.raises(UserError, match=line):
        plan({"model.width": 16})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (spread(1e9, 1e9 + 1, 2), "Budgets: 1 GFLOP, 1.000000001 GFLOP"),
        (spread(1e9, 1e9 + 1, 2), "1,000,000,000 and 1,000,000,001 FLOPs pay for the same steps"),
        ({"finetune.evaluate_every": 10**6}, "2 of 2 trials have no more than the 1000000 steps"),
    ],
)
def test_what_will_not_differ_is_said(plan, changes, line):
    assert line in plan(changes)
    assert line not in plan({})


EXTREMES = (
    *(-1, 0, 1, 2, 7, 2**15, 10**6, 2**31 - 1, 2**31, 2**63, 10**12, 10**30),
    *(1e-320, 1e-46, 1e-38, 1e-3, 0.5, 0.999999, 1 - 2**-53, 1.0000000001, 4e7, 1e8, 1e9),
    *(1e14, 1e17, 1e20, 1e30, 3.4e38, 1e39, 1.7e308, float("inf"), float("nan"), -0.0, -1e9),
)
FEW = (-1, 0, 1, 2, 2**31, 10**30)


def values(key):
    """Values of a key's type; lists of any length where it is a list."""
    if key.kind is str:
        number = st.sampled_from(["0", "0.001", "1", "2.5", "1e9", "1e30", "1e31"])
        one = st.builds("{} {}".format, number, st.sampled_from(list(UNITS)))
    else:
        # Deep and wide networks take long to trace, and large images to make.
        slow = key.name in ("model.stages", "model.width", "data.image_size")
        some = [n for n in (FEW if slow else EXTREMES) if key.kind is float or isinstance(n, int)]
        one = st.sampled_from(some)
    return st.lists(one, max_size=3).map(tuple) if key.is_list else one


NUMBERS = [
    key for name, key in KEYS.items() if key.kind in (int, float) or name == "budgets.amounts"
]


@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_any_numbers_are_a_plan_or_one_line(plan, data):
    keys = data.draw(st.lists(st.sampled_from(NUMBERS), max_size=3, unique=True))
    changes = {key.name: data.draw(values(key), label=key.name) for key in keys}
    try:
        assert "Trials: " in plan(changes)
    except UserError as error:
        assert "config." in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


class Finished(dict):
    """Records by the ids of the steps that are done."""

    def __contains__(self, step):
        return step.id in self.keys()

    def record(self, step):
        return self[step.id]


def trials(plan):
    """The steps of a plan's trials, by the methods' names."""
    return [(point.method.name, plan.trial(point)) for point in plan.points()]


def ids(plan):
    """Of a plan's trials, in order."""
    return [step.id for _, step in trials(plan)]


@pytest.fixture(scope="module")
def known():
    """The trials of configs that were planned."""
    return {}


@pytest.fixture
def both(config, make_plan, known):
    """Methods of which ids of trials change with a key, and of which ids stay."""

    def both(key, value):
        config.stream.variant = "digits"
        start = config.to_json()
        if start not in known:
            known[start] = trials(make_plan(config))
        before = known[start]
        config.update_from_flattened_dict({key: value})
        after = set(ids(make_plan(config)))
        changed = {method for method, step in before if step.id not in after}
        return changed, {method for method, step in before if step.id in after}

    return both


def test_ids_are_the_same_again_and_differ_between_trials(config, make_plan):
    one, two = make_plan(config), make_plan(config)
    assert ids(one) == ids(two)
    assert len(set(ids(one))) == len(ids(one)) == 24


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("finetune.momentum", 0.8, {"dense", "filters@0.5", "scratch"}),
        ("finetune.crop_area", (0.5, 1.0), {"dense", "filters@0.5", "scratch"}),
        ("finetune.batch_size", 4, {"dense", "filters@0.5", "scratch"}),
        ("finetune.evaluate_every", 8, {"dense", "filters@0.5", "scratch"}),
        ("finetune.compute_dtype", "bfloat16", {"dense", "filters@0.5", "scratch"}),
        ("data.image_size", 24, {"dense", "filters@0.5", "scratch"}),
        ("data.max_eval_examples", 30, {"dense", "filters@0.5", "scratch"}),
        ("model.preprocess", "caffe", {"dense", "filters@0.5", "scratch"}),
        ("seeds", (1,), {"dense", "filters@0.5", "scratch"}),
        # How a network is pruned is nothing to a method that does not prune.
        ("pruning.criterion", "l1", {"filters@0.5"}),
        ("pruning.round_to", 2, {"filters@0.5"}),
        # What changes no number.
        ("checkpoint.every_s", 1.0, set()),
        ("finetune.compute_dtype", "float32", set()),
        ("keep_models", "all", set()),
        ("stream.missing", "skip", set()),
        ("data.max_corrupt", 1, set()),
        ("pretrain.steps", 7, set()),
        # Other trials beside them.
        ("stream.variant", "digits+shapes", set()),
        ("methods", ("scratch", "filters@.50", "linear_probe", "dense"), set()),
        ("budgets.amounts", ("1 epochs", "40000000 flops", "120000000"), set()),
        ("seeds", (3, 0), set()),
        ("finetune.learning_rates", (0.02, 0.7, 0.2), set()),
    ],
)
def test_ids_change_with_what_the_numbers_depend_on_alone(both, key, value, expected):
    changed, same = both(key, value)
    assert changed == expected
    assert same == {"dense", "filters@0.5", "scratch"} - expected


def test_what_is_reported_is_part_of_ids(both, config):
    config.finetune.evaluate_every = 4
    assert both("finetune.report", "best")[1] == set()


def test_ids_change_with_weights_and_data_where_they_are_used(config, make_plan):
    plan = make_plan(config)
    before = {step.id: method for method, step in trials(plan)}
    other = ids(dataclasses.replace(plan, weights_id="v" * 64))
    assert {before[step_id] for step_id in before.keys() & set(other)} == {"scratch"}
    digits, shapes = plan.tasks
    for change in ({"fingerprint": "g"}, {"num_classes": 11}):
        tasks = (digits, dataclasses.replace(shapes, **change))
        after = dataclasses.replace(plan, tasks=tasks)
        kept = {step.params["task"]["name"] for _, step in trials(after) if step.id in before}
        assert kept == {"digits"}


def test_ids_change_with_the_phases_of_a_tuning(config, make_plan, monkeypatch):
    config.methods = ("dense", "linear_probe", "filters@0.5+lp_ft")
    before = {step.id: method for method, step in trials(make_plan(config))}
    monkeypatch.setitem(TUNINGS, "linear_probe", lambda network: (Phase(train=("head/kernel",)),))
    after = set(ids(make_plan(config)))
    assert {before[step_id] for step_id in before.keys() & after} == {"dense", "filters@0.5+lp_ft"}
    monkeypatch.setitem(TUNINGS, "lp_ft", lambda network: (Phase(share=0.5), Phase(share=0.5)))
    after = set(ids(make_plan(config)))
    assert {before[step_id] for step_id in before.keys() & after} == {"dense"}


@pytest.mark.parametrize(("key", "value"), [("pretrain.steps", 3), ("pretrain.seed", 1)])
def test_ids_change_with_the_pretraining_that_they_start_from(
    both, config, small_source, key, value
):
    config.weights, config.pretrain.task = "", "synthetic_source"
    config.methods = ("dense", "channels@0.5", "scratch")
    assert both(key, value) == ({"dense", "channels@0.5"}, {"scratch"})


def test_evaluations_on_the_way_are_paid_for(config, make_plan):
    """After 4 and 8 of 12 updates, say; after the last there is one anyway."""
    config.methods = ("dense",)
    plain = make_plan(config)
    config.finetune.evaluate_every = 4
    often = make_plan(config)
    for (_, one), (_, other) in zip(trials(plain), trials(often), strict=True):
        (stretch,) = trial_steps.plan(one, plain.workspace)
        more = (stretch.updates - 1) // 4 * 40 * stretch.cost.forward
        assert often.workspace.flops(other) == plain.workspace.flops(one) + more
        assert plain.workspace.flops(one) == (
            stretch.updates * stretch.cost.step + 80 * stretch.cost.forward
        )


def test_budgets_in_other_units_are_flops_by_dense_training(config, make_plan):
    config.stream.variant = "digits"
    config.methods = ("linear_probe", "dense")
    config.budgets.amounts = ("0.5 epochs", "1e8 flops")
    plan = make_plan(config)
    dense = plan.cost(Method(), plan.tasks[0].num_classes)
    epoch = plan.tasks[0].examples["train"] / 8 * dense.step
    amounts = [step.params["budget_flops"] for _, step in trials(plan)]
    half = int(epoch / 2)
    assert amounts == [half, half, 10**8, 10**8, half, half, 10**8, 10**8]


def test_a_budget_in_seconds_waits_for_the_devices_pace(config, make_plan):
    config.stream.variant = "digits"
    config.methods = ("dense", "scratch")
    config.budgets.amounts = ("1 seconds", "1e8 flops")
    plan, nothing = make_plan(config), Finished({})
    wanted = [step.kind for step in plan.strategy(nothing)]
    assert wanted == 2 * ["pace", "pace", "finetune", "finetune"]
    paces = {step.id: step for step in plan.strategy(nothing) if step.kind == "pace"}
    assert len(paces) == 2
    record = PaceRecord(id="", device="cpu", flops_per_second=3e8, flops=1, wall_s=1.0)
    finished = Finished(dict.fromkeys(paces, record))
    trials = plan.strategy(finished)
    seconds, flops = 2 * [3 * 10**8], 2 * [10**8]
    assert [step.params["budget_flops"] for step in trials] == 2 * (seconds + flops)
    # Nothing that was wanted before is missing now.
    assert closure(trials).keys() >= closure(plan.strategy(nothing)).keys()


def test_a_phase_that_its_share_does_not_pay_for_is_named(plan, monkeypatch):
    phases = Phase(train=("head/*",), share=0.2), Phase(share=0.8)
    monkeypatch.setitem(TUNINGS, "twice", lambda network: phases)
    named = r"=2e\+06: expected at least one step.*'scratch\+twice'.*in phase 1, which has a share"
    with pytest.raises(UserError, match=named):
        plan({"methods": ("scratch+twice",)} | spread(2e6, 2e6, 1))


def test_a_head_is_not_fitted_to_random_features(plan):
    with pytest.raises(UserError, match=r"'scratch\+probe' fits a head to .* random weights"):
        plan({"methods": ("scratch+probe",)})
