"""Training of part of a network between two heads, the second of which is fitted to what it gives.

It is no trial: what it comes to is the network without a head.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from ctl_jax import records
from ctl_jax.compute import Ledger
from ctl_jax.experiment import training
from ctl_jax.experiment.checkpointing import kept
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.stretches import plan, spent_by, spent_on_maps, total_updates
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.trees import Tree


def make(
    task: Mapping[str, Any],
    network: Mapping[str, Any],
    head: Step,
    *,
    phases: Sequence[Mapping[str, Any]],
    budget_flops: int,
    learning_rate: float,
    settings: Mapping[str, Any],
    seed: int,
) -> Step:
    """The step of a training.

    Args:
      task: its identity.
      network: what says which network it is, where `head` does not.
      head: the step whose head it begins with.
      phases: as plain values.
      budget_flops: that everything up to its end may cost, what `head` cost among it.
      learning_rate: the peak rate.
      settings: those of `config.finetune` that trainings depend on.
      seed: of the order of the images.
    """
    params = {
        "task": dict(task),
        "start": "pretrained",
        "phases": [dict(phase) for phase in phases],
        "budget_flops": budget_flops,
        "learning_rate": learning_rate,
        "seed": seed,
        "finetune": dict(settings),
        **network,
    }
    return Step("adapt", params, {"weights": head})


def flops(step: Step, workspace: Workspace) -> int:
    """Of all its updates."""
    stretches = plan(step, workspace)
    return spent_by(stretches, total_updates(stretches))


def charge(step: Step, workspace: Workspace, record: records.Record | None) -> Ledger:
    """Of its updates, and of the maps that they are made on."""
    stretches = plan(step, workspace)
    updates = total_updates(stretches)
    if record is not None:
        assert isinstance(record, records.AdaptRecord)
        updates = record.steps
    of_maps = spent_on_maps(stretches, updates)
    return Ledger(train=spent_by(stretches, updates) - of_maps, extract=of_maps)


def _begin(step: Step) -> Step | None:
    """What its head is of; None where the weights are given."""
    return step.inputs["weights"].inputs.get("weights")


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of the network that its head is of."""
    return workspace.shapes(_begin(step))


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Trains; what changed are its arrays, by path. Nothing changes where the loss diverges.

    Raises:
      Stopped: the run was told to stop; the training is saved.
      Lost: another worker has it.
    """
    began, params = time.monotonic(), step.params
    info = workspace.tasks[params["task"]["name"]]
    task = workspace.loader.load(info.spec, image_size=params["image_size"])
    stretches = plan(step, workspace)
    total = total_updates(stretches)
    look_every = training.look_every(params["finetune"])
    with kept(job, workspace, total, look_every=look_every) as keeper:
        result, before_s = training.train(step, workspace, task, stretches, keeper)
        changed = {}
        if not result.diverged:
            changed = _changed(result.variables, workspace.variables(step.inputs["weights"]))
    record = records.AdaptRecord(
        id=step.id,
        task=info.spec.name,
        steps=result.steps,
        learning_rate=params["learning_rate"],
        loss=None if result.diverged else result.history[-1].loss,
        flops=spent_by(stretches, result.steps),
        wall_s=before_s + time.monotonic() - began,
    )
    return Output([record], arrays=lambda: changed)


def _changed(trained: Tree, before: Tree) -> dict[str, np.ndarray]:
    """Arrays but those of the head that are others than before, by path."""
    old = flatten_dict(before, sep="/")
    new = flatten_dict(jax.device_get(trained), sep="/")
    return {
        path: leaf
        for path, leaf in new.items()
        if not path.startswith("params/head/") and not np.array_equal(leaf, old[path])
    }


def restore(step: Step, workspace: Workspace) -> Tree:
    """The network that its head is of, with what it changed."""
    return workspace.changed(step, _begin(step))


def label(step: Step, workspace: Workspace) -> tuple[str, int]:
    """What a progress bar says, and how many updates there are."""
    title = workspace.tasks[step.params["task"]["name"]].spec.title
    return f"adapt to {title}", total_updates(plan(step, workspace))


register(
    "adapt",
    Kind(1, flops, run, shapes, restore, charge=charge, makes_arrays=True, label=label),
)
