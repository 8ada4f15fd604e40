"""Workers as real processes, one killed and one stopped: nothing is done twice or lost."""

import collections
import os
import pathlib
import subprocess
import sys

import pytest

from ctl_jax.experiment.store import Store

SCRIPT = pathlib.Path(__file__).with_name("worker_processes.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the workers left."""
    folder = tmp_path_factory.mktemp("workers")
    run = subprocess.run(
        [sys.executable, SCRIPT, folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[-9, 0, 0, 0]", run.stderr
    return folder


@pytest.fixture(scope="module")
def notes(folder):
    """(worker, word, trial) of every line that a worker wrote."""
    return [
        (index, *line.split(" "))
        for index in range(4)
        for line in (folder / f"worker{index}.txt").read_text().splitlines()
    ]


def test_every_trial_is_completed_once(folder, notes):
    done = {path.stem for path in (folder / "run" / "trials").iterdir()}
    assert done == {"pretrain", *(f"trial{number:02d}" for number in range(40))}
    committed = {
        trial: index for index, word, *trial in notes if word == "committed" for trial in trial
    }
    counts = collections.Counter(
        trial for _, word, *rest in notes if word == "committed" for trial in rest
    )
    assert set(counts.values()) == {1}
    assert set(counts) == done
    for trial, index in committed.items():
        (record,) = Store(folder / "run", {}).load_trial(trial)
        assert record == {"worker": index}


def test_the_killed_workers_trial_and_share_were_taken_up(notes):
    assert (0, "began", "trial02") in notes
    assert (0, "committed", "trial02") not in notes
    took = {index for index, word, *rest in notes if rest == ["trial02"] and word == "committed"}
    assert took <= {1, 2, 3}


def test_the_stopped_worker_discarded_what_it_had_lost_and_worked_on(notes):
    own = [(word, *rest) for index, word, *rest in notes if index == 1]
    assert ("lost", "trial12") in own
    assert [line for line in notes if line[1] == "lost"] == [(1, "lost", "trial12")]


def test_only_what_was_killed_or_lost_was_begun_twice(notes):
    began = collections.Counter(rest[0] for _, word, *rest in notes if word == "began")
    assert {trial for trial, count in began.items() if count > 1} == {"trial02", "trial12"}


def test_one_worker_reports(folder, notes):
    assert len([line for line in notes if line[1] == "reported"]) == 1
    assert [path.name for path in (folder / "run" / "leases").iterdir()] == ["report.0"]
    assert list((folder / "run" / "trials").glob(".*")) == []
