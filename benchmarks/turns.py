"""Measuring contenders in turns, and telling when other programs disturb them (Linux)."""

import os
import pathlib
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)

# A turn is quiet where other programs took no more of this process's cores.
QUIET = 0.05
# As long as fewer rounds were quiet than asked for, so many times as many are made.
PATIENCE = 3
# With fewer quiet rounds, all count.
_LEAST = 3


class Turn(NamedTuple):
    """One measurement.

    Attributes:
      seconds: a step; of wall time, or of CPU time.
      others: what other programs took meanwhile, as a share of all cores; 0 of CPU time, which
        they hardly change.
    """

    seconds: float
    others: float


class Summary(NamedTuple):
    """Median, least and most of some turns.

    Attributes:
      median: of them.
      least: of them.
      most: of them.
      quiet: whether none of them was disturbed.
    """

    median: float
    least: float
    most: float
    quiet: bool

    def __str__(self) -> str:
        doubt = "" if self.quiet else ", disturbed"
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f}{doubt})"


def threads() -> int:
    """Cores that this process may use: XLA takes as many threads."""
    return len(os.sched_getaffinity(0))


def take_turns(
    contenders: Mapping[Key, Callable[[int], object]], *, rounds: int, steps: int, cpu: bool = False
) -> dict[Key, list[Turn]]:
    """Measures contenders alternately.

    Args:
      contenders: each makes so many steps, and returns when they are done.
      rounds: of all contenders; more are made where other programs disturb.
      steps: of a contender in a round.
      cpu: whether CPU time is measured instead of wall time.

    Returns:
      Their turns, the same number for each.
    """
    turns: dict[Key, list[Turn]] = {key: [] for key in contenders}
    for done in range(rounds * PATIENCE):
        if done >= rounds and sum(map(_all_quiet, zip(*turns.values(), strict=True))) >= rounds:
            break
        for key, contender in contenders.items():
            turns[key].append(_measure(contender, steps, cpu))
    return turns


def ratio(above: Sequence[Turn], below: Sequence[Turn]) -> Summary:
    """Of the times of two contenders, round by round; of the quiet rounds if there are some."""
    return _summary(list(zip(above, below, strict=True)), lambda a, b: a.seconds / b.seconds)


def seconds(turns: Sequence[Turn]) -> Summary:
    """Of a step, of the quiet rounds if there are some."""
    return _summary([(turn,) for turn in turns], lambda turn: turn.seconds)


def _summary(rounds: Sequence[tuple[Turn, ...]], value: Callable[..., float]) -> Summary:
    quiet = [turns for turns in rounds if _all_quiet(turns)]
    enough = len(quiet) >= min(_LEAST, len(rounds))
    values = [value(*turns) for turns in (quiet if enough else rounds)]
    return Summary(statistics.median(values), min(values), max(values), enough)


def _all_quiet(turns: Sequence[Turn]) -> bool:
    return all(turn.others <= QUIET for turn in turns)


def _measure(contender: Callable[[int], object], steps: int, cpu: bool) -> Turn:
    start, busy, own = time.perf_counter(), _busy(), time.process_time()
    contender(steps)
    took, busy, own = time.perf_counter() - start, _busy() - busy, time.process_time() - own
    if cpu:
        return Turn(own / steps, 0.0)
    return Turn(took / steps, max(0.0, busy - own) / took / threads())


def _busy() -> float:
    """Seconds that this process's cores have worked for anybody, this machine's host included."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name in cores:
            # user, nice, system, idle, iowait, irq, softirq, steal.
            ticks += sum(int(value) for i, value in enumerate(values[:8]) if i not in (3, 4))
    return ticks / os.sysconf("SC_CLK_TCK")
