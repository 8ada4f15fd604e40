"""Records in, checked and put into a fixed order.

The lines of `records.jsonl` may come in any order and more than once (a run that was continued
says again what it is), so nothing here depends on the order in which they are given.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ctl_jax import records
from ctl_jax.errors import UserError
from ctl_jax.records import (
    AdaptRecord,
    DevRecord,
    EvaluateRecord,
    ExtractRecord,
    FinalRecord,
    HeadRecord,
    LookRecord,
    MethodRecord,
    MissingTask,
    NeighboursRecord,
    PaceRecord,
    PendingRecord,
    PretrainRecord,
    PruneRecord,
    RecalibrateRecord,
    RungRecord,
    RunRecord,
    RunTask,
    TaskRecord,
    TrainRecord,
    TrialRecord,
)
from ctl_jax.report._budgets import Axis, axis

# Of steps that trials may share.
Prepared = (
    PruneRecord
    | RecalibrateRecord
    | ExtractRecord
    | HeadRecord
    | LookRecord
    | AdaptRecord
    | RungRecord
    | NeighboursRecord
)

# What must agree between the run records of one workdir. Versions and devices may change when a
# run is continued elsewhere, and data sets that were missing may have arrived.
_PROTOCOL = ("variant", "methods", "budgets", "learning_rates", "seeds", "model")
# Within one record, what the wall clock or the machine decides and no comparison may see.
_CLOCK = ("wall_s", "flops_per_second", "latency_s", "whole_latency_s", "computed_on")
# Records that a report is made from.
_READ = (
    *("run", "task", "pretrain", "pace", "method", "trial", "pending", "evaluate", "final"),
    *(cls.type for cls in Prepared.__args__),
)
# Those that it is made from where they are of a trial whose model was evaluated.
_ON_THE_WAY = ("train", "dev")

Place = tuple[str, str, str, int]  # task, method, budget, seed: what one search is for
R = TypeVar("R", bound=records.Record)
P = TypeVar("P", TrialRecord, PendingRecord)


def place(record: TrialRecord | PendingRecord) -> Place:
    """Which search a trial is part of."""
    return record.task, record.method, record.budget, record.seed


@dataclasses.dataclass(frozen=True)
class Table:
    """The records of one run. All is empty where there is no run record yet.

    Attributes:
      run: the run record, or None. Of several that differ only in how many tasks were available,
        the one with the most.
      machines: every (device, versions) the run was on, sorted.
      pretrain: the pretraining done by the run itself, or None.
      paces: what was measured for budgets in seconds.
      tasks: the run's tasks, with what reading their images told.
      missing: tasks of the stream that the run goes without.
      methods: names, in the run's order.
      budgets: FLOPs by budget, ascending; see `_budgets.axis`.
      seeds: in the run's order.
      networks: method records by name, in the run's order; unfinished runs lack some.
      trials: trials in the run's order of tasks, methods, budgets, seeds, learning rates, batch
        sizes, label smoothings; without a rate before all others, with one that the run does not
        name behind.
      pending: trials that are wanted and not done, in the same order.
      prepared: what was done before trials, each once, sorted by id.
      evaluations: of the best models, by task.
      finals: of the best networks of searches, on test, in the run's order.
      logs: "train" and "dev" records of their trials, by the trial's id, first to last.
    """

    run: RunRecord | None = None
    machines: tuple[tuple[str, str], ...] = ()
    pretrain: PretrainRecord | None = None
    paces: tuple[PaceRecord, ...] = ()
    tasks: tuple[RunTask, ...] = ()
    missing: tuple[MissingTask, ...] = ()
    methods: tuple[str, ...] = ()
    budgets: Axis = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    networks: Mapping[str, MethodRecord] = dataclasses.field(default_factory=dict)
    trials: tuple[TrialRecord, ...] = ()
    pending: tuple[PendingRecord, ...] = ()
    prepared: tuple[Prepared, ...] = ()
    evaluations: Mapping[str, EvaluateRecord] = dataclasses.field(default_factory=dict)
    finals: tuple[FinalRecord, ...] = ()
    logs: Mapping[str, Sequence[TrainRecord | DevRecord]] = dataclasses.field(default_factory=dict)

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks, in order."""
        return [task.name for task in self.tasks]


