"""The loop of a trial."""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from ctl_jax.finetune.step import Hyper, Recipe, Step, Tree, init_state


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


def batch_indices(examples: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of indices: epoch after epoch, each shuffled anew, none cut short.

    A batch that an epoch's end leaves unfilled goes on with the next epoch, so that a task smaller
    than the batch works too, and every example is seen equally often.

    Args:
      examples: how many there are.
      batch_size: how many indices a batch has.
      seed: of the order; the same seed gives the same batches.

    Yields:
      int32 arrays [batch_size].
    """
    generator = np.random.default_rng(seed)
    left = np.empty(0, np.int32)
    while True:
        while len(left) < batch_size:
            left = np.concatenate([left, generator.permutation(examples).astype(np.int32)])
        yield left[:batch_size]
        left = left[batch_size:]


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
    log_every: int = 10,
    on_log: Callable[[LogEntry], None] = lambda entry: None,
) -> FitResult:
    """Trains for `hyper.total_steps` updates.

    Args:
      step: a compiled step, from `make_step(module, recipe)`.
      recipe: the constants that `step` was made with.
      variables: where training starts, with a head for the task.
      images: uint8 [examples, height, width, 3]; kept on the device while it trains.
      labels: int32 [examples], likewise.
      hyper: learning rate, schedule and class count.
      batch_size: examples an update.
      seed: of the order of the examples, of crops and of flips.
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
    images, labels = jax.device_put((images, labels))
    state = init_state(recipe, variables, seed)
    history: list[LogEntry] = []
    total_steps, start = int(np.asarray(hyper.total_steps)), time.monotonic()
    batches = batch_indices(images.shape[0], batch_size, seed)
    for done in range(1, total_steps + 1):
        batch_images, batch_labels = _take(images, labels, next(batches))
        state, metrics = step(state, batch_images, batch_labels, hyper)
        if done % log_every == 0 or done == total_steps:
            loss, rate = (float(value) for value in jax.device_get(metrics))
            entry = LogEntry(done, loss, rate, time.monotonic() - start)
            history.append(entry)
            on_log(entry)
            if not math.isfinite(entry.loss):
                break
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    return FitResult(trained, done, not math.isfinite(entry.loss), tuple(history))


@jax.jit
def _take(
    images: jax.Array, labels: jax.Array, index: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    # Apart from the step, whose program would otherwise depend on the number of examples.
    return images[index], labels[index]
