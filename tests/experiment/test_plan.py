"""A plan says everything that can be known before any work, in one line where it is wrong."""

import io

import hypothesis
import pytest
import rich.console
from hypothesis import strategies as st

from ctl_jax import experiment, finetune
from ctl_jax.compute.budgets import UNITS
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import KEYS


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
