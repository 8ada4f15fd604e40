"""How the processes of a group work on the same trials: the first one takes them and tells the
others. A process of its own is a group of one.
"""

import time
from collections.abc import Iterator

from ctl_jax import interrupts
from ctl_jax.experiment.queue import Claim
from ctl_jax.finetune import group

# What the first process tells the others where it is no claim's index.
_END, _WAIT = -2, -3


def jobs(claims: Iterator[Claim] | None) -> Iterator[tuple[int, Claim | None]]:
    """What to work on, in each process of a group at the same time.

    Args:
      claims: of the first process; None in the others.

    Yields:
      The index of each claim, and in the first process the claim itself.

    Raises:
      Stopped: in all processes, where one of them was told to stop.
    """
    if claims is None:
        while (index := _told(_WAIT)) != _END:
            if index != _WAIT:
                yield index, None
        return
    for claim in claims:
        yield _told(claim.index), claim
    _told(_END)


def is_lost(claim: Claim | None) -> bool:
    """Whether another worker has taken the claim over; only a group's first process has one."""
    return claim is not None and claim.lost


def pause(seconds: float) -> None:
    """How the first process waits for other workers, while the others wait for it."""
    time.sleep(seconds)
    _told(_WAIT)


def _told(number: int) -> int:
    """The first process's number, in all of the group."""
    number = group.of_first(number)
    if group.stop_requested():
        raise interrupts.stop()
    return number
