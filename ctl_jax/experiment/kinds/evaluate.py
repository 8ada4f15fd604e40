"""Evaluation of a task's best model on the test split, and the cost of a prediction."""

import statistics
import time
from collections.abc import Mapping

import jax
import numpy as np

from ctl_jax import finetune, models, records
from ctl_jax.experiment import build
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.stretches import new_head, padded_outputs
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.models.heads import ENSEMBLE
from ctl_jax.trees import Tree

# Predictions of one image: those before any is measured, and those whose median counts.
_WARM_UP, _MEASURED = 3, 20


def make(trial: Step, split: str = "test") -> Step:
    """The evaluation of a trial's model on a split of its task."""
    return Step("evaluate", {"split": split}, {"weights": trial})


def flops(step: Step, workspace: Workspace) -> int:
    """Of the forward passes of the split, and of those whose time is measured."""
    trial = _trial(step)
    examples = trial.params["task"]["examples"][step.params["split"]]
    return _flops(workspace, trial, examples)


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of its input: it makes no network of its own."""
    return workspace.shapes(_trial(step))


def restore(step: Step, workspace: Workspace) -> Tree:
    """The variables of its input."""
    return workspace.local_variables(_trial(step))


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Evaluates, and takes the time of a prediction beside that of the whole network."""
    began, trial = time.monotonic(), _trial(step)
    params, variables = trial.params, workspace.variables(trial)
    info = workspace.tasks[params["task"]["name"]]
    task = workspace.loader.load(info.spec, image_size=params["image_size"])
    split = task.splits[step.params["split"]]
    scores = finetune.evaluate(
        workspace.module,
        params["model"]["preprocess"],
        models.resize_head(variables, padded_outputs(task.num_classes)),
        split.images,
        split.labels,
        num_classes=task.num_classes,
        compute_dtype=params["finetune"]["compute_dtype"],
        interval=True,
    )
    assert scores.interval is not None
    whole = _whole(workspace, task.num_classes)
    seconds = _latency(workspace, trial, variables)
    is_whole = models.count_params(variables) == models.count_params(whole)
    record = records.EvaluateRecord(
        id=step.id,
        trial=trial.id,
        task=task.spec.name,
        split=step.params["split"],
        examples=len(split),
        metric=scores.metric,
        score=scores.value,
        low=scores.interval[0],
        high=scores.interval[1],
        correct=round(scores.value * len(split)) if scores.metric == "accuracy" else None,
        top5=scores.top5,
        widths=_widths(workspace, variables),
        params=models.count_params(variables),
        whole_params=models.count_params(whole),
        forward_flops=forward_of(workspace, trial),
        whole_forward_flops=_whole_forward(workspace, trial),
        latency_s=seconds,
        whole_latency_s=seconds if is_whole else _latency(workspace, trial, whole),
        device=jax.devices()[0].device_kind,
        flops=_flops(workspace, trial, len(split)),
        wall_s=time.monotonic() - began,
    )
    return Output([record])


def _trial(step: Step) -> Step:
    return step.inputs["weights"]


def _flops(workspace: Workspace, trial: Step, examples: int) -> int:
    model, whole = forward_of(workspace, trial), _whole_forward(workspace, trial)
    timed = model if model == whole else model + whole
    return examples * model + (_WARM_UP + _MEASURED) * timed


def forward_of(workspace: Workspace, trial: Step) -> int:
    """FLOPs of a prediction by the trial's network."""
    params = trial.params
    of = params["task"]["num_classes"], params["image_size"]
    one = workspace.forward(trial.inputs.get("weights"), *of, new_head(trial))
    return 2 * one if ENSEMBLE in workspace.shapes(trial)["params"] else one


def _whole_forward(workspace: Workspace, trial: Step) -> int:
    """FLOPs of a prediction by the whole network, with a head on its last features."""
    return workspace.forward(None, trial.params["task"]["num_classes"], trial.params["image_size"])


def _whole(workspace: Workspace, num_classes: int) -> Tree:
    """The whole network, with zeros for weights: they take the same time."""
    shapes = jax.eval_shape(lambda tree: models.with_head(tree, num_classes), workspace.whole)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def _widths(workspace: Workspace, variables: Tree) -> Mapping[str, tuple[int, ...]]:
    """The different numbers of outputs of each stage's kernels, but those of the task's head."""
    found: dict[str, tuple[int, ...]] = {}
    for stage, names in build.stages(workspace.network, variables).items():
        inside = {name: variables["params"][name] for name in names if name != "head"}
        leaves = jax.tree_util.tree_leaves_with_path(inside)
        kernels = [leaf for path, leaf in leaves if path[-1].key == "kernel"]
        if widths := dict.fromkeys(int(leaf.shape[-1]) for leaf in kernels):
            found[stage] = tuple(widths)
    return found


def _latency(workspace: Workspace, trial: Step, variables: Tree) -> float:
    """Median seconds of a prediction of one image by a network of these variables."""
    size = trial.params["image_size"]
    dtype = trial.params["finetune"]["compute_dtype"]
    model = build.as_model(workspace.network, variables, size, dtype, notes={})
    image, seconds = np.zeros((1, size, size, 3), np.uint8), []
    for _ in range(_WARM_UP + _MEASURED):
        began = time.perf_counter()
        model.logits(image)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[_WARM_UP:])


register("evaluate", Kind(1, flops, run, shapes, restore))
