"""Steps: computations named by all that decides their numbers; strategies say which are wanted.

    weights = Step("pretrain", {...})
    trial = Step("finetune", {...}, {"weights": weights})

A step is plain data, so every worker that reads the same config names the same steps. How a step of
a kind is computed stands in `ctl_jax/experiment/kinds/`, one file a kind.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ctl_jax import models, records
from ctl_jax.compute import Ledger
from ctl_jax.errors import UserError

# Plain values: None, bool, int, float, str, and lists and mappings of them.
Json = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One computation, wholly determined.

    Attributes:
      kind: a key of `KINDS`.
      params: all that decides its numbers besides its inputs, and nothing else.
      inputs: the steps whose outputs it starts from, by what they are to it.
      keep: whether the model that it makes stays in the run's folder; no part of the id.
    """

    kind: str
    params: Mapping[str, Json]
    inputs: Mapping[str, "Step"] = dataclasses.field(default_factory=dict)
    keep: bool = False

    @functools.cached_property
    def id(self) -> str:
        """A hash of the kind and its version, of the parameters, and of the inputs' ids."""
        inputs = {name: step.id for name, step in self.inputs.items()}
        return content_id([self.kind, KINDS[self.kind].version, self.params, inputs])

    def kept(self) -> "Step":
        """The same step, whose model stays."""
        return dataclasses.replace(self, keep=True)


def nearest(step: Step, kind: str) -> Step | None:
    """The nearest step of a kind that a step's weights go back to; None where there is none."""
    start = step.inputs.get("weights")
    while start is not None and start.kind != kind:
        start = start.inputs.get("weights")
    return start


def trained_on(step: Step | None, but: str = "") -> str | None:
    """The name of the task that a step's weights were trained on last, for its own sake.

    Args:
      step: that makes them; None where they are given.
      but: name of a task that does not count.

    Returns:
      None where they are pretrained, or random.
    """
    while step is not None:
        if step.kind in ("finetune", "adapt") and (name := step.params["task"]["name"]) != but:
            return name
        step = step.inputs.get("weights")
    return None


