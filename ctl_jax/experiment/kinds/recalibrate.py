"""Repair of a cut network by a few images of the task, before a head is fitted or trained.

The readers of what was cut are corrected by least squares, see `pruning.correct`; or BatchNorm's
statistics are estimated again, see `finetune.recalibrate`; or both, in this order.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ctl_jax import models, pruning, records
from ctl_jax.compute import Ledger
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import prune
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import recalibrate
from ctl_jax.trees import Tree

# Images of a forward pass, at most.
_BATCH = 64


def make(
    task: Mapping[str, Any],
    network: Mapping[str, Any],
    start: Step,
    *,
    images: int,
    seed: int,
    lsq: bool = False,
    statistics: bool = False,
) -> Step:
    """The step that puts right what a cut left.

    Args:
      task: identity of the task.
      network: "model", "image_size", "weights" as for `prune.make`, and "compute_dtype".
      start: the cut.
      images: of the train split, in the class-balanced order of `balance.order`.
      seed: of that order.
      lsq: whether readers of cut groups are corrected.
      statistics: whether BatchNorm's statistics are estimated again.
    """
    params = {
        "task": dict(task),
        "images": images,
        "seed": seed,
        "lsq": lsq,
        "statistics": statistics,
        **network,
    }
    return Step("recalibrate", params, {"weights": start})


def flops(step: Step, workspace: Workspace) -> int:
    """Of a forward pass of the whole network, with what the correction takes, and of what is left.

    They follow from widths alone.
    """
    params, cut = step.params, step.inputs["weights"]
    total, size, images = 0, params["image_size"], params["images"]
    if params["lsq"]:
        whole = prune.shapes_cut(cut, workspace)
        batch = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        keep = prune.planned(cut, workspace)
        # Of networks of the same widths the same, and of each image.
        of_batch, solutions = workspace.once(
            ("correction", size, *keep.sizes.values(), *(len(kept) for kept in keep.values())),
            lambda: pruning.correction_flops(
                prune.traced(cut, workspace, size, 2), whole, keep, batch
            ),
        )
        total += images * of_batch // 2 + solutions
    if params["statistics"] and workspace.shapes(cut)["batch_stats"]:
        total += images * workspace.forward(cut, 0, size)
    return total


def charge(step: Step, workspace: Workspace, record: records.Record | None) -> Ledger:
    """What it costs."""
    return Ledger(prune=workspace.flops(step))


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of its input."""
    return workspace.shapes(step.inputs["weights"])


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Corrects readers, then estimates statistics; what changed are its arrays, by path."""
    began, params, cut = time.monotonic(), step.params, step.inputs["weights"]
    info = workspace.tasks[params["task"]["name"]]
    train = workspace.loader.load(info.spec, image_size=params["image_size"]).splits["train"]
    order = workspace.order(info.spec.name, train.labels, params["seed"])
    images = train.images[order[: params["images"]]]
    variables, changed, notes = workspace.variables(cut), dict[str, np.ndarray](), list[str]()
    if params["lsq"]:
        corrected = _corrected(step, workspace, images)
        notes += corrected.notes
        variables = pruning.prune(
            corrected.variables, prune.groups_of(cut, workspace), prune.kept(cut, workspace)
        )
        leaves = flatten_dict(variables, sep="/")
        changed |= {path: np.asarray(leaves[path]) for path in corrected.paths}
    if params["statistics"]:
        found = recalibrate.statistics(
            workspace.module,
            params["model"]["preprocess"],
            variables,
            images,
            batch_size=_BATCH,
            compute_dtype=params["compute_dtype"],
        )
        if not found:
            notes.append("the network has no BatchNorm whose statistics could be estimated")
        changed |= flatten_dict({"batch_stats": found}, sep="/")
    record = records.RecalibrateRecord(
        id=step.id,
        task=info.spec.name,
        what=tuple(
            what
            for what, done in (("readers", params["lsq"]), ("statistics", params["statistics"]))
            if done
        ),
        examples=len(images),
        notes=tuple(notes),
        flops=workspace.flops(step),
        wall_s=time.monotonic() - began,
    )
    return Output([record], arrays=lambda: changed)


def _corrected(step: Step, workspace: Workspace, images: np.ndarray) -> pruning.Correction:
    cut = step.inputs["weights"]
    whole = prune.variables_cut(cut, workspace)
    preprocess = models.Preprocess.parse(step.params["model"]["preprocess"])

    def batches() -> Iterator[jax.Array]:
        for batch in np.array_split(images, -(-len(images) // _BATCH)):
            yield preprocess(jnp.asarray(batch))

    groups = prune.traced(cut, workspace, step.params["image_size"], len(images))
    return pruning.correct(groups, whole, prune.kept(cut, workspace), batches())


def restore(step: Step, workspace: Workspace) -> Tree:
    """Its input's variables with what it changed."""
    return workspace.changed(step, step.inputs["weights"])


register("recalibrate", Kind(1, flops, run, shapes, restore, charge=charge, makes_arrays=True))
