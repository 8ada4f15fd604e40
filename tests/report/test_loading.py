"""A run as DataFrames: the same numbers as its records and its results.csv, in their types."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from ctl_jax import records, report
from ctl_jax.errors import UserError
from ctl_jax.report import spending
from ctl_jax.report._table import read


def _write(lines, folder):
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "records.jsonl").write_text(text, "utf-8")
    return folder


@pytest.fixture
def lines(make_probed):
    return make_probed(tasks=("digits", "glyphs"), methods=("dense", "filters@0.5"))


def test_results_are_results_csv(lines, tmp_path):
    frames = report.load(_write(lines, tmp_path))
    report.write(lines, tmp_path)
    read_back = pd.read_csv(tmp_path / "results.csv", dtype=dict(frames.results.dtypes))
    pd.testing.assert_frame_equal(frames.results, read_back)


def test_trials_are_the_records(lines, tmp_path):
    trials = report.load(_write(lines, tmp_path)).trials.set_index("id")
    given = {line["id"]: line for line in lines if line["type"] == "trial"}
    assert sorted(trials.index) == sorted(given)
    assert "ledger" not in trials
    for name in ("task", "budget_flops", "dev_test", "wall_s", "diverged"):
        assert trials[name].to_dict() == {id: line[name] for id, line in given.items()}
    examples = {id: line["examples"] for id, line in given.items() if line["examples"]}
    assert trials.examples.dropna().to_dict() == examples


def test_types_are_those_of_the_records(lines, tmp_path):
    trials = report.load(_write(lines, tmp_path)).trials
    types = {name: str(trials.dtypes[name]) for name in ("task", "dev", "steps", "examples")}
    assert types == {"task": "str", "dev": "float64", "steps": "int64", "examples": "Int64"}
    assert (str(trials.dtypes["scope"]), str(trials.dtypes["diverged"])) == ("str", "bool")
    named = [column.name for column in records.COLUMNS]
    assert list(report.load(tmp_path).results) == named


def test_ledger_and_steps_sum_to_what_was_charged_and_computed(lines, tmp_path):
    frames, table = report.load(_write(lines, tmp_path)), read(lines)
    found = spending.sharing(table)
    assert frames.ledger.flops.sum() == found.charged
    own = frames.steps[frames.steps.type != "pretrain"]
    assert own.flops.sum() == found.computed
    assert frames.steps.id.is_unique
    spent = frames.ledger.pivot_table("flops", "method", "purpose", "sum")
    assert spent.loc["dense", "validate"] == sum(
        line["ledger"]["validate"]
        for line in lines
        if line["type"] == "trial" and line["method"] == "dense"
    )


def test_more_flops_than_64_bits_hold(lines, tmp_path):
    for line in lines:
        if line["type"] == "trial" and line["method"] == "dense":
            line["ledger"]["search"] = 10**20
    ledger = report.load(_write(lines, tmp_path)).ledger
    assert (ledger.flops.dtype, ledger.flops.max()) == (np.float64, 1e20)


def test_no_trial_gives_typed_frames_without_rows(lines, tmp_path):
    frames = report.load(_write(lines[:1], tmp_path))
    assert [len(frame) for frame in frames] == [0, 0, 0, 0]
    assert str(frames.results.dtypes["dev_test"]) == "float64"


def test_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"no records.jsonl; expected the --workdir of a run"):
        report.load(tmp_path / "absent")
    (tmp_path / "records.jsonl").write_text("{}\n{")
    with pytest.raises(UserError, match=r"line 2 of records.jsonl is not JSON"):
        report.load(tmp_path)


def test_a_report_does_without_pandas(make_records, tmp_path):
    """Its import is a third of a second, which every run would wait for."""
    program = (
        "import json, sys; from ctl_jax import report; "
        "lines = [json.loads(line) for line in open(sys.argv[1])]; "
        "report.write(lines, sys.argv[2]); report.summary(lines); sys.exit('pandas' in sys.modules)"
    )
    lines = make_records(tasks=("digits",), budgets=(10**12,), rates=(0.1,))
    records_file = _write(lines, tmp_path) / "records.jsonl"
    command = [sys.executable, "-c", program, str(records_file), str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == 0
