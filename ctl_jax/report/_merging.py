"""Several runs as one: their records put together, for a report that compares them."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ctl_jax import records
from ctl_jax.errors import UserError
from ctl_jax.records import (
    EvaluateRecord,
    FinalRecord,
    MethodRecord,
    PendingRecord,
    PredictRecord,
    PretrainRecord,
    Record,
    RungRecord,
    RunRecord,
    RunTask,
    TrialRecord,
)
from ctl_jax.report._loading import read_lines

T = TypeVar("T")
# How a model was trained; of many that were not evaluated nobody asks.
_ON_THE_WAY = ("train", "dev")
# Records whose ids are those of one method's.
_OF_METHODS = (
    TrialRecord | PendingRecord | EvaluateRecord | FinalRecord | PredictRecord | RungRecord
)
# What runs may say differently of a task that is the same.
_REMARKS = ("notes", "passed_over", "corrupt_examples")


def read_runs(runs: Sequence[str]) -> list[dict[str, Any]]:
    """The records of one run or several, as those of one.

    Args:
      runs: folders of runs, each perhaps behind a label, `LABEL=FOLDER`; see `merged`.

    Raises:
      UserError: as `merged` and `_loading.read_lines` do.
    """
    found = [(label, read_lines(workdir)) for label, workdir in map(split, runs)]
    return merged(found) if len(found) > 1 or found[0][0] else found[0][1]


def split(run: str) -> tuple[str, str]:
    """The label of a run that is given as `LABEL=FOLDER`, "" without one, and its folder."""
    match = re.fullmatch(r"([\w.@:+-]+)=(.+)", run)
    return (match[1], match[2]) if match else ("", run)


def merged(runs: Sequence[tuple[str, Iterable[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """The records of runs as those of one that has all their tasks, methods, budgets and seeds.

    What only one of them has (other seeds, other methods) stands beside the rest. Where runs have
    the same method with other results, such as those of other weights, labels tell them apart. A
    task's evaluation is that of its best model over all runs; there is none where the run that has
    it evaluated none.

    Args:
      runs: each a label, which its methods get, or "", and the objects of its `records.jsonl`.

    Returns:
      Objects as of one `records.jsonl`.

    Raises:
      UserError: the records are incomplete, a run has no run record, or runs without labels have
        different results of one method, or different tasks of one name.
    """
    found = [_labelled(label, _read(lines)) for label, lines in runs]
    names = [label or f"run {number}" for number, (label, _) in enumerate(runs, start=1)]
    together = _one_run([_runs(one) for one in found], names)
    _check_agreement(found, names)
    pretrained = [each for one in found for each in one if isinstance(each, PretrainRecord)]
    rest: list[Record] = [
        dataclasses.replace(each, variant=together[0].variant)
        if isinstance(each, TrialRecord)
        else each
        for one in found
        for each in one
        if not isinstance(each, RunRecord | PretrainRecord | EvaluateRecord)
    ]
    every = (*together, *_one_pretraining(pretrained), *rest, *_evaluations(found))
    return [records.to_json(each) for each in every]


def _evaluations(found: Iterable[Iterable[Record]]) -> list[EvaluateRecord]:
    """Those of each task's best trial over all runs, each once."""
    every = [each for one in found for each in one]
    trials: dict[str, list[TrialRecord]] = {}
    for each in every:
        if isinstance(each, TrialRecord):
            trials.setdefault(each.task, []).append(each)
    best = {records.winner(of_task).id for of_task in trials.values()}
    by_id = {e.id: e for e in every if isinstance(e, EvaluateRecord) and e.trial in best}
    return list(by_id.values())


def _read(lines: Iterable[Mapping[str, Any]]) -> list[Record]:
    lines = list(lines)
    evaluated = {line.get("trial") for line in lines if line.get("type") == EvaluateRecord.type}
    found = (
        records.from_json(line, number)
        for number, line in enumerate(lines, start=1)
        if line.get("type") not in _ON_THE_WAY or line.get("trial") in evaluated
    )
    return [record for record in found if record is not None]


