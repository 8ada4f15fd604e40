"""The table at the end of a run."""

import re

from ctl_jax import report
from ctl_jax.report.statistics import mean_interval


def test_numbers_stand_in_columns(make_records):
    records = make_records()
    for record in records:
        if record["type"] == "trial":
            record["dev_test"] = 0.4 if record["method"] == "scratch" else 0.5
    lines = report.summary(records).splitlines()
    assert lines[0] == "Results on embedded with resnet18 (2, 2, 2, 2)"
    table = lines[2:9]
    assert table[0].split() == ["budget", "100", "GFLOP", "400", "GFLOP", "1.6", "TFLOP"]
    assert table[1].split() == ["tasks", "3", "3", "3"]
    assert table[3].split() == ["dense", "0.500", "0.500", "0.500"]
    assert table[6].split() == ["scratch", *["0.400", "-20.0%"] * 3]
    columns = [[m.start() for m in re.finditer(r"0\.\d{3}", line)] for line in table[3:]]
    assert len(columns[0]) == 3
    assert all(column == columns[0] for column in columns)


def test_it_fits_into_80_characters_and_into_ascii(make_records):
    budgets = tuple(10**11 * 2**i for i in range(6))
    text = report.summary(make_records(budgets=budgets))
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("\nbudget ") == 2


def test_what_is_wrong_is_said(make_records, pending):
    records = make_records()
    records[0]["missing"] = [{"name": "cars", "title": "Cars", "reason": "no folder"}]
    records[-2].update(diverged=True, dev=None)
    text = report.summary([*records[:-1], pending(records[-1])])
    assert "Missing tasks (1): cars" in text
    assert "Trials not done yet: 1 of 216 (rows held up: 1)" in text
    assert "Diverged trials: 1 of 215" in text


def test_who_is_best_is_said_with_an_interval(make_records):
    records = make_records(seeds=(0,))
    gains = {"digits": 0.3, "glyphs": -0.1, "textures": 0.05}
    for record in records:
        if record["type"] == "trial":
            gain = gains[record["task"]] if record["method"] == "filters@0.5" else 0
            record["dev"] = record["dev_test"] = 0.5 + gain
    said = " ".join(report.summary(records).split())
    low, high = mean_interval([0.3, -0.1, 0.05])[1:]
    # Dense has .5 everywhere.
    percents = f"({200 * low:+.1f}% to {200 * high:+.1f}%)"
    assert (
        "At the smallest budget (100 GFLOP) filters@0.5 is best on dev, with 0.583 "
        f"({0.5 + low:.3f} to {0.5 + high:.3f}) on dev_test: +0.083 ({low:+.3f} to {high:+.3f}) "
        f"or +16.7% {percents} against dense."
    ) in said
    assert "One seed: how much another seed would change is not known." in said
    assert "against scratch" in report.summary(records, baseline="scratch")


def test_no_dense_no_percent(make_records):
    text = report.summary(make_records(methods=("filters@0.5",)))
    assert "%" not in text
    assert "0." in text


def test_nothing_to_say(make_records, pending):
    assert "no run" in report.summary([])
    run, *lines = make_records()
    left = [pending(line) for line in lines if line["type"] == "trial"]
    assert "Trials not done yet: 216 of 216" in report.summary([run, *left])


def test_probes_are_compared_and_what_they_share_is_said(make_probed):
    text = report.summary(make_probed())
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    said = " ".join(text.split())
    assert "overtakes fitted heads: from 1.6 TFLOP on it is ahead (dense minus probe at" in said
    assert "it is behind up to 400 GFLOP." in said
    assert "all images from 400 GFLOP on, where a larger budget changes nothing: probe." in said
    assert "Charged to trials as if each were alone: " in said


def test_how_auto_chose_is_said(make_chosen):
    text = report.summary(make_chosen())
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    said = " ".join(text.split())
    assert said.count("auto looked at dense@48px on 60 images") == 3
    assert said.count("Ten times the budget (another ") == 3
    assert "what counts is the measured score." in said
