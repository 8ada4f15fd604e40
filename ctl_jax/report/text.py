"""Numbers as people read them."""

import math

DASH = "\N{EN DASH}"  # a range, or a number that is not there
MINUS = "\N{MINUS SIGN}"

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def si(value: float) -> str:
    """Returns a count at three significant digits with its SI prefix: 1.5e12 is `1.5 T`."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")  # first, so that 999.9 becomes 1 k and not 1e+03
    thousands = min(max(math.floor(math.log10(abs(rounded)) / 3), 0), len(_PREFIXES) - 1)
    return f"{rounded / 1000**thousands:.3g} {_PREFIXES[thousands]}".rstrip()


def flops(value: float) -> str:
    """Returns FLOPs with their unit: 1.5e12 is `1.5 TFLOP`."""
    text = si(value)
    return f"{text}FLOP" if text[-1].isalpha() else f"{text} FLOP"


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
