"""What a record must hold: each type's fields and their kinds."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ctl_jax.errors import UserError

Record = Mapping[str, Any]

PURPOSES = ("train", "validate", "search", "prune", "pretrain")

# Each field's kind; a "?" at the end allows null.
FIELDS = {
    "run": {
        "variant": "text",
        "tasks": "objects",
        "missing": "objects",
        "methods": "texts",
        "budgets": "positive integers",
        "learning_rates": "numbers",
        "seeds": "integers",
        "config": "object",
        "versions": "object",
        "device": "text",
        "model": "text",
    },
    "pretrain": {"flops": "integer", "steps": "integer", "metric": "number?", "task": "text"},
    "method": {
        "method": "text",
        "scope": "text?",
        "ratio": "number?",
        "criterion": "text?",
        "params": "integer",
        "forward_flops": "positive integer",
        "flops_per_step": "positive integer",
        "groups": "integer",
        "cut_groups": "integer",
        "notes": "texts",
    },
    "trial": {
        "id": "text",
        "variant": "text",
        "task": "text",
        "dataset": "text",
        "domain": "text?",
        "year": "integer?",
        "method": "text",
        "scope": "text?",
        "ratio": "number?",
        "budget_flops": "integer",
        "learning_rate": "number",
        "seed": "integer",
        "steps": "integer",
        "flops_per_step": "positive integer",
        "spent_flops": "integer",
        "forward_flops": "positive integer",
        "params": "integer",
        "metric": "text",
        "dev": "number?",
        "dev_test": "number?",
        "dev_test_top5": "number?",
        "diverged": "boolean",
        "ledger": "object",
        "wall_s": "number",
    },
}
_TASK = {"name": "text", "title": "text", "dataset": "text", "domain": "text?"}
_TASK_MAY_HAVE = {"notes": "texts", "passed_over": "object"}
_MISSING = {"name": "text", "title": "text", "reason": "text"}


def checked(record: Record, kind: str, line: int) -> dict[str, Any]:
    """Returns a copy of a record whose fields are there and have their types.

    Args:
        record: An object of `records.jsonl`.
        kind: Its type, one of `FIELDS`.
        line: Its place among the records, from 1, for the error.

    Returns:
        The record with whole numbers as int, others as float, and null for a metric that is
        not finite.

    Raises:
        UserError: A field is missing or of another kind.
    """
    name = record.get({"trial": "id", "method": "method"}.get(kind, ""))
    where = f"record {line} ({kind})" if name is None else f"record {line} ({kind} {name})"
    copy = dict(record) | _fields(record, FIELDS[kind], where)
    if kind == "run":
        for key, fields in (("tasks", _TASK), ("missing", _MISSING)):
            copy[key] = [
                dict(task) | _fields(task, fields | _optional(task), f"{where} {key}[{index}]")
                for index, task in enumerate(copy[key])
            ]
        _check_run(copy, where)
    if kind == "trial":
        ledger = copy["ledger"]
        copy["ledger"] = _fields(ledger, dict.fromkeys(PURPOSES, "integer"), f"{where} ledger")
        for metric in ("dev", "dev_test"):
            if copy[metric] is None and not copy["diverged"]:
                raise UserError(
                    f"{where}: {metric} is {record[metric]!r}, expected a finite number since the "
                    "trial did not diverge"
                )
    return copy


def _optional(task: Record) -> dict[str, str]:
    """Fields that records of earlier versions lack."""
    return {name: kind for name, kind in _TASK_MAY_HAVE.items() if name in task}


def _check_run(run: Record, where: str) -> None:
    names = [task["name"] for task in run["tasks"]]
    for key in ("methods", "budgets", "learning_rates", "seeds"):
        _check_unique(run[key], f"{where}: {key}")
    _check_unique(names, f"{where}: names of tasks")
    for name in names:
        # Figures are files named after their tasks.
        if not name or name.startswith(".") or set(name) & set("/\\\0"):
            raise UserError(f"{where}: task {name!r}, expected a name that is safe in a file name")


def _check_unique(values: Sequence[Hashable], where: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{where}: {value!r} is there more than once, expected once")


def _fields(record: Record, fields: Mapping[str, str], where: str) -> dict[str, Any]:
    values = {}
    for name, kind in fields.items():
        if name not in record:
            raise UserError(f"{where}: no field {name!r}, expected {kind.replace('?', ' or null')}")
        try:
            values[name] = _value(record[name], kind)
        except TypeError:
            expected = kind.replace("?", " or null")
            raise UserError(f"{where}: {name} is {record[name]!r}, expected {expected}") from None
    return values


def _value(value: Any, kind: str) -> Any:
    """Returns `value` in its kind's Python type, or raises TypeError."""
    if kind.endswith("?"):
        not_finite = isinstance(value, float) and not math.isfinite(value)
        return None if value is None or not_finite else _value(value, kind[:-1])
    if kind.endswith("s") and isinstance(value, list | tuple):
        return [_value(item, kind[:-1]) for item in value]
    boolean = isinstance(value, bool)
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "boolean" and boolean:
        return value
    if kind == "object" and isinstance(value, Mapping):
        return dict(value)
    number = isinstance(value, int | float) and not boolean and math.isfinite(value)
    if kind == "number" and number:
        return float(value)
    least = 1 if kind == "positive integer" else -math.inf
    if kind.endswith("integer") and number and value == int(value) and value >= least:
        return int(value)
    raise TypeError
