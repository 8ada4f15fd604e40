"""How good the features of a network are on a task: k nearest neighbours, on dev.

As dm_nevis does it (`experiments_jax/training/evaluate_embeddings.py`): the last features of at
most 10,000 training images, the five nearest by Euclidean distance with equal votes, features not
normalised, and the accuracy, or mean average precision, on at most 5,000 images of dev. Other than
there, BatchNorm has the statistics of the network, as wherever features are taken here, not those
of each batch; and which images they are does not change between candidates.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctl_jax import finetune, records
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.steps import Kind, Output, Step, register, trained_on
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune.step import Tree
from ctl_jax.heads import neighbours

_MOST = {"train": 10_000, "dev": 5_000}
# What the network is to it: not "weights", since it makes none that anything starts from.
_OF = "network"


def make(
    task: Mapping[str, Any],
    network: Mapping[str, Any],
    start: Step | None,
    *,
    seed: int,
    compute_dtype: str,
) -> Step:
    """The step.

    Args:
      task: its identity.
      network: what says which network it is, where `start` does not; with "image_size".
      start: makes its weights; None where they are given.
      seed: of which images there are, of more than are taken.
      compute_dtype: of the network.
    """
    images = {split: min(most, task["examples"][split]) for split, most in _MOST.items()}
    params = {
        "task": dict(task),
        "images": images,
        "neighbours": neighbours.NEIGHBOURS,
        "seed": seed,
        "compute_dtype": compute_dtype,
        **network,
    }
    return Step("neighbours", params, {_OF: start} if start else {})


def flops(step: Step, workspace: Workspace) -> int:
    """Of the features, without a head, and of the distances."""
    return _flops(step, workspace, **step.params["images"])


def _flops(step: Step, workspace: Workspace, train: int, dev: int) -> int:
    start, size = step.inputs.get(_OF), step.params["image_size"]
    width = workspace.features(start, "last", size)
    return (train + dev) * workspace.forward(start, 0, size) + neighbours.flops(train, dev, width)


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of the network."""
    return workspace.shapes(step.inputs.get(_OF))


def restore(step: Step, workspace: Workspace) -> Tree:
    """The variables of the network."""
    return workspace.local_variables(step.inputs.get(_OF))


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Takes the features, and looks for neighbours."""
    began, params, start = time.monotonic(), step.params, step.inputs.get(_OF)
    info, size = workspace.tasks[params["task"]["name"]], params["image_size"]
    task = workspace.loader.load(info.spec, image_size=size)
    variables = workspace.variables(start)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, most in params["images"].items():
        labels = task.splits[name].labels
        index = workspace.order(f"{info.spec.name}/{name}", labels, params["seed"])[:most]
        features = finetune.extract(
            workspace.module,
            params["model"]["preprocess"],
            variables,
            task.splits[name].images[index],
            compute_dtype=params["compute_dtype"],
            dtype=np.float32,
        )
        found[name] = features, labels[index]
    (train, labels), (queries, wanted) = found["train"], found["dev"]
    shares = neighbours.votes(train, labels, queries, task.num_classes)
    scores = finetune.score(shares, wanted, num_classes=task.num_classes)
    record = records.NeighboursRecord(
        id=step.id,
        task=info.spec.name,
        source=trained_on(start),
        neighbours=params["neighbours"],
        examples=len(train),
        dev_examples=len(queries),
        image_size=size,
        features=train.shape[1],
        metric=scores.metric,
        dev=scores.value,
        flops=_flops(step, workspace, len(train), len(queries)),
        wall_s=time.monotonic() - began,
    )
    return Output([record])


register("neighbours", Kind(1, flops, run, shapes, restore))
