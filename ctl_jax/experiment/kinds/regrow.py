"""A trained network with the channels again that were cut from it: no computation.

What stayed is as it was trained, the other channels are as in the network that was cut.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ctl_jax import models, pruning, records
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import prune
from ctl_jax.experiment.steps import Kind, Output, Step, nearest, register, trained_on
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune.step import Tree

# The network that was cut, where a step made it.
_WHOLE = "whole"


def make(trained: Step, whole: Step | None, network: Mapping[str, Any]) -> Step:
    """The step.

    Args:
      trained: what a cut network was trained to; the nearest cut before it is undone.
      whole: makes the network that the other channels are of; None where it is given.
      network: as for `prune.make`.
    """
    inputs = {"weights": trained} | ({_WHOLE: whole} if whole else {})
    return Step("regrow", dict(network), inputs)


def flops(step: Step, workspace: Workspace) -> int:
    """Nothing."""
    return 0


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of the network that was cut."""
    return workspace.shapes(step.inputs.get(_WHOLE))


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Says how large it is."""
    task = trained_on(step)
    assert task is not None
    params = models.count_params(workspace.shapes(step))
    return Output([records.RegrowRecord(id=step.id, task=task, params=params)])


def restore(step: Step, workspace: Workspace) -> Tree:
    """The network that was cut, with what was trained in the places of what stayed."""
    cut = nearest(step, "prune")
    assert cut is not None
    record: Any = workspace.store.result(cut.id)
    keep, groups = pruning.Keep.from_json(record.keep), prune.groups_of(cut, workspace)
    whole = workspace.local_variables(step.inputs.get(_WHOLE))
    head = whole["params"]["head"]
    trained = models.set_head(workspace.local_variables(step.inputs["weights"]), head)
    # Where the numbers of a cut network are in the whole one.
    numbers = jax.tree.map(lambda leaf: np.arange(np.size(leaf)).reshape(np.shape(leaf)), whole)
    places = models.set_head(pruning.prune(numbers, groups, keep), numbers["params"]["head"])
    return jax.tree.map(_put, whole, places, trained)


def _put(whole: Any, places: np.ndarray, trained: Any) -> np.ndarray:
    found = np.array(whole)
    found.reshape(-1)[places.reshape(-1)] = np.asarray(trained).reshape(-1)
    return found


register("regrow", Kind(1, flops, run, shapes, restore))
