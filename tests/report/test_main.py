"""The command: reports of one run, and of several."""

import csv
import json

import pytest

from ctl_jax.report.__main__ import main


@pytest.fixture
def run(make_records, tmp_path):
    """Writes a run's records, and returns its folder."""

    def write(name, **axes):
        lines = make_records(
            **{"tasks": ("digits",), "methods": ("dense",), "rates": (0.1,)} | axes
        )
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "records.jsonl").write_text(text, "utf-8")
        return str(tmp_path / name)

    return write


def _rows(folder, name="results.csv"):
    with open(f"{folder}/{name}", newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_of_a_run_is_written_again(run, capsys):
    folder = run("one")
    assert main([folder]) == 0
    shown = capsys.readouterr().out
    assert f"wrote {folder}/report.html" in shown
    assert "Results on embedded" in shown
    assert len(_rows(folder)) == 3 * 2


def test_runs_are_compared(run, tmp_path, capsys):
    one, other = run("one", seeds=(0,)), run("other", seeds=(1, 2), methods=("dense", "scratch"))
    assert main([one, other]) == 0
    assert "wrote" not in capsys.readouterr().out
    out = tmp_path / "out"
    assert main([f"a={one}", f"b={other}", f"--out={out}", "--baseline=dense (b)"]) == 0
    assert {row["method"] for row in _rows(out)} == {"dense (a)", "dense (b)", "scratch (b)"}
    assert {row["baseline"] for row in _rows(out, "comparisons.csv")} == {"dense (b)"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["absent"], "run absent: no records.jsonl; expected the --workdir of a run"),
        (["ONE", "--baseline=sparse"], "baseline 'sparse': expected one of dense"),
        (["ONE", "--bseline=dense"], "unrecognized arguments: --bseline=dense; see python -m ctl"),
    ],
)
def test_bad_input_is_one_line(run, capsys, arguments, expected):
    folder = run("one")
    assert main([folder if each == "ONE" else each for each in arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
