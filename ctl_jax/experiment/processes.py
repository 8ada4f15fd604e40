"""Process identities: which process this is, and whether another of this machine is still there.

What a killed process held goes on at once where its machine tells that it is gone, instead of after
a minute without a sign of life. No library tells machines, boots and containers apart by id.
"""

import functools
import os
import pathlib
import socket
from typing import NamedTuple


class Process(NamedTuple):
    """A process, unlike any other on any machine at any time.

    Attributes:
      host: the machine's name, for people.
      machine: its boot and the process's namespace of ids; "" where neither can be known.
      pid: the process's id there.
      start: when it started, in ticks since the boot; ids are used again, this pair is not.
    """

    host: str
    machine: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


def this_process() -> Process:
    """The process that asks; after a fork, the child."""
    return _process(os.getpid())


def is_gone(process: Process) -> bool:
    """Whether the process was one of this machine and is not there any more.

    False where that cannot be known from here.
    """
    here = this_process()
    if not here.machine or process.machine != here.machine:
        return False
    return _started(process.pid) != process.start


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> Process:
    return Process(socket.gethostname(), _machine(), pid, _started(pid) or 0)


def _machine() -> str:
    """Linux alone tells; elsewhere a dead process is noticed by its lease."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process of this machine started; None where there is none, or only its remains."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may hold anything.
    state, *fields = stat.rpartition(b")")[2].split()
    return None if state in (b"Z", b"X") else int(fields[18])
