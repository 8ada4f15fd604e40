"""Meeting a target of seconds a call, by measuring pruned networks on this device."""

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ctl_jax import compute
from ctl_jax.errors import UserError
from ctl_jax.pruning._allocation import Ladder
from ctl_jax.pruning._cost_model import Costs
from ctl_jax.pruning._cutting import prune
from ctl_jax.pruning._groups import Groups
from ctl_jax.pruning._keep import Keep
from ctl_jax.pruning._targets import fitting
from ctl_jax.trees import Ints

Measure = Callable[[Keep], float]

# A search measures at most so often: each time a network is compiled, which takes seconds.
MEASUREMENTS = 8
# It ends earlier where this share of the time asked is used: a median varies as much.
_CLOSE = 0.98

_VERSION = 1
_log = logging.getLogger(__name__)
# Of the traced functions themselves, measured in this process.
_measured: dict[str, float] = {}


def meet_latency(
    costs: Costs, asked: float, steps: Ladder, measure: Callable[[Ints], float]
) -> tuple[Ints, float, int]:
    """The widest network on the ladder that was measured to take no more seconds than asked.

    The full network and the narrowest are measured first; then, between the widest known to be
    fast enough and the narrowest known to be too slow, the one whose FLOPs a straight line through
    these two proposes. Ends when 0.98 of the time is used, or after 8 measurements.

    Args:
      costs: of the groups.
      asked: seconds a call.
      steps: the ladder of widths.
      measure: from int64 [groups], widths, to seconds a call.

    Returns:
      int64 [groups], the widths; their seconds a call; how many networks were measured.

    Raises:
      UserError: even the lowest widths take longer; says how long.
    """
    steps = steps.ordered

    def rung(count: int) -> tuple[int, float, float]:
        widths = steps.climb(steps.group[:count], steps.gain[:count])
        seconds, flops = measure(widths), float(costs.evaluate("flops", widths))
        _log.info("latency: %.6f s at %.4g FLOPs, asked %.6f s", seconds, flops, asked)
        return count, seconds, flops

    slow = rung(len(steps.group))
    if slow[1] <= asked:
        return steps.climb(steps.group, steps.gain), slow[1], 1
    fast = rung(0)
    if fast[1] > asked:
        raise UserError(
            f"latency is {asked}, expected at least {fast[1]:.3g}: what the narrowest widths "
            f"allowed take on this device; the full network takes {slow[1]:.3g} s"
        )
    measured, sides = 2, ""
    while slow[0] - fast[0] > 1 and measured < MEASUREMENTS and fast[1] < _CLOSE * asked:
        # Twice on one side: the line does not describe this device.
        halve = sides.endswith(("ff", "ss"))
        middle = rung(_between(costs, asked, steps, fast, slow, halve))
        measured += 1
        if middle[1] <= asked:
            fast, sides = middle, sides + "f"
        else:
            slow, sides = middle, sides + "s"
    return steps.climb(steps.group[: fast[0]], steps.gain[: fast[0]]), fast[1], measured


def _between(
    costs: Costs,
    asked: float,
    steps: Ladder,
    fast: tuple[int, float, float],
    slow: tuple[int, float, float],
    halve: bool,
) -> int:
    """How many steps to try next."""
    if slow[2] == fast[2]:  # nothing here costs FLOPs
        return (slow[0] + fast[0]) // 2
    # Seconds are noisy: never too near to an end.
    part = 0.5 if halve else min(max((asked - fast[1]) / (slow[1] - fast[1]), 0.1), 0.9)
    flops = fast[2] + part * (slow[2] - fast[2])
    count = fitting(costs, "flops", flops, steps.lowest, steps.group, steps.gain)
    return min(max(count, fast[0] + 1), slow[0] - 1)


def measured_by(
    groups: Groups, measure: Measure | None, cache: str | os.PathLike[str] | None
) -> Measure:
    """`measure`, or the time of the traced function itself, that looks into the cache first.

    What is known of a network is found by the structure of its groups, its costs (which tell
    programs and input sizes apart), its widths, the kind of device and the version of jax. Times of
    the traced function are remembered by the process, too.

    Args:
      groups: from `trace`.
      measure: from the channels that stay to seconds; None: one call of the traced function on
        zeros, by `ctl_jax.compute.latency`.
      cache: a JSON file, written again after each measurement; None: no file. A measure given is
        known there by its name alone: use one file for each.

    Returns:
      A function from a keep to seconds.

    Raises:
      UserError: there is such a file, but it is no cache; or, when called, `measure` returns no
        positive number.
    """
    path = None if cache is None else Path(cache)
    known = {} if path is None else _read(path)
    known = known if measure else _measured | known
    name = "call" if measure is None else getattr(measure, "__qualname__", type(measure).__name__)
    program = f"{_fingerprint(groups)} {name} {jax.devices()[0].device_kind} jax {jax.__version__}"

    def seconds_of(keep: Keep) -> float:
        key = f"{program} {','.join(str(len(kept)) for kept in keep.values())}"
        if key not in known:
            known[key] = _seconds(measure(keep) if measure else _call_latency(groups, keep))
            if measure is None:
                _measured[key] = known[key]
        if path is not None:
            _write(path, key, known[key])
        return known[key]

    return seconds_of


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UserError(f"measure returned {value!r}, expected a positive number of seconds")
    return seconds


def _call_latency(groups: Groups, keep: Keep) -> float:
    assert groups.apply_fn is not None, "these groups are not from trace"
    small = prune(groups.variables, groups, keep)
    return compute.latency(groups.apply_fn, small, *groups.inputs)


def _fingerprint(groups: Groups) -> str:
    digest = hashlib.sha256(groups.layout.fingerprint.encode())
    costs = groups.costs
    for array in (
        costs.fixed,
        costs.per_width,
        *(
            part
            for terms in (costs.flop_terms, costs.memory_terms)
            for part in (terms.coefficients, terms.axes)
        ),
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        version, seconds = content["version"], content["seconds"]
        known = {str(key): float(value) for key, value in seconds.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cache {path} is no cache of latencies, expected one or no file"
        ) from error
    if version != _VERSION:
        raise UserError(f"cache {path} has version {version!r}, expected {_VERSION}")
    return known


def _write(path: Path, key: str, seconds: float) -> None:
    """Enters a measurement; a reader sees the old file or the new one, never half of one."""
    known = _read(path)  # again: another process may have written since
    if known.get(key) == seconds:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        json.dump({"version": _VERSION, "seconds": known | {key: seconds}}, file, indent=1)
    os.replace(file.name, path)
