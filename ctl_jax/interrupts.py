"""Ctrl-C and preemption: a program that is told to stop saves first, and says how to go on.

SIGTERM is what a cluster sends before it takes a machine away, SIGINT what Ctrl-C sends. Either
raises `Stopped` where the program is, except inside `deferred()`: there it is only noted, and the
program stops where it can be taken up again (`requested`). This module imports no library, so that
it can be in force while the others are imported.
"""

import _thread
import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

# The status of a program that was told to stop and can be taken up again: EX_TEMPFAIL for a
# preemption, which a cluster may tell from a failure, and a shell's own for Ctrl-C.
PREEMPTED, INTERRUPTED = 75, 130

# The signal that came first, whether it raised already (it does once: what is done at the end must
# not be cut short), whether it may raise now, and whether anything would catch it.
_signal: signal.Signals | None = None
_raised = False
_deferring = False
_catching = False
# Whether the next signal is one that came at such a moment that it had to be put off.
_retrying = False
# Functions that Python calls on its own: when it frees objects (jax has one, too).
_SWALLOWING = ("__del__", "_xla_gc_callback")


class Stopped(KeyboardInterrupt):
    """The program was told to stop.

    Attributes:
      signal: by which signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number

    @property
    def status(self) -> int:
        """What the program ends with."""
        return INTERRUPTED if self.signal == signal.SIGINT else PREEMPTED


def install() -> None:
    """Handles SIGINT and SIGTERM from now on; only the main thread may call it.

    Until `catching` is entered there is nothing to save, and a signal ends the program at once.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


def ignore() -> None:
    """Lets the program end in peace, with the status that it has: there is nothing left to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def catching() -> Iterator[None]:
    """Within it signals raise `Stopped` instead of ending the program on the spot."""
    global _catching, _signal, _raised, _deferring
    _catching, _signal, _raised, _deferring = True, None, False, False
    try:
        yield
    finally:
        _catching, _signal, _raised, _deferring = False, None, False, False


@contextlib.contextmanager
def deferred(defer: bool = True) -> Iterator[None]:
    """Within it a signal is only noted; at its end the signal raises, if there was one.

    Args:
      defer: False turns it round: inside a deferred part, one that may be left at any moment.

    Raises:
      Stopped: at the end, or with `defer=False` also at the beginning.
    """
    global _deferring
    before, _deferring = _deferring, defer
    try:
        check()
        yield
    finally:
        _deferring = before
    check()


def requested() -> bool:
    """Whether the program was told to stop."""
    return _signal is not None


def check() -> None:
    """Raises `Stopped` where the program was told to stop, nothing defers it, and none did yet."""
    if _signal is not None and not _deferring and not _raised:
        raise stop()


def stop() -> Stopped:
    """The exception for a loop to raise that saw `requested`, or whose group agreed to stop.

    A process that stops because another of its group got the signal was preempted like it.
    """
    global _raised
    _raised = True
    return Stopped(_signal or signal.SIGTERM)


def farewell(number: signal.Signals) -> str:
    """What to print at the end: what happened, and the command that goes on."""
    what = "Interrupted" if number == signal.SIGINT else "Told to stop (SIGTERM)"
    return f"{what}. Nothing done is lost. This goes on:\n  {shlex.join(sys.orig_argv)}"


def _handle(number: int, frame: FrameType | None) -> None:
    global _signal, _retrying
    again = _signal is not None and not _retrying
    _retrying = False
    if again and number == signal.SIGTERM:
        return  # Clusters repeat themselves; what has to be done is being done.
    if not again:
        _signal = signal.Signals(number)
    if again or not _catching:
        # Nothing is damaged: files appear under their names when they are whole.
        _end(signal.Signals(number))
    if _is_swallowed(frame):
        _retrying = True
        threading.Timer(0.01, _thread.interrupt_main, [number]).start()
        return
    check()


def _is_swallowed(frame: FrameType | None) -> bool:
    """Whether Python would print an exception that is raised here, and go on without it."""
    while frame is not None:
        if frame.f_code.co_name in _SWALLOWING:
            return True
        frame = frame.f_back
    return False


def _end(number: signal.Signals) -> None:
    # Not through `print`, which the signal may have interrupted; and a progress bar hides the
    # cursor.
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    os.write(2, f"{cursor}{farewell(number)}\n".encode())
    os._exit(Stopped(number).status)
