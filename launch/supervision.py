"""Follows one worker on its TPU VM or slice, until its program has ended for good."""

import dataclasses
import pathlib
import re
import threading

from ctl_jax.errors import UserError
from launch import arguments, gcloud, remote

# After so many questions in a row without an answer something is wrong for good.
_SILENT = 10
_UNREACHABLE = 255
# No status of a program: it left none.
_GONE = -1
# States of a queued resource that never becomes active.
_DEAD = ("FAILED", "SUSPENDED")
# Seconds before a deletion that failed is tried again.
_AGAIN_S = (10, 30, 60, 120)


@dataclasses.dataclass(frozen=True)
class Work:
    """What one worker runs.

    Attributes:
      archive: its code, on this machine.
      key: tells it from other work on the same VM.
      setup: shell text that installs the code.
      start: shell text that starts the program.
    """

    archive: pathlib.Path
    key: str
    setup: str
    start: str


class Supervisor:
    """Makes the machine, starts the program, and does both again when either is lost.

    Only what a cloud takes away is made again without limit. Whatever else goes wrong, on the
    machine or on the way to it, is said, and counts: after `tries` times the worker has failed.
    """

    def __init__(
        self, machine: gcloud.Slice, work: Work, tries: int, poll_s: float, stop: threading.Event
    ) -> None:
        self._machine = machine
        self._work = work
        self._tries = tries
        self._poll_s = poll_s
        self._stop = stop
        self._known = False
        self._said: str | None = ""
        # Whether this command has started the program, or seen it run: since its last failure, and
        # on this machine.
        self._started = False
        self._ran = False
        self._silent = 0
        self._failures = 0

    def run(self) -> int:
        """Follows the worker.

        Returns:
          The exit status of its program: 0, or that of the last of too many failures; PREEMPTED
          where `stop` was set meanwhile.

        Raises:
          UserError: gcloud refuses the first question.
        """
        status = None
        while status is None and not self._stop.is_set():
            status = self._look()
        return arguments.PREEMPTED if status is None else status

    def _look(self) -> int | None:
        """Looks at the machine once, and does what is to be done. Returns the end's exit status."""
        try:
            state = self._machine.state()
        except UserError as error:
            if not self._known:
                raise
            # The network of this machine, most likely.
            return self._unanswered(str(error))
        self._known = True
        if state == "ACTIVE":
            self._said = state
            return self._look_inside()
        if state is not None and state.startswith(_DEAD):
            return self._replace(state)
        if state != self._said:
            _say(self._machine, state or "not there: asking for it")
            self._said = state
        if state is None:
            self._ran = False
            reason = self._machine.create()
            return self._failed(f"creation failed: {reason}") if reason else self._wait()
        return self._wait()

    def _replace(self, state: str) -> int | None:
        """Deletes what never becomes active, so that it is asked for again."""
        if reason := self._machine.delete():
            return self._failed(f"cannot be deleted: {reason}")
        if state == "SUSPENDED" and self._ran:
            # It was taken away; what failed before may have been its end, not the program's fault.
            _say(self._machine, state)
            self._failures = 0
            return self._wait()
        return self._failed(state)

    def _look_inside(self) -> int | None:
        """Looks at the program on a machine that is there."""
        answer = f"{remote.MARK} {'0' if self._started else 'other'}"
        done = self._machine.shell(remote.poll(self._work.key), answer=answer, ask=True)
        # How the program is on each host: one word each.
        statuses = set(re.findall(rf"^{remote.MARK} (\w+)$", done.stdout, re.MULTILINE))
        if done.returncode or not statuses:
            # On its way out, or only its connection is broken.
            return self._unanswered(f"cannot be reached: {gcloud.reason(done)}", delete=True)
        self._silent = 0
        if statuses == {"0"}:
            _say(self._machine, "done")
            return 0
        if "running" in statuses:
            self._started = self._ran = True
            return self._wait()
        # How it ended before this command was started does not count.
        failure = _failure(statuses) if self._started else None
        if failure is None:
            return self._start()
        self._started = False
        if failure == _GONE:
            return self._failed(
                "the program is gone: the machine was started again, or does other work"
            )
        status = self._failed(f"failed with status {failure}", failure)
        if status is not None:
            _say(self._machine, self._machine.shell(remote.tail(30), ask=True).stdout.strip())
        return status

    def _start(self) -> int | None:
        """Installs and starts the program."""
        if reason := self._machine.copy(self._work.archive, remote.ARCHIVE):
            return self._failed(f"the code was not copied: {reason}")
        for what, text in (("installed", self._work.setup), ("started", self._work.start)):
            done = self._machine.shell(text)
            if done.returncode:
                return self._failed(f"the program was not {what}: {gcloud.reason(done)}")
        _say(self._machine, "started again" if self._ran else "started")
        self._started = self._ran = True
        return self._wait()

    def _unanswered(self, what: str, delete: bool = False) -> int | None:
        """Counts a question without an answer; many in a row are a failure."""
        self._silent += 1
        if self._silent < _SILENT:
            return self._wait()
        self._silent = 0
        if delete:
            _say(self._machine, f"{what}: deleting it")
            if reason := self._machine.delete():
                what = f"cannot be deleted: {reason}"
        return self._failed(what, _UNREACHABLE)

    def _failed(self, what: str, status: int = 1) -> int | None:
        """Says and counts a failure. Returns `status` where it is the last one."""
        self._failures += 1
        _say(self._machine, f"{what}, {self._failures} of {self._tries} times")
        if status == arguments.BAD_INPUT or self._failures >= self._tries:
            return status
        return self._wait()

    def _wait(self) -> int | None:
        """Waits until the next look, or for `stop`. Returns None: nothing has ended."""
        self._stop.wait(self._poll_s)
        return None


def remove(machine: gcloud.Slice, stop: threading.Event) -> bool:
    """Deletes a machine, trying for some minutes; says what goes wrong.

    Args:
      machine: what may be there.
      stop: ends the trying when it is set.

    Returns:
      Whether it is gone.
    """
    for wait_s in (*_AGAIN_S, None):
        reason = machine.delete()
        if not reason:
            return True
        again = "" if wait_s is None else f"; again in {wait_s} s"
        _say(machine, f"cannot be deleted: {reason}{again}")
        if stop.wait(wait_s or 0):
            break
    return False


def _say(machine: gcloud.Slice, text: str) -> None:
    print(f"{machine.name}: {text}", flush=True)


def _failure(statuses: set[str]) -> int | None:
    """The exit status of a program that failed, or _GONE; None where it was told to stop."""
    numbers = {int(status) for status in statuses if status.isdecimal()}
    if arguments.BAD_INPUT in numbers:
        return arguments.BAD_INPUT
    if arguments.PREEMPTED in numbers:
        return None
    return _GONE if len(numbers) < len(statuses) else max(numbers)
