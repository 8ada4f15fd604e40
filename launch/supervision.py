"""Follows one worker on its TPU VM or slice, until its program has ended for good."""

import dataclasses
import pathlib
import re
import threading

from ctl_jax.errors import UserError
from launch import arguments, remote
from launch.gcloud import Slice

# After so many questions without an answer a machine that is said to be active is given up.
_SILENT = 10
_UNREACHABLE = 255
# States of a queued resource that never becomes active.
_DEAD = ("FAILED", "SUSPENDED")


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
    """Makes the machine, starts the program, and does both again when either is lost."""

    def __init__(
        self, machine: Slice, work: Work, tries: int, poll_s: float, stop: threading.Event
    ) -> None:
        self._machine = machine
        self._work = work
        self._tries = tries
        self._poll_s = poll_s
        self._stop = stop
        self._known = False
        self._started = False
        self._silent = 0
        self._failures = 0

    def run(self) -> int:
        """Follows the worker.

        Returns:
          The exit status of its program: 0, or that of the last of too many failures; PREEMPTED
          where `stop` was set meanwhile.

        Raises:
          UserError: the machine cannot be asked for.
        """
        while self._wait_until_active():
            statuses = self._poll()
            if statuses == {"0"}:
                self._say("done")
                return 0
            if "running" in statuses:
                self._started = True
                self._stop.wait(self._poll_s)
                continue
            if not statuses:
                # On its way out, or only its connection is broken.
                failure = self._unreachable()
            else:
                # How it ended before this command was started does not count.
                failure = _failure(statuses) if self._started else None
                if failure is None:
                    failure = self._start()
            if failure is not None and self._is_enough(failure):
                return failure
        return arguments.PREEMPTED

    def _wait_until_active(self) -> bool:
        """Returns False where `stop` was set first."""
        said = None
        while not self._stop.is_set():
            try:
                state = self._machine.state()
                self._known = True
            except UserError as error:
                if not self._known:
                    raise
                # The network of this machine, most likely.
                state = str(error)
            if state == "ACTIVE":
                return True
            if state != said:
                self._say(state or "not there: asking for it")
                said = state
            if state is None:
                self._machine.create()
            elif state in _DEAD:
                self._machine.delete()
                # The last one may have been the machine's end, not the program's fault.
                self._failures = 0
            self._stop.wait(self._poll_s)
        return False

    def _poll(self) -> set[str]:
        """How the program is on each host: one word each, none where a host cannot be asked."""
        answer = f"{remote.MARK} {'0' if self._started else 'other'}"
        done = self._machine.shell(remote.poll(self._work.key), answer=answer, ask=True)
        if done.returncode:
            return set()
        self._silent = 0
        return set(re.findall(rf"^{remote.MARK} (\w+)$", done.stdout, re.MULTILINE))

    def _unreachable(self) -> int | None:
        self._silent += 1
        if self._silent < _SILENT:
            self._stop.wait(self._poll_s)
            return None
        self._silent = 0
        self._say("cannot be reached: deleting it")
        self._machine.delete()
        return _UNREACHABLE

    def _start(self) -> int | None:
        """Installs and starts the program; returns what went wrong."""
        if not self._machine.copy(self._work.archive, remote.ARCHIVE):
            return self._unreachable()
        for text in (self._work.setup, self._work.start):
            done = self._machine.shell(text)
            if done.returncode:
                self._say((done.stderr.strip() or "no connection").splitlines()[-1])
                self._stop.wait(self._poll_s)
                return done.returncode if done.returncode != arguments.BAD_INPUT else 1
        self._say("started again" if self._started else "started")
        self._started = True
        return None

    def _is_enough(self, failure: int) -> bool:
        self._failures += 1
        self._say(f"failed with status {failure}, {self._failures} of {self._tries} times")
        if failure == arguments.BAD_INPUT or self._failures >= self._tries:
            self._say(self._machine.shell(remote.tail(30), ask=True).stdout.strip())
            return True
        # The next poll finds the same status.
        self._started = False
        return False

    def _say(self, text: str) -> None:
        print(f"{self._machine.name}: {text}", flush=True)


def _failure(statuses: set[str]) -> int | None:
    """The exit status of a program that failed; None where it was stopped or its machine lost."""
    numbers = {int(status) for status in statuses if status.isdecimal()}
    if arguments.BAD_INPUT in numbers:
        return arguments.BAD_INPUT
    if arguments.PREEMPTED in numbers or len(numbers) < len(statuses):
        return None
    return max(numbers)