def _labelled(label: str, found: Iterable[Record]) -> list[Record]:
    """Records whose methods end with a label, and whose trials are told apart by it."""
    return [_renamed(each, f" ({label})") for each in found] if label else list(found)


def _renamed(record: Record, ending: str) -> Record:
    if isinstance(record, RunRecord):
        methods = tuple(method + ending for method in record.methods)
        return dataclasses.replace(record, methods=methods)
    names = ["method", "trial"] + (["id"] if isinstance(record, _OF_METHODS) else [])
    known = {name: vars(record).get(name) for name in names}
    changed: dict[str, Any] = {name: f"{text}{ending}" for name, text in known.items() if text}
    return dataclasses.replace(record, **changed)


def _runs(found: Iterable[Record]) -> list[RunRecord]:
    """The run records of one run."""
    of_run = [each for each in found if isinstance(each, RunRecord)]
    if not of_run:
        raise UserError("records: no run record among those of a run, expected one")
    return of_run


def _one_run(runs: Sequence[Sequence[RunRecord]], names: Sequence[str]) -> list[RunRecord]:
    """The run records of all, as if they were of one run; each keeps what it ran on."""
    every = [each for one in runs for each in one]
    tasks = _tasks(every)
    there = {task.name for task in tasks}
    missing = {each.name: each for run in every for each in run.missing if each.name not in there}
    whole = dataclasses.replace(
        every[0],
        variant=" and ".join(_union(each.variant for each in every)),
        model=" and ".join(_union(each.model for each in every)),
        tasks=tasks,
        missing=tuple(missing.values()),
        methods=tuple(_union(method for each in every for method in each.methods)),
        budgets=tuple(_union(budget for each in every for budget in each.budgets)),
        learning_rates=tuple(_union(rate for each in every for rate in each.learning_rates)),
        seeds=tuple(_union(seed for each in every for seed in each.seeds)),
        config={name: one[-1].config for name, one in zip(names, runs, strict=True)},
    )
    return [
        dataclasses.replace(whole, versions=each.versions, device=each.device) for each in every
    ]


def _union(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _tasks(runs: Iterable[RunRecord]) -> tuple[RunTask, ...]:
    """The tasks of all; what one run does not know of a task another one may."""
    found: dict[str, RunTask] = {}
    for run in runs:
        for task in run.tasks:
            known = {name: value for name, value in vars(task).items() if value is not None}
            other = vars(found.get(task.name, task))
            differ = [
                name
                for name, value in known.items()
                if name not in _REMARKS and other[name] not in (None, value)
            ]
            if differ:
                raise UserError(
                    f"task {task.name!r}: {', '.join(differ)} differ between runs, expected the "
                    "same task"
                )
            found[task.name] = dataclasses.replace(found.get(task.name, task), **known)
    return tuple(found.values())


def _check_agreement(found: Sequence[Sequence[Record]], names: Sequence[str]) -> None:
    """Sees whether what two runs call the same is the same."""
    seen: dict[tuple[Any, ...], tuple[str, Any]] = {}
    key: tuple[Any, ...]
    for name, one in zip(names, found, strict=True):
        for each in one:
            if isinstance(each, TrialRecord):
                axes = (each.task, each.method, each.budget, each.seed)
                key = (*axes, each.learning_rate, each.batch_size)
                what: Any = each.id
            elif isinstance(each, MethodRecord):
                key, what = (each.method,), each
            else:
                continue
            before, other = seen.setdefault(key, (name, what))
            if other != what:
                raise UserError(
                    f"{before} and {name}: different results of {', '.join(map(str, key[:4]))}; "
                    "expected labels that tell their methods apart, A=RUN B=RUN"
                )


def _one_pretraining(found: Iterable[PretrainRecord]) -> list[PretrainRecord]:
    """What runs spent on pretraining, each once, together; none where none did."""
    each = list({record.id or str(record): record for record in found}.values())
    if len(each) < 2:
        return each
    return [
        PretrainRecord(
            task=" and ".join(_union(record.task for record in each)),
            steps=sum(record.steps for record in each),
            flops=sum(record.flops for record in each),
            metric=None,
            wall_s=sum(record.wall_s or 0 for record in each),
        )
    ]
