"""Whether a process is still there: alive, dead, dead but not buried, and its id used again."""

import os
import signal
import subprocess

import pytest

from ctl_jax.experiment import processes
from ctl_jax.experiment.processes import Process, is_gone, this_process

pytestmark = pytest.mark.skipif(not this_process().machine, reason="needs Linux's /proc")


@pytest.fixture
def child():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def _describe(child: subprocess.Popen) -> Process:
    return this_process()._replace(pid=child.pid, start=processes._started(child.pid))


def test_this_one_is_here():
    here = this_process()
    assert here.pid == os.getpid()
    assert here.start > 0
    assert not is_gone(here)


def test_a_killed_one_is_gone_before_and_after_it_is_buried(child):
    process = _describe(child)
    assert not is_gone(process)
    child.send_signal(signal.SIGSTOP)
    assert not is_gone(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(process)
    child.wait()
    assert is_gone(process)


def test_another_with_the_same_id_is_another(child):
    assert is_gone(_describe(child)._replace(start=1))


def test_of_other_machines_nothing_is_known(child):
    process = _describe(child)._replace(machine="another boot")
    child.kill()
    child.wait()
    assert not is_gone(process)


def test_without_proc_nothing_is_known(child, monkeypatch):
    monkeypatch.setattr(processes, "_machine", lambda: "")
    processes._process.cache_clear()
    try:
        assert not is_gone(this_process()._replace(start=1))
    finally:
        processes._process.cache_clear()
