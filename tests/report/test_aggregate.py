"""Means over tasks and groups of them, relative to dense, against numbers worked out by hand."""

import csv
import statistics

import pytest

from ctl_jax import report
from ctl_jax.report._table import read
from ctl_jax.report.aggregate import (
    MEANS_COLUMNS,
    group_tasks,
    means,
    scores,
    task_curves,
    values,
)

BUDGET = "2 epochs"


def _rows(table):
    """Rows from {task: {method: [dev_test by seed]}}."""
    return [
        {"task": t, "method": m, "budget": BUDGET, "seed": seed, "dev_test": number}
        for t, by_method in table.items()
        for m, numbers in by_method.items()
        for seed, number in enumerate(numbers)
    ]


def _mean(table, methods=("dense", "small")):
    return means(values(_rows(table)), list(table), methods, [BUDGET])[BUDGET]


def test_mean_and_improvement_by_hand():
    mean = _mean(
        {
            "a": {"dense": [0.4, 0.6], "small": [0.6, 0.8]},
            "b": {"dense": [0.3, 0.3], "small": [0.2, 0.2]},
        }
    )
    assert mean.tasks == ("a", "b")
    assert mean.points["dense"].mean == pytest.approx(0.4)
    assert mean.points["small"].mean == pytest.approx(0.45)
    assert mean.relative["small"].mean == pytest.approx(0.05 / 0.4)
    # By seed: dense .35 and .45, small .4 and .5.
    assert mean.points["dense"].std == pytest.approx(statistics.stdev([0.35, 0.45]))
    assert mean.relative["small"].std == pytest.approx(
        statistics.stdev([0.4 / 0.35 - 1, 0.5 / 0.45 - 1])
    )
    assert mean.better == {"small": 1}
    assert "dense" not in mean.relative


def test_only_tasks_that_every_method_has_are_compared():
    mean = _mean({"a": {"dense": [0.5], "small": [0.4]}, "b": {"dense": [0.9]}})
    assert mean.tasks == ("a",)
    assert mean.points["dense"].mean == 0.5
    assert mean.relative["small"].mean == pytest.approx(-0.2)
    assert mean.points["dense"].std is None


def test_a_result_without_a_number_is_no_result():
    mean = _mean({"a": {"dense": [0.5], "small": [None]}, "b": {"dense": [0.5], "small": [0.6]}})
    assert mean.tasks == ("b",)


def test_no_common_task_gives_no_mean():
    mean = _mean({"a": {"dense": [0.5]}, "b": {"small": [0.6]}})
    assert (mean.tasks, mean.points, mean.relative) == ((), {}, {})


def test_without_dense_nothing_is_relative():
    mean = _mean({"a": {"small": [0.5]}}, methods=("small",))
    assert mean.points["small"].mean == 0.5
    assert mean.relative == {}


def test_dense_at_zero_gives_no_ratio():
    assert _mean({"a": {"dense": [0.0], "small": [0.5]}}).relative == {}


def test_spread_needs_seeds_that_all_tasks_have():
    mean = _mean({"a": {"dense": [0.4, 0.6]}, "b": {"dense": [0.2]}}, methods=("dense",))
    assert mean.points["dense"].mean == pytest.approx(0.35)
    assert (mean.points["dense"].std, mean.points["dense"].seeds) == (None, 1)


def test_curve_of_a_task():
    curve = task_curves(values(_rows({"a": {"dense": [0.4, 0.6]}})), "a")["dense"][BUDGET]
    assert (curve.mean, curve.seeds) == (pytest.approx(0.5), 2)
    assert curve.std == pytest.approx(statistics.stdev([0.4, 0.6]))
    assert task_curves({}, "a") == {}


# Task: domain, year, kind, examples of dev_test, score of dense.
TASKS = {
    "digits": ("ocr", 2004, "single_label", 100, 0.8),
    "glyphs": ("ocr", 2010, "single_label", 300, 0.4),
    "textures": ("texture", None, "multi_label", 600, 0.1),
}


@pytest.fixture
def records(make_records):
    records = make_records(methods=("dense", "scratch"), budgets=(10**11, 10**12))
    for task in records[0]["tasks"]:
        domain, year, kind, examples, _ = TASKS[task["name"]]
        task.update(domain=domain, year=year, kind=kind, dev_test_examples=examples)
    for record in records:
        if record["type"] == "trial":
            _, year, kind, _, score = TASKS[record["task"]]
            several = kind == "multi_label"
            record.update(
                year=year,
                metric="mAP" if several else "accuracy",
                dev_test=score / (2 if record["method"] == "scratch" else 1),
                dev_test_top5=None if several else 0.9,
            )
    return records


