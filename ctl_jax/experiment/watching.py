"""The watchers of a run at work: each follows one step after the other, as they are computed.

A watcher that fails is left out from there on, which one line says: what is computed does not
depend on who looks.
"""

import contextlib
import dataclasses
import math
import pathlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import ctl_jax
from ctl_jax import formatting, interrupts, records
from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment import rungs
from ctl_jax.experiment.checkpointing import Lost
from ctl_jax.experiment.kept_models import TRIAL
from ctl_jax.experiment.kinds import rung
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.watchers import Follow, Run, Seen, Watched, Watcher

# What a step says while it trains, by the type of its record.
_TRAINING = {
    records.TrainRecord: ("loss", "learning_rate", "flops", "wall_s"),
    records.DevRecord: ("dev", "dev_top5"),
}
# Numbers of records that tell what was done, and not what came of it.
_GIVEN = frozenset(("batch_size", "label_smoothing", "learning_rate", "ratio", "seed", "year"))
# Settings that stand in a name, and how they are called there.
_NAMED = {
    "learning_rate": "lr",
    "batch_size": "batch",
    "label_smoothing": "smoothing",
    "seed": "seed",
}
# Of a library's errors, whose texts may be pages.
_SHOWN = 200
# What a user's code may raise, `sys.exit` among it; but not what stops the run.
_FAILURES = (Exception, SystemExit)


class Watching:
    """Those that follow a run in this process.

    Args:
      found: watchers by their names, from `watchers.find`.
      run: what they get.
      warn: called with a line about one that fails.

    Raises:
      UserError: one cannot watch this run.
    """

    def __init__(self, found: Mapping[str, Watcher], run: Run, warn: Callable[[str], None]):
        self._warn = warn
        self._follow: dict[str, Follow] = {}
        self._step: Step | None = None
        # The one at hand, and for each watcher that has begun to follow it, how.
        self._watched: Watched | None = None
        self._open: dict[str, tuple[AbstractContextManager[Any], Callable[[Seen], object]]] = {}
        for name, watcher in found.items():
            try:
                self._follow[name] = watcher(run)
            except UserError as error:
                raise UserError(f"config.watch={name!r}: {error}") from None
            except _FAILURES as error:
                raise UserError(f"config.watch={name!r}: it failed with {_told(error)}") from None

    @contextlib.contextmanager
    def following(self, step: Step) -> Iterator[None]:
        """What is seen in the body is of this step; those that followed it leave it at its end."""
        self._step = step
        try:
            yield
        except (KeyboardInterrupt, Lost):
            # It is gone on with, here or elsewhere.
            self._leave(None)
            raise
        except BaseException as error:
            self._leave(error)
            raise
        self._leave(None)

    def see(self, record: records.Record) -> None:
        """Shows the watchers what the step at hand says; its last record says that it is done."""
        if self._step is None or not self._follow:
            return
        with interrupts.deferred():
            if self._watched is None:
                self._watched = describe(self._step)
            seen = seen_of(record, self._watched.settings)
            for name in list(self._follow):
                try:
                    if name not in self._open:
                        self._enter(name, self._watched)
                    self._open[name][1](seen)
                except _FAILURES as error:
                    self._drop(name, error)

    def _enter(self, name: str, watched: Watched) -> None:
        context = self._follow[name](watched) or contextlib.nullcontext(_nothing)
        self._open[name] = context, context.__enter__()

    def _leave(self, error: BaseException | None) -> None:
        """Leaves the contexts, through which the error passes that ended the step, if one did."""
        passing = (type(error), error, error.__traceback__) if error else (None, None, None)
        with interrupts.deferred():
            for name, (context, _) in list(self._open.items()):
                try:
                    context.__exit__(*passing)
                except _FAILURES as failure:
                    if failure is not error:
                        self._drop(name, failure)
        self._open, self._watched, self._step = {}, None, None

    def _drop(self, name: str, error: BaseException) -> None:
        del self._follow[name]
        context, _ = self._open.pop(name, (None, None))
        if context is not None:
            # It may hold a connection; that it failed is said once.
            with contextlib.suppress(*_FAILURES):
                context.__exit__(type(error), error, error.__traceback__)
        self._warn(
            f"watcher {name!r} failed with {_told(error)}; the run goes on without it, and loses "
            f"nothing"
        )


def _nothing(seen: Seen) -> None:
    """For steps that a watcher does not follow."""


def _told(error: BaseException) -> str:
    """An error in one line, with where it was raised outside this package."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    own = (str(pathlib.Path(ctl_jax.__file__).parent), contextlib.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if not frame.filename.startswith(own)]
    at = f" ({places[0].filename}:{places[0].lineno})" if places else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{at}"


def describe(step: Step) -> Watched:
    """A step as watchers see it."""
    of, training = step, step.id
    # What evaluates a trial's network, which says no more of itself than that.
    for name in ("weights", "trial"):
        if "task" not in step.params and (start := step.inputs.get(name)) is not None:
            of = start if start.kind == TRIAL else of
    if of.kind in (TRIAL, rung.KIND):
        of = rungs.whole(of)
    if of is not step:
        training = of.id
    settings = _settings(of)
    kind = [] if of.kind == TRIAL else [of.kind]
    return Watched(step.id, step.kind, training, _name(kind, settings, training), settings)


def _settings(step: Step) -> dict[str, Any]:
    params = step.params
    inner = params.get("finetune", params.get("pretrain", {}))
    found = {name: value for name, value in params.items() if isinstance(value, str | int | float)}
    if "task" in params:
        found["task"] = params["task"]["name"]
    # Trials that make no update have neither.
    if params.get("learning_rate", inner.get("learning_rate")) is not None:
        found |= {name: inner[name] for name in _NAMED if name in inner}
    return found


def _name(begin: Sequence[str], settings: Mapping[str, Any], training: str) -> str:
    parts = [*begin, *(str(settings[name]) for name in ("task", "method") if name in settings)]
    if "budget" in settings:
        parts += formatting.budgets([Budget.parse(settings["budget"])])
    short = [f"{_NAMED[key]}={settings[key]:g}" for key in _NAMED if key in settings]
    # Runs with other settings may share the folder.
    parts.append(f"{','.join(short)}{'-' if short else ''}{training[:6]}")
    return "/".join(part.replace("/", "_").replace(" ", "") for part in parts)


def seen_of(record: records.Record, settings: Mapping[str, Any]) -> Seen:
    """What watchers see of a record of a step with these settings."""
    if (names := _TRAINING.get(type(record))) is not None:
        values = {f"train/{name}": getattr(record, name) for name in names}
        return Seen(record, getattr(record, "step", None), _finite(values), False)
    left_out = _GIVEN.union(settings)
    group = getattr(record, "split", "result")
    values = {
        f"{group}/{field.name}": getattr(record, field.name)
        for field in dataclasses.fields(record)
        if field.name not in left_out
    }
    return Seen(record, getattr(record, "steps", None), _finite(values), True)


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
