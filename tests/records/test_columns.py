"""Columns of results.csv: one entry each."""

import csv
import json
import pathlib
import runpy
import sys

import pytest

from ctl_jax import records
from ctl_jax.errors import UserError

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "extending" / "column.py"


@pytest.fixture
def columns():
    """The columns, put back afterwards."""
    before = list(records.COLUMNS)
    yield records.COLUMNS
    records.COLUMNS[:] = before


def test_a_row_is_of_the_winner_and_of_those_that_lost(make_trial):
    best = make_trial(id="a", dev_test=0.75, dev=0.5)
    lost = [make_trial(id="b"), make_trial(id="c")]
    row = records.row(best, lost)
    assert list(row) == [column.name for column in records.COLUMNS]
    assert (row["trial"], row["dev"], row["error"]) == ("a", 0.5, 0.25)
    assert row["validate_flops"] == best.ledger.validate
    assert row["search_flops"] == best.choice_flops + best.ledger.search + sum(
        t.ledger.train + t.ledger.extract + t.ledger.validate + t.ledger.search for t in lost
    )
    assert records.row(make_trial(dev_test=None), [])["error"] is None


def test_a_function_is_a_column(columns, make_trial):
    @records.derived("trials that lost", unit="1", after="year")
    def losers(best, lost) -> int:
        return len(lost)

    names = [column.name for column in columns]
    assert names[names.index("year") + 1] == "losers"
    new = columns[names.index("losers")]
    assert new[:4] == ("losers", "trials that lost", "1", "integer")
    assert records.row(make_trial(), [make_trial()])["losers"] == 1


@pytest.mark.parametrize(
    ("name", "after", "line"),
    [
        ("dev", None, "column 'dev': there is one of this name, expected a new name"),
        ("new", "old", "column 'new': after='old', expected one of variant, task"),
    ],
)
def test_a_column_that_cannot_be_added(columns, name, after, line):
    def value(best, lost) -> int:
        return 0

    value.__name__ = name
    with pytest.raises(UserError, match=line):
        records.derived("it", after=after)(value)


def test_the_example_adds_a_column_to_a_finished_run(
    columns, make_trial, example, tmp_path, monkeypatch
):
    trial = make_trial()
    run = example(records.RunRecord)
    lines = [json.dumps(records.to_json(record)) + "\n" for record in (run, trial)]
    (tmp_path / "records.jsonl").write_text("".join(lines))
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    with open(tmp_path / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["search_share"]) == 0
    assert list(row).index("search_share") == list(row).index("search_flops") + 1
