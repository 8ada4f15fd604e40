"""The last word on a search: its best network, trained again on train and dev, on test.

The settings are those that won on dev; the training begins where the trial's did, has as many
updates, and its last weights count, since no dev is left to choose by. A head that was fitted, and
an average of two networks, stay as they are: dev has chosen a coefficient of them.
"""

import dataclasses
import time
from typing import Any

import numpy as np

from ctl_jax import data, finetune, models, records
from ctl_jax.experiment import training
from ctl_jax.experiment.checkpointing import kept
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import evaluate
from ctl_jax.experiment.steps import Kind, Output, Step, register, variables_of_input
from ctl_jax.experiment.stretches import half, padded_outputs, plan, spent_by, total_updates
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.trees import Tree

KIND = "final"
# Of a network that stays as it is: the trial that made it.
_OF = "trial"


def make(trial: Step) -> Step:
    """The step for a trial that won its search."""
    params: dict[str, Any] = {"of": trial.id, "split": "test"}
    if not trial.params["phases"] or training.is_ensemble(trial) or half(trial):
        return Step(KIND, params, {_OF: trial})
    task = trial.params["task"]
    counts = task["examples"]
    merged = {**task, "examples": {**counts, "train": counts["train"] + counts["dev"]}}
    # It begins anew, also where the search went on from rungs.
    own = {name: value for name, value in trial.params.items() if name != "rungs"}
    inputs = {name: trial.inputs[name] for name in ("weights",) if name in trial.inputs}
    return Step(KIND, {**own, **params, "task": merged}, inputs)


def trial_of(step: Step) -> Step | None:
    """The trial whose network is needed; None where it is trained again."""
    return step.inputs.get(_OF)


def flops(step: Step, workspace: Workspace) -> int:
    """Of its updates, and of a forward pass of each image of the split."""
    if (trial := trial_of(step)) is not None:
        examples: int = trial.params["task"]["examples"][step.params["split"]]
        return examples * evaluate.forward_of(workspace, trial)
    stretches = plan(step, workspace)
    forward = stretches[-1].cost.forward * step.params["task"]["examples"][step.params["split"]]
    return spent_by(stretches, total_updates(stretches)) + forward


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Trains where it can, and evaluates.

    Raises:
      Stopped: the run was told to stop; the training is saved.
      Lost: another worker has it.
    """
    began, trial = time.monotonic(), trial_of(step)
    of = step if trial is None else trial
    params = of.params
    info = workspace.tasks[params["task"]["name"]]
    task = workspace.loader.load(info.spec, image_size=params["image_size"])
    before_s, diverged = 0.0, False
    if trial is None:
        stretches, whole = plan(step, workspace), _with_dev(task)
        look_every = training.look_every(params["finetune"])
        with kept(job, workspace, total_updates(stretches), look_every=look_every) as keeper:
            result, before_s = training.train(step, workspace, whole, stretches, keeper)
            variables, diverged = result.variables, result.diverged
            scores = (
                None if diverged else _scores(of, workspace, task, variables, step.params["split"])
            )
    else:
        variables = models.resize_head(workspace.variables(trial), padded_outputs(task.num_classes))
        scores = _scores(of, workspace, task, variables, step.params["split"])
    low, high = (None, None) if scores is None or scores.interval is None else scores.interval
    record = records.FinalRecord(
        id=step.id,
        trial=step.params["of"],
        task=info.spec.name,
        method=params["method"],
        budget=params["budget"],
        seed=params["seed"],
        trained_on="train" if trial else "train_and_dev",
        split=step.params["split"],
        examples=len(task.splits[step.params["split"]]),
        metric=info.spec.metric,
        score=None if scores is None else scores.value,
        low=low,
        high=high,
        top5=None if scores is None else scores.top5,
        diverged=diverged,
        flops=flops(step, workspace),
        wall_s=before_s + time.monotonic() - began,
    )
    return Output([record])


def _with_dev(task: data.Task) -> data.Task:
    """The task with its images of dev among those of train, behind them."""
    train, dev = task.splits["train"], task.splits["dev"]
    joined = data.Split(
        np.concatenate([train.images, dev.images]), np.concatenate([train.labels, dev.labels])
    )
    return dataclasses.replace(task, splits={**task.splits, "train": joined})


def _scores(
    of: Step, workspace: Workspace, task: data.Task, variables: Tree, split: str
) -> finetune.Scores:
    return finetune.evaluate(
        workspace.module,
        of.params["model"]["preprocess"],
        variables,
        task.splits[split].images,
        task.splits[split].labels,
        num_classes=task.num_classes,
        compute_dtype=of.params["finetune"]["compute_dtype"],
        interval=True,
    )


register(KIND, Kind(1, flops, run, restore=variables_of_input))
