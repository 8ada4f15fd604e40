"""Weights that a run makes itself, on a source task, where none are given."""

import dataclasses
import functools

import jax

from ctl_jax import data, finetune, interrupts, models, records
from ctl_jax.errors import UserError
from ctl_jax.experiment import build
from ctl_jax.experiment.checkpointing import Keeper, kept
from ctl_jax.experiment.config import Config
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.method_costs import Cost
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.tasks import TaskInfo
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import Augmentation, Hyper, Leg, Recipe
from ctl_jax.trees import Tree

# Steps between two looks at the loss and at the clock.
_LOG_EVERY = 10


def make(config: Config, network: build.Network, task: TaskInfo) -> Step:
    """The pretraining that a config asks for, on its source task."""
    return Step(
        "pretrain",
        {
            "pretrain": dataclasses.asdict(config.pretrain),
            "task": task.identity,
            "compute_dtype": build.compute_dtype(config.finetune),
            "image_size": config.data.image_size,
            "model": dict(network.described),
        },
    )


def flops(step: Step, workspace: Workspace) -> int:
    """Of all its updates, and of its evaluation on dev."""
    cost, task = _cost(step, workspace), step.params["task"]
    return step.params["pretrain"]["steps"] * cost.step + task["examples"]["dev"] * cost.forward


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of the whole network, with one output."""
    return workspace.whole


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Trains from random weights, or goes on from the job's last checkpoint.

    Raises:
      UserError: the loss stopped being finite, and nothing is kept of such weights: another call
        would take them for done.
      Stopped: the run was told to stop; what was trained so far is kept.
      Lost: another worker has it.
    """
    settings, recipe, cost = step.params["pretrain"], _recipe(step), _cost(step, workspace)
    assert workspace.source is not None
    task = workspace.loader.load(workspace.source.spec, whole=True)
    with kept(job, workspace, settings["steps"], look_every=_LOG_EVERY) as keeper:
        result = _fit(step, workspace, recipe, task, keeper)
        if result.diverged:
            raise UserError(
                f"config.pretrain.learning_rate={settings['learning_rate']!r}: the loss was not "
                f"finite after {result.steps} steps; expected a rate at which pretraining converges"
            )
        accuracy = _accuracy(workspace, recipe, task, result.variables)
    record = records.PretrainRecord(
        id=step.id,
        task=task.spec.name,
        steps=result.steps,
        flops_per_step=cost.step,
        flops=result.steps * cost.step + len(task.splits["dev"]) * cost.forward,
        metric=accuracy,
        loss=result.history[-1].loss,
        seed=settings["seed"],
        wall_s=result.history[-1].wall_s,
        weights=models.content_hash(result.variables),
    )
    model = functools.partial(
        build.as_model,
        workspace.network,
        result.variables,
        step.params["image_size"],
        recipe.compute_dtype,
        notes={"step": step.id, "task": task.spec.name},
    )
    return Output([record], model)


def label(step: Step, workspace: Workspace) -> tuple[str, int]:
    """What a progress bar says, and how many updates there are."""
    assert workspace.source is not None
    return f"pretrain on {workspace.source.spec.title}", step.params["pretrain"]["steps"]


def _recipe(step: Step) -> Recipe:
    settings = step.params["pretrain"]
    return Recipe(
        preprocess=step.params["model"]["preprocess"],
        augmentation=Augmentation(crop_area=tuple(settings["crop_area"]), flip=settings["flip"]),
        weight_decay=settings["weight_decay"],
        compute_dtype=step.params["compute_dtype"],
    )


def _cost(step: Step, workspace: Workspace) -> Cost:
    batch_size = step.params["pretrain"]["batch_size"]
    size, classes = step.params["image_size"], step.params["task"]["num_classes"]
    return workspace.costs(_recipe(step), None, batch_size, size)(classes)


def _fit(
    step: Step, workspace: Workspace, recipe: Recipe, task: data.Task, keeper: Keeper
) -> finetune.FitResult:
    settings, train = step.params["pretrain"], task.splits["train"]
    seed, total = settings["seed"], settings["steps"]
    variables = models.init(workspace.module, jax.random.key(seed), step.params["image_size"])
    variables = models.with_head(variables, task.num_classes)
    init = functools.partial(finetune.init_state, recipe, seed=seed)
    start = keeper.resume(lambda phase: jax.eval_shape(init, variables))
    hyper = Hyper(
        settings["learning_rate"], total, int(settings["warmup_fraction"] * total), task.num_classes
    )
    cost = _cost(step, workspace)

    def on_log(entry: finetune.LogEntry) -> None:
        workspace.show(entry.step)
        workspace.tell(
            lambda: records.TrainRecord(
                trial=step.id,
                step=entry.step,
                flops_per_step=cost.step,
                flops=entry.step * cost.step,
                loss=entry.loss,
                learning_rate=entry.learning_rate,
                wall_s=entry.wall_s,
            )
        )

    with interrupts.deferred():
        return finetune.fit(
            [Leg(workspace.compiled(recipe), recipe, hyper)],
            variables,
            train.images,
            train.labels,
            batch_size=settings["batch_size"],
            seed=seed,
            log_every=_LOG_EVERY,
            on_log=on_log,
            start=start,
            on_chunk=keeper,
        )


def _accuracy(workspace: Workspace, recipe: Recipe, task: data.Task, variables: Tree) -> float:
    """On dev of the source task."""
    dev = task.splits["dev"]
    return finetune.evaluate(
        workspace.module,
        recipe.preprocess,
        variables,
        dev.images,
        dev.labels,
        num_classes=task.num_classes,
        compute_dtype=recipe.compute_dtype,
    ).value


register("pretrain", Kind(5, flops, run, shapes, label=label))
