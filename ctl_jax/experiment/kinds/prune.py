"""Which channels of a network stay: zero-shot structured pruning before any finetuning."""

import collections
from typing import Any

import numpy as np

from ctl_jax import pruning, records
from ctl_jax.experiment.methods import Cut
from ctl_jax.experiment.place import Workplace
from ctl_jax.experiment.steps import Kind, Output, Step, register
from ctl_jax.finetune.step import Tree


def make(cut: Cut, settings: dict[str, Any], network: dict[str, Any], start: Step | None) -> Step:
    """The step of a cut.

    Args:
      cut: which channels go.
      settings: "criterion" and "round_to".
      network: what says which network is cut: "model", "image_size", and "weights", the hash of
        those that were given.
      start: makes the weights where none were given.
    """
    params = {"scope": cut.scope, "ratio": cut.ratio, **settings, **network}
    return Step("prune", params, {"weights": start} if start else {})


def flops(step: Step, place: Workplace) -> int:
    """Nothing: the weights alone are looked at."""
    return 0


def shapes(step: Step, place: Workplace) -> Tree:
    """Of the network that is left; no weights are needed."""
    whole = place.shapes(step.inputs.get("weights"))
    return pruning.prune(whole, place.groups, planned(step, place))


def run(step: Step, place: Workplace, job: Any) -> Output:
    """Scores the channels, and selects those that stay."""
    variables = place.variables(step.inputs.get("weights"))
    scores = pruning.score(place.groups, variables, criterion=step.params["criterion"])
    keep = _select(step, place, scores)
    record = records.PruneRecord(
        id=step.id,
        cut=Cut(step.params["scope"], step.params["ratio"]).name,
        keep=keep.to_json(),
        groups=len(place.groups),
        cut_groups=cut_groups(keep),
        notes=tuple(notes(place.groups, keep)),
    )
    return Output([record])


def restore(step: Step, place: Workplace) -> Tree:
    """Cuts the input's variables as the record says."""
    record: Any = place.store.result(step.id)
    keep = pruning.Keep.from_json(record.keep)
    variables = place.local_variables(step.inputs.get("weights"))
    return pruning.prune(variables, place.groups, keep)


def planned(step: Step, place: Workplace) -> pruning.Keep:
    """A keep of the sizes that the step's will have.

    How many channels a uniform ratio keeps does not depend on their scores.
    """
    return place.once(
        ("keep", step.id),
        lambda: _select(
            step, place, {name: np.zeros(group.size) for name, group in place.groups.items()}
        ),
    )


def cut_groups(keep: pruning.Keep) -> int:
    """How many groups lost channels."""
    return sum(len(kept) < keep.sizes[name] for name, kept in keep.items())


def notes(groups: pruning.Groups, keep: pruning.Keep) -> list[str]:
    """What could not be cut as asked, and what was left whole and why."""
    whole = collections.Counter(
        group.stream
        for name, group in groups.items()
        if len(keep[name]) == group.size and group.stream is not None
    )
    return [
        *keep.notes,
        *(f"{count} groups left whole: {reason}" for reason, count in whole.items()),
    ]


def _select(step: Step, place: Workplace, scores: Any) -> pruning.Keep:
    return pruning.select(
        place.groups,
        scores,
        ratio=step.params["ratio"],
        scope=step.params["scope"],
        round_to=step.params["round_to"],
        check=True,
    )


register("prune", Kind(1, flops, run, shapes, restore))
