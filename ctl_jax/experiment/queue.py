"""The steps that are left, shared out among workers on any machines that see one folder.

A strategy says which steps are wanted. Each worker takes its own share of those that are ready
first, then what no live worker holds, and waits until everything is done, so that what a dying
worker leaves behind is always taken up. Strategy, folder and leases decide alone: the workers never
talk to each other, and may come and go.
"""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType

import numpy as np

from ctl_jax import files, models, records
from ctl_jax.cluster import Worker
from ctl_jax.experiment import steps
from ctl_jax.experiment.finished import Finished
from ctl_jax.experiment.leases import RELEASED, Heartbeat, Lease, Leases, newest
from ctl_jax.experiment.steps import Step, Strategy
from ctl_jax.experiment.store import Store

LEASE_S = 60.0
_REPORT = "report"
# How long to wait before looking again what others do, at first and at last, in leases.
_SOON, _LATE = 1 / 200, 1 / 6


class Claim:
    """A step that this worker alone does; a context manager that gives it back if it is not done.

    Attributes:
      step: what to do.
      needed: whether its product must be kept: it is asked for, or other steps need it.
      committed: whether its records were kept.
    """

    def __init__(self, store: Store, heartbeat: Heartbeat, lease: Lease, step: Step, needed: bool):
        self.step = step
        self.needed = needed
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

    def commit(
        self,
        lines: Sequence[records.Record],
        model: models.Model | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        provisional: bool = False,
    ) -> bool:
        """Keeps what the finished step gave, and removes its scratch folder.

        Args:
          lines: its records.
          model: that it made, where it is to be kept.
          arrays: that it made, likewise.
          provisional: whether it is kept only as long as it may be asked for.

        Returns:
          False where another worker took the step over (this one was paused, or cut off): nothing
          was saved then, and the scratch folder belongs to the other.
        """
        if not self._lease.is_held():
            return False
        # First: who sees the records takes the step for done.
        if model is not None:
            self._store.save_model(self.step.id, model, provisional=provisional)
        if arrays is not None:
            self._store.save_arrays(self.step.id, arrays)
        if not self._store.save(self.step.id, lines):
            # Only the product was lacking, or another worker has done all of it.
            if (model is None and arrays is None) or not self._lease.is_held():
                return False
            self._store.replace_if_other(self.step.id, lines)
        self._store.remove_scratch([self.step.id])
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


class _Left:
    """What a strategy wants and what is left of it, at some moment."""

    def __init__(self, strategy: Strategy, finished: Finished):
        self.wanted = steps.closure(strategy(finished))
        self.left, self.needed = steps.pending(self.wanted, finished)
        self.ready = steps.ready(self.left)
        self._awaited = {each.id for step in self.left.values() for each in step.inputs.values()}

    def first(self, free: dict[str, int]) -> dict[str, int]:
        """Those that other steps wait for, if there are any: then more is ready."""
        return {id: free[id] for id in free if id in self._awaited} or free


