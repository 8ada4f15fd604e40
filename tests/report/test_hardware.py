"""What steps were computed on, and a warning where that differs."""

from ctl_jax import report
from ctl_jax.records import Hardware
from ctl_jax.report import hardware
from ctl_jax.report.table import read

ONE, TWO = (
    {"device": "cpu", "devices": 1, "processor": "EPYC 7B13", "cores": cores} for cores in (1, 2)
)


def on(lines, *kinds):
    """The records, their trials computed on the kinds of hardware in turn."""
    number = 0
    for line in lines:
        if line["type"] == "trial":
            number += 1
            line = {**line, "computed_on": kinds[number % len(kinds)]}
        yield line


def test_one_kind_is_no_news(make_records):
    table = read(on(make_records(), TWO))
    assert hardware.counts(table) == {Hardware(**TWO): len(table.trials)}
    assert hardware.listed(table) == f"{len(table.trials)} steps on EPYC 7B13, 2 cores"
    assert hardware.warning(table) == ""


def test_records_of_before_are_no_kind(make_records):
    table = read(on(make_records(), TWO, None))
    assert list(hardware.counts(table)) == [Hardware(**TWO)]
    assert hardware.warning(table) == ""


def test_workers_that_differ_are_told_of(make_records):
    lines = list(on(make_records(), TWO, ONE, TWO))
    found = hardware.warning(read(lines))
    assert found.endswith("144 steps on EPYC 7B13, 2 cores; 72 steps on EPYC 7B13, 1 core.")
    assert found in report.summary(lines).replace("\n", " ")
    assert "Steps were computed on different hardware" not in report.summary(make_records())
