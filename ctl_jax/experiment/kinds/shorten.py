"""The first stages of a network, without the later ones: a smaller network, and no computation."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ctl_jax import models, records
from ctl_jax.compute import Ledger
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.trees import Tree


def make(stages: int, network: Mapping[str, Any], start: Step | None) -> Step:
    """The step.

    Args:
      stages: how many stay, see `models.shorten`.
      network: as for `prune.make`.
      start: makes the weights where none were given.
    """
    return Step("shorten", {"stages": stages, **network}, {"weights": start} if start else {})


def flops(step: Step, workspace: Workspace) -> int:
    """Nothing."""
    return 0


def charge(step: Step, workspace: Workspace, record: records.Record | None) -> Ledger:
    """Nothing."""
    return Ledger()


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Of the stages that stay, with a head of one output on what is left to read."""
    shortened = models.shorten(workspace.shapes(step.inputs.get("weights")), step.params["stages"])
    size = step.params["image_size"]
    new = functools.partial(models.new_head, workspace.module, num_outputs=1, image_size=size)
    return jax.eval_shape(new, shortened)


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Says how much is left."""
    params = models.count_params(workspace.shapes(step))
    return Output([records.ShortenRecord(id=step.id, stages=step.params["stages"], params=params)])


def restore(step: Step, workspace: Workspace) -> Tree:
    """The variables of its input, without the later stages."""
    return without_later(step, workspace, workspace.local_variables(step.inputs.get("weights")))


def without_later(step: Step, workspace: Workspace, variables: Tree) -> Tree:
    """Variables of a whole network, without the later stages, with a head of zeros."""
    head = jax.tree.map(jnp.zeros_like, workspace.shapes(step)["params"]["head"])
    return models.set_head(models.shorten(variables, step.params["stages"]), head)


register("shorten", Kind(1, flops, run, shapes, restore, charge=charge))
