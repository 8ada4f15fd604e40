"""Every type of record: written, read, and complained of."""

import dataclasses
import json
import math

import pytest

from ctl_jax import records
from ctl_jax.errors import UserError


@pytest.mark.parametrize("cls", records.TYPES.values())
def test_every_record_comes_back(cls, example):
    record = example(cls)
    line = json.loads(json.dumps(records.to_json(record)))
    assert (next(iter(line)), line["type"]) == ("type", cls.type)
    assert records.from_json(line) == record
    assert records.from_json({**line, "of a newer version": 3}) == record


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (kind, field.name)
        for kind, cls in records.TYPES.items()
        for field in dataclasses.fields(cls)
        if field.default is field.default_factory is dataclasses.MISSING
        # Which an earlier version lacked, see below.
        and (kind, field.name) != ("trial", "budget")
    ],
)
def test_a_missing_field_is_named_with_its_line(kind, field, example):
    line = records.to_json(example(records.TYPES[kind]))
    del line[field]
    with pytest.raises(UserError, match=rf"record 7 \({kind}.*\): no field '{field}', expected "):
        records.from_json(line, 7)


@pytest.mark.parametrize("line", [{}, {"type": "weather"}, {"type": 3}, {"type": ["run"]}])
def test_other_types_are_left_out(line):
    assert records.from_json(line) is None


@pytest.mark.parametrize(
    ("kind", "change", "match"),
    [
        ("trial", {"dev": math.nan}, r"record 1 \(trial 2 e.*\): dev is nan, expected a finite nu"),
        ("trial", {"dev_test": None}, "dev_test is None, expected a finite number"),
        ("trial", {"ledger": {"train": 1}}, "ledger: no field 'validate', expected integer"),
        ("trial", {"ledger": []}, r"ledger is \[\], expected object"),
        ("run", {"budgets": ["2 epoxs"]}, "budgets: budget .*unknown unit"),
        ("run", {"budgets": ["2 epochs", "2 epochs"]}, "'2 epochs' is there more than once"),
        ("run", {"tasks": [{"name": "a", "title": "A", "domain": "x"}]}, "no field 'dataset'"),
        ("method", {"forward_flops": 0}, "forward_flops is 0, expected positive integer"),
        ("pending", {"seed": None}, "seed is None, expected integer"),
    ],
)
def test_a_wrong_value_is_named(kind, change, match, example):
    line = records.to_json(example(records.TYPES[kind])) | {"diverged": False} | change
    with pytest.raises(UserError, match=match) as error:
        records.from_json(line)
    assert "\n" not in str(error.value)


def test_a_negative_purpose_is_named(make_trial):
    line = records.to_json(make_trial())
    line["ledger"]["train"] = -1
    with pytest.raises(UserError, match="ledger: train is -1; expected an int of at least 0"):
        records.from_json(line)


def test_budgets_of_an_earlier_version(make_trial, example):
    trial = records.to_json(make_trial(budget="3 flops"))
    assert records.from_json({k: v for k, v in trial.items() if k != "budget"}).budget == "3 flops"
    run = records.to_json(example(records.RunRecord))
    assert not records.is_product(run)
    before = {**run, "budgets": [1, 4e9]}
    assert records.is_product(before)
    assert records.from_json(before).budgets == ("1 flop", "4000000000 flops")


def test_a_trial_of_before_features_were_extracted(make_trial):
    line = records.to_json(make_trial())
    of_before = ("own_flops", "notes", "batch_size", "image_size", "solver", "examples")
    line = {key: value for key, value in line.items() if key not in of_before}
    del line["ledger"]["extract"]
    trial = records.from_json(line)
    assert (trial.ledger.extract, trial.own_flops, trial.solver) == (0, None, None)
