"""What `auto` tried, chose and expects, as facts and in words."""

import math

import pytest

from ctl_jax import report
from ctl_jax.report import _choices
from ctl_jax.report._table import read

BUDGET = 4 * 10**11


@pytest.fixture
def lines(make_chosen):
    """Records of one task, one budget and one seed."""
    return make_chosen(tasks=("digits",), budgets=(BUDGET,), seeds=(0,), methods=("dense",))


def _last(lines):
    return next(line for line in lines if line["type"] == "look" and line["looks"])


def _trial(lines):
    return next(line for line in lines if line.get("method") == "auto" and line["type"] == "trial")


def _only(lines):
    (choice,) = _choices.of_table(read(lines))
    return choice


def test_facts_are_of_the_records(lines):
    choice = _only(lines)
    assert (choice.method, choice.network) == ("dense@48px+probe@kernel", "dense@48px")
    (look,) = choice.looks
    assert (look.method, look.images, look.flops) == ("dense@48px", 60, BUDGET // 10)
    # Of the head that was fitted on the most images.
    assert look.entropies == pytest.approx({"dense@48px": math.exp(-0.5)})
    assert [tuple(head) for head in choice.heads] == [
        ("dense@48px+probe@kernel", 0.727),
        ("dense@48px+probe", 0.789),
    ]
    assert [choice.is_seen(option) for option in choice.last.options] == [True, False]


def test_a_probe_of_the_whole_network_is_of_dense(lines):
    for name in ("probe", "dense"):
        _trial(lines)["notes"]["chosen"] = name
        assert _only(lines).network == "dense"


def test_a_look_costs_what_was_spent_since_the_one_before(lines):
    last = _last(lines)
    second = last | {"id": "second", "spent_flops": BUDGET // 4}
    second["looks"] = [*last["looks"], last["looks"][0] | {"images": 160}]
    last |= {"answers": [], "next_method": "dense@48px", "next_images": 160}
    found = _only([second, *lines]).looks
    assert [look.flops for look in found] == [BUDGET // 10, BUDGET // 4 - BUDGET // 10]


def test_what_is_inside_of_a_network_is_seen_with_it(lines):
    (look,) = _last(lines)["looks"]
    look.update(of=["dense@48px", "dense@1stages@48px"], fitted=[60, 60], scores=[0.5, 0.2])
    _last(lines)["options"][1]["method"] = "dense@1stages@48px"
    choice = _only(lines)
    assert [choice.is_seen(option) for option in choice.last.options] == [True, True]
    words = "left-out images 0.61 of a guess's, 0.82 of dense@1stages@48px)."
    assert words in _choices.paragraph(choice)


def test_the_gain_is_of_the_score_that_was_measured(lines):
    _trial(lines).update(dev=0.8)
    gain = _only(lines).gain
    share = (0.8 * 300 + 0.5) / 301
    logit = math.log(share / (1 - share))

    def points(change):
        return 1 / (1 + math.exp(-logit - change)) - share

    assert gain.value == pytest.approx(points(0.3))
    # An 80% interval of a Gaussian reaches 1.2816 standard deviations to both sides.
    assert gain.low == pytest.approx(points(0.3 - 1.2816 * 0.5), abs=1e-5)
    assert gain.high == pytest.approx(points(0.3 + 1.2816 * 0.5), abs=1e-5)


@pytest.mark.parametrize("dev", [0.0, 1.0])
def test_of_the_best_and_the_worst_score_the_gain_is_finite(lines, dev):
    _trial(lines).update(dev=dev)
    gain = _only(lines).gain
    assert gain.low <= gain.value <= gain.high
    assert abs(gain.value) < 0.01


def test_of_several_budgets_it_is_the_trial_that_is_best_on_dev(make_chosen):
    lines = make_chosen(tasks=("digits", "glyphs"))
    for line in lines:
        if line["type"] == "trial" and line["method"] == "auto":
            line["dev"] = 0.9 if (line["budget_flops"], line["seed"]) == (BUDGET, 1) else 0.7
    found = _choices.of_table(read(reversed(lines)))
    assert [choice.task.name for choice in found] == ["digits", "glyphs"]
    for choice in found:
        assert (choice.trial.budget_flops, choice.trial.seed) == (BUDGET, 1)
        assert (choice.last.budget_flops, choice.last.seed) == (BUDGET, 1)


def test_the_paragraph_says_what_was_tried_chosen_and_expected(lines):
    _trial(lines).update(dev=0.8, dev_test=0.8)
    said = _choices.paragraph(_only(lines))
    for words in (
        "Task of digits, 400 GFLOP: auto looked at dense@48px on 60 images (40 GFLOP, 10% of the "
        "budget; cross-entropy on left-out images 0.61 of a guess's).",
        "Of the 2 networks that it could afford it expected most of dense@48px (0.700), next of "
        "dense (0.600).",
        "It fitted 2 heads on all 1,200 images, and took dense@48px+probe@kernel (0.727 nats), "
        "better on left-out images than dense@48px+probe (0.789 nats).",
        "All in all that took 320 GFLOP and gave accuracy 0.800 on dev and 0.800 on dev_test "
        "(95% interval 0.76 to 0.83).",
        "Ten times the budget (another 3.6 TFLOP) would give about +4.4 points of accuracy "
        "(80% interval -6.0 to +11.2), so that a gain is not sure.",
    ):
        assert words in said


def test_a_sure_gain_has_no_proviso(lines):
    _last(lines).update(tenfold_logit=0.5, tenfold_deviation=0.1)
    said = _choices.paragraph(_only(lines))
    assert "points of accuracy (80% interval +" in said
    assert "not sure" not in said


def test_where_more_compute_changes_nothing_that_is_said(lines):
    _last(lines).update(tenfold_logit=0.0, tenfold_deviation=0.0)
    said = _choices.paragraph(_only(lines))
    assert "(another 3.6 TFLOP) would choose the same head: no gain is expected of it." in said
    assert "points" not in said


def test_of_several_labels_points_are_of_map(lines):
    (run,) = (line for line in lines if line["type"] == "run")
    run["tasks"][0]["kind"] = "multi_label"
    _trial(lines)["metric"] = "mAP"
    said = _choices.paragraph(_only(lines))
    assert "points of mAP" in said
    assert "gave mAP 0." in said
    # Wilson's interval is of shares alone.
    assert "95% interval" not in said


def test_what_was_begun_goes_on(lines):
    last = _last(lines)
    last["options"].reverse()
    said = _choices.paragraph(_only(lines))
    assert "most of dense (0.600), next of dense@48px (0.700), and stayed with dense@48px" in said


def test_a_network_that_was_trained(lines):
    _last(lines)["trains"] = True
    said = _choices.paragraph(_only(lines))
    assert "It fitted 2 heads on all 1,200 images (dense@48px+probe@kernel (0.727 nats), " in said
    assert "trained the whole network with what was left, and took dense@48px+probe@kernel" in said
    _trial(lines).update(examples=None, solver=None, steps=9, learning_rate=0.1, flops_per_step=5)
    _trial(lines)["notes"]["chosen"] = "dense"
    assert "left, and took dense, the better by dev." in _choices.paragraph(_only(lines))


def test_one_head_one_network_and_no_look(lines):
    last, trial = _last(lines), _trial(lines)
    last.update(looks=[], options=last["options"][:1], answers=last["answers"][:1])
    trial["notes"]["heads"].popitem()
    said = _choices.paragraph(_only([line for line in lines if line.get("next_method") is None]))
    assert "auto looked at no network on the way." in said
    assert "The budget pays for one network alone, dense@48px (0.700)." in said
    assert "It fitted one head on all 1,200 images: dense@48px+probe@kernel." in said


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (
            {"answers": [], "next_method": "dense", "next_images": 1000},
            "next it looks at dense on 1,000 images",
        ),
        ({}, "it fits 2 heads"),
        ({"trains": True}, "it fits 2 heads, and trains the whole network with what is left"),
    ],
)
def test_an_interrupted_run_says_what_is_next(lines, pending, last, words):
    _last(lines).update(last)
    choice = _only([*lines, pending(_trial(lines) | {"id": "the last one"})])
    assert choice.gain is None
    said = _choices.paragraph(choice)
    assert f"It is not finished: {words}; so far it has dense@48px+probe@kernel." in said
    assert "Ten times" not in said


def test_one_that_diverged(lines):
    _trial(lines).update(diverged=True, dev=None, dev_test=None)
    said = _choices.paragraph(_only(lines))
    assert said.endswith("that took 320 GFLOP, and diverged.")


def test_without_auto_nothing_is_said(make_records, make_probed):
    for make in (make_records, make_probed):
        table = read(make(tasks=("digits",)))
        assert _choices.of_table(table) == []
        assert _choices.lines(table) == []


def test_of_many_tasks_each_has_a_line(make_chosen):
    tasks = tuple(f"task{number}" for number in range(6))
    lines = make_chosen(tasks=tasks, budgets=(BUDGET,), seeds=(0,), methods=("dense",))
    said = _choices.lines(read(lines))
    rows = [line for line in said if line.startswith("task")]
    assert [row.split()[0] for row in rows] == ["task", *tasks]
    assert "chosen" in rows[0]
    for row in rows[1:]:
        assert "dense@48px+probe@kernel   1,200     0.8" in row
        assert "points of accuracy (80% interval -" in row
    assert " ".join(said).endswith(_choices.CAVEAT)
    assert "Of the 2 networks" not in report.summary(lines)
