"""The training of a trial, of a part of one, or before one: from a step to a fitted network."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ctl_jax import data, finetune, interrupts, models, pruning, records
from ctl_jax.compute import Ledger
from ctl_jax.experiment import ensembles, rungs
from ctl_jax.experiment.checkpointing import Dev, Keeper, kept
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import prune, shorten
from ctl_jax.experiment.kinds.head import NORM
from ctl_jax.experiment.steps import Step, nearest
from ctl_jax.experiment.stretches import (
    Stretch,
    half,
    new_head,
    padded_outputs,
    spent_by,
    spent_on_maps,
    stretch_at,
    total_updates,
)
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import Hyper, Leg
from ctl_jax.trees import Tree

# The most steps between two looks at the clock, for a checkpoint, and at who has the trial.
_LOOK_EVERY = 10


# Scores of a split, by its name and a network's variables.
Evaluate = Callable[[str, Tree], finetune.Scores]


def look_every(settings: Mapping[str, Any]) -> int:
    """Steps between two such looks, by the "finetune" settings of a step."""
    return min(settings["log_every"], _LOOK_EVERY)


def is_ensemble(step: Step) -> bool:
    """Whether its network may be two, whose logits are added."""
    return any(phase.get("ensemble") for phase in step.params["phases"])


# Otherwise each trial from random weights would trace the network again.
_random = jax.jit(models.init, static_argnums=(0, 2))


def train(
    step: Step,
    workspace: Workspace,
    task: data.Task,
    stretches: list[Stretch],
    keeper: Keeper,
    until: int | None = None,
) -> tuple[finetune.FitResult, float]:
    """A training, of a trial or before one, and how many seconds of it were spent before this call.

    Args:
      step: with the parameters "start", "seed", "finetune", "image_size" and "phases".
      workspace: of the run.
      task: whose training images.
      stretches: from `plan`.
      keeper: of the training.
      until: updates after which it is left.
    """
    params, settings = step.params, step.params["finetune"]
    if params["start"] == "random":
        key = jax.random.key(params["seed"])
        variables = _random(workspace.module, key, workspace.config.data.image_size)
        if (short := nearest(step, "shorten")) is not None:
            variables = shorten.without_later(short, workspace, variables)
        if (cut := nearest(step, "prune")) is not None:
            groups = prune.groups_of(cut, workspace)
            variables = pruning.prune(variables, groups, prune.kept(cut, workspace))
    else:
        variables = workspace.variables(step.inputs.get("weights"))
    outputs, head, head_rate = padded_outputs(task.num_classes), new_head(step), 1.0
    if head == "":
        record = workspace.result(step.inputs["weights"])
        assert isinstance(record, records.HeadRecord)
        head_rate = 1 / max(1.0, record.notes[NORM])
        variables = models.resize_head(variables, outputs)
    else:
        of = step.inputs.get("weights"), head, params["image_size"], outputs
        variables = workspace.with_new_head(variables, *of)
    start = keeper.resume(
        lambda phase: jax.eval_shape(
            functools.partial(finetune.init_state, stretches[phase].recipe, seed=params["seed"]),
            variables,
        )
    )
    workspace.show(start.step if start else 0)
    legs = [
        Leg(
            workspace.compiled(stretch.recipe),
            stretch.recipe,
            Hyper(
                stretch.rate,
                stretch.updates,
                stretch.warmup,
                task.num_classes,
                head_rate,
                settings.get("label_smoothing", 0.0),
            ),
        )
        for stretch in stretches
    ]
    train = task.splits["train"]
    among = None
    if chosen := half(step):
        among = workspace.order(task.spec.name, train.labels, params["seed"], chosen)

    def on_log(entry: finetune.LogEntry) -> None:
        workspace.show(entry.step)
        workspace.tell(lambda: train_record(step, stretches, entry))

    with interrupts.deferred():
        result = finetune.fit(
            legs,
            variables,
            train.images,
            finetune.pad_labels(train.labels, outputs),
            batch_size=settings["batch_size"],
            seed=params["seed"],
            among=among,
            log_every=settings["log_every"],
            on_log=on_log,
            start=start,
            on_chunk=keeper,
            until=until,
        )
    return result, start.wall_s if start else 0.0


def evaluator(
    step: Step, workspace: Workspace, task: data.Task
) -> tuple[Evaluate, ensembles.Logits]:
    """What scores a trial's network on a split; and what averages logits, of which it is a part."""
    logits = ensembles.Logits(
        workspace.module,
        step.params["model"]["preprocess"],
        step.params["finetune"]["compute_dtype"],
        task,
    )
    if is_ensemble(step):
        return logits.score, logits
    return functools.partial(_evaluate, step, workspace, task), logits


def keeper_of(
    step: Step,
    workspace: Workspace,
    job: Job,
    stretches: list[Stretch],
    evaluate: Evaluate,
    until: int | None = None,
) -> contextlib.AbstractContextManager[Keeper]:
    """The keeper of a trial's training, perhaps of a part of it; see `Keeper`."""
    settings, before = step.params["finetune"], step.inputs.get(rungs.RUNG)
    return kept(
        job,
        workspace,
        total_updates(stretches),
        until=until,
        begin=functools.partial(rungs.read, before, workspace) if before else None,
        look_every=look_every(settings),
        evaluate=functools.partial(evaluate, "dev"),
        evaluate_every=settings["evaluate_every"],
        keep_best=settings["report"] == "best",
        on_dev=lambda dev: workspace.tell(lambda: dev_record(step, stretches, dev)),
    )


def train_record(
    step: Step, stretches: list[Stretch], entry: finetune.LogEntry
) -> records.TrainRecord:
    """What a training says of itself every few updates."""
    return records.TrainRecord(
        trial=step.id,
        step=entry.step,
        flops_per_step=stretch_at(stretches, entry.step).cost.step,
        flops=spent_by(stretches, entry.step),
        loss=entry.loss,
        learning_rate=entry.learning_rate,
        wall_s=entry.wall_s,
    )


def dev_record(step: Step, stretches: list[Stretch], dev: Dev) -> records.DevRecord:
    """What it says of a look at dev."""
    return records.DevRecord(
        trial=step.id,
        step=dev.step,
        flops=spent_by(stretches, dev.step),
        dev=dev.value,
        dev_top5=dev.top5,
    )


def charged(step: Step, workspace: Workspace, stretches: list[Stretch], updates: int) -> Ledger:
    """What the first updates of a trial cost, with all that they rest on."""
    of_maps = spent_on_maps(stretches, updates)
    ledger = workspace.charge(step.inputs.get("weights"), step.params["task"]["name"], done=True)
    ledger = ledger.add("extract", of_maps)
    return ledger.add("train", spent_by(stretches, updates) - of_maps)


def _evaluate(
    step: Step, workspace: Workspace, task: data.Task, name: str, variables: Tree
) -> finetune.Scores:
    """Scores of a split."""
    split = task.splits[name]
    return finetune.evaluate(
        workspace.module,
        step.params["model"]["preprocess"],
        variables,
        split.images,
        split.labels,
        num_classes=task.num_classes,
        compute_dtype=step.params["finetune"]["compute_dtype"],
    )
