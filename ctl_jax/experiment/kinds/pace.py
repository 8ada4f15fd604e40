"""Measured speed of training and of head fits on a device: budgets in seconds rest on it."""

import dataclasses
import statistics
import time

import jax
import numpy as np

from ctl_jax import finetune, heads, records
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.steps import Kind, Output, Step, register, variables_of_input
from ctl_jax.experiment.stretches import padded_outputs, phase_of, recipe
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import Hyper, Leg, Phase
from ctl_jax.finetune.phases import SGD
from ctl_jax.trees import Tree

# Updates of each phase: the first ones compile and warm up.
_WARM_UP, _MEASURED = 3, 10
_CLASSES = 64
# Of the heads whose fit is measured: images and features, and how many fits. Of fewer images what
# is not products counts more than it does in a run of some seconds.
_IMAGES, _FEATURES, _FITS = 1600, 2048, 2
# In a step's parameters: that fits are measured, not its phases.
HEADS = "heads"


def flops(step: Step, workspace: Workspace) -> int:
    """Of the updates that are made, or of the fits."""
    if step.params.get(HEADS):
        return _FITS * heads.flops("ridge", _IMAGES, _FEATURES, _CLASSES, multi_label=False)
    return sum((_WARM_UP + _MEASURED) * cost for _, cost in _phases(step, workspace))


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Makes some updates of each phase, on blank images, and takes the median of their times."""
    if step.params.get(HEADS):
        return _of_heads(step)
    settings, size = step.params["finetune"], step.params["image_size"]
    variables = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), workspace.shapes(step.inputs.get("weights"))
    )
    images = np.zeros((settings["batch_size"], size, size, 3), np.uint8)
    labels = np.zeros(settings["batch_size"], np.int32)
    total = _WARM_UP + _MEASURED
    seconds_a_flop, shares, began = 0.0, 0.0, time.monotonic()
    for phase, cost in _phases(step, workspace):
        if phase.solver != SGD:
            taken = _times_of_extraction(step, workspace, variables, images, phase)
        else:
            each = recipe(settings, step.params["model"], dataclasses.asdict(phase))
            start, outputs = step.inputs.get("weights"), padded_outputs(_CLASSES)
            result = finetune.fit(
                [Leg(workspace.compiled(each), each, Hyper(1e-3, total, 0, _CLASSES))],
                workspace.with_new_head(variables, start, phase.head, size, outputs),
                images,
                labels,
                batch_size=settings["batch_size"],
                seed=0,
                log_every=1,
            )
            taken = list(np.diff([entry.wall_s for entry in result.history])[_WARM_UP - 1 :])
        seconds_a_flop += phase.share * statistics.median(taken) / cost
        shares += phase.share
    record = records.PaceRecord(
        id=step.id,
        device=step.params["device"],
        flops_per_second=float(shares / seconds_a_flop),
        flops=flops(step, workspace),
        wall_s=time.monotonic() - began,
    )
    return Output([record])


def _of_heads(step: Step) -> Output:
    """Fits some heads to random features, and takes the best time: the first fit warms up."""
    random = np.random.default_rng(0)
    features = random.normal(size=(_IMAGES, _FEATURES)).astype(np.float16)
    shard = heads.Shard(features, np.arange(_IMAGES, dtype=np.int32) % _CLASSES)
    speeds, made, began = [], 0, time.monotonic()
    for _ in range(_FITS):
        start = time.perf_counter()
        fitted = heads.fit("ridge", [shard], _CLASSES, multi_label=False, seed=0)
        speeds.append(fitted.flops / (time.perf_counter() - start))
        made += fitted.flops
    record = records.PaceRecord(
        id=step.id,
        device=step.params["device"],
        flops_per_second=max(speeds),
        flops=made,
        wall_s=time.monotonic() - began,
    )
    return Output([record])


def _times_of_extraction(
    step: Step, workspace: Workspace, variables: Tree, images: np.ndarray, phase: Phase
) -> list[float]:
    """Seconds of the features of a batch: of a head that is fitted, what takes the time."""
    seconds = []
    for _ in range(_WARM_UP + _MEASURED):
        began = time.perf_counter()
        finetune.extract(
            workspace.module,
            step.params["model"]["preprocess"],
            variables,
            images,
            head=phase.head,
            compute_dtype=step.params["finetune"]["compute_dtype"],
            batch_size=len(images),
        )
        seconds.append(time.perf_counter() - began)
    return seconds[_WARM_UP:]


def _phases(step: Step, workspace: Workspace) -> list[tuple[Phase, int]]:
    """Each phase, and the FLOPs of an update of it, or of the features of a batch."""
    settings, start = step.params["finetune"], step.inputs.get("weights")
    size, images = step.params["image_size"], settings["batch_size"]
    found = []
    for params in step.params["phases"]:
        phase = phase_of(params)
        if phase.solver != SGD:
            cost = images * workspace.forward(start, 0, size)
        else:
            each = recipe(settings, step.params["model"], params)
            cost = workspace.costs(each, start, images, size, phase.head)(_CLASSES).step
        found.append((phase, cost))
    return found


register("pace", Kind(1, flops, run, restore=variables_of_input))
