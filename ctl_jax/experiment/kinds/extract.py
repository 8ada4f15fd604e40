"""Features of some images of a task, each computed once: a shard of what heads are fitted on.

Where a shard begins and ends does not depend on who needs it, so that budgets, methods and workers
share shards.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ctl_jax import finetune, records
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.workspace import Workspace

FEATURES, LABELS = "features", "labels"
# Shards are small at first, since small budgets pay for few images: (images, how many such shards).
_SIZES = ((256, 8), (1024, 14))
_LARGEST = 16384


class Shard(NamedTuple):
    """Some images of a split, in the order in which heads take them.

    Attributes:
      split: "train", "dev" or "dev_test".
      view: 0 for the images as they are, others for changed ones, see `finetune.extract`.
      start: the first one.
      stop: one after the last.
    """

    split: str
    view: int
    start: int
    stop: int


def shards(split: str, examples: int, count: int) -> list[Shard]:
    """The shards that hold the first images of a split; beyond its end, its next views.

    Args:
      split: its name.
      examples: that it has.
      count: images that are needed.
    """
    found = []
    for view in range(-(-count // examples)):
        wanted = min(examples, count - view * examples)
        for start, stop in itertools.pairwise(_bounds(examples)):
            if start >= wanted:
                break
            found.append(Shard(split, view, start, stop))
    return found


def _bounds(examples: int) -> Iterator[int]:
    sizes = itertools.chain(
        *(itertools.repeat(size, times) for size, times in _SIZES), itertools.repeat(_LARGEST)
    )
    stop = 0
    yield stop
    while stop < examples:
        stop = min(examples, stop + next(sizes))
        yield stop


def make(
    shard: Shard,
    task: Mapping[str, Any],
    network: Mapping[str, Any],
    start: Step | None,
    *,
    head: str,
    seed: int,
    compute_dtype: str,
    half: int = 0,
) -> Step:
    """The step of a shard.

    Args:
      shard: which images.
      task: its identity.
      network: what says which network it is, where `start` does not.
      start: makes its weights; None where they are given.
      head: what is computed of an image: "last" or "taps".
      seed: of the order of training images; others are taken as they come.
      compute_dtype: of the network.
      half: of the training images, see `balance.order`.
    """
    params = {
        "task": dict(task),
        **shard._asdict(),
        "seed": seed if shard.split == "train" else None,
        "head": head,
        "compute_dtype": compute_dtype,
        **network,
    }
    if half and shard.split == "train":
        params["half"] = half
    return Step("extract", params, {"weights": start} if start else {})


def flops(step: Step, workspace: Workspace) -> int:
    """Of a forward pass of each image, without a head."""
    params = step.params
    count = params["stop"] - params["start"]
    return count * workspace.forward(step.inputs.get("weights"), 0, params["image_size"])


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Computes them."""
    began, params = time.monotonic(), step.params
    info = workspace.tasks[params["task"]["name"]]
    split = workspace.loader.load(info.spec, image_size=params["image_size"]).splits[
        params["split"]
    ]
    index = np.arange(len(split.labels))
    if params["seed"] is not None:
        index = workspace.order(info.spec.name, split.labels, params["seed"], params.get("half", 0))
    # Those that could not be read are missing at the end.
    index = index[params["start"] : params["stop"]]
    features = finetune.extract(
        workspace.module,
        params["model"]["preprocess"],
        workspace.variables(step.inputs.get("weights")),
        split.images[index],
        head=params["head"],
        compute_dtype=params["compute_dtype"],
        view=params["view"],
    )
    record = records.ExtractRecord(
        id=step.id,
        task=info.spec.name,
        split=params["split"],
        start=params["start"],
        stop=params["stop"],
        image_size=params["image_size"],
        features=features.shape[1],
        flops=flops(step, workspace),
        wall_s=time.monotonic() - began,
    )
    return Output([record], arrays=lambda: {FEATURES: features, LABELS: split.labels[index]})


register("extract", Kind(2, flops, run, makes_arrays=True))
