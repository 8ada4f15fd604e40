"""How fast a device trains: what budgets in seconds rest on."""

import statistics
import time
from typing import Any

import jax
import numpy as np

from ctl_jax import finetune, models, records
from ctl_jax.experiment.kinds.finetune import padded_outputs, phase_of, recipe
from ctl_jax.experiment.place import Workplace
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.teamwork import Job
from ctl_jax.finetune import Hyper, Leg
from ctl_jax.finetune.step import Tree

# Updates of each phase: the first ones compile and warm up.
_WARM_UP, _MEASURED = 3, 10
_CLASSES = 64


def flops(step: Step, place: Workplace) -> int:
    """Of the updates that are made."""
    return sum((_WARM_UP + _MEASURED) * cost for _, cost in _phases(step, place))


def shapes(step: Step, place: Workplace) -> Tree:
    """Those of its input: it makes no network of its own."""
    return place.shapes(step.inputs.get("weights"))


def restore(step: Step, place: Workplace) -> Tree:
    """The variables of its input."""
    return place.local_variables(step.inputs.get("weights"))


def run(step: Step, place: Workplace, job: Job) -> Output:
    """Makes some updates of each phase, on blank images, and takes the median of their times."""
    settings, size = step.params["finetune"], step.params["image_size"]
    variables = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), place.shapes(step.inputs.get("weights"))
    )
    variables = models.with_head(variables, padded_outputs(_CLASSES))
    images = np.zeros((settings["batch_size"], size, size, 3), np.uint8)
    labels = np.zeros(settings["batch_size"], np.int32)
    total = _WARM_UP + _MEASURED
    seconds_a_flop, shares, began = 0.0, 0.0, time.monotonic()
    for number, (each, cost) in enumerate(_phases(step, place)):
        result = finetune.fit(
            [Leg(place.compiled(each), each, Hyper(1e-3, total, 0, _CLASSES))],
            variables,
            images,
            labels,
            batch_size=settings["batch_size"],
            seed=0,
            log_every=1,
        )
        taken = np.diff([entry.wall_s for entry in result.history])[_WARM_UP - 1 :]
        share = phase_of(step.params["phases"][number]).share
        seconds_a_flop += share * statistics.median(taken) / cost
        shares += share
    record = records.PaceRecord(
        id=step.id,
        device=step.params["device"],
        flops_per_second=float(shares / seconds_a_flop),
        flops=flops(step, place),
        wall_s=time.monotonic() - began,
    )
    return Output([record])


def _phases(step: Step, place: Workplace) -> list[tuple[Any, int]]:
    """Recipe and FLOPs of an update of each phase."""
    settings, model = step.params["finetune"], step.params["model"]
    start = step.inputs.get("weights")
    found = []
    for phase in step.params["phases"]:
        each = recipe(settings, model, phase)
        found.append((each, place.costs(each, start, settings["batch_size"])(_CLASSES).step))
    return found


register("pace", Kind(1, flops, run, shapes, restore))
