"""A worker that is followed to its end, on a cloud in which each command may fail."""

import os
import shlex
import shutil
import signal
import threading

import pytest

from ctl_jax import startup
from launch import tpu


@pytest.mark.parametrize(("ending", "tries"), [(1, 3), (2, 1)])
def test_a_program_that_fails_ends_its_worker(cloud, capsys, ending, tries):
    cloud.behave(0, ending)
    assert cloud.run("--tries=3") == ending
    assert len(cloud.started()) == tries
    output = capsys.readouterr().out
    assert f"run-0: failed with status {ending}, {tries} of 3 times" in output
    # The end of its log says why.
    assert f"worker 0: {ending}\n" in output
    assert cloud.verbs("run-0")[-1] == "delete"


def test_a_set_up_that_fails_is_said(cloud, capsys):
    (cloud.folder / "no_index").touch()
    assert cloud.run("--tries=2") == 1
    output = capsys.readouterr().out
    assert "run-0: the program was not installed: uv: no index, 2 of 2 times\n" in output
    assert cloud.started() == []


def test_a_machine_that_does_not_answer_is_replaced(cloud, monkeypatch):
    monkeypatch.setattr("launch.supervision._SILENT", 2)
    shell = tpu.Slice.shell
    silent = iter([True] * 2)

    def sometimes(self, text, **arguments):
        if next(silent, False):
            text = "exit 255"
        return shell(self, text, **arguments)

    monkeypatch.setattr(tpu.Slice, "shell", sometimes)
    assert cloud.run() == 0
    assert cloud.verbs("run-0").count("create") == 2


@pytest.mark.parametrize("own", [[], ["--delete"]])
def test_a_deletion_that_fails_is_tried_again_and_told(cloud, capsys, monkeypatch, own):
    monkeypatch.setattr("launch.supervision._AGAIN_S", (0.01, 0.02))
    for name in ("run-0", "run-1"):
        cloud.machine(name).create()
    argv = ["--workers=2", *own]
    cloud.fail("early-delete-run-0", times=2)
    assert cloud.run(*argv) == 0
    assert "run-0: cannot be deleted: no such luck; again in 0.02 s\n" in capsys.readouterr().out
    assert cloud.machines() == []

    cloud.machine("run-0").create()
    cloud.fail("early-delete-run-0")
    assert cloud.run(*argv) == 1
    # What stays is named at the end, with the command for it, and nothing else.
    output = capsys.readouterr().out
    left, command = output.splitlines()[-2:]
    assert left.startswith("Still there, and paid for")
    assert command.startswith("  gcloud compute tpus queued-resources delete run-0 --project=p ")
    (cloud.folder / "early-delete-run-0").unlink()
    assert os.system(command) == 0
    assert cloud.machines() == []


@pytest.mark.parametrize(
    ("file", "content", "status", "expected"),
    [
        ("early-create-run-0", "99 no quota", 1, "creation failed: no quota"),
        ("late-create-run-0", "99 no answer", 1, "creation failed: no answer"),
        ("early-scp-run-0", "99 disk full", 1, "the code was not copied: disk full"),
        ("becomes-run-0", "FAILED/no_zone", 1, "FAILED: no_zone"),
        ("becomes-run-0", "SUSPENDED", 1, "SUSPENDED"),
        ("early-ssh-run-0", "99 port 22", 255, "cannot be reached: port 22"),
    ],
)
def test_nothing_is_tried_for_ever(cloud, capsys, monkeypatch, file, content, status, expected):
    monkeypatch.setattr("launch.supervision._SILENT", 2)
    (cloud.folder / file).write_text(f"{content}\n")
    tries = 1 if file.startswith("late") else 2
    assert cloud.run(f"--tries={tries}") == status
    assert f"run-0: {expected}, {tries} of {tries} times\n" in capsys.readouterr().out
    assert cloud.started() == []
    # Nothing is left, also where the creation was only said to have failed.
    assert cloud.machines() == []


def test_a_machine_that_starts_anew_each_time_is_given_up(cloud, capsys, monkeypatch):
    cloud.behave(0, "sleep")
    shell = tpu.Slice.shell

    def rebooted(self, text, **arguments):
        done = shell(self, text, **arguments)
        if "nohup" in text:
            memory = cloud.folder / "vms/run-0/shm/ctl_jax"
            for name in ("shell", "pid"):
                os.kill(int((memory / name).read_text()), signal.SIGKILL)
            shutil.rmtree(memory)
        return done

    monkeypatch.setattr(tpu.Slice, "shell", rebooted)
    assert cloud.run("--tries=2") == 1
    output = capsys.readouterr().out
    assert (
        "run-0: the program is gone: the machine was started again, or does other work, 2 of"
        in output
    )
    assert cloud.machines() == []


def test_a_machine_that_came_all_the_same_is_used(cloud, capsys):
    cloud.fail("late-create-run-0", times=1)
    assert cloud.run() == 0
    assert cloud.verbs("run-0").count("create") == 1
    assert "run-0: creation failed: no such luck, 1 of 3 times\n" in capsys.readouterr().out
    assert cloud.machines() == []


def test_a_machine_that_can_no_longer_be_asked_for_is_named(cloud, capsys, monkeypatch):
    monkeypatch.setattr("launch.supervision._SILENT", 2)
    monkeypatch.setattr("launch.supervision._AGAIN_S", ())
    cloud.behave(0, "sleep")
    state = tpu.Slice.state

    def lost(self):
        # As where the credentials end, once the program runs.
        if cloud.started():
            for verb in ("describe", "delete"):
                cloud.fail(f"early-{verb}-run-0", why="log in again")
        return state(self)

    monkeypatch.setattr(tpu.Slice, "state", lost)
    assert cloud.run("--tries=1") == 255
    output = capsys.readouterr().out
    assert "run-0 cannot be described: log in again, 1 of 1 times\n" in output
    assert shlex.split(output.splitlines()[-1])[4:6] == ["delete", "run-0"]
    os.kill(int((cloud.folder / "vms/run-0/shm/ctl_jax/pid").read_text()), signal.SIGKILL)


@pytest.fixture
def ctrl_c():
    """As in a terminal: what a script starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_names_what_goes_on(cloud, capsys, monkeypatch):
    def interrupted(self):
        self._machine.create()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert self._stop.wait(60)
        return 75

    monkeypatch.setattr(tpu.Supervisor, "run", interrupted)
    assert cloud.run() == 130
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("The machines go on: the same command follows them")
    assert shlex.split(output[-1])[4:6] == ["delete", "run-0"]


def test_a_refusal_is_told_before_the_others_end(cloud, capsys, monkeypatch):
    cloud.fail("early-describe-run-0", why="PERMISSION_DENIED: no quota")
    fail, started = startup.fail, []

    def told(*arguments):
        started.append(len(cloud.started()))
        return fail(*arguments)

    monkeypatch.setattr(startup, "fail", told)
    assert cloud.run("--workers=2") == 2
    assert started == [0]
    output, errors = capsys.readouterr()
    assert errors == "launch.tpu: run-0 cannot be described: PERMISSION_DENIED: no quota\n"
    assert "run-1: done\n" in output
    assert cloud.machines() == []
