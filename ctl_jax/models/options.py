"""Options of networks: tests of values, and the words for what they expect."""

import math
from collections.abc import Callable
from typing import Any

# Whether a value may stand in a field, and words for what is expected there.
Option = tuple[Callable[[Any], bool], str]
Options = dict[str, Option]


def is_count(value: Any) -> bool:
    """A positive int."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_whole(value: Any) -> bool:
    """An int of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_stages(value: Any) -> bool:
    """A non-empty list or tuple of positive ints."""
    return isinstance(value, tuple | list) and len(value) > 0 and all(map(is_count, value))


def is_positive(value: Any) -> bool:
    """A finite positive float."""
    return isinstance(value, float) and math.isfinite(value) and value > 0


def is_bool(value: Any) -> bool:
    """True or False."""
    return isinstance(value, bool)


COUNT: Option = (is_count, "a positive int")
WHOLE: Option = (is_whole, "an int of at least 0")
STAGES: Option = (is_stages, "a non-empty list of positive block counts, such as (3, 4, 6)")
POSITIVE: Option = (is_positive, "a positive float")
BOOL: Option = (is_bool, "True or False")


def one_of(*values: str) -> Option:
    """One of a few words."""
    *first, last = map(repr, values)
    return (lambda value: value in values), f"{', '.join(first)} or {last}"


def stages_up_to(most: int) -> Option:
    """As STAGES, for a family of networks of `most` stages, of which the first may be taken."""
    words = f"a list of 1 to {most} positive block counts"
    return (lambda value: is_stages(value) and len(value) <= most), words
