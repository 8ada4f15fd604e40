"""The rule of the search, and the rows that follow from it."""

import csv
import io
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl_jax import report
from ctl_jax.errors import UserError
from ctl_jax.records import COLUMNS
from ctl_jax.report._results import to_csv

NAMES = [column.name for column in COLUMNS]
SMALL = {
    "tasks": ("digits", "glyphs"),
    "methods": ("dense", "filters@0.5"),
    "budgets": (10**11, 4 * 10**11),
    "seeds": (0, 1),
}


def brute_force(records):
    """Recomputes task x method x budget x seed -> (trial, dev_test, search FLOPs), slowly."""
    run = next(r for r in records if r["type"] == "run")
    found = {}
    for task in run["tasks"]:
        for method in run["methods"]:
            for budget in run["budgets"]:
                for seed in run["seeds"]:
                    key = (task["name"], method, budget, seed)
                    trials = {
                        r["learning_rate"]: r
                        for r in records
                        if r["type"] == "trial"
                        and (r["task"], r["method"], r["budget"], r["seed"]) == key
                    }
                    if set(trials) != set(run["learning_rates"]):
                        continue
                    best = None
                    for rate in sorted(trials):  # ascending: a later one must be strictly better
                        if best is None or better(trials[rate], trials[best]):
                            best = rate
                    search = sum(
                        r["ledger"]["train"] + r["ledger"]["validate"]
                        for rate, r in trials.items()
                        if rate != best
                    )
                    found[key] = (trials[best]["id"], trials[best]["dev_test"], search)
    return found


def better(new, old):
    if new["diverged"] != old["diverged"]:
        return old["diverged"]
    number = [r["dev"] if r["dev"] is not None and r["dev"] == r["dev"] else -1 for r in (new, old)]
    return number[0] > number[1]


OUTCOMES = st.one_of(
    # Few values, so that there are ties.
    st.tuples(st.sampled_from([0.1, 0.5, 0.50001, 0.9]), st.just(False)),
    st.tuples(st.sampled_from([None, float("nan"), 0.95]), st.just(True)),
    st.none(),  # not done yet
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_results_equal_a_brute_force_recomputation(make_records, pending, of_before, data):
    records = make_records(**SMALL)
    trials = [r for r in records if r["type"] == "trial"]
    outcomes = data.draw(st.lists(OUTCOMES, min_size=len(trials), max_size=len(trials)))
    for trial, outcome in zip(trials, outcomes, strict=True):
        if outcome is None:
            records[records.index(trial)] = pending(trial)
        else:
            trial["dev"], trial["diverged"] = outcome
    expected = brute_force(records)
    order = data.draw(st.randoms(use_true_random=False))
    order.shuffle(records)
    rows = report.results(records)
    got = {(r["task"], r["method"], r["budget"], r["seed"]): r for r in rows}
    assert len(got) == len(rows)
    assert {k: (r["trial"], r["dev_test"], r["search_flops"]) for k, r in got.items()} == expected
    # Rows stand in the order of the run record.
    assert list(got) == list(expected)
    # An earlier version did not say what is left to do: all that is missing of a product.
    assert report.results(of_before(records)) == rows


def test_order_and_repetition_of_lines_do_not_matter(make_records):
    records = make_records()
    expected = to_csv(report.results(records))
    assert expected.count("\n") == 3 * 4 * 3 * 2 + 1
    shuffled = records + records[3:20]
    random.Random(0).shuffle(shuffled)
    assert to_csv(report.results(shuffled)) == expected


def _one_search(make_records):
    records = make_records(("digits",), ("dense",), (10**11,), (0.03, 0.1, 0.3), (0,))
    return records, [r for r in records if r["type"] == "trial"]


def test_tie_goes_to_the_smaller_learning_rate(make_records):
    records, trials = _one_search(make_records)
    for trial in trials:
        trial["dev"] = 0.5
    trials[0]["learning_rate"], trials[2]["learning_rate"] = 0.3, 0.03
    (row,) = report.results(records)
    assert row["learning_rate"] == 0.03
    assert row["trial"] == trials[2]["id"]


def test_diverged_loses_though_its_number_is_higher(make_records):
    records, trials = _one_search(make_records)
    for trial, (dev, diverged) in zip(
        trials, [(0.9, True), (0.2, False), (math.nan, True)], strict=True
    ):
        trial["dev"], trial["diverged"] = dev, diverged
    (row,) = report.results(records)
    assert (row["trial"], row["dev"]) == (trials[1]["id"], 0.2)
    assert row["dev_test"] == trials[1]["dev_test"]


def test_all_diverged_gives_a_row_without_a_number(make_records):
    records, trials = _one_search(make_records)
    for trial in trials:
        trial.update(dev=None, dev_test=math.nan, diverged=True)
    (row,) = report.results(records)
    assert (row["dev"], row["dev_test"], row["learning_rate"]) == (None, None, 0.03)
    line = to_csv([row]).splitlines()[1].split(",")
    assert line[NAMES.index("dev")] == line[NAMES.index("dev_test")] == ""


def test_no_row_while_a_trial_is_left_to_do(make_records, pending):
    records, trials = _one_search(make_records)
    records.remove(trials[1])
    assert report.results([*records, pending(trials[1])]) == []
    # A search that never wanted that rate is complete.
    (row,) = report.results(records)
    assert row["search_flops"] > 0


def test_a_search_may_try_rates_that_the_run_does_not_name(make_records):
    records, trials = _one_search(make_records)
    trials[0]["learning_rate"], trials[0]["dev"] = 0.007, 0.95
    (row,) = report.results(records)
    assert row["learning_rate"] == 0.007


def test_csv_reads_back_exactly(make_records):
    records = make_records()
    records[0]["tasks"][0]["name"] = 'odd, "name"'
    for record in records:
        if record.get("task") == "digits":
            record["task"] = 'odd, "name"'
    rows = report.results(records)
    assert list(rows[0]) == NAMES
    back = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert len(back) == len(rows)
    for line, row in zip(back, rows, strict=True):
        assert line["task"] == row["task"]
        assert float(line["dev"]) == row["dev"]
        assert int(line["search_flops"]) == row["search_flops"]
        assert line["ratio"] == ("" if row["ratio"] is None else repr(row["ratio"]))


def test_whole_numbers_in_json_do_not_change_the_csv(make_records):
    records, trials = _one_search(make_records)
    trials[0]["dev"] = 1
    as_int = to_csv(report.results(records))
    trials[0]["dev"] = 1.0
    assert to_csv(report.results(records)) == as_int
    assert ",1.0," in as_int


@pytest.mark.parametrize("records", [[], [{"type": "weather"}, {}]])
def test_nothing_gives_no_rows(records):
    assert report.results(records) == []


def test_trials_without_a_run_are_an_error(make_records):
    with pytest.raises(UserError, match="no run record"):
        report.results(make_records()[1:])
