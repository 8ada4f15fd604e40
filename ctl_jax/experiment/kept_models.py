"""Which trained models stay in a run's folder, and where the best ones of a finished run are."""

import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

from ctl_jax import files, records
from ctl_jax.errors import UserError
from ctl_jax.experiment.kinds import evaluate
from ctl_jax.experiment.steps import Finished, Step, Strategy

TRIAL = "finetune"


def _none(steps: list[Step], finished: Finished) -> set[str]:
    return set()


def _all(steps: list[Step], finished: Finished) -> set[str]:
    trials = (step for step in steps if step.kind == TRIAL)
    return {s.id for s in trials if s not in finished or not _result(finished, s).diverged}


def _best(steps: list[Step], finished: Finished) -> set[str]:
    return {step.id for step in winners(steps, finished)}


# `config.keep_models`: from the steps of a run and what is finished to the ids that keep theirs.
MODES: dict[str, Callable[[list[Step], Finished], set[str]]] = {
    "none": _none,
    "best": _best,
    "all": _all,
}


def keeping(strategy: Strategy, mode: str) -> Strategy:
    """The strategy with those of its steps marked whose models stay.

    Args:
      strategy: says which steps are wanted.
      mode: "none", "best" (of each task, once all of its trials that are wanted are done) or "all".
        The best are evaluated on the test split, too.
    """

    def wanted(finished: Finished) -> list[Step]:
        steps = list(strategy(finished))
        kept = MODES[mode](steps, finished)
        marked = [step.kept() if step.id in kept else step for step in steps]
        best = [step for step in marked if step.id in kept] if mode == "best" else []
        return [*marked, *map(evaluate.make, best)]

    return wanted


def ranks(trials: Iterable[Step], finished: Finished) -> dict[str, Any]:
    """The rank of the best finished trial of each task, by the task's name."""
    found: dict[str, Any] = {}
    for step in trials:
        if step in finished:
            record = _result(finished, step)
            rank = records.rank(record)
            found[record.task] = min(rank, found.get(record.task, rank))
    return found


def _result(finished: Finished, trial: Step) -> records.TrialRecord:
    record = finished.record(trial)
    assert isinstance(record, records.TrialRecord)
    return record


def winners(steps: Iterable[Step], finished: Finished) -> list[Step]:
    """The best trial of each task whose trials are all done and did not all diverge."""
    by_task: dict[str, list[Step]] = {}
    for step in steps:
        if step.kind == TRIAL:
            by_task.setdefault(step.params["task"]["name"], []).append(step)
    found = []
    for trials in by_task.values():
        if all(step in finished for step in trials):
            best = records.winner(map(_result, itertools.repeat(finished), trials))
            if not best.diverged:
                found += [step for step in trials if step.id == best.id]
    return found


def best_models(workdir: files.PathLike, task: str = "") -> dict[str, files.Path]:
    """The folder of the best model of each task of a finished run, for `models.load`.

    The best is the winner on dev, of all trials that the run's records name.

    Args:
      workdir: the run's folder, local or `gs://bucket/path`.
      task: the name of one task, the only one that has to be finished then; "" is all of them.

    Returns:
      Folders by the task's name, in the order of the run.

    Raises:
      UserError: there is no run, it is not finished, it has no such task, or it kept no model.
    """
    place = files.path(workdir)
    trials, left = _trials(place)
    names = list(dict.fromkeys([*(trial.task for trial in trials), *(each.task for each in left)]))
    if task and task not in names:
        raise UserError(f"run {place}: no task {task!r}; expected one of {', '.join(names)}")
    found = {}
    for name in [task] if task else names:
        if count := sum(each.task == name for each in left):
            raise UserError(
                f"run {place}: {count} trials on task {name!r} are not done; expected a finished "
                f"run (the command that began it goes on with it)"
            )
        best = records.winner(trial for trial in trials if trial.task == name)
        if best.diverged:
            raise UserError(f"run {place}: every trial on task {name!r} diverged; expected a model")
        if best.id not in files.names(place / "models"):
            raise UserError(
                f"run {place}: the best model of task {name!r}, models/{best.id}, is not there; "
                f"expected a run with config.keep_models='best'"
            )
        found[name] = place / "models" / best.id
    return found


def _trials(workdir: files.Path) -> tuple[list[records.TrialRecord], list[records.PendingRecord]]:
    """The trials of a run that are done, and those that are not."""
    try:
        text = files.read_text(workdir / "records.jsonl")
    except (FileNotFoundError, NotADirectoryError):
        if "steps" in files.names(workdir):
            reason = "no records.jsonl yet; expected a finished run (the same command goes on)"
        else:
            reason = "no run there; expected the --workdir of one"
        raise UserError(f"run {workdir}: {reason}") from None
    done: list[records.TrialRecord] = []
    left: list[records.PendingRecord] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            content = json.loads(line)
        except ValueError:
            raise UserError(
                f"run {workdir}: line {number} of records.jsonl is not JSON; the run's command "
                f"writes it again"
            ) from None
        # Of the others there may be many.
        if content.get("type") not in (records.TrialRecord.type, records.PendingRecord.type):
            continue
        record = records.from_json(content, number)
        if isinstance(record, records.TrialRecord):
            done.append(record)
        elif isinstance(record, records.PendingRecord):
            left.append(record)
    if not done and not left:
        raise UserError(f"run {workdir}: no trial in its records; expected one on a task")
    return done, left
