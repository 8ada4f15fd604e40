"""Numbers as people read them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which imports JAX, and these texts are for commands that need none
    from ctl_jax.compute.budgets import Budget

DASH = "\N{EN DASH}"  # a range, or a number that is not there
MINUS = "\N{MINUS SIGN}"

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def si(value: float, digits: int = 3) -> str:
    """Returns a count at some significant digits with its SI prefix: 1.5e12 is `1.5 T`."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")  # first, so that 999.9 becomes 1 k and not 1e+03
    thousands = min(max(math.floor(math.log10(abs(rounded)) / 3), 0), len(_PREFIXES) - 1)
    return f"{rounded / 1000**thousands:.{digits}g} {_PREFIXES[thousands]}".rstrip()


def flops(value: float, digits: int = 3) -> str:
    """Returns FLOPs with their unit: 1.5e12 is `1.5 TFLOP`."""
    text = si(value, digits)
    return f"{text}FLOP" if text[-1].isalpha() else f"{text} FLOP"


def budgets(values: Iterable["Budget"]) -> list[str]:
    """Returns budgets such as `4 GFLOP`, `2 epochs`, `30 s`.

    FLOPs are at as many digits as tell different ones apart.
    """
    values = list(values)
    for digits in range(3, 17):
        names = [_budget(value, digits) for value in values]
        if len(set(names)) == len(set(values)):
            break
    return names


def _budget(value: "Budget", digits: int) -> str:
    if value.unit == "flops":
        return flops(value.amount, digits)
    return f"{value.amount:g} s" if value.unit == "seconds" else str(value)


def metric(value: float | None) -> str:
    """Returns an accuracy as a fraction at three decimals, a dash where there is none."""
    return DASH if value is None else f"{value:.3f}"


def percent(fraction: float) -> str:
    """Returns a signed percentage at one decimal."""
    return f"{100 * fraction:+.1f}%"


def duration(seconds: float) -> str:
    """Returns a wall-clock time in its natural unit."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def passed_over(counts: Mapping[str, int]) -> list[str]:
    """Returns a line about files that are no examples, by their kind; none without such files."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items()))
    return [f"files passed over: {kinds}"] if kinds else []


def data_notes(notes: Sequence[str], counts: Mapping[str, int]) -> list[str]:
    """Returns a line for each thing that was found in the data of a task.

    Args:
        notes: What was put right, or may not be as it should.
        counts: Files that are no examples, by their kind.
    """
    return [*notes, *passed_over(counts)]