class Queue:
    """The steps of a run, as one of its workers takes them.

    Args:
      store: of the run; made already.
      strategy: which steps are wanted.
      flops: what a step costs.
      worker: which share is this worker's own.
      lease_s: how long a worker may be silent before others take over what it holds.
      key: of the run's config: whose report is the complete one.
      before: what there was when the run began, for the first look; looked up without it.
      on_wait: called with a line that says who is waited for, when that changes.
      on_look: called with what is wanted, what of it is left, and what is finished, whenever that
        was looked up.
      clock: seconds that never run backwards.
      sleep: waits for so many seconds; what it raises ends the waiting.
    """

    def __init__(
        self,
        store: Store,
        strategy: Strategy,
        flops: Callable[[Step], float],
        worker: Worker,
        lease_s: float = LEASE_S,
        *,
        key: str = "",
        before: Finished | None = None,
        on_wait: Callable[[str], None] | None = None,
        on_look: Callable[[dict[str, Step], dict[str, Step], Finished], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._store = store
        self._strategy = strategy
        self._flops = flops
        self._worker = worker
        self._leases = Leases(store.leases, lease_s, clock)
        self._heartbeat = Heartbeat(lease_s / 3)
        self._soon, self._late = lease_s * _SOON, lease_s * _LATE
        self._complete = f"complete {key}"
        self._on_wait = on_wait
        self.on_look = on_look
        self._said = ""
        self._clock = clock
        self._sleep = sleep
        self._before = before
        there = self._leases.newest() if before is None else newest(before.leases)
        self._reports = there.get(_REPORT, -1)

    def take(self) -> Iterator[Claim]:
        """Yields one step after the other, each claimed, until all are done, also by others.

        Use each claim with `with`; what was not committed when the next one is asked for is given
        back, and comes again.
        """
        pauses = self._pauses()
        tried: set[str] = set()
        while True:
            finished, self._before = self._before or self._store.finished(), None
            leases = newest(finished.leases)
            now = _Left(self._strategy, finished)
            if self.on_look is not None:
                self.on_look(now.wanted, now.left, finished)
            if not now.left:
                break
            own, others = self._shares(now)
            if new := {id: 0 for id in own if id not in tried and id not in leases}:
                # Its own share in one go: as long as it does not, nobody else begins with it.
                new = now.first(new)
                tried.update(new)
                yield from self._claim(new, now, math.inf)
                continue
            free, holders = self._free([*own, *others], leases)
            before = len(now.left)
            yield from self._claim(now.first(free), now, self._clock() + self._late)
            if len(now.left) < before:
                pauses = self._pauses()
            else:
                self._wait(holders, next(pauses))
        self._tidy(now.wanted, finished)

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
            state = self._complete if complete else RELEASED
        finally:
            self._heartbeat.discard(lease)
            lease.end(state)

    def _turn(self, complete: bool) -> Lease | None:
        pauses = self._pauses()
        while True:
            last = self._leases.newest().get(_REPORT, -1)
            done = complete and last > self._reports
            if done and self._leases.state(_REPORT, last) == self._complete:
                return None
            holder = self._leases.holder(_REPORT, last)
            if holder is None and (lease := self._leases.take(_REPORT, last + 1)):
                # The newest alone counts, and stays: its number says that a report was written.
                self._leases.remove(_REPORT, last)
                return lease
            if not complete:
                return None
            self._wait([holder] if holder else [], next(pauses))

    def _shares(self, now: _Left) -> tuple[list[str], list[str]]:
        """What is ready of this worker's share, and of the others'."""
        ids = list(now.wanted)
        own, others = share_order([self._flops(step) for step in now.wanted.values()], self._worker)
        mine, theirs = ([ids[i] for i in part if ids[i] in now.ready] for part in (own, others))
        return mine, theirs

    def _free(
        self, ids: Iterable[str], leases: Mapping[str, int]
    ) -> tuple[dict[str, int], list[str]]:
        """What can be taken, with the generation to make, and who holds each of the others."""
        generations = {id: leases.get(id, -1) for id in ids}
        held = [id for id, generation in generations.items() if generation >= 0]
        found = files.at_once(lambda id: self._leases.holder(id, generations[id]), held)
        holders = {id: who for id, who in zip(held, found, strict=True) if who is not None}
        free = {id: last + 1 for id, last in generations.items() if id not in holders}
        return free, list(holders.values())

    def _claim(self, free: Mapping[str, int], now: _Left, until: float) -> Iterator[Claim]:
        """Claims what is still free of `free`, until then; what gets done is left no more."""
        for id, generation in free.items():
            if self._clock() > until:
                return
            claim = self._try(now.left[id], generation, id in now.needed)
            if claim is None:
                continue
            try:
                yield claim
            finally:
                claim.release()
            if claim.committed:
                del now.left[id]

    def _try(self, step: Step, generation: int, needed: bool) -> Claim | None:
        lease = self._leases.take(step.id, generation)
        if lease is None:
            return None
        # The one who held it before may have saved it just before the lease went.
        problem = self._store.problem(step.id)
        if problem == "":
            if not (needed and steps.has_product(step)) or self._store.has_product(step.id):
                lease.remove()
                return None
        elif problem:
            # Records that are damaged; nobody else may move them now.
            self._store.set_aside(step.id)
        return Claim(self._store, self._heartbeat, lease, step, needed)

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

    def _tidy(self, ids: Iterable[str], finished: Finished) -> None:
        """Removes what killed workers left of work that is done."""
        ids, others = set(ids), False
        for id, last in newest(finished.leases).items():
            if id in ids:
                self._leases.remove(id, last)
            elif id != _REPORT:
                # Of a worker that wants more than this one.
                others |= self._leases.holder(id, last) is not None
        self._store.remove_scratch(ids & finished.scratches)
        if not others:
            self._store.sweep_steps(finished)


def share_order(costs: Sequence[float], worker: Worker) -> tuple[list[int], list[int]]:
    """In which order a worker looks at the trials.

    Shares are stretches of the trials as they are listed, so that a task's stay together, of about
    equal cost.

    Args:
      costs: of each trial, none negative.
      worker: whose order.

    Returns:
      Its own share, and then the others': the next worker's first, each from the end, where its
      owner comes last.
    """
    amounts = np.asarray(costs, np.float64)
    if not amounts.any():
        amounts = np.ones(len(amounts))
    ends = np.cumsum(amounts)
    total = ends[-1] if len(ends) else 1.0
    # A trial belongs to the share that its middle is in.
    owners = np.minimum((ends - amounts / 2) / total * worker.count, worker.count - 1).astype(int)
    bounds = np.searchsorted(owners, np.arange(worker.count + 1)).tolist()
    others = [(worker.index + step) % worker.count for step in range(1, worker.count)]
    return (
        list(range(bounds[worker.index], bounds[worker.index + 1])),
        [index for k in others for index in reversed(range(bounds[k], bounds[k + 1]))],
    )
