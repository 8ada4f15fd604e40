"""Structured pruning before any finetuning: which channels of a network stay.

Weights alone decide, or one batch of the task does, whose FLOPs are counted.
"""

import collections
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctl_jax import models, pruning, records
from ctl_jax.compute import Ledger
from ctl_jax.experiment import build
from ctl_jax.experiment.methods import Cut
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune.importance import importance, importance_flops
from ctl_jax.trees import Tree

# Images of the task that criteria which look at some are given: a batch.
_IMAGES = 32
# Where groups are ranked together, the share of each that stays at least.
_FLOOR = 0.1
_UNIFORM = "uniform"


def make(
    cut: Cut,
    settings: Mapping[str, Any],
    network: Mapping[str, Any],
    start: Step | None,
    *,
    task: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Step:
    """The step of a cut.

    Args:
      cut: which channels go.
      settings: "criterion" and "round_to".
      network: what says which network is cut: "model", "image_size", and "weights", the hash of
        those that were given.
      start: makes the weights where none were given, or the first stages alone. Without weights
        the step tells widths alone: the first channels stay.
      task: identity of the task whose images the criterion looks at.
      seed: of the images, or of what the criterion draws.
    """
    params: dict[str, Any] = {"scope": cut.scope, "ratio": cut.ratio, **settings, **network}
    if cut.allocation != _UNIFORM:
        params["allocation"] = cut.allocation
    if task is not None:
        params["task"] = dict(task)
    if seed is not None:
        params["seed"] = seed
    return Step("prune", params, {"weights": start} if start else {})


def flops(step: Step, workspace: Workspace) -> int:
    """Of the batch that the criterion looks at; nothing where weights alone are looked at."""
    params = step.params
    if "task" not in params:
        return 0
    task, criterion, count = params["task"], params["criterion"], _images(step)
    multi_label = workspace.tasks[task["name"]].spec.kind == "multi_label"

    def counted() -> int:
        side, classes = params["image_size"], task["num_classes"]
        labels = jax.ShapeDtypeStruct((count,), jnp.int32)
        if multi_label:
            labels = jax.ShapeDtypeStruct((count, classes), jnp.uint8)
        return importance_flops(
            workspace.module,
            traced(step, workspace, side, count),
            shapes_cut(step, workspace),
            jax.ShapeDtypeStruct((count, side, side, 3), jnp.float32),
            labels,
            criterion=criterion,
            num_classes=classes,
        )

    network = _architecture(step, workspace)
    of_task = params["image_size"], task["num_classes"], multi_label
    key = ("importance", criterion, count, *of_task, network)
    return workspace.once(key, counted)


def charge(step: Step, workspace: Workspace, record: records.Record | None) -> Ledger:
    """What it costs."""
    return Ledger(prune=workspace.flops(step))


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Of the network that is left; no weights are needed."""
    return pruning.prune(
        shapes_cut(step, workspace), groups_of(step, workspace), planned(step, workspace)
    )


def run(step: Step, workspace: Workspace, job: Any) -> Output:
    """Scores the channels, and selects those that stay."""
    params = step.params
    keep = _select(step, workspace, _scores(step, workspace))
    groups = groups_of(step, workspace)
    of_config = params["criterion"] == workspace.config.pruning.criterion
    cut = Cut(
        params["scope"],
        params["ratio"],
        "" if of_config else params["criterion"],
        params.get("allocation", _UNIFORM),
    )
    record = records.PruneRecord(
        id=step.id,
        cut=cut.name,
        keep=keep.to_json(),
        groups=len(groups),
        cut_groups=cut_groups(keep),
        notes=tuple(notes(groups, keep)),
        flops=workspace.flops(step),
        task=params["task"]["name"] if "task" in params else None,
    )
    return Output([record])


def restore(step: Step, workspace: Workspace) -> Tree:
    """Cuts the input's variables as the record says."""
    record: Any = workspace.store.result(step.id)
    keep = pruning.Keep.from_json(record.keep)
    variables = _one_output(step, workspace, workspace.local_variables(step.inputs.get("weights")))
    return pruning.prune(variables, groups_of(step, workspace), keep)


def kept(step: Step, workspace: Workspace) -> pruning.Keep:
    """Which channels a finished step chose."""
    record = workspace.result(step)
    assert isinstance(record, records.PruneRecord)
    return pruning.Keep.from_json(record.keep)


def planned(step: Step, workspace: Workspace) -> pruning.Keep:
    """A keep of the sizes that the step's will have.

    How many channels a uniform ratio keeps does not depend on their scores. Of another allocation
    the step must be finished.
    """
    if step.params.get("allocation", _UNIFORM) != _UNIFORM:
        return workspace.once(("keep", step.id), lambda: kept(step, workspace))
    return workspace.once(
        ("keep", step.id), lambda: _select(step, workspace, _equal_scores(step, workspace))
    )


def cut_groups(keep: pruning.Keep) -> int:
    """How many groups lost channels."""
    return sum(len(kept) < keep.sizes[name] for name, kept in keep.items())


def notes(groups: pruning.Groups, keep: pruning.Keep) -> list[str]:
    """What could not be cut as asked, and what was left whole and why."""
    whole = collections.Counter(
        group.residual
        for name, group in groups.items()
        if len(keep[name]) == group.size and group.residual is not None
    )
    return [
        *keep.notes,
        *(f"{count} groups left whole: {reason}" for reason, count in whole.items()),
    ]


def of_whole(step: Step, workspace: Workspace) -> pruning.Keep | None:
    """Which channels of the whole network a step's weights still have, after all cuts before it.

    None where there were none. In this process alone, which reads the folder.
    """
    keep, start = None, step.inputs.get("weights")
    # What was regrown has all of them again, whatever was cut before.
    while start is not None and start.kind != "regrow":
        if start.kind == "prune":
            record: Any = workspace.store.result(start.id)
            before = pruning.Keep.from_json(record.keep)
            keep = before if keep is None else before.compose(keep)
        start = start.inputs.get("weights")
    return keep


def shapes_cut(step: Step, workspace: Workspace) -> Tree:
    """Shapes of the variables that are cut."""
    shapes = workspace.shapes(step.inputs.get("weights"))
    return jax.eval_shape(lambda tree: _one_output(step, workspace, tree), shapes)


def variables_cut(step: Step, workspace: Workspace) -> Tree:
    """The variables that are cut."""
    return _one_output(step, workspace, workspace.variables(step.inputs.get("weights")))


def _one_output(step: Step, workspace: Workspace, variables: Tree) -> Tree:
    """Variables that are cut, with a head like that of all networks without a task.

    Those of a trial have its task's head.
    """
    start = step.inputs.get("weights")
    if start is None or start.kind not in ("finetune", "adapt"):
        return variables
    return models.new_head(workspace.module, variables, 1, step.params["image_size"])


def _architecture(step: Step, workspace: Workspace) -> Any:
    """What tells the network that is cut from others; None of the whole one."""
    start = step.inputs.get("weights")
    if start is None or start.kind == "pretrain":
        return None
    found = workspace.architecture(start)
    return None if found == workspace.architecture(None) else found


def groups_of(step: Step, workspace: Workspace) -> pruning.Groups:
    """Channel groups of the network that is cut."""
    return traced(step, workspace, workspace.config.data.image_size, 2)


def traced(step: Step, workspace: Workspace, image_size: int, images: int) -> pruning.Groups:
    """The same as a program of a batch of images of this size."""
    network, batch_size = _architecture(step, workspace), min(images, 2)
    if network is None and batch_size > 1 and image_size == workspace.config.data.image_size:
        return workspace.groups
    return workspace.once(
        ("groups", image_size, batch_size, network),
        lambda: build.trace_groups(
            workspace.module, shapes_cut(step, workspace), image_size, batch_size
        ),
    )


def _images(step: Step) -> int:
    return min(_IMAGES, step.params["task"]["examples"]["train"])


def _scores(step: Step, workspace: Workspace) -> Mapping[str, Any]:
    params, start = step.params, step.inputs.get("weights")
    if params["weights"] is None and (
        start is None or (start.kind == "shorten" and not start.inputs)
    ):
        return _equal_scores(step, workspace)
    variables, seed = variables_cut(step, workspace), params.get("seed", 0)
    normalise = _normalise(step)
    if "task" not in params:
        criterion = params["criterion"]
        groups = groups_of(step, workspace)
        return pruning.score(groups, variables, criterion, seed=seed, normalise=normalise)
    info = workspace.tasks[params["task"]["name"]]
    train = workspace.loader.load(info.spec, image_size=params["image_size"]).splits["train"]
    index = workspace.order(info.spec.name, train.labels, seed)[: _images(step)]
    return importance(
        workspace.module,
        params["model"]["preprocess"],
        traced(step, workspace, params["image_size"], len(index)),
        variables,
        train.images[index],
        train.labels[index],
        criterion=params["criterion"],
        num_classes=params["task"]["num_classes"],
        normalise=normalise,
        seed=seed,
    )


def _normalise(step: Step) -> str:
    """What makes scores of all groups comparable, where they are ranked together.

    What a loss changes by is comparable as it is.
    """
    if step.params.get("allocation") != "global":
        return "none"
    return "none" if pruning.CRITERIA[step.params["criterion"]].needs == "gradients" else "mean"


def _equal_scores(step: Step, workspace: Workspace) -> Mapping[str, Any]:
    return {name: np.zeros(group.size) for name, group in groups_of(step, workspace).items()}


def _select(step: Step, workspace: Workspace, scores: Any) -> pruning.Keep:
    allocation = step.params.get("allocation", _UNIFORM)
    return pruning.select(
        groups_of(step, workspace),
        scores,
        ratio=step.params["ratio"],
        scope=step.params["scope"],
        allocation=allocation,
        floor=0.0 if allocation == _UNIFORM else _FLOOR,
        round_to=step.params["round_to"],
        check=True,
    )


register("prune", Kind(1, flops, run, shapes, restore, charge=charge))