def _lines(records, folder):
    report.write(records, folder)
    with open(folder / "means.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_groups_of_a_run(records):
    groups = {(g.by, g.name): g.tasks for g in group_tasks(read(records).tasks)}
    assert groups == {
        ("all", "all"): ("digits", "glyphs", "textures"),
        ("metric", "accuracy"): ("digits", "glyphs"),
        ("metric", "mAP"): ("textures",),
        ("domain", "ocr"): ("digits", "glyphs"),
        ("domain", "texture"): ("textures",),
        ("year", "2004"): ("digits",),
        ("year", "2010"): ("glyphs",),
    }


def test_means_by_hand(records, tmp_path):
    lines = _lines(records, tmp_path)
    assert tuple(lines[0]) == MEANS_COLUMNS
    assert len(lines) == 7 * 2 * 2
    found = {
        (r["by"], r["group"], r["method"]): r for r in lines if r["budget_flops"] == "1" + "0" * 11
    }
    whole = found["all", "all", "dense"]
    macro = statistics.fmean([0.8, 0.4, 0.1])
    weighted = (100 * 0.8 + 300 * 0.4 + 600 * 0.1) / 1000
    assert float(whole["score"]) == pytest.approx(macro)
    assert float(whole["error"]) == pytest.approx(1 - macro)
    assert float(whole["weighted_score"]) == pytest.approx(weighted)
    assert float(whole["weighted_error"]) == pytest.approx(1 - weighted)
    assert (whole["tasks"], whole["examples"]) == ("3", "1000")
    assert (whole["top5_tasks"], float(whole["top5"])) == ("2", 0.9)
    assert float(found["all", "all", "scratch"]["score"]) == pytest.approx(macro / 2)
    ocr = found["domain", "ocr", "dense"]
    assert float(ocr["score"]) == pytest.approx(0.6)
    assert float(ocr["weighted_score"]) == pytest.approx(0.5)
    assert float(found["year", "2010", "dense"]["score"]) == pytest.approx(0.4)
    # Two tasks, of which a quarter of the resamples have one alone; a single one has no interval.
    assert [float(ocr[f"score_{end}"]) for end in ("low", "high")] == pytest.approx([0.4, 0.8])
    several = found["metric", "mAP", "dense"]
    assert (several["score_low"], several["score_high"]) == ("", "")
    assert (several["top5_tasks"], several["top5"]) == ("0", "")


def test_a_task_that_a_method_lacks_is_in_no_mean(records, tmp_path):
    for record in list(records):
        if (record.get("task"), record.get("method")) == ("glyphs", "scratch"):
            records.remove(record)
    lines = _lines(records, tmp_path)
    assert not [r for r in lines if (r["by"], r["group"]) == ("year", "2010")]
    whole = [r for r in lines if r["by"] == "all"]
    assert {(r["tasks"], r["examples"]) for r in whole} == {("2", "700")}
    assert {r["score"] for r in whole if r["method"] == "dense"} == {"0.45"}


def test_no_weighted_mean_without_numbers_of_examples(records, tmp_path):
    del records[0]["tasks"][1]["dev_test_examples"]
    lines = _lines(records, tmp_path)
    known = {(r["by"], r["group"]) for r in lines if r["weighted_score"]}
    assert known == {("metric", "mAP"), ("domain", "texture"), ("year", "2004")}
    assert all(r["score"] for r in lines)
    assert "weighted by examples" not in (tmp_path / "report.html").read_text()


def test_spread_of_a_weighted_mean_is_over_seeds(records):
    for record in records:
        if record["type"] == "trial" and record["seed"] == 1:
            record["dev_test"] += 0.1
    table = read(records)
    rows = report.results(records)
    whole = scores(table, values(rows), values(rows, "dev_test_top5"))[0]
    for by_budget in (whole.macro, whole.weighted):
        for mean in by_budget.values():
            assert mean.points["dense"].std == pytest.approx(statistics.stdev([0, 0.1]))


def test_missing_tasks_are_named(records, tmp_path):
    reason = 'no folder "cars", nor cars.zip'
    records[0]["missing"] = [{"name": "cars", "title": "Stanford Cars", "reason": reason}]
    report.write(records, tmp_path)
    with open(tmp_path / "missing.csv", newline="") as file:
        assert list(csv.DictReader(file)) == records[0]["missing"]


def test_results_have_the_error_and_top5(records):
    for row in report.results(records):
        assert row["error"] == pytest.approx(1 - row["dev_test"])
        several = row["task"] == "textures"
        assert row["metric"] == ("mAP" if several else "accuracy")
        assert row["dev_test_top5"] == (None if several else 0.9)
        assert row["year"] == TASKS[row["task"]][1]


def test_the_summary_says_which_metrics_are_in_the_mean(records):
    assert "Multi-label tasks, by mean average precision: 1;" in report.summary(records)
