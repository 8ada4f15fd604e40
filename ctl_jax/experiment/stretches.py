"""Stretches of a trial: its phases of updates, what each costs, how many the budget pays for."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from ctl_jax import finetune
from ctl_jax.compute import Ledger
from ctl_jax.data import balance
from ctl_jax.experiment.method_costs import Cost
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import NONE, Augmentation, Phase, Recipe


class Stretch(NamedTuple):
    """One phase of a trial.

    Attributes:
      recipe: constants of its program.
      cost: of its network on the task.
      share: of the budget.
      updates: that its share of the budget pays for.
      rate: its peak learning rate.
      maps: FLOPs of the maps that it is trained on, each computed once; see `finetune.maps`.
      warmup: updates in which the rate rises.
    """

    recipe: Recipe
    cost: Cost
    share: float
    updates: int
    rate: float
    maps: int
    warmup: int


def plan(step: Step, workspace: Workspace) -> list[Stretch]:
    """The phases of a trial, with the updates that the budget pays for; not to be changed."""
    # A run asks several times of each trial: of what it costs, and what it says of itself.
    return workspace.once(("stretches", step.id), lambda: _plan(step, workspace))


def _plan(step: Step, workspace: Workspace) -> list[Stretch]:
    params, start = step.params, step.inputs.get("weights")
    phases = [phase_of(each) for each in params["phases"]]
    shares = sum(phase.share for phase in phases)
    # As much as what it starts from may have cost: how much it did is known only later.
    before = spent(workspace.charge(start, params["task"]["name"], done=False))
    before += params.get("auto", {}).get("spent", 0)
    left = budget = max(0, params["budget_flops"] - before)
    stretches = []
    batch_size, size = params["finetune"]["batch_size"], params["image_size"]
    examples = balance.size(params["task"]["examples"]["train"], half(step))
    for number, phase in enumerate(phases, start=1):
        each = recipe(params["finetune"], params["model"], params["phases"][number - 1])
        each = workspace.divided(each, start, size, new_head(step))
        costs = workspace.costs(each, start, batch_size, size, new_head(step))
        cost = costs(params["task"]["num_classes"])
        # The last one has what is left, so that little of the budget is.
        amount = int(budget * (phase.share / shares))
        amount = left if number == len(phases) else min(left, amount)
        updates = finetune.feature_maps.affordable(
            amount, cost.step, cost.map, batch_size, examples
        )
        if phase.passes:
            updates = min(updates, -(-phase.passes * examples // batch_size))
        maps = min(updates * batch_size, examples) * cost.map
        left -= updates * cost.step + maps
        rate = params["learning_rate"] * phase.rate
        warmup = _warmup(params["finetune"], updates, examples)
        stretches.append(Stretch(each, cost, phase.share / shares, updates, rate, maps, warmup))
    return stretches


def _warmup(settings: Mapping[str, Any], updates: int, examples: int) -> int:
    """Updates in which the rate of a phase rises; epochs are counted as Nevis'22 does."""
    if epochs := settings.get("warmup_epochs"):
        in_epoch = examples // settings["batch_size"] + 1
        return max(0, min(updates - 1, int(epochs * in_epoch)))
    return int(settings["warmup_fraction"] * updates)


def half(step: Step) -> int:
    """Which half of the training images a training sees; 0 for all. Its first phase says it."""
    return phase_of(step.params["phases"][0]).half if step.params["phases"] else 0


def new_head(step: Step) -> str:
    """What a new head reads, "last" or "taps"; "" where the step's start has made the head."""
    start = step.inputs.get("weights")
    if start is not None and start.kind == "head":
        return ""
    return phase_of(step.params["phases"][0]).head


def padded_outputs(num_classes: int) -> int:
    """Outputs of the head: a power of two, at least 64, so that tasks share compiled programs.

    Padded outputs get no probability and stay zero; they are not counted as FLOPs. Most
    tasks have fewer classes, and 64 outputs are under 1% of even the quickstart's network.
    """
    return max(64, 1 << (num_classes - 1).bit_length())


def phase_of(params: Mapping[str, Any]) -> Phase:
    """A phase, of the plain values that steps have of it."""
    return Phase(**{**params, "train": tuple(params["train"])})


def recipe(
    settings: Mapping[str, Any], model: Mapping[str, Any], phase: Mapping[str, Any]
) -> Recipe:
    """Constants of a phase's program.

    Args:
      settings: "finetune" of a step's parameters.
      model: "model" of them.
      phase: one of its "phases".
    """
    of_phase, augmentation = phase_of(phase), NONE
    if of_phase.vary:
        augmentation = Augmentation(
            crop_area=tuple(settings["crop_area"]),
            crop_aspect=tuple(settings["crop_aspect"]),
            flip=settings["flip"],
        )
    return Recipe(
        preprocess=model["preprocess"],
        augmentation=augmentation,
        momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
        # What differs between phases of one program is a value: the schedule's.
        phase=dataclasses.replace(
            of_phase, share=1.0, rate=1.0, ensemble=False, half=0, passes=0, vary=True
        ),
        compute_dtype=settings["compute_dtype"],
        # Steps without them do not name them: their ids are from before there were these keys.
        smooths=settings.get("label_smoothing", 0.0) > 0,
        mixup=settings.get("mixup", 0.0) if of_phase.vary else 0.0,
        ema=settings.get("ema", 0.0),
    )


def spent(ledger: Ledger) -> int:
    """What counts against a trial's budget."""
    return ledger.train + ledger.extract + ledger.prune + ledger.search


def spent_by(stretches: list[Stretch], updates: int) -> int:
    """FLOPs of the first updates of a training, and of the maps that they need."""
    spent = spent_on_maps(stretches, updates)
    for stretch in stretches:
        made = min(updates, stretch.updates)
        spent, updates = spent + made * stretch.cost.step, updates - made
    return spent


def spent_on_maps(stretches: list[Stretch], updates: int) -> int:
    """FLOPs of the maps of the phases that the first updates are of."""
    begins = itertools.accumulate((stretch.updates for stretch in stretches), initial=0)
    return sum(
        stretch.maps for stretch, begin in zip(stretches, begins, strict=False) if begin < updates
    )


def total_updates(stretches: list[Stretch]) -> int:
    """Of all phases."""
    return sum(stretch.updates for stretch in stretches)


def mean_step(stretches: list[Stretch]) -> int:
    """FLOPs of a step; of several phases the mean."""
    updates = total_updates(stretches)
    return round(sum(stretch.updates * stretch.cost.step for stretch in stretches) / updates)


def stretch_at(stretches: list[Stretch], updates: int) -> Stretch:
    """The phase that the last of some updates is of."""
    for stretch in stretches:
        updates -= stretch.updates
        if updates <= 0:
            break
    return stretch
