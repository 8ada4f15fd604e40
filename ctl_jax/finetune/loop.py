"""The loop of a trial."""

import collections
import contextlib
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ctl_jax.data import streaming
from ctl_jax.finetune.step import Hyper, Recipe, Step, Tree, init_state

# Steps that the host may be ahead of the device: each holds a batch there.
_AHEAD = 4


class LogEntry(NamedTuple):
    """What a trial says of itself every few steps.

    Attributes:
      step: updates made.
      loss: training loss of the last of them, in nats.
      learning_rate: the rate of the last of them.
      wall_s: seconds since the trial's first step was started.
    """

    step: int
    loss: float
    learning_rate: float
    wall_s: float


class FitResult(NamedTuple):
    """What is left of a finetuning.

    Attributes:
      variables: parameters and statistics after the last step.
      steps: updates made: all that were asked for, or fewer if the loss stopped being finite.
      diverged: whether it did.
      history: a `LogEntry` every `log_every` steps and for the last.
    """

    variables: Tree
    steps: int
    diverged: bool
    history: tuple[LogEntry, ...]


def fit(
    step: Step,
    recipe: Recipe,
    variables: Tree,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    hyper: Hyper,
    batch_size: int,
    seed: int,
    device_bytes: int = streaming.DEVICE_BYTES,
    log_every: int = 10,
    on_log: Callable[[LogEntry], None] = lambda entry: None,
) -> FitResult:
    """Trains for `hyper.total_steps` updates.

    Args:
      step: a compiled step, from `make_step(module, recipe)`.
      recipe: the constants that `step` was made with.
      variables: where training starts, with a head for the task.
      images: uint8 [examples, height, width, 3]; may be memory-mapped.
      labels: int32 [examples], or uint8 [examples, outputs] for a multi-label task.
      hyper: learning rate, schedule and class count.
      batch_size: examples an update.
      seed: of the order of the examples, of crops and of flips.
      device_bytes: images that take no more are kept on the device while it trains; others are
        streamed to it, in the same order.
      log_every: steps between two looks at the loss.
      on_log: called with each `LogEntry` as it comes.

    Returns:
      See `FitResult`. A loss that is not finite is seen at the next look, and ends the trial.
    """
    # Arrays, not Python numbers: a step that got a weakly typed scalar once would compile twice.
    hyper = Hyper(
        np.asarray(hyper.learning_rate, np.float32),
        *(np.asarray(value, np.int32) for value in hyper[1:]),
    )
    state = init_state(recipe, variables, seed)
    history: list[LogEntry] = []
    total_steps, start = int(np.asarray(hyper.total_steps)), time.monotonic()
    batches = streaming.batches(
        images,
        labels,
        batch_size=batch_size,
        seed=seed,
        stop=total_steps,
        device_bytes=device_bytes,
    )
    pending: collections.deque[jax.Array] = collections.deque()
    with contextlib.closing(batches):
        for done, (batch_images, batch_labels) in enumerate(batches, 1):
            state, metrics = step(state, batch_images, batch_labels, hyper)
            pending.append(metrics.loss)
            if len(pending) > _AHEAD:
                pending.popleft().block_until_ready()
            if done % log_every == 0 or done == total_steps:
                loss, rate = (float(value) for value in jax.device_get(metrics))
                entry = LogEntry(done, loss, rate, time.monotonic() - start)
                history.append(entry)
                on_log(entry)
                if not math.isfinite(entry.loss):
                    break
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    return FitResult(trained, done, not math.isfinite(entry.loss), tuple(history))
