"""Keeps a training from being lost, and its best weights where they are asked for.

`fit` calls a `Keeper` after every few updates. It looks whether the run was told to stop, evaluates
on dev where that is due, and saves a checkpoint every now and then.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from ctl_jax import interrupts
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import Scores, Snapshot, TrainState, multihost
from ctl_jax.finetune.checkpoints import Checkpoint, Checkpoints, Like, share
from ctl_jax.trees import Tree


class Lost(Exception):
    """Another worker has taken the training over."""


class Dev(NamedTuple):
    """An evaluation on dev while a training went on.

    Attributes:
      step: updates made.
      value: of the task's metric.
      top5: see `Scores`.
    """

    step: int
    value: float
    top5: float | None


class Kept(NamedTuple):
    """Weights on the way of a training.

    Attributes:
      dev: when, and how good they are.
      variables: parameters and statistics, on the host.
    """

    dev: Dev
    variables: Tree


@contextlib.contextmanager
def kept(job: Job, workspace: Workspace, total_steps: int, **options: Any) -> Iterator["Keeper"]:
    """A training's keeper, with its checkpoints, for as long as the training is in the body.

    Args:
      job: the step's, with the folder of its checkpoints in a group's first process.
      workspace: of the run.
      total_steps: updates of the whole training.
      options: further ones of `Keeper`.
    """
    with contextlib.ExitStack() as stack:
        checkpoints = None
        if job.scratch is not None:
            checkpoints = stack.enter_context(Checkpoints(job.scratch, warn=workspace.warn))
        every_s = workspace.config.checkpoint.every_s
        keeper = Keeper(checkpoints, total_steps, every_s=every_s, is_lost=job.is_lost, **options)
        stack.enter_context(keeper.kept())
        yield keeper


class Keeper:
    """What one training needs so that nothing of it is lost. `fit(on_chunk=keeper)`.

    Attributes:
      dev: the evaluations so far, at the multiples of `evaluate_every` before the last step.
      best: the first of those with the highest value, with its weights; None without `keep_best`.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        total_steps: int,
        *,
        every_s: float,
        until: int | None = None,
        begin: Callable[[Like], Checkpoint] | None = None,
        look_every: int = 1,
        evaluate: Callable[[Tree], Scores] | None = None,
        evaluate_every: int = 0,
        keep_best: bool = False,
        is_lost: Callable[[], bool] = lambda: False,
        on_dev: Callable[[Dev], None] = lambda dev: None,
    ) -> None:
        """Reads nothing yet.

        Args:
          checkpoints: of the training; None in a group's processes but the first.
          total_steps: updates of the whole training.
          every_s: seconds between two checkpoints; 0: only when the run is told to stop.
          until: updates after which it is left, to be gone on with by another step.
          begin: reads where another step has left it; None: it begins with this one.
          look_every: steps between two looks at the clock, which a group takes together.
          evaluate: scores of variables on dev.
          evaluate_every: steps between two calls of it; 0: never.
          keep_best: whether to remember the best weights.
          on_dev: called with each evaluation as it comes; not with those of a checkpoint.
          is_lost: whether another worker has the training now; asked often.
        """
        self.dev: list[Dev] = []
        self.best: Kept | None = None
        self._checkpoints = checkpoints
        self._total = total_steps
        self._until = total_steps if until is None else until
        self._begin = begin
        self._every_s = every_s
        self._look_every = look_every
        self._evaluate = evaluate
        self._evaluate_every = evaluate_every
        self._keep_best = keep_best
        self._is_lost = is_lost
        self._on_dev = on_dev
        self._saved_step = -1
        self._saved_time = time.monotonic()
        self._end: Callable[[], Snapshot] | None = None

    def resume(self, like: Callable[[int], TrainState]) -> Snapshot | None:
        """Where to go on, from the newest checkpoint; None to start from the beginning.

        Args:
          like: gives a state of a phase of the training, by its number from 0; its arrays may be
            abstract.
        """
        found = None
        if jax.process_count() > 1 or (self._checkpoints and self._checkpoints.exist()):
            newest = self._checkpoints.newest(like) if self._checkpoints else None
            found = share(newest, like)
        if found is None and self._begin is not None:
            found = self._begin(like)
        if found is None:
            return None
        self._saved_step = found.step
        self.dev = [Dev(*fields) for fields in found.notes["dev"]]
        if found.best is not None:
            self.best = Kept(Dev(*found.notes["best"]), found.best)
        if found.step == self._until:
            self._end = lambda: found.snapshot
        # It may have been saved instead of being evaluated first.
        self._evaluate_if_due(found.step, lambda: found.snapshot)
        return found.snapshot

    def __call__(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """After some updates.

        Args:
          step: how many there were.
          snapshot: gives the training as it is now.

        Raises:
          Stopped: the run was told to stop; the training is saved.
          Lost: another worker has it.
        """
        if multihost.stop_requested():
            # The others of a group need this process until it has made its updates.
            now = jax.block_until_ready(snapshot())
            self._save(now)
            raise interrupts.stop()
        self._evaluate_if_due(step, snapshot)
        if step == self._until:
            # No copy yet: no further update overwrites the state.
            self._end = snapshot
        elif step % self._look_every == 0 and self._is_due():
            self._save(snapshot())

    def left(self) -> Checkpoint:
        """The training where it was left, after `fit`, with what is remembered of it."""
        assert self._end is not None
        return self._checkpoint(self._end())

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Saves the end of the training if the program is stopped in the body, after `fit`."""
        try:
            yield
        except KeyboardInterrupt:
            if self._end is not None:
                self._save(self._end())
            raise

    def _evaluate_if_due(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        if self._evaluate is None or not self._evaluate_every or step >= self._total:
            return
        if step % self._evaluate_every or (self.dev and self.dev[-1].step == step):
            return
        now = snapshot()
        variables = now.state.variables
        try:
            # It may take long; but a group goes through it together.
            with interrupts.deferred(jax.process_count() > 1):
                scores = self._evaluate(variables)
        except KeyboardInterrupt:
            self._save(now)
            raise
        self.dev.append(Dev(step, scores.value, scores.top5))
        if self._keep_best and (self.best is None or scores.value > self.best.dev.value):
            self.best = Kept(self.dev[-1], jax.device_get(variables))
        self._on_dev(self.dev[-1])

    def _is_due(self) -> bool:
        """Whether to save; the first process decides, and ends what it has lost."""
        decision = 0
        if self._is_lost():
            decision = -1
        elif self._every_s and time.monotonic() - self._saved_time >= self._every_s:
            # One that takes longer than it may is waited for, but not here.
            decision = int(self._checkpoints is not None and not self._checkpoints.busy)
        decision = multihost.of_first(decision)
        if decision < 0:
            raise Lost
        return decision > 0

    def _save(self, snapshot: Snapshot) -> None:
        """Starts saving, unless that step is saved or the training is another worker's."""
        step = snapshot.step
        if self._checkpoints is None or step == self._saved_step or self._is_lost():
            return
        self._checkpoints.save(self._checkpoint(snapshot))
        self._saved_step, self._saved_time = step, time.monotonic()

    def _checkpoint(self, snapshot: Snapshot) -> Checkpoint:
        notes = {"dev": self.dev, "best": self.best.dev if self.best else None}
        return Checkpoint(snapshot, self.best.variables if self.best else None, notes)
