"""A part of a trial's training, up to a rung of its search: see rungs.py.

Its learning rates are those of the whole training. Where it ends the network is evaluated on dev,
by which the search goes on with the better ones: what a trial's record would say of it if the
training ended there.
"""

import time
from collections.abc import Collection, Mapping

import numpy as np

from ctl_jax import records
from ctl_jax.experiment import rungs, training
from ctl_jax.experiment.checkpointing import Keeper
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import finetune
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.stretches import plan, spent_by
from ctl_jax.experiment.tasks import loaded
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.trees import Tree

KIND = "rung"


def make(trial: Step, until: int, before: Step | None = None) -> Step:
    """The step that trains up to a rung.

    Args:
      trial: whose training; it makes more updates than `until`.
      until: updates of it.
      before: the step that has made the first of them.
    """
    inputs = {**trial.inputs, rungs.RUNG: before} if before else trial.inputs
    return Step(KIND, {**trial.params, "until": until}, inputs)


def flops(step: Step, workspace: Workspace) -> int:
    """Of the updates that it adds, and of evaluations on dev."""
    stretches, begun, until = plan(step, workspace), rungs.begun(step), step.params["until"]
    every = step.params["finetune"]["evaluate_every"]
    evaluations = finetune.evaluations_between(begun, until, every)
    # That by which it is compared, unless it is evaluated there anyway.
    evaluations += not every or until % every > 0
    images = evaluations * step.params["task"]["examples"]["dev"]
    added = spent_by(stretches, until) - spent_by(stretches, begun)
    return added + rungs.maps_again(step, stretches) + images * stretches[-1].cost.forward


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Trains, evaluates, and leaves the training for the step that goes on with it.

    Returns:
      A "rung" record, and the training as arrays; of one that diverged none.

    Raises:
      Stopped: the run was told to stop; the training is saved.
      Lost: another worker has it.
    """
    began, info = time.monotonic(), workspace.tasks[step.params["task"]["name"]]
    task = workspace.loader.load(info.spec, image_size=step.params["image_size"])
    stretches, until = plan(step, workspace), step.params["until"]
    evaluate, _ = training.evaluator(step, workspace, task)
    dev_flops = stretches[-1].cost.forward * len(task.splits["dev"])
    dev, looked, arrays = None, rungs.maps_again(step, stretches), dict[str, np.ndarray]()
    with training.keeper_of(step, workspace, job, stretches, evaluate, until) as keeper:
        result, before_s = training.train(step, workspace, task, stretches, keeper, until)
        if not result.diverged:
            dev, is_new = _dev(step, evaluate, result.variables, keeper)
            looked += is_new * dev_flops
            arrays = rungs.arrays(keeper.left())
    ledger = training.charged(step, workspace, stretches, result.steps)
    ledger = ledger.add("validate", len(keeper.dev) * dev_flops)
    computed = spent_by(stretches, result.steps) + ledger.validate + looked
    record = records.RungRecord(
        id=step.id,
        task=info.spec.name,
        **{name: step.params[name] for name in ("method", "budget", "seed", "learning_rate")},
        batch_size=step.params["finetune"]["batch_size"],
        label_smoothing=step.params["finetune"].get("label_smoothing", 0.0),
        steps=result.steps,
        dev=dev,
        diverged=result.diverged,
        ledger=ledger,
        looked_flops=looked + _looked_before(step, workspace),
        flops=computed - rungs.before(step, stretches, keeper, dev_flops),
        wall_s=before_s + time.monotonic() - began,
    )
    return Output([records.TaskRecord(**loaded(task)), record], arrays=lambda: arrays)


def _dev(
    step: Step, evaluate: training.Evaluate, variables: Tree, keeper: Keeper
) -> tuple[float, bool]:
    """The score on dev that a trial would have, and whether it took another evaluation."""
    last = keeper.dev[-1] if keeper.dev else None
    is_new = last is None or last.step != step.params["until"]
    score = evaluate("dev", variables).value if last is None or is_new else last.value
    if keeper.best is not None:
        score = max(score, keeper.best.dev.value)
    return score, is_new


def _looked_before(step: Step, workspace: Workspace) -> int:
    """FLOPs of the looks at the rungs before."""
    before = step.inputs.get(rungs.RUNG)
    if before is None:
        return 0
    record = workspace.result(before)
    assert isinstance(record, records.RungRecord)
    return record.looked_flops


def label(step: Step, workspace: Workspace) -> tuple[str, int]:
    """What a progress bar says, and how many updates there are."""
    return finetune.label(step, workspace)[0], step.params["until"]


def over(
    wanted: Mapping[str, Step], left: Mapping[str, Step], products: Collection[str]
) -> list[str]:
    """Ids of the rungs whose trainings are there and are gone on with no more.

    Args:
      wanted: the steps of a run, by id.
      left: those that are not done.
      products: ids of the steps whose arrays are there.
    """
    there = [id for id in products if id in wanted and wanted[id].kind == KIND]
    awaited = {each.id for step in left.values() for each in step.inputs.values()} if there else ()
    return [id for id in there if not wanted[id].keep and id not in awaited]


# Its training goes on from arrays, and nothing else is made of it.
register(KIND, Kind(1, flops, run, makes_arrays=True, label=label))
