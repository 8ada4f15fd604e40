"""Several runs as one."""

import pytest

from ctl_jax import report
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
