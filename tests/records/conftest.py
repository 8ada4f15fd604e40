"""Records as they are written."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ctl_jax import records


def _example(hint: Any) -> Any:
    """A value of an annotation; of a class each field that it needs."""
    args = typing.get_args(hint)
    if args and typing.get_origin(hint) is tuple:
        return (_example(args[0]),)
    if typing.get_origin(hint) is Mapping:
        return {"key": "value" if args[1] is Any else _example(args[1])}
    if args:  # or None
        return _example(args[0])
    if dataclasses.is_dataclass(hint):
        hints, names = typing.get_type_hints(hint), [f.name for f in dataclasses.fields(hint)]
        return hint(**{name: _example(hints[name]) for name in names})
    return {str: "2 epochs", int: 3, float: 0.25, bool: True}[hint]


@pytest.fixture(scope="session")
def example() -> Callable[[type], Any]:
    """Returns the function that makes a record of a type, every field filled."""
    return _example


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., records.TrialRecord]:
    """Returns the function that makes a trial's record of the fields that matter."""
    trial = _example(records.TrialRecord)
    return lambda **fields: dataclasses.replace(trial, **{"diverged": False, **fields})
