"""What a method starts from: the given weights, shortened, cut, or an earlier task's network."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctl_jax import pruning
from ctl_jax.experiment import build
from ctl_jax.experiment.kinds import prune, regrow, shorten
from ctl_jax.experiment.methods import Method
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.tasks import TaskInfo

if TYPE_CHECKING:
    from ctl_jax.experiment.plan import Plan

# The criterion that a trial's seed decides.
_DRAWN = "random"


def weights(
    plan: "Plan", method: Method, task: TaskInfo | None = None, seed: int | None = None
) -> Step | None:
    """The step that makes a method's weights; None where they are given, or random.

    Args:
      method: which.
      task: whose images decide on a cut that is decided by images; where there is none, the
        step says no more than which widths it leaves.
      seed: of the trial, for a cut that is drawn.
    """
    cut, network = method.cut, plan.described.network(dataclasses.replace(method, image_size=0))
    start = _uncut(plan, method, network)
    if cut is None or was_cut(plan, method):
        return start
    criterion = cut.criterion or plan.config.pruning.criterion
    settings = {"criterion": criterion, "round_to": build.round_to(plan.config.pruning)}
    of_task: dict[str, Any] = {}
    if is_trained(plan, method) and criterion not in pruning.ZERO_SHOT and task:
        of_task = {"task": task.identity, "seed": seed}
        network = plan.described.network(method)
    elif cut.criterion == _DRAWN and seed is not None:
        of_task = {"seed": seed}
    return plan.workspace.once(
        ("cut", method.start, cut, start and start.id, repr(of_task), network["image_size"]),
        lambda: prune.make(cut, settings, network, start, **of_task),
    )


def is_trained(plan: "Plan", method: Method) -> bool:
    """Whether a method starts from weights that are not random."""
    return method.start == "pretrained" or plan.inherited is not None


def was_cut(plan: "Plan", method: Method) -> bool:
    """Whether a method starts from a network of its own that was cut for an earlier task."""
    inherits = plan.inherited is not None and bool(method.learner)
    return inherits and plan.config.learner.cut == "once"


def _uncut(plan: "Plan", method: Method, network: Mapping[str, Any]) -> Step | None:
    """What makes the weights that a method starts from, before it cuts them."""
    start = _shortened(plan, method, network)
    if not plan.inherited or not method.learner:
        return start
    if method.cut and not was_cut(plan, method) and plan.config.learner.restore:
        return regrow.make(plan.inherited, start, network)
    return plan.inherited


def _shortened(plan: "Plan", method: Method, network: Mapping[str, Any]) -> Step | None:
    """What makes the first stages alone, where a method has no more, of its start.

    Raises:
      UserError: the network does not have more.
    """
    start = plan.pretraining if method.start == "pretrained" else None
    if plan.inherited and not method.learner:
        # A network that `auto` may choose: the learner's own is whole.
        start = plan.inherited
    if not method.stages:
        return start
    return plan.workspace.once(
        ("shortened", method.stages, method.start, start and start.id),
        lambda: shorten.make(method.stages, network, start),
    )
