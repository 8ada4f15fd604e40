"""Jobs of a group of processes: the first one takes steps and tells the others.

A process of its own is a group of one.
"""

import dataclasses
import json
import time
from collections.abc import Iterator

import jax
import numpy as np

from ctl_jax import files, interrupts
from ctl_jax.experiment import steps
from ctl_jax.experiment.queue import Claim
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.store import Store
from ctl_jax.finetune import multihost

# What the first process tells the others.
_STEP, _END, _WAIT = 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Job:
    """A step that this process, or its group, works on.

    Attributes:
      step: what to do.
      claim: of a group's first process; None in the others.
      scratch: the folder of its checkpoints: it goes on from what is there. None: it keeps none.
    """

    step: Step
    claim: Claim | None = None
    scratch: files.Path | None = None

    def is_lost(self) -> bool:
        """Whether another worker has taken it over; cheap, so it may be asked often."""
        return self.claim is not None and self.claim.lost


def jobs(claims: Iterator[Claim] | None, store: Store) -> Iterator[Job]:
    """What to work on, in each process of a group at the same time.

    Args:
      claims: of the first process; None in the others.
      store: of the run.

    Raises:
      Stopped: in all processes, where one of them was told to stop.
    """
    if claims is None:
        while (told := _told(_WAIT)) != _END:
            if told == _STEP:
                yield Job(steps.from_json(json.loads(_text_of_first(None))))
        return
    for claim in claims:
        _told(_STEP)
        if jax.process_count() > 1:
            _text_of_first(json.dumps(steps.to_json(claim.step)))
        yield Job(claim.step, claim, store.scratch(claim.step.id))
    _told(_END)


def pause(seconds: float) -> None:
    """How the first process waits for other workers, while the others wait for it."""
    time.sleep(seconds)
    _told(_WAIT)


def _told(number: int) -> int:
    """The first process's number, in all of the group."""
    number = multihost.of_first(number)
    if multihost.stop_requested():
        raise interrupts.stop()
    return number


def _text_of_first(text: str | None) -> str:
    content = None if text is None else np.frombuffer(text.encode(), np.uint8)
    got = multihost.bytes_of_first(content)
    assert got is not None
    return got.tobytes().decode()
