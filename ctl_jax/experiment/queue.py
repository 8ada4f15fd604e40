"""The trials that are left, shared out among workers on any machines that see one folder.

Each worker takes its own share first, then what no live worker holds, and waits until everything is
done, so that what a dying worker leaves behind is always taken up. Folder and lease decide alone:
the workers never talk to each other, and may come and go.
"""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType

from ctl_jax.cluster import Worker
from ctl_jax.experiment.leases import FINISHED, RELEASED, Heartbeat, Lease, Leases
from ctl_jax.experiment.shares import order
from ctl_jax.experiment.store import Record, Store

LEASE_S = 60.0
_REPORT = "report"
# How long to wait before looking again what others do, at first and at last, in leases.
_SOON, _LATE = 1 / 200, 1 / 6


class Claim:
    """Work that this worker alone does; a context manager that gives it back if it is not done.

    Attributes:
      index: of the trial in the queue's ids; -1 for a claim by `Queue.exclusively`.
      id: of the trial.
      committed: whether its records were kept.
    """

    def __init__(self, store: Store, heartbeat: Heartbeat, lease: Lease, index: int = -1):
        self.index = index
        self.id = lease.id
        self._store = store
        self._heartbeat = heartbeat
        self._lease = lease
        self.committed = False
        self._open = True
        heartbeat.add(lease)

    @property
    def lost(self) -> bool:
        """Whether another worker was seen to have taken it over; asks nobody, so it is cheap."""
        return self._lease.lost

    def commit(self, records: Iterable[Record]) -> bool:
        """Keeps the records of the finished trial and removes its scratch folder.

        Args:
          records: of the trial.

        Returns:
          False where another worker took the trial over (this one was paused, or cut off): nothing
          was saved then, and the scratch folder belongs to the other.
        """
        if not (self._lease.is_held() and self._store.save_trial(self.id, records)):
            return False
        self._store.remove_scratch([self.id])
        self.committed = True
        self._close()
        self._lease.remove()
        return True

    def release(self) -> None:
        """Gives back what was not committed: another worker may take it at once."""
        if self._open:
            self._close()
            self._lease.end(RELEASED)

    def _close(self) -> None:
        self._open = False
        self._heartbeat.discard(self._lease)

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Queue:
    """The trials of a run, as one of its workers takes them.

    Args:
      store: of the run; made already.
      ids: of the trials, those of a task beside each other.
      costs: of each trial, e.g. in FLOPs.
      worker: which share is this worker's own.
      lease_s: how long a worker may be silent before others take over what it holds.
      on_wait: called with a line that says who is waited for, when that changes.
      clock: seconds that never run backwards.
      sleep: waits for so many seconds; what it raises ends the waiting.
    """

    def __init__(
        self,
        store: Store,
        ids: Sequence[str],
        costs: Sequence[float],
        worker: Worker,
        lease_s: float = LEASE_S,
        *,
        on_wait: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._store = store
        self._ids = list(ids)
        self._own, self._others = order(costs, worker)
        self._leases = Leases(store.leases, lease_s, clock)
        self._heartbeat = Heartbeat(lease_s / 3)
        self._soon, self._late = lease_s * _SOON, lease_s * _LATE
        self._on_wait = on_wait
        self._said = ""
        self._clock = clock
        self._sleep = sleep
        self._reports = self._leases.newest().get(_REPORT, -1)

    def take(self) -> Iterator[Claim]:
        """Yields one trial after the other, each claimed, until all are done, by whomever.

        Use each claim with `with`; what was not committed when the next one is asked for is given
        back, and comes again.
        """
        pending = self._left([*self._own, *self._others])
        # Its own share without looking who holds what: nobody else begins with it.
        own = {index: 0 for index in self._own if index in pending}
        yield from self._claim(own, pending, math.inf)
        pauses = self._pauses()
        while pending:
            # In this order: a lease goes after its trial was saved, so what has neither is free.
            leases = self._leases.newest()
            left = self._left(pending)
            free, holders = self._free(left, leases)
            yield from self._claim(free, left, self._clock() + self._late)
            if len(left) < len(pending):
                pauses = self._pauses()
            else:
                self._wait(holders, next(pauses))
            pending = left
        self._tidy()

    def exclusively(self, id: str, intact: Callable[[], bool] = lambda: True) -> Claim | None:
        """Claims work that must be done before the trials, or waits while another worker does it.

        Args:
          id: of its records in the store.
          intact: whether what the work made besides its records is whole; asked where those are.

        Returns:
          The claim; None where the work is done.
        """
        pauses = self._pauses()
        while not (self._store.is_done(id) and intact()):
            newest = self._leases.newest().get(id, -1)
            holder = self._leases.holder(id, newest)
            if holder is None and (claim := self._try(id, newest + 1, intact=intact)):
                return claim
            self._wait([holder] if holder else [], next(pauses))
        return None

    @contextlib.contextmanager
    def reporting(self, *, complete: bool) -> Iterator[bool]:
        """Lets one worker at a time write the report, and one alone the complete one.

        Args:
          complete: whether everything is done. Then the caller waits for its turn; else it does not
            get one while another has it.

        Yields:
          Whether to write. What is written must be looked up after this, not before: another worker
          may have finished meanwhile.
        """
        lease = self._turn(complete)
        if lease is None:
            yield False
            return
        self._heartbeat.add(lease)
        state = RELEASED
        try:
            self._store.sweep_report()
            yield True
            state = FINISHED if complete else RELEASED
        finally:
            self._heartbeat.discard(lease)
            lease.end(state)

    def _turn(self, complete: bool) -> Lease | None:
        pauses = self._pauses()
        while True:
            newest = self._leases.newest().get(_REPORT, -1)
            if complete and newest > self._reports and self._leases.is_finished(_REPORT, newest):
                return None
            holder = self._leases.holder(_REPORT, newest)
            if holder is None and (lease := self._leases.take(_REPORT, newest + 1)):
                # The newest alone counts, and stays: its number says that a report was written.
                self._leases.remove(_REPORT, newest)
                return lease
            if not complete:
                return None
            self._wait([holder] if holder else [], next(pauses))

    def _left(self, pending: Iterable[int]) -> dict[int, None]:
        """Those of `pending` that are not done, in the same order."""
        ids = {index: self._ids[index] for index in pending}
        done = self._store.done(ids.values())
        return {index: None for index, id in ids.items() if id not in done}

    def _free(
        self, pending: Iterable[int], leases: Mapping[str, int]
    ) -> tuple[dict[int, int], list[str]]:
        """What can be taken, with the generation to make, and who holds each of the others."""
        free, holders = {}, []
        for index in pending:
            newest = leases.get(self._ids[index], -1)
            holder = self._leases.holder(self._ids[index], newest)
            if holder is None:
                free[index] = newest + 1
            else:
                holders.append(holder)
        return free, holders

    def _claim(
        self, free: Mapping[int, int], pending: dict[int, None], until: float
    ) -> Iterator[Claim]:
        """Claims what is still free of `free`, until then; what gets done leaves `pending`."""
        for index, generation in free.items():
            if self._clock() > until:
                return
            claim = self._try(self._ids[index], generation, index)
            if claim is None:
                continue
            try:
                yield claim
            finally:
                claim.release()
            if claim.committed:
                del pending[index]

    def _try(
        self, id: str, generation: int, index: int = -1, intact: Callable[[], bool] = lambda: True
    ) -> Claim | None:
        lease = self._leases.take(id, generation)
        if lease is None:
            return None
        # The one who held it before may have saved it just before the lease went.
        done = self._store.is_done(id)
        if done and intact():
            lease.remove()
            return None
        # Records that are damaged, or of damaged work; nobody else may move them now.
        self._store.set_aside(id, whole=done)
        return Claim(self._store, self._heartbeat, lease, index)

    def _pauses(self) -> Iterator[float]:
        pause = self._soon
        while True:
            yield pause
            pause = min(1.5 * pause, self._late)

    def _wait(self, holders: Sequence[str], pause: float) -> None:
        listed = ", ".join(f"{who} ({n})" for who, n in sorted(Counter(holders).items()))
        if holders and listed != self._said and self._on_wait is not None:
            self._on_wait(f"waiting for what other workers hold: {listed}")
            self._said = listed
        self._sleep(pause)

    def _tidy(self) -> None:
        """Removes what killed workers left of work that is done."""
        ids = set(self._ids)
        for id, newest in self._leases.newest().items():
            if id in ids:
                self._leases.remove(id, newest)
        self._store.remove_scratch(ids & self._store.scratches())
        self._store.sweep_trials()
