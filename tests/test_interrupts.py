"""Signals: where they raise, where they are only noted, and how the program ends."""

import gc
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from ctl_jax import interrupts
from ctl_jax.interrupts import Stopped


@pytest.fixture
def caught():
    """Handlers in place, and whatever was there before put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts.install()
    with interrupts.catching():
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_a_signal_raises_where_the_program_is(caught, number, status):
    with pytest.raises(Stopped) as stopped:
        signal.raise_signal(number)
    assert stopped.value.signal == number
    assert stopped.value.status == status
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert interrupts.requested()


def test_it_raises_once_so_that_saving_is_not_cut_short(caught):
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    with interrupts.deferred():
        interrupts.check()
    interrupts.check()
    assert interrupts.requested()


def test_deferred_it_is_noted_and_raises_at_the_end(caught):
    reached = []

    def work():
        with interrupts.deferred():
            assert not interrupts.requested()
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.requested()
            reached.append(1)
        reached.append(2)

    with pytest.raises(Stopped):
        work()
    assert reached == [1]


def test_a_loop_that_sees_it_raises_itself(caught):
    def loop():
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
            raise interrupts.stop()

    with pytest.raises(Stopped) as stopped:
        loop()
    assert stopped.value.signal == signal.SIGINT


def test_a_process_that_stops_with_its_group_was_preempted():
    assert interrupts.stop().status == 75


@pytest.mark.parametrize("before", [True, False])
def test_a_part_of_what_is_deferred_may_be_left(caught, before):
    def work():
        if before:
            signal.raise_signal(signal.SIGTERM)
        with interrupts.deferred(False):
            assert not before
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("went on")

    with interrupts.deferred(), pytest.raises(Stopped):
        work()


def test_an_error_passes_through_what_is_deferred(caught):
    def work():
        with interrupts.deferred():
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


class _Freed:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def _forgotten():
    """Frees an object that a weak reference watches, as jax's caches do."""
    kept = {1: set()}
    watcher = weakref.ref(kept[1], lambda _: signal.raise_signal(signal.SIGTERM))
    del kept[1]
    return watcher


def _collected():
    """As jax has it, which frees its own objects along with Python's."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(callback)
    gc.collect()


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("free", [_Freed, _forgotten, _collected])
def test_where_python_would_swallow_it_it_comes_again(caught, capfd, monkeypatch, free, busy):
    class Timer(threading.Timer):
        """Of a machine so busy that what it sends is there before it is said to have started."""

        def start(self):
            super().start()
            if not sent:
                sent.append(True)
                time.sleep(0.2)

    sent = []
    if busy:
        monkeypatch.setattr(threading, "Timer", Timer)

    def work():
        free()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)

    with pytest.raises(Stopped):
        work()
    assert interrupts.requested()
    assert capfd.readouterr().err == ""


def test_what_else_python_swallows_is_said_as_ever(caught, monkeypatch):
    class Freed:
        def __del__(self):
            raise ZeroDivisionError

    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: said.append(it.exc_type))
    with interrupts.catching():
        Freed()
    assert said == [ZeroDivisionError]


def test_the_next_program_part_starts_afresh(caught):
    with interrupts.catching(), pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)
    assert not interrupts.requested()


def _run(body, *arguments):
    code = "import signal, time; from ctl_jax import interrupts; interrupts.install()\n" + body
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_before_there_is_anything_to_save_the_program_ends_at_once():
    done = _run("signal.raise_signal(signal.SIGTERM); print('went on')", "--config=a b.py")
    assert (done.returncode, done.stdout) == (75, "")
    first, second = done.stderr.splitlines()[0], done.stderr.splitlines()[-1]
    assert first == "Told to stop (SIGTERM). Nothing done is lost. This goes on:"
    assert second.endswith(" '--config=a b.py'")


def test_a_second_ctrl_c_ends_at_once():
    done = _run(
        "with interrupts.catching(), interrupts.deferred():\n"
        "    signal.raise_signal(signal.SIGINT); print('saving', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM); print('still', flush=True)\n"
        "    signal.raise_signal(signal.SIGINT); print('went on', flush=True)\n"
    )
    assert (done.returncode, done.stdout) == (130, "saving\nstill\n")
    assert done.stderr.startswith("Interrupted. Nothing done is lost. This goes on:\n")


def test_nothing_heavy_is_imported():
    """So that the handlers are in place before seconds of imports."""
    done = _run("import sys; print([m for m in ('jax', 'numpy', 'absl') if m in sys.modules])")
    assert done.stdout == "[]\n"
