"""A head that is fitted on features, in closed form or nearly, and how good it is."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ctl_jax import finetune, heads, models, records
from ctl_jax.compute import Ledger
from ctl_jax.data import balance
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import extract
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import Phase
from ctl_jax.finetune.extract import VIEWS
from ctl_jax.trees import Tree

# In a record's notes: the mean squared norm of the features, of the first shard.
NORM = "squared_norm"
_SPLITS = ("dev", "dev_test")


class Wish(NamedTuple):
    """A head that is to be fitted, but for how many images the budget pays for.

    Attributes:
      phase: says how.
      task: identity of the task.
      multi_label: whether an image of it may be of several classes.
      network: what says which network it is, where `start` does not; with "image_size".
      start: makes its weights; None where they are given.
      seed: of the order of training images, and of the solver.
      compute_dtype: of the network.
    """

    phase: Phase
    task: Mapping[str, Any]
    multi_label: bool
    network: Mapping[str, Any]
    start: Step | None
    seed: int
    compute_dtype: str


def shards(wish: Wish, split: str, images: int) -> dict[str, Step]:
    """The steps of the features of the first images of a split, by what they are to a head."""
    there = _there(wish) if split == "train" else wish.task["examples"][split]
    return {
        f"{split}/{number}": extract.make(
            shard,
            wish.task,
            wish.network,
            wish.start,
            head=wish.phase.head,
            seed=wish.seed,
            compute_dtype=wish.compute_dtype,
            half=wish.phase.half,
        )
        for number, shard in enumerate(extract.shards(split, there, images))
    }


def make(wish: Wish, images: int, *, judged_on: str = "dev") -> Step:
    """The step of a head.

    Args:
      wish: which head.
      images: of the train split that it is fitted on; beyond its end further views of them.
      judged_on: the images that choose its coefficients: "dev", or "left out": each training
        image, by what is fitted to the others.
    """
    phase, task = wish.phase, wish.task
    inputs = {"weights": wish.start} if wish.start else {}
    counts = {"train": images, **{name: task["examples"][name] for name in _SPLITS}}
    for split, count in counts.items():
        inputs |= shards(wish, split, count)
    params = {
        "task": dict(task),
        "images": images,
        "solver": phase.solver,
        "head": phase.head,
        "select": phase.select,
        "multi_label": wish.multi_label,
        "seed": wish.seed,
        **wish.network,
    }
    if judged_on != "dev":
        params["judged_on"] = judged_on
    return Step("head", params, inputs)


def _there(wish: Wish) -> int:
    """How many training images it may be fitted on."""
    return balance.size(wish.task["examples"]["train"], wish.phase.half)


def affordable(wish: Wish, flops: int, workspace: Workspace) -> int:
    """How many training images a budget pays for: their features, and the fit.

    At most those that there are, with their views where the phase has them; 0 where it pays for
    none.
    """
    views = VIEWS if wish.phase.views else 1
    low, high = 0, views * _there(wish)
    while low < high:
        middle = -(-(low + high) // 2)
        if _cost(wish, middle, workspace) <= flops:
            low = middle
        else:
            high = middle - 1
    return low


def cost_of_one(wish: Wish, workspace: Workspace) -> int:
    """FLOPs of a head that is fitted on one image: the least that a budget has to pay for."""
    return _cost(wish, 1, workspace)


def cost_of_all(wish: Wish, workspace: Workspace) -> int:
    """FLOPs of a head that is fitted on all images that there are, with their views: the most."""
    return _cost(wish, (VIEWS if wish.phase.views else 1) * _there(wish), workspace)


def _cost(wish: Wish, images: int, workspace: Workspace) -> int:
    size = wish.network["image_size"]
    features = images * workspace.forward(wish.start, 0, size)
    width = workspace.features(wish.start, wish.phase.head, size)
    classes = wish.task["num_classes"]
    return features + heads.flops(
        wish.phase.solver, images, width, classes, wish.multi_label, wish.phase.select
    )


def flops(step: Step, workspace: Workspace) -> int:
    """Of the fit, at most."""
    params = step.params
    return heads.flops(
        params["solver"],
        params["images"],
        _width(step, workspace),
        params["task"]["num_classes"],
        params["multi_label"],
        params["select"],
    )


def _width(step: Step, workspace: Workspace) -> int:
    """How many features there are."""
    params = step.params
    return workspace.features(step.inputs.get("weights"), params["head"], params["image_size"])


def charge(step: Step, workspace: Workspace, record: records.Record | None) -> Ledger:
    """Of the features of its training images, and of the fit."""
    params = step.params
    each = workspace.forward(step.inputs.get("weights"), 0, params["image_size"])
    fit = flops(step, workspace)
    if record is not None:
        assert isinstance(record, records.HeadRecord)
        fit = record.flops
    return Ledger(train=fit, extract=params["images"] * each)


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of its input, with the head."""
    params = step.params
    head = heads.shapes(
        params["solver"], params["images"], _width(step, workspace), params["task"]["num_classes"]
    )
    whole = workspace.shapes(step.inputs.get("weights"))
    return {**whole, "params": {**whole["params"], "head": head}}


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Fits it, and looks how good it is on dev and dev_test, all on features.

    Raises:
      DamagedModel: features cannot be read back.
    """
    began, params = time.monotonic(), step.params
    # Those of images that cannot be read are missing.
    train, dev, dev_test = (features(step, workspace, split) for split in ("train", *_SPLITS))
    train = first(train, params["images"])
    classes = params["task"]["num_classes"]
    fitted = heads.fit(
        params["solver"],
        train,
        classes,
        multi_label=params["multi_label"],
        seed=params["seed"],
        select=params["select"],
        dev=None if "judged_on" in params else _joined(dev),
    )
    scores = [_score(fitted.head, each, classes) for each in (dev, dev_test)]
    images = sum(len(shard.labels) for shard in train)
    norm = np.square(train[0].features, dtype=np.float32).sum(axis=1).mean()
    each = workspace.forward(step.inputs.get("weights"), 0, params["image_size"])
    record = records.HeadRecord(
        id=step.id,
        task=params["task"]["name"],
        solver=params["solver"],
        head=params["head"],
        examples=images,
        features=train[0].features.shape[1],
        metric=scores[0].metric,
        dev=scores[0].value,
        dev_test=scores[1].value,
        dev_top5=scores[0].top5,
        dev_test_top5=scores[1].top5,
        notes={**fitted.notes, NORM: float(norm)},
        flops=fitted.flops,
        extract_flops=images * each,
        wall_s=time.monotonic() - began,
    )
    return Output([record], arrays=lambda: flatten_dict(fitted.head, sep="/"))


def features(step: Step, workspace: Workspace, split: str) -> list[heads.Shard]:
    """What a step has of the features of a split.

    Raises:
      DamagedModel: they cannot be read back.
    """
    names = (name for name in step.inputs if name.rpartition("/")[0] == split)
    found = [workspace.arrays(step.inputs[name]) for name in names]
    return [heads.Shard(each[extract.FEATURES], each[extract.LABELS]) for each in found]


def first(shards: list[heads.Shard], count: int) -> list[heads.Shard]:
    """The first images of some shards."""
    found = []
    for shard in shards:
        if count > 0:
            found.append(heads.Shard(shard.features[:count], shard.labels[:count]))
        count -= len(shard.labels)
    return found


def _joined(shards: list[heads.Shard]) -> heads.Shard:
    return heads.Shard(*map(np.concatenate, zip(*shards, strict=True)))


def _score(head: Any, shards: list[heads.Shard], num_classes: int) -> finetune.Scores:
    logits = [_logits(head, shard.features) for shard in shards]
    labels = np.concatenate([shard.labels for shard in shards])
    return finetune.score(np.concatenate(logits), labels, num_classes=num_classes)


# Features may be float16 on disk; heads compute in float32.
_apply = jax.jit(lambda head, features: models.apply_head(head, features.astype(jnp.float32)))


def _logits(head: Any, features: np.ndarray) -> np.ndarray:
    return np.asarray(_apply(head, features))


def restore(step: Step, workspace: Workspace) -> Tree:
    """The variables of its input, with the head."""
    head = unflatten_dict(dict(workspace.local_arrays(step)), sep="/")
    return models.set_head(workspace.local_variables(step.inputs.get("weights")), head)


register("head", Kind(2, flops, run, shapes, restore, charge=charge, makes_arrays=True))
