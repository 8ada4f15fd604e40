"""Rungs: trainings that one step leaves and another goes on with, so that a search may end them.

    first = rung.make(trial, 10)              # ten updates of the trial's training
    second = rung.make(trial, 20, first)      # ten more
    whole = finish(trial, second, lost, 0)    # the rest of them: the trial, at what it adds

All have the schedule of the whole training, so that the trial is bit for bit what it would have
been in one go. See kinds/rung.py and strategies/halving.py.
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from ctl_jax.experiment.checkpointing import Keeper
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.stretches import Stretch, spent_by
from ctl_jax.experiment.workspace import DamagedModel, Workspace
from ctl_jax.finetune.checkpoints import Checkpoint, Like, check, pack, unpack

# Of a step's inputs: the one that has begun its training.
RUNG = "rung"
_TRIAL = "finetune"
# Of a trial's parameters: which search it has won.
_WON = "rungs"


def finish(trial: Step, before: Step | None, lost: Sequence[str], flops: int) -> Step:
    """The trial that won a search: what is left of its training.

    Args:
      trial: as it would be without the search.
      before: the rung that it goes on from; None where it begins anew.
      lost: ids of the rungs at which the others ended.
      flops: what the search cost besides the trial.
    """
    params = {**trial.params, _WON: {"lost": list(lost), "flops": flops}}
    inputs = {**trial.inputs, RUNG: before} if before else trial.inputs
    return dataclasses.replace(trial, params=params, inputs=inputs)


def whole(step: Step) -> Step:
    """The trial that a rung, or what goes on with one, is a part of: as it would be in one go."""
    params = {name: value for name, value in step.params.items() if name not in ("until", _WON)}
    inputs = {name: start for name, start in step.inputs.items() if name != RUNG}
    return Step(_TRIAL, params, inputs)


def begun(step: Step) -> int:
    """Updates that other steps have made of its training."""
    before = step.inputs.get(RUNG)
    return 0 if before is None else int(before.params["until"])


def searched(step: Step, stretches: list[Stretch]) -> int:
    """FLOPs of the search that a trial has won by rungs; 0 of other trials."""
    won = step.params.get(_WON, {"flops": 0})
    return int(won["flops"]) + maps_again(step, stretches)


def before(step: Step, stretches: list[Stretch], keeper: Keeper, dev_flops: int) -> int:
    """FLOPs of a training, with its evaluations, up to where the step goes on with it."""
    updates = begun(step)
    evaluations = sum(dev.step <= updates for dev in keeper.dev)
    return spent_by(stretches, updates) + evaluations * dev_flops


def maps_again(step: Step, stretches: list[Stretch]) -> int:
    """FLOPs of maps of images that are computed again where a training goes on within a phase."""
    updates = begun(step)
    for stretch in stretches:
        if 0 < updates < stretch.updates:
            return stretch.maps
        updates -= stretch.updates
    return 0


def arrays(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """A training that is left, as a step's arrays."""
    content, meta = pack(checkpoint)
    return {"content": content, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}


def read(step: Step, workspace: Workspace, like: Like) -> Checkpoint:
    """Where a step has left its training.

    Raises:
      DamagedModel: it cannot be read back.
    """
    found = workspace.arrays(step)
    try:
        meta = json.loads(found["meta"].tobytes())
        check(meta)
        return unpack(np.asarray(found["content"]), meta, like)
    except (KeyError, ValueError) as error:
        raise DamagedModel(step, error) from None
