"""Records in, checked and put into a fixed order.

The lines of `records.jsonl` may come in any order and more than once (a run that was continued
says again what it is), so nothing here depends on the order in which they are given.
"""

import dataclasses
import json
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from ctl_jax.errors import UserError
from ctl_jax.report.schema import FIELDS, Record, checked

# What must agree between the run records of one workdir. Versions and devices may change when a
# run is continued elsewhere, and data sets that were missing may have arrived.
_PROTOCOL = ("variant", "methods", "budgets", "learning_rates", "seeds", "model")
# Within one record, what the wall clock decides and no comparison may see.
_CLOCK = ("wall_s",)


@dataclasses.dataclass(frozen=True)
class Table:
    """The records of one run.

    Attributes:
        run: The run record, or None where there is none yet. Of several that differ only in how
            many tasks were available, the one with the most.
        machines: Every (device, versions) the run was on, sorted.
        pretrain: The pretraining done by the run itself, or None.
        methods: Method records by name, in the run's order; unfinished runs lack some.
        trials: Trials in the run's order of tasks, methods, budgets, seeds, learning rates.
    """

    run: dict[str, Any] | None
    machines: tuple[tuple[str, str], ...]
    pretrain: dict[str, Any] | None
    methods: dict[str, dict[str, Any]]
    trials: tuple[dict[str, Any], ...]

    def plan(self, key: str) -> list[Any]:
        """Returns a list of the run record (`methods`, `seeds`, ...), empty without a run."""
        return [] if self.run is None else self.run[key]

    @property
    def tasks(self) -> list[str]:
        """Names of the run's tasks, in order."""
        return [task["name"] for task in self.plan("tasks")]

    @property
    def budgets(self) -> list[int]:
        """Budgets in FLOPs, ascending."""
        return sorted(self.plan("budgets"))


def read(records: Iterable[Record]) -> Table:
    """Checks records and orders them.

    Args:
        records: Objects of `records.jsonl`; unknown types are ignored.

    Returns:
        The checked records, the same for any order of the lines.

    Raises:
        UserError: A field is missing or of the wrong type, two records contradict each other, or
            a trial does not belong to the run.
    """
    by_type: dict[str, list[dict[str, Any]]] = {kind: [] for kind in FIELDS}
    for line, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise UserError(f"record {line}: expected an object with a type, got {record!r}")
        kind = record.get("type")
        if isinstance(kind, str) and kind in FIELDS:
            by_type[kind].append(checked(record, kind, line))
    run, machines = _one_run(by_type["run"])
    methods = _unique(by_type["method"], "method", "method")
    pretrain = _unique(by_type["pretrain"], "pretrain", "type")
    trials = _unique(by_type["trial"], "trial", "id")
    if run is None and (methods or trials):
        raise UserError("records: no run record among them, expected one that names the tasks")
    names = run["methods"] if run else []
    return Table(
        run=run,
        machines=machines,
        pretrain=pretrain.get("pretrain"),
        methods={name: methods[name] for name in names if name in methods},
        trials=_ordered(trials.values(), run) if run else (),
    )


def _canonical(record: Record, without: Iterable[str] = ()) -> str:
    kept = {key: value for key, value in record.items() if key not in without}
    return json.dumps(kept, sort_keys=True, default=str)


def _unique(records: Iterable[dict[str, Any]], kind: str, key: str) -> dict[str, dict[str, Any]]:
    """Returns records by key; the same record twice is one, two that differ are an error."""
    unique: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=_canonical):
        first = unique.setdefault(record[key], record)
        if _canonical(first, _CLOCK) != _canonical(record, _CLOCK):
            fields = sorted(
                name
                for name in first.keys() | record.keys()
                if name not in _CLOCK and first.get(name) != record.get(name)
            )
            raise UserError(
                f"{kind} {record[key]}: recorded twice with different {', '.join(fields)}, "
                "expected the same numbers"
            )
    return unique


def _one_run(
    runs: list[dict[str, Any]],
) -> tuple[dict[str, Any] | None, tuple[tuple[str, str], ...]]:
    if not runs:
        return None, ()
    runs = sorted(runs, key=lambda run: (-len(run["tasks"]), _canonical(run)))
    best = runs[0]
    for run in runs[1:]:
        for key in _PROTOCOL:
            if run[key] != best[key]:
                raise UserError(f"run records: {key} {run[key]!r} and {best[key]!r}, expected one")
        for task in run["tasks"]:
            if task not in best["tasks"]:
                raise UserError(
                    f"run records: task {task['name']!r} differs between them or is missing from "
                    "the one with the most tasks, expected the same task"
                )
    machines = {
        (
            run["device"],
            ", ".join(f"{name} {run['versions'][name]}" for name in sorted(run["versions"])),
        )
        for run in runs
    }
    return best, tuple(sorted(machines))


def _ordered(trials: Iterable[dict[str, Any]], run: Record) -> tuple[dict[str, Any], ...]:
    """Returns trials in the run's order; each must have a place there, and have it alone."""
    axes = {
        "variant": [run["variant"]],
        "task": [task["name"] for task in run["tasks"]],
        "method": run["methods"],
        "budget_flops": run["budgets"],
        "seed": run["seeds"],
        "learning_rate": run["learning_rates"],
    }
    ordered: dict[tuple[int, ...], dict[str, Any]] = {}
    for trial in trials:
        for field, values in axes.items():
            if trial[field] not in values:
                raise UserError(
                    f"trial {trial['id']}: {field} {trial[field]!r} is not in the run, expected "
                    f"one of {', '.join(map(str, values))}"
                )
        place = tuple(values.index(trial[field]) for field, values in axes.items())
        other = ordered.setdefault(place, trial)
        if other is not trial:
            first, second = sorted([other["id"], trial["id"]])
            raise UserError(
                f"trials {first} and {second}: same task, method, budget, seed and learning rate, "
                "expected one trial"
            )
    return tuple(trial for _, trial in sorted(ordered.items(), key=operator.itemgetter(0)))
