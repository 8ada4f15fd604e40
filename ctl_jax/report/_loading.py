"""The records of a run's folder: as they are, and as pandas DataFrames."""

import dataclasses
import json
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ctl_jax import files, records
from ctl_jax.errors import UserError
from ctl_jax.records import PURPOSES, TrialRecord, kind_of
from ctl_jax.report._results import rows
from ctl_jax.report._table import Table, read

if TYPE_CHECKING:
    # A third of a second's import, which a run's own report does without.
    import pandas as pd

# What `kind_of` calls a value, to the type of a column of them.
_DTYPES = {
    "text": "str",
    "text or null": "str",
    "boolean": "bool",
    "integer": "int64",
    "positive integer": "int64",
    "integer or null": "Int64",
    "positive integer or null": "Int64",
    "number": "float64",
    "number or null": "float64",
}
_STEP_COLUMNS = {
    "id": "text or null",
    "type": "text",
    "task": "text or null",
    "method": "text or null",
    "flops": "integer",
    "wall_s": "number or null",
    "computed_on": "text or null",
}


class Frames(NamedTuple):
    """A run as DataFrames, in its order of tasks, methods, budgets, seeds and learning rates.

    Numbers that may be missing are `Int64` or `float64` with NaN, texts are `str`.

    Attributes:
      results: the rows of `results.csv`: the trial that won each search, with the same columns.
      trials: all trials, with the fields of `records.TrialRecord` but the ledger.
      ledger: what each trial is charged for, a row a trial and purpose: `trial`, `task`, `method`,
        `budget`, `seed`, `purpose`, `flops`.
      steps: what was computed, a row a step that trials may share or that is a trial: `id`, `type`,
        `task`, `method`, `flops` (its own, so that their sum is what the run computed), `wall_s` in
        seconds, and the hardware that it was `computed_on`.
    """

    results: "pd.DataFrame"
    trials: "pd.DataFrame"
    ledger: "pd.DataFrame"
    steps: "pd.DataFrame"


def load(workdir: str | os.PathLike[str]) -> Frames:
    """A run as pandas DataFrames.

    Args:
      workdir: folder of the run, local or `gs://bucket/path`; it need not be finished.

    Raises:
      UserError: there are no records, or they are incomplete or contradict each other.

    Example:
      >>> results = report.load("runs/quickstart").results
      >>> results.pivot_table("dev_test", "method", "budget")
    """
    table = read(read_lines(workdir))
    found = rows(table)
    columns = {column.name: column.words for column in records.COLUMNS}
    hints = typing.get_type_hints(TrialRecord)
    fields = {
        field.name: kind_of(hints[field.name], field.metadata).words
        for field in dataclasses.fields(TrialRecord)
        if field.name != "ledger"
    }
    fields["computed_on"] = "text or null"
    about = ("task", "method", "budget", "seed")
    spent = [
        {"trial": trial.id, "purpose": purpose, "flops": getattr(trial.ledger, purpose)}
        | {name: getattr(trial, name) for name in about}
        for trial in table.trials
        for purpose in PURPOSES
    ]
    ledger = {"trial": "text", **{name: fields[name] for name in about}, "purpose": "text"}
    return Frames(
        results=_frame(found, columns),
        trials=_frame([{**vars(t), "computed_on": _hardware(t)} for t in table.trials], fields),
        ledger=_frame(spent, {**ledger, "flops": "integer"}),
        steps=_frame(_steps(table), _STEP_COLUMNS),
    )


def read_lines(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The objects of a run's `records.jsonl`.

    Raises:
      UserError: there is no such file, or a line of it is not JSON.
    """
    place = files.path(workdir)
    try:
        lines = files.read_text(place / "records.jsonl").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"run {place}: no records.jsonl; expected the --workdir of a run") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise UserError(
                f"run {place}: line {number} of records.jsonl is not JSON; the run's command "
                "writes it again"
            ) from None
    return found


def _steps(table: Table) -> list[dict[str, Any]]:
    """What was computed, each step once."""
    others = [table.pretrain] if table.pretrain else []
    steps = [*others, *table.paces, *table.prepared, *table.trials, *table.evaluations.values()]
    found = []
    for step in steps:
        flops = step.flops if not isinstance(step, TrialRecord) else step.own_flops
        if isinstance(step, TrialRecord) and flops is None:
            flops = step.ledger.total
        about = {name: getattr(step, name, None) for name in ("id", "task", "method", "wall_s")}
        found.append({**about, "type": step.type, "flops": flops, "computed_on": _hardware(step)})
    return found


def _hardware(step: records.Computed) -> str | None:
    return None if step.computed_on is None else str(step.computed_on)


def _frame(found: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> "pd.DataFrame":
    """Rows as a DataFrame whose columns are of the types that the words name."""
    import pandas as pd

    return pd.DataFrame(
        {name: _series((row[name] for row in found), words) for name, words in columns.items()}
    )


def _series(values: Iterable[Any], words: str) -> "pd.Series[Any]":
    import pandas as pd

    values = list(values)
    try:
        return pd.Series(values, dtype=_DTYPES.get(words, "object"))
    except OverflowError:  # more FLOPs than 64 bits hold
        return pd.Series(values, dtype="float64")
