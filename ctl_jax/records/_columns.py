"""The columns of `results.csv`: marked fields of a trial's record, and functions of its search.

A column stands once: its name, its unit, its sentence and its value. The header of `results.csv`
and docs/columns.md come from `COLUMNS`.
"""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ctl_jax.errors import UserError
from ctl_jax.records._schema import kind_of

# From the trial that won its search, and those that lost, to a value.
Value = Callable[[Any, Sequence[Any]], Any]


class Column(NamedTuple):
    """A column of `results.csv`.

    Attributes:
        name: Its name in the header.
        help: What it holds, a phrase.
        unit: Its unit, empty where it has none.
        words: What its values are, such as "number or null".
        value: Gives a line's value: `value(best, lost)`.
    """

    name: str
    help: str
    unit: str
    words: str
    value: Value


# In the order of the file.
COLUMNS: list[Column] = []


def column(
    help: str, *, unit: str = "", positive: bool = False, default: Any = dataclasses.MISSING
) -> Any:
    """A field that is a column.

    Args:
        help: What it holds, a phrase.
        unit: Of its numbers.
        positive: Whether its integer is at least 1.
        default: Where an earlier version did not record it.
    """
    marks = {"help": help, "unit": unit, "positive": positive}
    return dataclasses.field(default=default, metadata=marks)


def add_fields(cls: type) -> type:
    """Makes columns of the marked fields of a dataclass, in their order: a decorator."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "help" in field.metadata:
            marks, words = field.metadata, kind_of(hints[field.name], field.metadata).words
            _add(Column(field.name, marks["help"], marks["unit"], words, _of_best(field.name)))
    return cls


def derived(help: str, *, unit: str = "", after: str | None = None) -> Callable[[Value], Value]:
    """Makes a column of a function, named after it: a decorator.

    Args:
        help: What it holds, a phrase.
        unit: Of its numbers.
        after: Name of the column before it; None for the last place.

    Example:
        >>> @derived("training steps of the trials that lost")
        ... def lost_steps(best: TrialRecord, lost: Sequence[TrialRecord]) -> int:
        ...     return sum(trial.steps for trial in lost)
    """

    def add(value: Value) -> Value:
        words = kind_of(typing.get_type_hints(value)["return"]).words
        _add(Column(value.__name__, help, unit, words, value), after)
        return value

    return add


def _of_best(name: str) -> Value:
    return lambda best, lost: getattr(best, name)


def _add(column: Column, after: str | None = None) -> None:
    names = [there.name for there in COLUMNS]
    if column.name in names:
        raise UserError(f"column {column.name!r}: there is one of this name, expected a new name")
    if after is not None and after not in names:
        raise UserError(
            f"column {column.name!r}: after={after!r}, expected one of {', '.join(names)}"
        )
    COLUMNS.insert(len(names) if after is None else names.index(after) + 1, column)


def row(best: Any, lost: Sequence[Any]) -> dict[str, Any]:
    """Returns the line of `results.csv` of a search.

    Args:
        best: The trial that won it.
        lost: Its other trials.
    """
    return {column.name: column.value(best, lost) for column in COLUMNS}
