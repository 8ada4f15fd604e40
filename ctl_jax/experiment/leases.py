"""Leases in a folder that many machines share: who works on what, without comparing their clocks.

A lease is a file `ID.GENERATION` that exactly one process made. Its holder changes the file's
content every third of `lease_s`. Where an observer has seen the same content for `lease_s` of its
own clock, or knows that the holder is gone, the lease is dead and whoever makes the next generation
holds it. Names are not used again until the work is done, so that a holder that was paused and goes
on late never writes into another's lease; it finds the next generation and knows that it has lost.

Locks of the system and of libraries such as filelock do not do: not every NFS keeps them, object
stores have none, and one whose holder has crashed elsewhere is held for ever or not at all.
"""

import contextlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ctl_jax import files, object_store
from ctl_jax.experiment.processes import Process, is_gone, this_process
from ctl_jax.object_store import Unreachable

HELD, RELEASED = "held", "released"
_NAME = re.compile(r"(.+)\.([0-9]{1,18})", re.DOTALL)


class Lease:
    """A lease that this process made; safe to use from several threads.

    Attributes:
      id: of the work.
      generation: how many held it before.
      lost: whether another has taken it over, as far as was noticed.
    """

    def __init__(self, folder: files.Path, id: str, generation: int):
        self.id = id
        self.generation = generation
        self.lost = False
        self._folder = folder
        self._beats = 0
        self._over = False
        self._token = secrets.token_hex(8)
        self._lock = threading.Lock()

    def make(self) -> bool:
        """Makes the file; whether it was not there yet."""
        return files.claim(self._path(self.generation), self._content(HELD))

    def renew(self) -> None:
        """Tells the others that the holder is alive, and notices when it is too late for that.

        Raises:
          OSError: the folder cannot be written at the moment.
          Unreachable: it does not answer.
        """
        with self._lock:
            if self._over or self.lost:
                return
            self._beats += 1
            self._write(HELD)
        self.is_held()

    def is_held(self) -> bool:
        """Whether no other has taken it over; asks the folder."""
        if not self.lost:
            self.lost = newest(files.names(self._folder)).get(self.id) != self.generation
        return not self.lost

    def end(self, state: str) -> None:
        """Gives it back: `RELEASED`, another may take it at once, or one that tells them more.

        Where the folder does not answer, the others wait until the lease is dead.
        """
        with self._lock:
            if not (self._over or self.lost):
                with contextlib.suppress(Unreachable):
                    self._write(state)
            self._over = True

    def remove(self) -> None:
        """Removes it with those before it, once the work is done: nobody needs one any more."""
        with self._lock:
            self._over = True
            # The newest goes last: while it is there, no earlier one is made again.
            for generation in sorted(self._generations()):
                # A folder of such a name is not a lease.
                with contextlib.suppress(IsADirectoryError, PermissionError):
                    files.remove(self._path(generation))

    def _generations(self) -> Iterable[int]:
        if not self.generation:
            return [0]
        # As listed: the number in a foreign file's name may be any.
        named = _parts(files.names(self._folder))
        return {number for id, number in named if id == self.id and number <= self.generation}

    def _write(self, state: str) -> None:
        try:
            files.overwrite(self._path(self.generation), self._content(state))
        except FileNotFoundError:
            self.lost = True

    def _path(self, generation: int) -> str:
        return _path(self._folder, self.id, generation)

    def _content(self, state: str) -> bytes:
        fields = {"state": state, "beat": self._beats, "token": self._token}
        return json.dumps(fields | {"process": this_process()}).encode()


class Sighting(NamedTuple):
    """What an observer saw of a lease, and when it first saw just that."""

    generation: int
    content: bytes
    time: float


class Leases:
    """The leases of a run's folder, as one process sees them."""

    def __init__(
        self, folder: files.Path, lease_s: float, clock: Callable[[], float] = time.monotonic
    ):
        self._folder = folder
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[str, Sighting] = {}

    def newest(self) -> dict[str, int]:
        """The newest generation of each id that has a lease, by one listing."""
        return newest(files.names(self._folder))

    def take(self, id: str, generation: int) -> Lease | None:
        """Makes a lease of that generation; None where another process was faster."""
        lease = Lease(self._folder, id, generation)
        return lease if lease.make() else None

    def holder(self, id: str, newest: int) -> str | None:
        """Who holds an id's lease, for people; None where the next generation may be made.

        Args:
          id: of the work.
          newest: its newest generation; -1 where there is none.
        """
        content = self._read(id, newest)
        if content is None:
            return None
        state, process = _parse(content)
        if state != HELD or (process is not None and is_gone(process)):
            return None
        now = self._clock()
        seen = self._seen.get(id)
        if seen is None or (seen.generation, seen.content) != (newest, content):
            self._seen[id] = Sighting(newest, content, now)
        # While the folder was out of reach, it was so for the holder as well.
        elif now - max(seen.time, object_store.answers_since()) >= self._lease_s:
            return None
        return "unknown" if process is None else str(process)

    def state(self, id: str, newest: int) -> str:
        """What state the last holder of an id's lease left it in; "" where there is none."""
        content = self._read(id, newest)
        return "" if content is None else _parse(content)[0]

    def remove(self, id: str, newest: int) -> None:
        """Removes leases that are dead or of work that is done."""
        Lease(self._folder, id, newest).remove()

    def _read(self, id: str, generation: int) -> bytes | None:
        if generation < 0:
            return None
        try:
            return files.read_bytes(_path(self._folder, id, generation))
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            # Respected for a lease's time, like all that nobody renews.
            return b""


def _path(folder: files.Path, id: str, generation: int) -> str:
    return f"{folder}/{id}.{generation}"


def newest(names: Iterable[str]) -> dict[str, int]:
    """The newest generation of each id that has a lease, by the names of the files."""
    found: dict[str, int] = {}
    for id, generation in _parts(names):
        found[id] = max(generation, found.get(id, 0))
    return found


def _parts(names: Iterable[str]) -> list[tuple[str, int]]:
    """Id and generation of each lease; files of other names are no leases."""
    matches = map(_NAME.fullmatch, names)
    return [(match[1], int(match[2])) for match in matches if match]


def _parse(content: bytes) -> tuple[str, Process | None]:
    """State and holder; the holder is not known while the file is just being written."""
    try:
        fields = json.loads(content)
        host, machine, pid, start = fields["process"]
        return str(fields["state"]), Process(str(host), str(machine), int(pid), int(start))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return HELD, None


class Heartbeat:
    """One thread that renews all leases of this process, for as long as there are any."""

    def __init__(self, every_s: float):
        self._every_s = every_s
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        """Renews the lease from now on."""
        with self._lock:
            self._leases.add(lease)
            # Not alive either in a child that was forked.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")
                self._thread.start()

    def discard(self, lease: Lease) -> None:
        """Renews it no more."""
        with self._lock:
            self._leases.discard(lease)

    def _run(self) -> None:
        while True:
            time.sleep(self._every_s)
            with self._lock:
                leases = list(self._leases)
                if not leases:
                    self._thread = None
                    return
            for lease in leases:
                # The folder may be out of reach for a while; whether the lease was lost meanwhile
                # is asked before anything is saved.
                try:
                    lease.renew()
                except (OSError, Unreachable):
                    continue
