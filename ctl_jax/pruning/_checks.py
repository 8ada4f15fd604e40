"""Checks of the numbers that users give."""

import numbers
from typing import Any, TypeGuard

from ctl_jax.errors import UserError


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a real number; True and False do not count."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_ratio(value: Any) -> TypeGuard[float]:
    """Whether it is a share that may be dropped: a number in [0, 1)."""
    return is_number(value) and 0 <= value < 1


def check_count(name: str, value: Any) -> None:
    """Raises if `value` is no integer of at least 1.

    Raises:
      UserError: names the argument.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} is {value!r}, expected an integer of at least 1")
