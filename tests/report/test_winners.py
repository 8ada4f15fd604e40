"""The best model of each task, as it is shown at the end of a run and on its page."""

import dataclasses

import pytest

from ctl_jax import records, report
from ctl_jax.report._winners import widths


@pytest.fixture
def lines(make_records, evaluated):
    """Records of a run whose best models on two tasks were evaluated, with the log of one."""
    return evaluated(make_records(tasks=("digits", "glyphs")))


def test_what_a_model_is_worth_and_what_all_of_it_cost(lines):
    digits, glyphs = report.best(lines)
    assert (digits.task.name, glyphs.task.name) == ("digits", "glyphs")
    trials = [r for r in lines if r["type"] == "trial" and r["task"] == "digits"]
    spent = sum(sum(trial["ledger"].values()) for trial in trials)
    assert sum(digits.spent.values()) == spent + 10**10 + 3 * 10**12
    assert digits.spent["train"] == digits.trial.spent_flops
    assert digits.spent["pretrain"] == 3 * 10**12
    assert report.best(reversed(lines)) == [digits, glyphs]


def test_the_end_of_a_run_says_what_it_is_and_how_to_go_on(lines):
    text = report.summary(lines, "runs/my flowers")
    _, digits, glyphs = text.partition("The best model of each task:")[2].split("\n\n")
    assert digits.startswith("Task of digits\n  model")
    for words in (
        f"{report.best(lines)[1].trial.method} of resnet18 (2, 2, 2, 2), budget 1.6 TFLOP",
        "stem 64; stage1 to stage2 32, 256; head 7",
        "0.900, 95% interval 0.870 to 0.920 (450 of 500 images)",
        "20 MFLOP (0.25 of the whole network), 600 k parameters (0.75), 2.1 ms on cpu (0.50)",
        f"runs/my flowers/models/{report.best(lines)[1].trial.id}",
        "python -m ctl_jax.predict 'runs/my flowers' IMAGES... --task=glyphs",
    ):
        assert words in glyphs
    alone = [line for line in lines if "glyphs" not in (line.get("task"), *line.get("tasks", ()))]
    alone[0] = {**alone[0], "tasks": alone[0]["tasks"][:1]}
    assert report.summary(alone, "w").endswith("python -m ctl_jax.predict w IMAGES...")


def test_the_page_shows_them_with_how_they_were_trained(lines, tmp_path):
    report.write(lines, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert '<h2 id="best">The best model of each task</h2>' in page
    assert page.count("0.900, 95% interval 0.870 to 0.920") == 2
    assert "evaluating the best models on test" in page
    # One of them has a log.
    assert {path.stem for path in (tmp_path / "figures").glob("training_*")} == {"training_glyphs"}
    assert (tmp_path / "figures" / "training_glyphs.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_whose_models_were_not_evaluated_says_nothing_of_it(make_records, tmp_path):
    assert report.best(make_records()) == []
    assert "The best model" not in report.summary(make_records(), "w")
    report.write(make_records(), tmp_path)
    assert "The best model" not in (tmp_path / "report.html").read_text()


def test_evaluations_differ_in_time_alone(lines):
    test = next(records.from_json(r) for r in lines if r["type"] == "evaluate")
    again = dataclasses.replace(test, latency_s=1.0, whole_latency_s=2.0, wall_s=9.0)
    assert len(report.best([*lines, records.to_json(again)])) == 2


@pytest.mark.parametrize(
    ("by_stage", "text"),
    [
        ({}, ""),
        ({"stem": (8,), "stage1": (8,)}, "stem to stage1 8"),
        ({"stage1": (8, 16), "stage2": (8,)}, "stage1 8, 16; stage2 8"),
    ],
)
def test_stages_of_the_same_widths_are_joined(by_stage, text):
    assert widths(by_stage) == text


def test_of_auto_it_says_what_was_chosen_and_what_was_looked_at(make_chosen, lines):
    found = make_chosen(tasks=("digits",), seeds=(0,), budgets=(10**11,), methods=("dense",))
    (auto,) = (r for r in found if r["type"] == "trial" and r["method"] == "auto")
    test = next(r for r in lines if r["type"] == "evaluate" and r["task"] == "digits")
    (best,) = report.best([*found, test | {"trial": auto["id"]}])
    others = [r for r in found if r["type"] == "trial" and r is not auto]
    lost = sum(r["ledger"][p] for r in others for p in records.SEARCHED)
    assert best.spent["search"] == auto["ledger"]["search"] + lost
    text = report.summary([*found, test | {"trial": auto["id"]}])
    assert "auto: dense@48px+probe@kernel of resnet18 (2, 2, 2, 2), budget 100 GFLOP" in text
