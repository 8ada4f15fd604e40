"""Rules: which values of the config's keys make sense."""

import difflib
import math
import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ctl_jax import models, pruning
from ctl_jax.compute import Budget
from ctl_jax.data import places
from ctl_jax.data.catalogue import ABLATIONS, SHUFFLES
from ctl_jax.errors import UserError, naming
from ctl_jax.experiment.config.keys import Check
from ctl_jax.experiment.methods import parse_method
from ctl_jax.finetune.step import MAX_STEPS
from ctl_jax.values import read_option

_LEAST, _MOST = (float(limit) for limit in (np.finfo("f4").tiny, np.finfo("f4").max))
# More images or channels fit into no machine, and their numbers of elements into no integer of XLA.
_SIZE = 2**20
_A_POSITIVE = "a positive number that float32 can hold, 1.2e-38 to 3.4e38"


def _positive(value: float) -> bool:
    # Smaller ones are zero where XLA computes with them, larger ones infinite.
    return _LEAST <= value <= _MOST


def _not_negative(value: float) -> bool:
    return value == 0 or _positive(value)


def _fraction(value: float) -> bool:
    # Not what rounds to one.
    return 0 <= value < 1 and float(np.float32(value)) < 1


def _range_up_to(high: float) -> Callable[[tuple[float, ...]], bool]:
    return lambda value: len(value) == 2 and _positive(value[0]) and value[0] <= value[1] <= high


def _distinct(value: tuple[Any, ...]) -> bool:
    return 0 < len(value) == len(set(value))


def _batches(value: tuple[int, ...]) -> bool:
    return not value or (_distinct(value) and all(map(BATCH.holds, value)))


def _rates(value: tuple[float, ...]) -> bool:
    return all(map(_positive, value)) and _distinct(tuple(map(np.float32, value)))


def _holds(read: Callable[[str], Any], text: str) -> bool:
    """Whether a text can be read."""
    try:
        read(text)
    except UserError:
        return False
    return True


DIRS = Check(lambda dirs: all(map(places.has_kind, dirs)), places.expected)


def one_of(names: Collection[str]) -> Check:
    """One of some texts, to which others may be added later."""
    return Check(
        lambda value: value in names,
        lambda: "one of " + ", ".join(name or "''" for name in names),
    )


def canonical_methods(names: tuple[str, ...]) -> tuple[str, ...]:
    """The methods' own names; equal methods that are written differently are one."""
    return tuple(dict.fromkeys(parse_method(name).name for name in names))


def canonical_budgets(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The budgets' own texts, "2 epochs"."""
    with naming("config.budgets.amounts"):
        return tuple(str(Budget.parse(text)) for text in texts)


def known_watchers(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of watchers, each once."""
    for name in names:
        if name not in WATCHERS and not re.fullmatch(r"[\w.]+:[\w.]+", name):
            close = difflib.get_close_matches(name, WATCHERS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(WATCHERS)
            raise UserError(
                f"config.watch={name!r}: expected one of {known}, or PACKAGE.MODULE:FUNCTION{hint}"
            )
    return tuple(dict.fromkeys(names))


POSITIVE = Check(_positive, _A_POSITIVE)
NOT_NEGATIVE = Check(_not_negative, f"zero or {_A_POSITIVE}")
FRACTION = Check(_fraction, "a fraction in [0, 1)")
MOMENTUM = Check(_fraction, "a number in [0, 1)")
SEED = Check(lambda v: 0 <= v < 2**31, "0 to 2**31 - 1")
SEEDS = Check(
    lambda v: _distinct(v) and all(0 <= seed < 2**31 for seed in v),
    "at least one of 0 to 2**31 - 1, each once",
)
STEPS = Check(lambda v: 1 <= v <= MAX_STEPS, f"1 to {MAX_STEPS}")
STEPS_OR_ZERO = Check(lambda v: 0 <= v <= MAX_STEPS, f"0 or a number of steps, at most {MAX_STEPS}")
SECONDS = Check(lambda v: 0 <= v < math.inf, "0 or a number of seconds")
BATCH = Check(lambda v: 1 <= v <= _SIZE, f"at least 1, at most {_SIZE}")
BATCH_OR_RULE = Check(lambda v: 0 <= v <= _SIZE, f"at least 1, at most {_SIZE}, or 0")
BATCHES = Check(_batches, f"sizes of 1 to {_SIZE}, each once, or none")
SMOOTHINGS = Check(
    lambda v: not v or (_distinct(v) and all(map(_fraction, v))),
    "fractions in [0, 1), each once, or none",
)
TRIALS = Check(lambda v: 1 <= v <= 1000, "1 to 1000")
RATES = Check(_rates, f"at least one {_A_POSITIVE[2:]}, each once (as float32)")
AREA = Check(_range_up_to(1), "two areas, 0 < least <= most <= 1")
ASPECT = Check(_range_up_to(_MOST), "two ratios, 0 < least <= most")
FLOPS = Check(lambda v: 1 <= v <= 1e30, "a positive number of FLOPs, 1 to 1e30")
BUDGETS = Check(lambda v: 1 <= v <= 1000, "1 to 1000")
AMOUNTS = Check(lambda v: len(v) <= 1000, "at most 1000 budgets")
METHODS = Check(_distinct, "at least one method, each once")
TASKS = Check(lambda v: v >= 0, "0 or a number of tasks")
EXAMPLES = Check(lambda v: v >= 0, "a number of examples")
EXAMPLES_OR_ALL = Check(lambda v: v >= 0, "0 (all) or a number of examples")
PIXELS = Check(lambda v: 8 <= v <= 1024, "8 to 1024 pixels")
CLASSIFIER = Check(
    lambda v: not v or v in models.CLASSIFIERS or models.is_own(v),
    f"one of {', '.join(models.CLASSIFIERS)}, which classify images (not pixels), or "
    "PACKAGE.MODULE:CLASS",
)
OPTIONS = Check(lambda v: all(_holds(read_option, text) for text in v), "NAME=VALUE each")
BLOCKS = Check(lambda v: all(0 < n <= 1000 for n in v), "blocks a stage, each 1 to 1000")
WIDTH = Check(lambda v: 0 <= v <= _SIZE, "0 (the standard one) or a number of channels")
EPSILON = Check(_not_negative, f"0 (the standard one) or {_A_POSITIVE}")
MULTIPLE = Check(lambda v: 0 <= v <= _SIZE, f"0 or a width, at most {_SIZE}")
ABLATION, SHUFFLE = one_of(("", *ABLATIONS)), one_of(("", *SHUFFLES))
PREPROCESS = Check(
    lambda v: not v or _holds(models.Preprocess.parse, v),
    f"one of {', '.join(models.PREPROCESS)}, or such as 'scale=255 mean=0.5,0.5,0.5 "
    "std=0.5,0.5,0.5'",
)
CRITERION = one_of(pruning.ZERO_SHOT)
# Filled by experiment.strategies, which rests on the config, so that it cannot be asked from here.
STRATEGIES: dict[str, Callable[..., Any]] = {}
STRATEGY = one_of(STRATEGIES)
# Likewise by experiment.watchers.
WATCHERS: dict[str, Callable[..., Any]] = {}
