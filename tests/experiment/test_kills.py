"""Runs that are killed, stopped or cannot write end like one that was left alone.

The runs are children of `forked_runs.py`, which imports once.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ..quickly import FLAGS

RUNS = pathlib.Path(__file__).with_name("forked_runs.py")
KILLS = 20


@pytest.mark.slow
def test_disturbed_runs(tmp_path):
    """One test, so that processes of pytest that share the work do not each make the runs."""
    done = subprocess.run(
        [sys.executable, RUNS, tmp_path, str(KILLS), "0"],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS},
    )
    assert done.returncode == 0, done.stderr
    disturbed = json.loads(done.stdout)
    _check_results_are_those_of_an_undisturbed_run(disturbed)
    _check_who_is_stopped_is_told_how_to_go_on(disturbed)
    _check_a_file_that_cannot_be_written_is_one_line(disturbed)
    _check_a_group_stops_together_and_goes_on(disturbed["group"], disturbed["undisturbed"])


def _check_results_are_those_of_an_undisturbed_run(disturbed):
    """Byte for byte, after 20 kills and some signals at random moments, and a full disk."""
    assert disturbed["undisturbed"]["csv"].count("\n") == 4
    # Of a trial of two phases with fewer channels, and of a dense one.
    assert len(disturbed["undisturbed"]["losses"]) == 21 + 15
    # The pretrained weights, and the best.
    assert len(disturbed["undisturbed"]["models"]) == 2
    assert len(disturbed["results"]) >= 3
    for results in disturbed["results"]:
        assert results == disturbed["undisturbed"]
    assert disturbed["left"] == []


def _check_who_is_stopped_is_told_how_to_go_on(disturbed):
    *killed, interrupted, preempted = disturbed["stops"]
    assert killed == [["SIGKILL", -9, ""]] * KILLS
    for (_, status, errors), expected, told in (
        (interrupted, 130, "Interrupted."),
        (preempted, 75, "Told to stop (SIGTERM)."),
    ):
        assert status == expected
        message, command = errors.splitlines()
        assert message == f"{told} Nothing done is lost. This goes on:"
        assert str(RUNS) in command


def _check_a_file_that_cannot_be_written_is_one_line(disturbed):
    status, errors = disturbed["limited"]
    assert status == 1
    (line,) = errors.splitlines()
    assert line.startswith("ctl_jax: File too large")
    assert line.endswith("then the same command goes on, and nothing done is lost")


def _check_a_group_stops_together_and_goes_on(group, undisturbed):
    """The second of its two processes is told to stop."""
    assert group["stopped"] == [75, 75]
    assert group["kept"]
    assert group["again"] == [0, 0]
    # Of one process to float tolerance: sums are taken in another order.
    assert group["losses"] == pytest.approx(undisturbed["losses"], rel=1e-3)
