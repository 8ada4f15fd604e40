"""What the best network of a search says of each image of a split, kept beside the labels.

A prediction event, as dm_nevis calls it: the network that a method has for a task when it has
learnt it, on dev_test.
"""

import time
from collections.abc import Mapping

import numpy as np
from scipy.special import expit, logsumexp

from ctl_jax import finetune, models, records
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import evaluate
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.stretches import padded_outputs
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.trees import Tree

KIND = "predict"
# Names of its arrays.
TARGETS, OUTPUTS = "targets", "outputs"
# Of the trial: not "weights", since nothing starts from it.
_OF = "trial"
_FLOAT_BYTES = 4


def make(trial: Step, split: str = "dev_test") -> Step:
    """The predictions of a trial's network on a split of its task."""
    return Step(KIND, {"split": split}, {_OF: trial}, keep=True)


def trial_of(step: Step) -> Step:
    """The trial whose network predicts."""
    return step.inputs[_OF]


def flops(step: Step, workspace: Workspace) -> int:
    """Of a forward pass of each image."""
    trial = trial_of(step)
    examples: int = trial.params["task"]["examples"][step.params["split"]]
    return examples * evaluate.forward_of(workspace, trial)


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of the network."""
    return workspace.shapes(trial_of(step))


def restore(step: Step, workspace: Workspace) -> Tree:
    """The variables of the network."""
    return workspace.local_variables(trial_of(step))


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Predicts.

    Returns:
      A "predict" record, and as arrays "targets", int32 [N] or uint8 [N, K] of 0 and 1, and
      "outputs", float32 [N, K]: logits, of several labels an image probabilities.
    """
    began, trial = time.monotonic(), trial_of(step)
    params = trial.params
    info = workspace.tasks[params["task"]["name"]]
    task = workspace.loader.load(info.spec, image_size=params["image_size"])
    split, classes = task.splits[step.params["split"]], task.num_classes
    variables = workspace.variables(trial)
    logits = finetune.logits(
        workspace.module,
        params["model"]["preprocess"],
        models.resize_head(variables, padded_outputs(classes)),
        split.images,
        compute_dtype=params["finetune"]["compute_dtype"],
    )[:, :classes].astype(np.float32)
    scores = finetune.score(logits, split.labels, num_classes=classes)
    is_one = scores.metric == "accuracy"
    count = models.count_params(variables)
    record = records.PredictRecord(
        id=step.id,
        trial=trial.id,
        task=info.spec.name,
        method=params["method"],
        budget=params["budget"],
        seed=params["seed"],
        split=step.params["split"],
        examples=len(split),
        classes=classes,
        cross_entropy=_cross_entropy(logits, split.labels) if is_one else None,
        top1=scores.value if is_one else None,
        top5=scores.top5,
        mean_average_precision=None if is_one else scores.value,
        params=count,
        params_bytes=_FLOAT_BYTES * count,
        flops=flops(step, workspace),
        wall_s=time.monotonic() - began,
    )
    return Output([record], arrays=lambda: _arrays(logits, split.labels))


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over images, in nats."""
    log_shares = logits - logsumexp(logits.astype(np.float64), axis=1, keepdims=True)
    return float(-log_shares[np.arange(len(labels)), labels].mean())


def _arrays(logits: np.ndarray, labels: np.ndarray) -> Mapping[str, np.ndarray]:
    if labels.ndim == 2:
        return {TARGETS: labels.astype(np.uint8), OUTPUTS: expit(logits)}
    return {TARGETS: labels.astype(np.int32), OUTPUTS: logits}


register(KIND, Kind(1, flops, run, shapes, restore, makes_arrays=True))
