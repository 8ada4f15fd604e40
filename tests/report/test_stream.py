"""Methods along the stream, recomputed from records."""

import csv
import io

import numpy as np
import pytest

from ctl_jax import records, report
from ctl_jax.report import spending, stream
from ctl_jax.report._table import read


@pytest.fixture
def learning(make_records, learnt):
    """Records where each task of filters@0.5 chose among the tasks before it."""
    return learnt(make_records(), "filters@0.5")


def trials(lines):
    return [line for line in lines if line["type"] == "trial"]


def test_flops_so_far_are_those_of_all_trials_of_the_records(learning):
    table = read(learning)
    passed = stream.along(table)
    names = table.task_names
    assert len(passed) == len(names) * len(table.methods) * len(table.budgets) * len(table.seeds)
    for each in passed:
        so_far, errors = 0, []
        for task in names[: each.number]:
            where = (task, each.method, each.budget, each.seed)
            of = [
                t
                for t in trials(learning)
                if (t["task"], t["method"], t["budget"], t["seed"]) == where
            ]
            assert len(of) == 3
            own = sum(t["ledger"][p] for t in of for p in ("train", "extract", "prune", "search"))
            so_far += own + of[0].get("choice_flops", 0)
            best = min(of, key=lambda t: (-t["dev"], t["learning_rate"]))
            errors.append(1 - best["dev_test"])
        assert (each.total_flops, each.trial_flops) == (so_far, best["spent_flops"])
        assert each.mean_error == pytest.approx(np.mean(errors), abs=1e-12)


def test_points_are_means_over_seeds_and_the_front_is_what_none_beats(learning):
    table = read(learning)
    passed = stream.along(table)
    points = stream.learners(passed, len(table.tasks))
    assert len(points) == len(table.methods) * len(table.budgets)
    for point in points:
        ends = [
            each
            for each in passed
            if (each.method, each.budget, each.number) == (point.method, point.budget, 3)
        ]
        assert point.seeds == len(ends) == len(table.seeds)
        assert point.total_flops == pytest.approx(np.mean([each.total_flops for each in ends]))
        assert point.error == pytest.approx(np.mean([each.mean_error for each in ends]))
        better = [
            other
            for other in points
            if other.total_flops <= point.total_flops
            and other.error <= point.error
            and other is not point
        ]
        assert point.on_front == (not better)
    assert 0 < sum(point.on_front for point in points) < len(points)


def test_a_stream_that_is_not_done_ends_before_the_first_task_that_is_not(learning, make_records):
    left = next(t for t in trials(learning) if t["task"] == "glyphs" and t["method"] == "dense")
    learning.remove(left)
    pending = records.PendingRecord(
        **{key: left[key] for key in ("id", "task", "method", "budget", "seed", "learning_rate")}
    )
    table = read([*learning, records.to_json(pending)])
    found = [
        each.task
        for each in stream.along(table)
        if (each.method, each.budget, each.seed) == ("dense", left["budget"], left["seed"])
    ]
    assert found == ["digits"]
    points = stream.learners(stream.along(table), 3)
    (point,) = [p for p in points if (p.method, p.budget) == ("dense", left["budget"])]
    assert point.seeds == len(table.seeds) - 1


def test_a_task_that_diverged_counts_whole(make_records):
    lines = make_records(tasks=("digits",), methods=("dense",), seeds=(0,))
    for line in trials(lines):
        line |= {"dev": None, "dev_test": None, "diverged": True}
    assert {each.error for each in stream.along(read(lines))} == {1.0}


def test_the_tables_and_figures(learning, tmp_path):
    report.write(learning, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "stream.csv").read_text())))
    assert len(rows) == 3 * 4 * 3 * 2
    last = [row for row in rows if row["method"] == "filters@0.5"][2]
    assert (last["task"], last["start_task"]) == ("textures", "glyphs")
    matrix = list(csv.DictReader(io.StringIO((tmp_path / "transfer.csv").read_text())))
    for row in matrix:
        assert (row["score"] == "") == (row["method"] != "filters@0.5" or row["task"] == "digits")
    chosen = [
        (row["task"], row["source"], float(row["score"]))
        for row in matrix
        if row["method"] == "filters@0.5" and row["chosen"] == "1" and row["score"]
    ]
    assert set(chosen) == {("glyphs", "", 0.2), ("textures", "glyphs", 0.4)}
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"all_compute", "along_the_stream", "transfer"} <= drawn
    page = (tmp_path / "report.html").read_text()
    assert "glyphs (0.400 of 3)" in page
    assert "On the front" in page
    # Without learners there is nothing to choose.
    plain = [{**line, "candidates": {}, "start_task": None} for line in trials(learning)]
    report.write([*(x for x in learning if x["type"] != "trial"), *plain], tmp_path / "plain")
    assert not (tmp_path / "plain" / "figures" / "transfer.png").exists()


def test_what_a_choice_cost_is_in_the_ledger_once_a_search(learning, make_records):
    table, plain = read(learning), read(make_records())
    searches = len(table.budgets) * len(table.seeds)
    cost = searches * 10**9 * (2 + 3)
    before, after = spending.ledger(plain)["filters@0.5"], spending.ledger(table)["filters@0.5"]
    assert after["search"] - before["search"] == cost
    assert {**after, "search": 0} == {**before, "search": 0}
    assert spending.sharing(table).charged - spending.sharing(plain).charged == cost