def content_id(content: Json) -> str:
    """A short hash of plain values: the same on every machine and in every process."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_json(step: Step) -> Json:
    """The step as plain values, for another process, behind all that it depends on, each once."""
    content = []
    for each in closure([step]).values():
        inputs = {name: start.id for name, start in each.inputs.items()}
        about = {"id": each.id, "kind": each.kind, "params": dict(each.params)}
        content.append({**about, "inputs": inputs, "keep": each.keep})
    return content


def from_json(content: Json) -> Step:
    """The step that `to_json` was given."""
    found: dict[str, Step] = {}
    for each in content:
        inputs = {name: found[id] for name, id in each["inputs"].items()}
        step = found[each["id"]] = Step(each["kind"], each["params"], inputs, each["keep"])
    return step


class Finished(Protocol):
    """The steps that are done, as a strategy sees them."""

    def __contains__(self, step: object) -> bool:
        """Whether the step is done."""

    def record(self, step: Step) -> records.Record:
        """What a finished step came to: the last of its records."""


# From the finished steps to those that are wanted. Pure, so that all workers agree; and monotone:
# when more is finished, no step that was wanted before is missing from what is returned.
Strategy = Callable[[Finished], Sequence[Step]]


def shapes_of_input(step: Step, workspace: Any) -> Any:
    """The abstract variables of a step that makes no network of its own: those of its input."""
    return workspace.shapes(step.inputs.get("weights"))


def variables_of_input(step: Step, workspace: Any) -> Any:
    """The variables of a step that makes no network of its own: those of its input."""
    return workspace.local_variables(step.inputs.get("weights"))


@dataclasses.dataclass(frozen=True)
class Kind:
    """How steps of a kind are computed.

    The functions that take a `workspace` get the `Workspace` of the run, see kinds/.

    Attributes:
      version: a part of the ids; to be raised when a change of the program changes numbers.
      flops: what a step costs, before it is computed: `flops(step, workspace)`.
      run: computes it: `run(step, workspace, job)` gives an `Output`.
      shapes: the variables that it makes, abstract: `shapes(step, workspace)`.
      restore: makes its variables again from its records, its arrays and its input "weights":
        `restore(step, workspace)`. None: they are kept as a checkpoint where they are needed.
      charge: what a trial that starts from it is charged, besides what its input "weights" is:
        `charge(step, workspace, record)` gives a `Ledger`. The record is its last one, or None as
        long as it is not done: then what it costs at most. None: nothing, nor for what is before.
      makes_arrays: whether it gives `Output.arrays`, which are kept where they are needed.
      label: for a progress bar: `label(step, workspace)` gives its text and the number of updates.
    """

    version: int
    flops: Callable[[Step, Any], int]
    run: Callable[[Step, Any, Any], "Output"]
    shapes: Callable[[Step, Any], Any] = shapes_of_input
    restore: Callable[[Step, Any], Any] | None = None
    charge: Callable[[Step, Any, records.Record | None], Ledger] | None = None
    makes_arrays: bool = False
    label: Callable[[Step, Any], tuple[str, int]] | None = None


@dataclasses.dataclass(frozen=True)
class Output:
    """What a step gave.

    Attributes:
      records: what it came to is the last one.
      model: gives the network that it made, where it is to be kept; None where it makes none.
      arrays: gives what it made that is no network, by name, where it is needed; see `Kind`.
    """

    records: Sequence[records.Record]
    model: Callable[[], models.Model] | None = None
    arrays: Callable[[], Mapping[str, np.ndarray]] | None = None


# Filled by the modules of `ctl_jax.experiment.kinds`.
KINDS: dict[str, Kind] = {}


def register(name: str, kind: Kind) -> None:
    """Makes steps of a kind known.

    Raises:
      UserError: there is a kind of this name.
    """
    if name in KINDS:
        raise UserError(f"kind of steps {name!r}: there is one of this name; expected a new name")
    KINDS[name] = kind


def closure(steps: Iterable[Step]) -> dict[str, Step]:
    """The steps and all that they depend on, each once, by id; inputs come before their readers."""
    found: dict[str, Step] = {}
    for step in steps:
        _add(step, found)
    return found


def _add(step: Step, found: dict[str, Step]) -> None:
    there = found.get(step.id)
    if there is None:
        for each in step.inputs.values():
            _add(each, found)
        found[step.id] = step
    elif step.keep and not there.keep:
        found[step.id] = step


def has_product(step: Step) -> bool:
    """Whether a step makes something that is kept beside its records: a checkpoint, or arrays."""
    return KINDS[step.kind].restore is None or KINDS[step.kind].makes_arrays


def stored(step: Step) -> list[Step]:
    """The steps whose products must be there so that what this one gives can be had."""
    own = [step] if has_product(step) else []
    return own + [found for each in _origin(step) for found in stored(each)]


def _origin(step: Step) -> list[Step]:
    """The input from which a step's variables are made again; none where they are kept."""
    if KINDS[step.kind].restore is None or "weights" not in step.inputs:
        return []
    return [step.inputs["weights"]]


class Done(Protocol):
    """Ids of what a run's folder holds.

    Attributes:
      records: of the steps that have records.
      products: of the steps whose checkpoints or arrays are there.
    """

    @property
    def records(self) -> Collection[str]: ...
    @property
    def products(self) -> Collection[str]: ...


def pending(wanted: Mapping[str, Step], done: "Done") -> tuple[dict[str, Step], set[str]]:
    """What is left to do of the steps that are wanted.

    Args:
      wanted: from `closure`.
      done: which steps have their records, and which their products.

    Returns:
      The steps that are not done, by id, inputs first: one without records, or without its
      product where that is to stay or a step that is left needs it. And the ids of those whose
      products are needed.
    """
    left: dict[str, Step] = {}
    needed = {id for id, step in wanted.items() if step.keep and has_product(step)}
    for id, step in reversed(list(wanted.items())):
        if id not in done.records or (id in needed and id not in done.products):
            left[id] = step
            needed.update(found.id for each in step.inputs.values() for found in stored(each))
    return dict(reversed(left.items())), needed


def ready(left: Mapping[str, Step]) -> dict[str, Step]:
    """Those of the steps that are left whose inputs are all done."""
    return {id: step for id, step in left.items() if not _waits(step, left)}


def _waits(step: Step, left: Mapping[str, Step]) -> bool:
    # What is restored needs its own inputs; what is kept as a checkpoint needs nothing else.
    return any(_lacks(each, left) for each in step.inputs.values())


def _lacks(step: Step, left: Mapping[str, Step]) -> bool:
    """Whether what a step gives cannot be had yet."""
    return step.id in left or any(_lacks(each, left) for each in _origin(step))
