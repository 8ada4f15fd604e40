"""Workers as real processes, one killed and one stopped: nothing is done twice or lost."""

import collections
import json
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
    """(worker, word, step) of every line that a worker wrote."""
    return [
        (index, *line.split(" "))
        for index in range(4)
        for line in (folder / f"worker{index}.txt").read_text().splitlines()
    ]


def test_every_step_is_completed_once(folder, notes):
    ids = json.loads((folder / "ids.json").read_text())
    assert set(ids) == {"source", *map(str, range(40))}
    done = {path.stem for path in (folder / "run" / "steps").iterdir()}
    assert done == set(ids.values())
    committed = [(*step, index) for index, word, *step in notes if word == "committed"]
    assert len(committed) == len(dict(committed)) == len(ids)
    for step, index in committed:
        (record,) = Store(folder / "run", {}).load(ids[step])
        assert record.step == index


def test_what_others_need_is_done_by_one_worker_first(notes):
    firsts = {index: rest for index, *rest in reversed(notes)}
    assert list(firsts.values()).count(["began", "source"]) == 1
    (worker,) = (index for index, *rest in notes if rest == ["began", "source"])
    assert [rest for index, *rest in notes if index == worker][1] == ["committed", "source"]


def test_the_killed_workers_step_and_share_were_taken_up(notes):
    assert (0, "began", "2") in notes
    assert (0, "committed", "2") not in notes
    took = {index for index, word, *rest in notes if rest == ["2"] and word == "committed"}
    assert took <= {1, 2, 3}


def test_the_stopped_worker_discarded_what_it_had_lost_and_worked_on(notes):
    own = [(word, *rest) for index, word, *rest in notes if index == 1]
    assert ("lost", "12") in own
    assert [line for line in notes if line[1] == "lost"] == [(1, "lost", "12")]


def test_only_what_was_killed_or_lost_was_begun_twice(notes):
    began = collections.Counter(rest[0] for _, word, *rest in notes if word == "began")
    assert {step for step, count in began.items() if count > 1} == {"2", "12"}


def test_one_worker_reports(folder, notes):
    assert len([line for line in notes if line[1] == "reported"]) == 1
    assert [path.name for path in (folder / "run" / "leases").iterdir()] == ["report.0"]
    assert list((folder / "run" / "steps").glob(".*")) == []
