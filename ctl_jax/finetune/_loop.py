"""The loop of a training: one phase after the other."""

import collections
import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.finetune import _batches, feature_maps, sharding
from ctl_jax.finetune._compiled_step import Step
from ctl_jax.finetune.step import MAX_STEPS, Hyper, Metrics, Recipe, TrainState, init_state, pulled
from ctl_jax.trees import Tree

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
      variables: parameters and statistics after the last step, or their moving average.
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
      state: of the phase, but for its `start`, on one device of this process; `state.step` tells
        where in its data it is.
      history: the training's log so far.
      wall_s: seconds that it took so far.
      phase: the number of the phase, from 0.
      before: updates of the phases before it.
    """

    state: TrainState
    history: tuple[LogEntry, ...]
    wall_s: float
    phase: int = 0
    before: int = 0

    @property
    def step(self) -> int:
        """Updates made so far, in all phases."""
        return self.before + int(self.state.step)


class Leg(NamedTuple):
    """A phase of a training, ready to run.

    Attributes:
      step: compiled, from `make_step(module, recipe)`.
      recipe: the constants that `step` was made with; its phase says what is trained.
      hyper: of the phase: its own number of updates and warm-up, and its own peak rate, the
        training's times `recipe.phase.rate`.
    """

    step: Step
    recipe: Recipe
    hyper: Hyper

    @property
    def updates(self) -> int:
        """How many it makes."""
        return int(np.asarray(self.hyper.total_steps))


def fit(
    legs: Sequence[Leg],
    variables: Tree,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    batch_size: int,
    seed: int,
    among: np.ndarray | None = None,
    device_bytes: int = _batches.DEVICE_BYTES,
    log_every: int = 10,
    on_log: Callable[[LogEntry], None] = lambda entry: None,
    start: Snapshot | None = None,
    on_chunk: Callable[[int, Callable[[], Snapshot]], None] | None = None,
    until: int | None = None,
) -> FitResult:
    """Trains for `hyper.total_steps` updates of each leg, one after the other.

    A leg starts from the variables that the one before left, with an optimiser, a schedule and a
    running mean of BatchNorm's statistics of its own, and sees the examples in an order, and in
    crops, of its own. Updates are counted over all of them.

    Args:
      legs: the training's phases; most trainings have one.
      variables: where training starts, with a head for the task.
      images: uint8 [examples, height, width, 3]; may be memory-mapped.
      labels: int32 [examples], or uint8 [examples, outputs] for a multi-label task.
      batch_size: examples an update.
      seed: of the order of the examples, of crops and of flips; those of the second leg on follow
        from it and from the leg's number.
      among: indices of the examples that are trained on; all of them without it.
      device_bytes: images that take no more are kept on the device while it trains; others are
        streamed to it, in the same order.
      log_every: steps between two looks at the loss.
      on_log: called with each `LogEntry` as it comes; not with those of `start`.
      start: a snapshot of the same training, to go on from. It is copied.
      on_chunk: called after every few updates, with the number of updates made and a function
        that returns a `Snapshot`, to be called at once if at all. It may raise, which ends the
        training. It is not called after a loss that was seen not to be finite.
      until: updates in all legs after which it ends although schedules go on. What goes on from
        the snapshot of then is the undisturbed training, bit for bit.

    Returns:
      See `FitResult`. A loss that is not finite is seen at the next look, and ends the training.

    Raises:
      UserError: a number of updates or a batch size that cannot be, or a `start` of another
        training.
    """
    for leg in legs:
        _check(leg, batch_size)
    ends = list(itertools.accumulate(leg.updates for leg in legs))
    if start:
        _check_start(start, ends)
    began = time.monotonic() - (start.wall_s if start else 0.0)
    history = list(start.history if start else ())
    done, origin = start.step if start else 0, variables
    data = _Data(images, labels, among, batch_size, device_bytes, log_every)
    diverged, last = False, ends[-1] if until is None else min(until, ends[-1])
    for phase in range(start.phase if start else 0, len(legs)):
        leg, before, own_seed = legs[phase], [0, *ends][phase], _phase_seed(seed, phase)
        state = _first_state(leg, variables, own_seed, start, origin)
        start = None
        inputs = _inputs(leg, state, data, own_seed)
        stop = min(last, ends[phase])
        with contextlib.closing(_run(leg, state, inputs, own_seed, before, stop)) as updates:
            for state, count, metrics in updates:
                done += count
                logs = done % log_every == 0 or done == ends[phase]
                if logs or done == last:
                    values = jax.device_get(metrics)
                    loss, rate = (float(value[count - 1]) for value in values)
                    if logs:
                        history.append(LogEntry(done, loss, rate, time.monotonic() - began))
                        on_log(history[-1])
                    if diverged := not math.isfinite(loss):
                        break
                if on_chunk:
                    at = (state, history, began, phase, before)
                    on_chunk(done, functools.partial(_snapshot, *at))
        trained = state.variables
        if diverged or done == last:
            break
        if phase + 1 < len(legs):
            variables = sharding.local_copy(trained)
    return FitResult(trained, done, diverged, tuple(history))


def _check(leg: Leg, batch_size: int) -> None:
    sharding.check_batch(leg.step.mesh, batch_size)
    if not 0 <= leg.updates <= MAX_STEPS:
        raise UserError(f"total_steps={leg.hyper.total_steps}: expected 0 to {MAX_STEPS}")


def _check_start(start: Snapshot, ends: Sequence[int]) -> None:
    if start.step > ends[-1]:
        raise UserError(
            f"start is after step {start.step}; expected at most total_steps={ends[-1]}"
        )
    begins = [0, *ends[:-1]]
    if start.phase >= len(ends) or not (
        start.before == begins[start.phase] <= start.step <= ends[start.phase]
    ):
        raise UserError(
            f"start is in phase {start.phase}, after step {start.step}; expected one of phases "
            f"that end after steps {', '.join(map(str, ends))}"
        )


def _phase_seed(seed: int, phase: int) -> int:
    """Another for each phase; the first one's is the training's."""
    if phase == 0:
        return seed
    return int(np.random.SeedSequence([seed % 2**64, phase]).generate_state(1)[0])


class _Data(NamedTuple):
    """What all phases are trained on; see `fit`."""

    images: jax.Array | np.ndarray
    labels: jax.Array | np.ndarray
    among: np.ndarray | None
    batch_size: int
    device_bytes: int
    log_every: int


def _inputs(leg: Leg, state: TrainState, data: _Data, seed: int) -> _Data:
    """The data as the leg takes it: maps of those images that it comes to see, or all images.

    What is below the maps is frozen: after an interruption they are the same.
    """
    if leg.step.lower is None or int(state.step) == leg.updates:
        return data
    examples = len(data.images)
    index = feature_maps.seen(examples, data.batch_size, seed, leg.updates, data.among)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return data._replace(
        images=feature_maps.compute(leg.step.lower, leg.step.mesh, variables, data.images, index)
    )


def _run(
    leg: Leg, state: TrainState, data: _Data, seed: int, before: int, stop: int
) -> Generator[tuple[TrainState, int, Metrics], None, None]:
    """Starts a phase's chunks up to `stop`; yields each one's state, updates and metrics."""
    step = leg.step
    # Arrays, not Python numbers: a step that got a weakly typed scalar once would compile twice.
    reals = ("learning_rate", "head_rate", "label_smoothing")
    hyper = Hyper(
        **{
            name: np.asarray(value, np.float32 if name in reals else np.int32)
            for name, value in leg.hyper._asdict().items()
        }
    )
    done = int(state.step)
    chunks = _batches.chunks(
        data.images,
        data.labels,
        mesh=step.mesh,
        batch_size=data.batch_size,
        seed=seed,
        ends=_batches.ChunkEnds(
            before + done,
            stop,
            every=data.log_every,
            length=_chunk_length(step, data),
        ),
        before=before,
        device_bytes=data.device_bytes,
        among=data.among,
    )
    hyper = sharding.replicate(step.mesh, hyper)
    counts = functools.cache(lambda count: sharding.replicate(step.mesh, np.int32(count)))
    pending: collections.deque[jax.Array] = collections.deque()
    with contextlib.closing(chunks):
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
    leg: Leg, variables: Tree, seed: int, start: Snapshot | None, origin: Tree
) -> TrainState:
    """Arrays of its own on all devices: the first update overwrites them.

    What pulls parameters back is where the whole training began, `origin`, in all phases.
    """
    if start is None:
        # As an array, which is cut to its lower 32 bits: jax does so with a Python int.
        state = _initial_state(leg.recipe, dict(variables), np.int64(seed).astype(np.int32))
    else:
        state = jax.tree.map(jnp.array, start.state)
    state = state._replace(start=pulled(leg.recipe, origin["params"]))
    return sharding.replicate(leg.step.mesh, state)


def _snapshot(
    state: TrainState, history: Sequence[LogEntry], began: float, phase: int, before: int
) -> Snapshot:
    # Where the training began is known to who goes on with it.
    state = sharding.local_copy(state._replace(start=None))
    now = state, tuple(history), time.monotonic() - began
    return Snapshot(*now, phase, before)


def _chunk_length(step: Step, data: _Data) -> int:
    """Updates a call. Nothing that differs between tasks of a run has a part in it."""
    batch_bytes = data.batch_size * math.prod(data.images.shape[1:]) * data.images.dtype.itemsize
    return max(1, min(step.chunk, data.log_every, _batches.CHUNK_BYTES // batch_bytes))
