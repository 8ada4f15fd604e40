"""Ctrl-C and preemption: a program that is told to stop saves first, and says how to go on.

SIGTERM is what a cluster sends before it takes a machine away, SIGINT what Ctrl-C sends. Either
raises `Stopped` where the program is, except inside `deferred()`: there it is only noted, and the
program stops where it can be taken up again (`requested`). This module imports no library, so that
it can be in force while the others are imported.
"""

import _thread
import contextlib
import functools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# The status of a program that was told to stop and can be taken up again: EX_TEMPFAIL for a
# preemption, which a cluster may tell from a failure, and a shell's own for Ctrl-C.
PREEMPTED, INTERRUPTED = 75, 130


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


class _State:
    """What was signalled since `catching` was entered, and what a signal does now.

    Attributes:
      first: the signal that came first.
      raised: whether it has raised, which it does once: saving must not be cut short.
      catching: whether anything would catch it.
      deferring: whether it may not raise now.
      retrying: whether it would be swallowed now, since one that was is being sent again.
    """

    first: signal.Signals | None = None
    raised = False
    catching = False
    deferring = False
    retrying = False


_state = _State()


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
def catching(catch: bool = True) -> Iterator[None]:
    """Within it signals raise `Stopped` instead of ending the program on the spot.

    Args:
      catch: False turns it round: a part of what is caught in which there is nothing to save.
    """
    global _state
    before, _state, hook = _state, _State(), sys.unraisablehook
    _state.catching = catch
    sys.unraisablehook = functools.partial(_retry, hook)
    try:
        yield
    finally:
        _state, sys.unraisablehook = before, hook


@contextlib.contextmanager
def deferred(defer: bool = True) -> Iterator[None]:
    """Within it a signal is only noted; at its end the signal raises, if there was one.

    Args:
      defer: False turns it round: inside a deferred part, one that may be left at any moment.

    Raises:
      Stopped: at the end, or with `defer=False` also at the beginning.
    """
    before, _state.deferring = _state.deferring, defer
    try:
        check()
        yield
    finally:
        _state.deferring = before
    check()


def requested() -> bool:
    """Whether the program was told to stop."""
    return _state.first is not None


def check() -> None:
    """Raises `Stopped` where the program was told to stop, nothing defers it, and none did yet."""
    if requested() and not _state.deferring and not _state.raised:
        raise stop()


def stop() -> Stopped:
    """The exception for a loop to raise that saw `requested`, or whose group agreed to stop.

    A process that stops because another of its group got the signal was preempted like it.
    """
    _state.raised = True
    return Stopped(_state.first or signal.SIGTERM)


def farewell(number: signal.Signals) -> str:
    """What to print at the end: what happened, and the command that goes on."""
    what = "Interrupted" if number == signal.SIGINT else "Told to stop (SIGTERM)"
    return f"{what}. Nothing done is lost. This goes on:\n  {shlex.join(sys.orig_argv)}"


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.retrying:
        _send_again(number)
        return
    if requested() and number == signal.SIGTERM:
        return  # Clusters repeat themselves; what has to be done is being done.
    if requested() or not _state.catching:
        # Nothing is damaged: files appear under their names when they are whole.
        _end(signal.Signals(number))
    _state.first = signal.Signals(number)
    check()


def _retry(
    hook: Callable[["sys.UnraisableHookArgs"], None], unraisable: "sys.UnraisableHookArgs"
) -> None:
    """Sends a signal again that raised where Python goes on all the same: as it frees objects."""
    stopped = unraisable.exc_value
    if not isinstance(stopped, Stopped):
        hook(unraisable)
        return
    # A busy machine may send it before this is left; Python drops what is raised here.
    _state.retrying = True
    _state.first, _state.raised = None, False
    try:
        _send_again(stopped.signal)
    finally:
        _state.retrying = False


def _send_again(number: int) -> None:
    threading.Timer(0.01, _thread.interrupt_main, [number]).start()


def _end(number: signal.Signals) -> None:
    # Not through `print`, which the signal may have interrupted; and a progress bar hides the
    # cursor.
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    os.write(2, f"{cursor}{farewell(number)}\n".encode())
    os._exit(Stopped(number).status)