def read(lines: Iterable[Mapping[str, Any]]) -> Table:
    """Checks records and orders them.

    Args:
      lines: objects of `records.jsonl`; unknown types are ignored.

    Returns:
      The checked records, the same for any order of the lines.

    Raises:
      UserError: a field is missing or of the wrong type, two records contradict each other, or
        a trial does not belong to the run.
    """
    lines = list(lines)
    found: list[records.Record] = []
    is_product = False
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, Mapping):
            raise UserError(f"record {number}: expected an object with a type, got {line!r}")
        if line.get("type") in _READ and (record := records.from_json(line, number)) is not None:
            found.append(record)
            is_product |= records.is_product(line)
    run, machines = _one_run(_of(RunRecord, found))
    networks = _unique(_of(MethodRecord, found), lambda record: record.method)
    pretrain = _unique(_of(PretrainRecord, found), lambda record: record.type)
    paces = _unique(_of(PaceRecord, found), lambda record: record.id)
    trials = _unique(_of(TrialRecord, found), lambda record: record.id)
    if run is None:
        if networks or trials:
            raise UserError("records: no run record among them, expected one that names the tasks")
        return Table()
    for trial in trials.values():
        _index({run.variant: 0}, "variant", trial)
    ordered = _ordered(trials.values(), run)
    pending = _unique(_of(PendingRecord, found), lambda record: record.id)
    left = _product(ordered, run) if is_product else pending.values()
    prepared = _unique([r for r in found if isinstance(r, Prepared)], lambda record: record.id)
    evaluations = _unique(_of(EvaluateRecord, found), lambda record: record.task)
    return Table(
        run=run,
        machines=machines,
        pretrain=pretrain.get(PretrainRecord.type),
        paces=tuple(paces[id] for id in sorted(paces)),
        tasks=_joined(run.tasks, _of(TaskRecord, found)),
        missing=run.missing,
        methods=run.methods,
        budgets=axis(run.budgets, ordered),
        seeds=run.seeds,
        networks={name: networks[name] for name in run.methods if name in networks},
        trials=ordered,
        pending=_ordered((each for each in left if each.id not in trials), run),
        prepared=tuple(prepared[id] for id in sorted(prepared)),
        evaluations=evaluations,
        finals=_finals(_of(FinalRecord, found), run),
        logs=_logs(lines, {record.trial for record in evaluations.values()}),
    )


def _finals(found: Iterable[FinalRecord], run: RunRecord) -> tuple[FinalRecord, ...]:
    """What became of searches on test, each once, in the run's order."""
    names = [task.name for task in run.tasks]

    def place_of(record: FinalRecord) -> tuple[int, ...]:
        task, method = names.index(record.task), run.methods.index(record.method)
        return task, method, run.budgets.index(record.budget), run.seeds.index(record.seed)

    return tuple(sorted(_unique(found, lambda record: record.id).values(), key=place_of))


def _logs(
    lines: Sequence[Mapping[str, Any]], trials: Collection[str]
) -> dict[str, list[TrainRecord | DevRecord]]:
    """What some trials said on the way, first to last."""
    found: dict[str, dict[tuple[int, str], TrainRecord | DevRecord]] = {}
    for number, line in enumerate(lines, start=1):
        if line.get("type") in _ON_THE_WAY and line.get("trial") in trials:
            record = records.from_json(line, number)
            assert isinstance(record, TrainRecord | DevRecord)
            found.setdefault(record.trial, {})[record.step, record.type] = record
    return {trial: [by_step[key] for key in sorted(by_step)] for trial, by_step in found.items()}


def _of(cls: type[R], found: Iterable[records.Record]) -> list[R]:
    return [record for record in found if isinstance(record, cls)]


def _canonical(record: records.Record) -> str:
    return json.dumps(records.to_json(record), sort_keys=True, default=str)


def _unique(found: Iterable[R], key: Callable[[R], str]) -> dict[str, R]:
    """Records by key; the same record twice is one, two that differ are an error."""
    groups: dict[str, list[R]] = {}
    for record in found:
        groups.setdefault(key(record), []).append(record)
    for name, same in groups.items():
        if len(same) > 1:
            same.sort(key=_canonical)
            first = records.to_json(same[0])
            for other in map(records.to_json, same[1:]):
                fields = sorted(f for f in first if f not in _CLOCK and first[f] != other[f])
                if fields:
                    raise UserError(
                        f"{same[0].type} {name}: recorded twice with different "
                        f"{', '.join(fields)}, expected the same numbers"
                    )
    return {name: same[0] for name, same in groups.items()}


