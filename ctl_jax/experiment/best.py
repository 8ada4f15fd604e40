"""Finding the best models of a finished run, by its records alone."""

import json

from ctl_jax import files, records
from ctl_jax.errors import UserError

_RECORDS, _STEPS = "records.jsonl", "steps"


def best_models(workdir: files.PathLike, task: str = "") -> dict[str, files.Path]:
    """The folder of the best model of each task of a finished run, for `models.load`.

    The best is the winner on dev, of all trials that the run's records name; where `auto` was
    interrupted, of those that it had so far.

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
        waited = [each for each in left if each.task == name]
        # What `auto` has so far is a model, too.
        there = {_place(each) for each in waited if each.learning_rate is None}
        so_far = [trial for trial in trials if _place(trial) in there]
        if waited and len(so_far) != len(waited):
            raise UserError(
                f"run {place}: {len(waited)} trials on task {name!r} are not done; expected a "
                f"finished run (the command that began it goes on with it)"
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


def _place(trial: records.TrialRecord | records.PendingRecord) -> tuple[str, str, str, int]:
    """Where on the axes of a run a trial is."""
    return trial.task, trial.method, trial.budget, trial.seed


def _trials(workdir: files.Path) -> tuple[list[records.TrialRecord], list[records.PendingRecord]]:
    """The trials of a run that are done, and those that are not."""
    try:
        text = files.read_text(workdir / _RECORDS)
    except (FileNotFoundError, NotADirectoryError):
        if _STEPS in files.names(workdir):
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


def weights_path(path: str) -> str:
    """What `config.weights` names: of a run's folder the best model of its one task.

    Args:
      path: of a file or folder.

    Returns:
      The folder of the model; or `path` as it is, where that is no run's.

    Raises:
      UserError: the run has several tasks, or as `best_models`.
    """
    if not {_RECORDS, _STEPS}.intersection(files.names(path)):
        return path
    found = best_models(path)
    if len(found) > 1:
        listed = ", ".join(f"{folder} ({task})" for task, folder in found.items())
        raise UserError(f"run {path}: several tasks; expected the folder of a model: {listed}")
    (folder,) = found.values()
    return str(folder)
