"""What values of a config make sense, key by key."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ctl_jax import models, pruning
from ctl_jax.data.catalogue import ABLATIONS, SHUFFLES
from ctl_jax.finetune.step import MAX_STEPS

_LEAST, _MOST = (float(limit) for limit in (np.finfo("f4").tiny, np.finfo("f4").max))


def _positive(value: float) -> bool:
    # Smaller ones are zero where XLA computes with them, larger ones infinite.
    return _LEAST <= value <= _MOST


def _not_negative(value: float) -> bool:
    return value == 0 or _positive(value)


def _flops(value: float) -> bool:
    return 1 <= value <= 1e30


def _fraction(value: float) -> bool:
    # Not what rounds to one.
    return 0 <= value < 1 and float(np.float32(value)) < 1


def _range_up_to(high: float) -> Callable[[tuple[float, ...]], bool]:
    return lambda value: len(value) == 2 and _positive(value[0]) and value[0] <= value[1] <= high


def _distinct(value: tuple[Any, ...]) -> bool:
    return 0 < len(value) == len(set(value))


def _rates(value: tuple[float, ...]) -> bool:
    return all(map(_positive, value)) and _distinct(tuple(map(np.float32, value)))


def _one_of(*names: str) -> tuple[Callable[[str], bool], str]:
    return (lambda value: value in names), "one of " + ", ".join(name or "''" for name in names)


_POSITIVE = "a positive number that float32 can hold, 1.2e-38 to 3.4e38"
_STEPS = (lambda v: 1 <= v <= MAX_STEPS, f"1 to {MAX_STEPS}")
# More images or channels fit into no machine, and their numbers of elements into no integer of XLA.
_SIZE = 2**20
_BATCH = (lambda v: 1 <= v <= _SIZE, f"at least 1, at most {_SIZE}")
_AREA = (_range_up_to(1), "two areas, 0 < least <= most <= 1")

# For each key whether a value makes sense, and words for what does.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stream.ablation": _one_of("", *ABLATIONS),
    "stream.num_tasks": (lambda v: v >= 0, "0 or a number of tasks"),
    "stream.shuffle": _one_of("", *SHUFFLES),
    "stream.seed": (lambda v: 0 <= v < 2**31, "0 to 2**31 - 1"),
    "stream.missing": _one_of("error", "skip"),
    "data.image_size": (lambda v: 8 <= v <= 1024, "8 to 1024 pixels"),
    "data.max_corrupt": (lambda v: v >= 0, "a number of examples"),
    "data.max_eval_examples": (lambda v: v >= 0, "0 (all) or a number of examples"),
    "model.name": (
        lambda v: v in models.CLASSIFIERS,
        f"one of {', '.join(models.CLASSIFIERS)}, which classify images (not pixels)",
    ),
    "model.stages": (lambda v: all(0 < n <= 1000 for n in v), "blocks a stage, each 1 to 1000"),
    "model.version": _one_of("", "v1", "v1.5"),
    "model.stem": _one_of("", "imagenet", "cifar"),
    "model.width": (lambda v: 0 <= v <= _SIZE, "0 (the standard one) or a number of channels"),
    "model.epsilon": (_not_negative, f"0 (the standard one) or {_POSITIVE}"),
    "model.preprocess": _one_of(*models.PREPROCESS),
    "pretrain.steps": _STEPS,
    "pretrain.batch_size": _BATCH,
    "pretrain.learning_rate": (_positive, _POSITIVE),
    "pretrain.warmup_fraction": (_fraction, "a fraction in [0, 1)"),
    "pretrain.weight_decay": (_not_negative, f"zero or {_POSITIVE}"),
    "pretrain.crop_area": _AREA,
    "pretrain.seed": (lambda v: 0 <= v < 2**31, "0 to 2**31 - 1"),
    "methods": (_distinct, "at least one method, each once"),
    "pruning.criterion": _one_of(*pruning.ZERO_SHOT),
    "pruning.round_to": (lambda v: 0 <= v <= _SIZE, f"0 or a width, at most {_SIZE}"),
    "budgets.min_flops": (_flops, "a positive number of FLOPs, 1 to 1e30"),
    "budgets.max_flops": (_flops, "a positive number of FLOPs, 1 to 1e30"),
    "budgets.num": (lambda v: 1 <= v <= 1000, "1 to 1000"),
    "finetune.batch_size": _BATCH,
    "finetune.learning_rates": (
        _rates,
        f"at least one {_POSITIVE[2:]}, each once (as float32)",
    ),
    "finetune.momentum": (_fraction, "a number in [0, 1)"),
    "finetune.weight_decay": (_not_negative, f"zero or {_POSITIVE}"),
    "finetune.warmup_fraction": (_fraction, "a fraction in [0, 1)"),
    "finetune.crop_area": _AREA,
    "finetune.crop_aspect": (_range_up_to(_MOST), "two ratios, 0 < least <= most"),
    "finetune.log_every": _STEPS,
    "finetune.evaluate_every": (
        lambda v: 0 <= v <= MAX_STEPS,
        f"0 or a number of steps, at most {MAX_STEPS}",
    ),
    "finetune.report": _one_of("last", "best"),
    "finetune.compute_dtype": _one_of("", "float32", "bfloat16"),
    "checkpoint.every_s": (lambda v: 0 <= v < math.inf, "0 or a number of seconds"),
    "seeds": (
        lambda v: _distinct(v) and all(0 <= seed < 2**31 for seed in v),
        "at least one of 0 to 2**31 - 1, each once",
    ),
}
