"""Several runs as one."""

import pytest

from ctl_jax import records, report
from ctl_jax.errors import UserError
from ctl_jax.report._merging import merged
from ctl_jax.report._table import read


def _rows(lines):
    return {
        (row["task"], row["method"], row["budget"], row["seed"]): row["trial"]
        for row in report.results(lines)
    }


@pytest.mark.parametrize(
    ("axis", "one", "other"),
    [
        ("seeds", (0,), (1, 2)),
        ("methods", ("dense", "scratch"), ("dense", "filters@0.5")),
        ("budgets", (10**11, 10**12), (4 * 10**11,)),
        ("tasks", ("digits",), ("digits", "glyphs")),
    ],
)
def test_runs_of_one_whole_are_that_whole(make_records, axis, one, other):
    axes = {"methods": ("dense", "scratch"), "seeds": (0,), "tasks": ("digits",)}
    parts = [make_records(**{**axes, axis: values}) for values in (one, other)]
    whole = make_records(**{**axes, axis: tuple(dict.fromkeys((*one, *other)))})
    for record in parts[1]:
        # As tasks are numbered by the fixture, in each run from the first on.
        if record["type"] == "run" and axis == "tasks":
            assert record["tasks"][0] == parts[0][0]["tasks"][0]
    together = merged([("", lines) for lines in parts])
    assert _rows(together) == _rows(whole)
    assert _rows(merged([("", lines) for lines in reversed(parts)])) == _rows(whole)
    assert "Mean of dev_test" in report.summary(together)


def test_labels_tell_methods_apart(make_records):
    one = make_records(methods=("dense",))
    other = make_records(methods=("dense",))
    for record in other:
        if record["type"] == "trial":
            record.update(id="other" + record["id"], dev=0.1, dev_test=0.1)
    with pytest.raises(
        UserError, match=r"run 1 and run 2: different results of digits, dense, 100"
    ):
        merged([("", one), ("", other)])
    together = merged([("a", one), ("b", other)])
    assert read(together).methods == ("dense (a)", "dense (b)")
    rows = report.results(together)
    assert {row["dev_test"] for row in rows if row["method"] == "dense (b)"} == {0.1}
    assert len(rows) == 2 * len(report.results(one))
    # The same run twice is no contradiction.
    assert len(report.results(merged([("a", one), ("b", one)]))) == len(rows)
    assert _rows(merged([("", one), ("", one)])) == _rows(one)


def test_what_was_spent_on_pretraining_is_summed(make_records):
    one, other = make_records(methods=("dense",)), make_records(methods=("scratch",))
    (pretrain,) = (line for line in other if line["type"] == "pretrain")
    pretrain.update(id="cd34", flops=7, task="elsewhere")
    found = read(merged([("", one), ("", other)])).pretrain
    assert (found.flops, found.task) == (3 * 10**12 + 7, "source and elsewhere")
    # That of one and the same step counts once.
    assert read(merged([("", one), ("", one)])).pretrain.flops == 3 * 10**12


def test_what_one_run_does_not_know_of_a_task_another_may(make_records):
    one, other = make_records(seeds=(0,)), make_records(seeds=(1,))
    other[0]["tasks"][0].update(test_examples=77, notes=["seen"])
    task = read(merged([("", one), ("", other)])).tasks[0]
    assert task.test_examples == 77
    other[0]["tasks"][0]["train_examples"] = 3
    with pytest.raises(UserError, match="task 'digits': train_examples differ between runs"):
        merged([("", one), ("", other)])


def test_a_missing_task_that_another_run_has_is_not_missing(make_records):
    one, other = make_records(tasks=("digits",)), make_records(tasks=("digits", "glyphs"))
    one[0]["missing"] = [
        {"name": name, "title": name, "reason": "no folder"} for name in ("glyphs", "cars")
    ]
    found = read(merged([("", one), ("", other)]))
    assert [task.name for task in found.missing] == ["cars"]


def test_a_run_without_a_run_record(make_records):
    with pytest.raises(UserError, match="no run record among those of a run"):
        merged([("", make_records()), ("", [])])


@pytest.mark.parametrize("labels", [("", ""), ("a", "b")])
def test_the_best_model_of_a_task_is_that_of_all_runs(make_records, evaluated, labels):
    """Of digits one run has it, of glyphs the other one; each evaluated its own."""
    runs = [make_records(seeds=(seed,), tasks=("digits", "glyphs")) for seed in (0, 1)]
    for run, ahead in zip(runs, ("digits", "glyphs"), strict=True):
        for record in run:
            if record["type"] == "trial":
                record["dev"] = 0.9 if record["task"] == ahead else 0.1 * record["dev"]
    lines = [(label, evaluated(run)) for label, run in zip(labels, runs, strict=True)]
    whole = evaluated([line for _, run in lines for line in run if line["type"] != "evaluate"])
    found = report.best(merged(lines))
    assert [(each.task.name, each.trial.seed) for each in found] == [("digits", 0), ("glyphs", 1)]
    if labels == ("", ""):
        ids = {r["task"]: r["trial"] for r in whole if r["type"] == "evaluate"}
        assert {each.task.name: each.trial.id for each in found} == ids
    else:
        assert [each.trial.method[-4:] for each in found] == [" (a)", " (b)"]
    # How the last one was trained comes with it.
    logs = read(merged(lines)).logs
    assert [each.step for each in logs[found[-1].trial.id] if each.type == "train"] == [10, 20]
    # Models of several runs are in several folders, of which none is named.
    shown = report.summary(merged(lines))
    assert "a prediction" in shown
    assert "to go on" not in shown
    # Where the better run evaluated none, there is none.
    only = [lines[0], (lines[1][0], runs[1])]
    assert [each.task.name for each in report.best(merged(only))] == ["digits"]


def test_networks_on_test_have_the_label_of_their_run(make_records):
    lines = make_records(methods=("dense",), tasks=("digits",), seeds=(0,), rates=(0.1,))
    trial = next(line for line in lines if line["type"] == "trial")
    scores = {"metric": "accuracy", "score": 0.5, "low": 0.4, "high": 0.6, "top5": None}
    final = records.FinalRecord(
        **{name: trial[name] for name in ("task", "method", "budget", "seed")},
        id="last",
        trial=trial["id"],
        trained_on="train",
        split="test",
        **{"examples": 9, **scores, "diverged": False, "flops": 7, "wall_s": 1.0},
    )
    run = [*lines, records.to_json(final)]
    table = read(merged([("a", run), ("b", run)]))
    assert [each.method for each in table.finals] == ["dense (a)", "dense (b)"]
    assert {each.trial for each in table.finals} <= {each.id for each in table.trials}
