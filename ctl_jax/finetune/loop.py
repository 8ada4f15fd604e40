"""The loop of a trial."""

import collections
import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.finetune import devices, feed
from ctl_jax.finetune.program import Step
from ctl_jax.finetune.step import (
    MAX_STEPS,
    Hyper,
    Metrics,
    Recipe,
    TrainState,
    Tree,
    init_state,
)

# Chunks that the host may be ahead of the device: each holds its images there.
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


class Snapshot(NamedTuple):
    """A training at some moment: all that it takes to go on with it, bit for bit.

    Attributes:
      state: on one device of this process; `state.step` tells where in the data it is.
      history: its log so far.
      wall_s: seconds that it took so far.
    """

    state: TrainState
    history: tuple[LogEntry, ...]
    wall_s: float


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
    device_bytes: int = feed.DEVICE_BYTES,
    log_every: int = 10,
    on_log: Callable[[LogEntry], None] = lambda entry: None,
    start: Snapshot | None = None,
    on_chunk: Callable[[int, Callable[[], Snapshot]], None] | None = None,
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
      on_log: called with each `LogEntry` as it comes; not with those of `start`.
      start: a snapshot of the same training, to go on from. It is copied.
      on_chunk: called after every few updates, with the number of updates made and a function
        that returns a `Snapshot`, to be called at once if at all. It may raise, which ends the
        training. It is not called after a loss that was seen not to be finite.

    Returns:
      See `FitResult`. A loss that is not finite is seen at the next look, and ends the trial.
    """
    devices.check_batch(step.mesh, batch_size)
    if not 0 <= int(np.asarray(hyper.total_steps)) <= MAX_STEPS:
        raise UserError(f"total_steps={hyper.total_steps}: expected 0 to {MAX_STEPS}")
    # Arrays, not Python numbers: a step that got a weakly typed scalar once would compile twice.
    hyper = Hyper(
        np.asarray(hyper.learning_rate, np.float32),
        *(np.asarray(value, np.int32) for value in hyper[1:]),
    )
    total = int(np.asarray(hyper.total_steps))
    began = time.monotonic() - (start.wall_s if start else 0.0)
    state = first = _first_state(step, recipe, variables, seed, start)
    history = list(start.history if start else ())
    done = int(first.step)
    if done > total:
        raise UserError(f"start is after step {done}; expected at most total_steps={total}")
    length = _chunk_length(step, images, batch_size, log_every)
    chunks = feed.chunks(
        images,
        labels,
        mesh=step.mesh,
        batch_size=batch_size,
        seed=seed,
        ends=feed.ChunkEnds(done, total, every=log_every, length=length),
        device_bytes=device_bytes,
    )
    with contextlib.closing(chunks):
        for state, count, metrics in _run(step, first, hyper, chunks):
            done += count
            if done % log_every == 0 or done == total:
                values = jax.device_get(metrics)
                loss, rate = (float(value[count - 1]) for value in values)
                history.append(LogEntry(done, loss, rate, time.monotonic() - began))
                on_log(history[-1])
                if not math.isfinite(loss):
                    break
            if on_chunk:
                on_chunk(done, functools.partial(_snapshot, state, history, began))
    diverged = bool(history) and not math.isfinite(history[-1].loss)
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    return FitResult(trained, done, diverged, tuple(history))


def _run(
    step: Step, state: TrainState, hyper: Hyper, chunks: Iterator[feed.Chunk]
) -> Iterator[tuple[TrainState, int, Metrics]]:
    """Starts the chunks one after the other; yields each one's state, updates and metrics."""
    hyper = devices.replicate(step.mesh, hyper)
    counts = functools.cache(lambda count: devices.replicate(step.mesh, np.int32(count)))
    pending: collections.deque[jax.Array] = collections.deque()
    with jax.transfer_guard("disallow"):
        upcoming = next(chunks, None)
    while upcoming is not None:
        # Whatever goes to the device or comes from it does so on purpose.
        with jax.transfer_guard("disallow"):
            count, images, labels = upcoming
            state, metrics = step(state, images, labels, hyper, counts(count))
            # On their way while the device works.
            upcoming = next(chunks, None)
            pending.append(metrics.loss)
            if len(pending) > _AHEAD:
                pending.popleft().block_until_ready()
        yield state, count, metrics


# One program an architecture: array by array it took 4 ms a trial, even of a small network.
_initial_state = jax.jit(init_state, static_argnums=0)


def _first_state(
    step: Step, recipe: Recipe, variables: Tree, seed: int, start: Snapshot | None
) -> TrainState:
    """Arrays of its own on all devices: the first update overwrites them."""
    if start is None:
        # As an array, which is cut to its lower 32 bits: jax does so with a Python int.
        state = _initial_state(recipe, dict(variables), np.int64(seed).astype(np.int32))
    else:
        state = jax.tree.map(jnp.array, start.state)
    return devices.replicate(step.mesh, state)


def _snapshot(state: TrainState, history: Sequence[LogEntry], began: float) -> Snapshot:
    return Snapshot(devices.local_copy(state), tuple(history), time.monotonic() - began)


def _chunk_length(
    step: Step, images: jax.Array | np.ndarray, batch_size: int, log_every: int
) -> int:
    """Updates a call. Nothing that differs between tasks of a run has a part in it."""
    batch_bytes = batch_size * math.prod(images.shape[1:])
    return max(1, min(step.chunk, log_every, feed.CHUNK_BYTES // batch_bytes))
