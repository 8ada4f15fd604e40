"""Records from JSON objects, with those of earlier versions in today's form."""

from collections.abc import Callable, Mapping
from typing import Any

from ctl_jax.compute.budgets import Budget
from ctl_jax.errors import naming
from ctl_jax.records._prepared import (
    AdaptRecord,
    ExtractRecord,
    HeadRecord,
    LookRecord,
    NeighboursRecord,
    PruneRecord,
    RecalibrateRecord,
    RegrowRecord,
    RungRecord,
    ShortenRecord,
)
from ctl_jax.records._schema import read_fields
from ctl_jax.records._trial import TrialRecord, check_trial
from ctl_jax.records._types import (
    DevRecord,
    EvaluateRecord,
    FinalRecord,
    MethodRecord,
    PaceRecord,
    PendingRecord,
    PredictRecord,
    PretrainRecord,
    RunRecord,
    TaskRecord,
    TrainRecord,
    check_run,
)

Record = (
    RunRecord
    | TaskRecord
    | PretrainRecord
    | PruneRecord
    | ShortenRecord
    | RegrowRecord
    | NeighboursRecord
    | RecalibrateRecord
    | ExtractRecord
    | HeadRecord
    | LookRecord
    | AdaptRecord
    | RungRecord
    | PaceRecord
    | MethodRecord
    | TrainRecord
    | DevRecord
    | TrialRecord
    | EvaluateRecord
    | PredictRecord
    | FinalRecord
    | PendingRecord
)

TYPES: dict[str, type[Record]] = {cls.type: cls for cls in Record.__args__}


def from_json(given: Mapping[str, Any], line: int = 1) -> Record | None:
    """Makes a record of a JSON object.

    Args:
        given: An object of `records.jsonl`. Fields that the type does not have are left out.
        line: Its place among the records, from 1, for errors.

    Returns:
        The record, or None where its type is unknown.

    Raises:
        UserError: A field is missing or of another kind.
    """
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        return None
    name = given.get("method" if kind == "method" else "id")
    where = f"record {line} ({kind})" if name is None else f"record {line} ({kind} {name})"
    with naming(where):
        given = _upgraded(given)
    cls: Callable[..., Record] = TYPES[kind]
    record = read_fields(cls, given, where)
    if isinstance(record, RunRecord):
        check_run(record, where)
    if isinstance(record, TrialRecord):
        check_trial(given, where)
    return record


def is_product(given: Mapping[str, Any]) -> bool:
    """Whether a run record is of an earlier version, whose trials were all of its axes' product."""
    budgets = given.get("budgets")
    return isinstance(budgets, list | tuple) and any(map(_is_count, budgets))


def _upgraded(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Earlier versions had budgets in FLOPs only, as numbers, and extracted no features."""
    if is_product(given):
        return {**given, "budgets": [_text(budget) for budget in given["budgets"]]}
    if given["type"] == "trial" and isinstance(ledger := given.get("ledger"), Mapping):
        given = {**given, "ledger": {"extract": 0, **ledger}}
    if given["type"] == "trial" and "budget" not in given and "budget_flops" in given:
        return {**given, "budget": _text(given["budget_flops"])}
    return given


def _text(budget: Any) -> Any:
    return str(Budget(int(budget))) if _is_count(budget) else budget


def _is_count(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and value >= 1 and value == int(value)
