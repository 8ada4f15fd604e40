"""Records that contradict each other or lack something are named."""

import itertools
import math
import random

import pytest

from ctl_jax.errors import UserError
from ctl_jax.report.records import read
from ctl_jax.report.schema import FIELDS


def _first(records, kind):
    return next(i for i, record in enumerate(records) if record["type"] == kind)


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in FIELDS.items() for field in fields]
)
def test_a_missing_field_is_named_with_its_line(make_records, kind, field):
    records = make_records(seeds=(0,))
    index = _first(records, kind)
    del records[index][field]
    with pytest.raises(UserError, match=rf"record {index + 1} \({kind}.*\): no field '{field}'"):
        read(records)


@pytest.mark.parametrize(
    ("kind", "field", "value", "match"),
    [
        ("trial", "dev", math.nan, "dev is nan, expected a finite number"),
        ("trial", "dev_test", None, "dev_test is None, expected a finite number"),
        ("trial", "steps", 1.5, "steps is 1.5, expected integer"),
        ("trial", "steps", True, "steps is True, expected integer"),
        ("trial", "diverged", 0, "diverged is 0, expected boolean"),
        ("trial", "flops_per_step", 0, "flops_per_step is 0, expected positive integer"),
        ("trial", "ledger", {"train": 1}, "ledger: no field 'validate'"),
        ("trial", "learning_rate", 0.2, "learning_rate 0.2 is not in the run"),
        ("trial", "task", "elsewhere", "task 'elsewhere' is not in the run"),
        ("trial", "variant", "FULL", "variant 'FULL' is not in the run, expected one of embedded"),
        ("run", "budgets", [0], r"budgets is \[0\], expected positive integers"),
        ("run", "methods", "dense", "methods is 'dense', expected texts"),
        ("run", "seeds", [0, 0], "seeds: 0 is there more than once"),
        ("run", "tasks", [{"name": "a", "title": "A", "domain": "x"}], "tasks.0.: no field 'data"),
        ("method", "params", None, "params is None, expected integer"),
    ],
)
def test_a_wrong_value_is_named(make_records, kind, field, value, match):
    records = make_records()
    records[_first(records, kind)][field] = value
    with pytest.raises(UserError, match=match) as error:
        read(records)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "../etc", "a/b", "a\\b", ".hidden"])
def test_a_task_whose_name_is_no_file_name_is_refused(make_records, name):
    records = make_records()
    records[0]["tasks"][0]["name"] = name
    with pytest.raises(UserError, match="safe in a file name"):
        read(records)


def test_what_is_no_object_is_refused():
    with pytest.raises(UserError, match="record 2: expected an object"):
        read([{}, 3])


def test_the_same_trial_twice_is_one_whatever_the_clock_said(make_records):
    records = make_records()
    again = dict(records[-1], wall_s=99.0)
    table = read([*records, again])
    assert len(table.trials) == sum(r["type"] == "trial" for r in records)
    assert read([again, *records]) == table


def test_trials_come_in_the_order_of_the_run(make_records):
    records = make_records(rates=(0.3, 0.03), seeds=(1, 0))
    shuffled = list(records)
    random.Random(3).shuffle(shuffled)
    keys = ("task", "method", "budget_flops", "seed", "learning_rate")
    places = [tuple(trial[key] for key in keys) for trial in read(shuffled).trials]
    run = records[0]
    assert places == list(
        itertools.product(
            [task["name"] for task in run["tasks"]],
            *(run[axis] for axis in ("methods", "budgets", "seeds", "learning_rates")),
        )
    )


@pytest.mark.parametrize("kind", ["trial", "method", "pretrain"])
def test_two_records_that_differ_are_an_error(make_records, kind):
    records = make_records()
    field = {"trial": "dev", "method": "params", "pretrain": "metric"}[kind]
    changed = dict(records[_first(records, kind)])
    changed[field] = 1
    with pytest.raises(UserError, match=f"{kind} .*recorded twice with different {field}"):
        read([*records, changed])


def test_two_trials_in_one_place_are_an_error(make_records):
    records = make_records()
    with pytest.raises(UserError, match=r"trials .* and zzz: same task"):
        read([*records, dict(records[-1], id="zzz")])


def test_a_continued_run_says_again_what_it_is(make_records):
    records = make_records()
    first = dict(records[0], device="tpu", versions={"jax": "0.11.2"})
    # A data set that was not there at first has arrived.
    first["tasks"], first["missing"] = (
        first["tasks"][:2],
        [{"name": "textures", "title": "Textures", "reason": "no folder"}],
    )
    shuffled = [first, *records]
    random.Random(1).shuffle(shuffled)
    table = read(shuffled)
    assert table.tasks == ["digits", "glyphs", "textures"]
    assert table.plan("missing") == []
    assert table.machines == (("cpu", "flax 0.12.8, jax 0.10.2"), ("tpu", "jax 0.11.2"))


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [("seeds", [0, 1, 2], "seeds"), ("tasks", "other", "task 'other'")],
)
def test_two_different_runs_are_an_error(make_records, field, value, match):
    records = make_records()
    other = dict(records[0])
    other[field] = [dict(other["tasks"][0], name=value)] if field == "tasks" else value
    with pytest.raises(UserError, match=match):
        read([other, *records])