def _one_run(
    runs: list[RunRecord],
) -> tuple[RunRecord | None, tuple[tuple[str, str], ...]]:
    if not runs:
        return None, ()
    runs = sorted(runs, key=lambda run: (-len(run.tasks), _canonical(run)))
    best = runs[0]
    for run in runs[1:]:
        for key in _PROTOCOL:
            mine, others = getattr(best, key), getattr(run, key)
            if mine != others:
                raise UserError(f"run records: {key} {others!r} and {mine!r}, expected one")
        for task in run.tasks:
            if task not in best.tasks:
                raise UserError(
                    f"run records: task {task.name!r} differs between them or is missing from "
                    "the one with the most tasks, expected the same task"
                )
    machines = {
        (
            run.device,
            ", ".join(f"{name} {run.versions[name]}" for name in sorted(run.versions)),
        )
        for run in runs
    }
    return best, tuple(sorted(machines))


def _joined(tasks: Iterable[RunTask], read: Iterable[TaskRecord]) -> tuple[RunTask, ...]:
    """Tasks with what reading their images told, where they have been read."""
    by_task: dict[str, list[TaskRecord]] = {}
    for record in read:
        # Every trial of a task says the same, or should.
        if record not in (different := by_task.setdefault(record.task, [])):
            different.append(record)
    return tuple(_as_read(task, by_task.get(task.name, [])) for task in tasks)


def _as_read(task: RunTask, read: list[TaskRecord]) -> RunTask:
    if not read:
        return task
    first = min(read, key=_canonical)
    notes = first.notes
    # Methods may see them at several sizes.
    if len({(record.image_size, record.content) for record in read}) > len(
        {record.image_size for record in read}
    ):
        notes += ("its images changed while the run went on: trials are not all of the same data",)
    known = {field.name for field in dataclasses.fields(RunTask)}
    counts: dict[str, Any] = {f"{split}_examples": n for split, n in first.examples.items()}
    return dataclasses.replace(
        task,
        **{name: count for name, count in counts.items() if name in known},
        corrupt_examples=first.corrupt,
        notes=notes,
        passed_over=first.passed_over,
    )


def _product(trials: Iterable[TrialRecord], run: RunRecord) -> list[PendingRecord]:
    """What an earlier version's run, whose trials are a product, has not done yet."""
    done = {(*place(trial), trial.learning_rate) for trial in trials}
    axes = ([task.name for task in run.tasks], run.methods, run.budgets, run.seeds)
    return [
        PendingRecord(
            id=" ".join(map(str, point)),
            task=point[0],
            method=point[1],
            budget=point[2],
            seed=point[3],
            learning_rate=point[4],
        )
        for point in itertools.product(*axes, run.learning_rates)
        if point not in done
    ]


def _ordered(found: Iterable[P], run: RunRecord) -> tuple[P, ...]:
    """Trials in the run's order; each must have a place there, and have it alone."""
    axes: dict[str, dict[Any, int]] = {
        "task": _places(task.name for task in run.tasks),
        "method": _places(run.methods),
        "budget": _places(run.budgets),
        "seed": _places(run.seeds),
    }
    rates = _places(run.learning_rates)
    ordered: dict[tuple[float, ...], P] = {}
    for trial in found:
        where: list[float] = [_index(places, field, trial) for field, places in axes.items()]
        where += _setting(trial, rates)
        other = ordered.setdefault(tuple(where), trial)
        if other is not trial:
            first, second = sorted([other.id, trial.id])
            raise UserError(
                f"{trial.type}s {first} and {second}: same task, method, budget, seed, learning "
                "rate, batch size and label smoothing, expected one trial"
            )
    return tuple(ordered[place] for place in sorted(ordered))


def _setting(trial: TrialRecord | PendingRecord, rates: Mapping[float, int]) -> list[float]:
    """Where a trial stands within its search; one that makes no step is alone there."""
    rate = trial.learning_rate
    if rate is None:
        return [-1, 0, 0, 0]
    size, smoothing = trial.batch_size or 0, trial.label_smoothing or 0
    return [rates.get(rate, len(rates)), rate, size, smoothing]


def _index(places: Mapping[Any, int], field: str, trial: TrialRecord | PendingRecord) -> int:
    value = getattr(trial, field)
    if value not in places:
        raise UserError(
            f"{trial.type} {trial.id}: {field} {value!r} is not in the run, expected one of "
            f"{', '.join(map(str, places))}"
        )
    return places[value]


def _places(values: Iterable[Any]) -> dict[Any, int]:
    return {value: index for index, value in enumerate(values)}
