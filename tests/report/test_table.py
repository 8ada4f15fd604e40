"""Records that contradict each other or lack something are named."""

import dataclasses
import itertools
import math
import random

import pytest

from ctl_jax.errors import UserError
from ctl_jax.records import LookRecord, TaskRecord, to_json
from ctl_jax.report._table import read


def _first(records, kind):
    return next(i for i, record in enumerate(records) if record["type"] == kind)


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
        ("trial", "budget", "2 epochs", "budget '2 epochs' is not in the run, expected one of 1"),
        ("trial", "task", "elsewhere", "task 'elsewhere' is not in the run"),
        ("trial", "variant", "FULL", "variant 'FULL' is not in the run, expected one of embedded"),
        ("run", "budgets", [0], r"budgets is \[0\], expected texts"),
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
    keys = ("task", "method", "budget", "seed", "learning_rate")
    places = [tuple(getattr(trial, key) for key in keys) for trial in read(shuffled).trials]
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
    assert table.task_names == ["digits", "glyphs", "textures"]
    assert table.missing == ()
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


def _read(task, **changes):
    content = {"examples": {"train": 1198}, "corrupt": 2, "notes": ("a note",)}
    record = TaskRecord(task=task, **content, passed_over={"hidden": 1}, content="ab")
    return to_json(dataclasses.replace(record, **changes))


def test_what_reading_images_told_is_joined(make_records):
    records = make_records()
    table = read([_read("glyphs"), *records, _read("glyphs"), _read("source")])
    digits, glyphs, _ = table.tasks
    assert digits == read(records).tasks[0]
    assert (glyphs.train_examples, glyphs.dev_examples) == (1198, 300)
    assert (glyphs.corrupt_examples, glyphs.passed_over) == (2, {"hidden": 1})
    assert glyphs.notes == ("a note",)


def test_images_at_several_sizes_have_not_changed(make_records):
    both = [_read("glyphs", image_size=64), _read("glyphs", content="cd", image_size=48)]
    table = read([*make_records(), *both])
    assert table.tasks[1].notes == ("a note",)


def test_images_that_changed_meanwhile_are_noted(make_records):
    records = make_records()
    both = [_read("glyphs"), _read("glyphs", content="cd", corrupt=3)]
    table = read([*records, *both])
    assert table.tasks[1].notes == (
        "a note",
        "its images changed while the run went on: trials are not all of the same data",
    )
    assert read([*reversed(both), *records]) == table


def test_trials_that_are_left_come_in_the_order_of_the_run(make_records, pending):
    records = make_records()
    trials = [record for record in records if record["type"] == "trial"]
    lines = [record for record in records if record["type"] != "trial"]
    table = read([*lines, *map(pending, reversed(trials))])
    assert [left.id for left in table.pending] == [trial["id"] for trial in trials]
    with pytest.raises(UserError, match=r"pending .*: seed 7 is not in the run, expected one of 0"):
        read([*lines, pending(trials[0]) | {"seed": 7}])


def test_records_of_before_are_read(make_records, of_before):
    records = make_records()
    before = of_before(records)
    assert before[0]["budgets"] == [10**11, 4 * 10**11, 16 * 10**11]
    assert read(before) == read(records)
    left = read(before[:-1]).pending
    assert [(each.task, each.method, each.budget, each.seed) for each in left] == [
        tuple(records[-1][key] for key in ("task", "method", "budget", "seed"))
    ]


def test_looks_are_read_in_any_order(make_chosen):
    records = make_chosen(tasks=("digits",))
    looks = [r for r in records if r["type"] == "look"]
    assert len(looks) == 2 * 3 * 2
    table = read(records)
    assert sum(isinstance(each, LookRecord) for each in table.prepared) == len(looks)
    assert read([*reversed(records), *looks]) == table


def test_a_look_recorded_twice_must_agree(make_chosen):
    records = make_chosen(tasks=("digits",))
    look = next(r for r in records if r["type"] == "look")
    read([*records, look | {"wall_s": 9.0}])
    with pytest.raises(UserError, match=r"look .* recorded twice with different spent_flops"):
        read([*records, look | {"spent_flops": 1}])
