"""Preparation of a trial: a cut corrected, heads fitted, parts trained before the trial itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctl_jax.errors import UserError
from ctl_jax.experiment import starts, stretches
from ctl_jax.experiment.kinds import adapt, head, recalibrate
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.strategies import Point
from ctl_jax.finetune import Phase
from ctl_jax.finetune.phases import SGD

if TYPE_CHECKING:
    from ctl_jax.experiment.plan import Plan

# Images by which the network that a cut leaves is corrected: few amounts, so that budgets share.
_IMAGES = (256, 64, 32, 16)


def corrected(plan: "Plan", point: Point, budget_flops: int, start: Step | None) -> Step | None:
    """What a method starts from, after a cut perhaps corrected."""
    method = point.method
    if method.cut and starts.is_trained(plan, method) and not starts.was_cut(plan, method):
        assert start is not None
        # Not unasked: statistics of few images make features of real sets worse, not better.
        if method.cut.lsq or method.cut.statistics:
            return _recalibrated(plan, point, budget_flops, start)
    return start


def prepared(plan: "Plan", point: Point, budget_flops: int, start: Step | None) -> Step | None:
    """What a trial starts from: its weights, after a cut perhaps corrected, with its head."""
    method, start = point.method, corrected(plan, point, budget_flops, start)
    headed, between = start, list[int]()
    for number, phase in enumerate(plan.described.phase_list(method)):
        if phase.solver == SGD:
            between.append(number)
            continue
        if not starts.is_trained(plan, method):
            raise UserError(
                f"config.methods: {method.name!r} fits a head to a network of random weights; "
                "expected pretrained ones"
            )
        if between:
            assert headed is not None
            start, between = _adapted(plan, point, budget_flops, headed, between), []
        headed = _headed(plan, point, budget_flops, start, number)
    return headed


def _headed(plan: "Plan", point: Point, budget_flops: int, start: Step | None, number: int) -> Step:
    """A head that is fitted in a phase, on as many images as the phases so far pay for."""
    phases = plan.described.phase_list(point.method)
    phase, shares = phases[number], sum(phase.share for phase in phases)
    wanted = wish(plan, point, phase, start)
    share = int(budget_flops * sum(phase.share for phase in phases[: number + 1]) / shares)
    before = plan.workspace.charge(start, point.task.spec.name, done=False)
    left = share - stretches.spent(before)
    of_point = (point.task.spec.name, point.seed, point.method)
    key = (*of_point, number, budget_flops, start and start.id)
    images = plan.workspace.once(
        ("images", *key), lambda: head.affordable(wanted, left, plan.workspace)
    )
    if images < 1:
        least = share - left + head.cost_of_one(wanted, plan.workspace)
        raise UserError(
            f"{plan.named(point.budget, 0)}: expected enough for one image, which costs "
            f"{least:,} FLOPs for {point.method.name!r} on task {point.task.spec.name!r}"
            + (f", of a share of {phase.share:g}" if len(phases) > 1 else "")
        )
    return plan.workspace.once(("head", *key), lambda: head.make(wanted, images))


def wish(plan: "Plan", point: Point, phase: Phase, start: Step | None) -> head.Wish:
    return head.Wish(
        phase,
        point.task.identity,
        point.task.spec.kind == "multi_label",
        plan.described.network(point.method),
        start,
        point.seed,
        plan.described.settings["compute_dtype"],
    )


def _adapted(
    plan: "Plan", point: Point, budget_flops: int, headed: Step, numbers: Sequence[int]
) -> Step:
    """The network trained in some phases from a head on, before another head is fitted.

    It has all of the budget but what the heads after it can use.
    """
    method, phases = point.method, plan.described.phase_list(point.method)
    shares, begin = sum(phase.share for phase in phases), headed.inputs.get("weights")
    for phase in phases[numbers[-1] + 1 :]:
        if phase.solver != SGD:
            most = head.cost_of_all(wish(plan, point, phase, begin), plan.workspace)
            budget_flops -= min(int(budget_flops * phase.share / shares), most)
    assert point.learning_rate is not None
    step = adapt.make(
        point.task.identity,
        plan.described.network(method),
        headed,
        phases=[plan.described.phases(method)[number] for number in numbers],
        budget_flops=budget_flops,
        learning_rate=point.learning_rate,
        settings=plan.described.settings_of(point),
        seed=point.seed,
    )
    plan.check(point, step)
    return step


def _recalibrated(plan: "Plan", point: Point, budget_flops: int, start: Step) -> Step:
    """What a cut left, corrected by as many images as a tenth of the budget pays for."""
    method, task = point.method, point.task
    assert method.cut is not None
    for images in _IMAGES:
        step = recalibrate.make(
            task.identity,
            {
                **plan.described.network(method),
                "compute_dtype": plan.described.settings["compute_dtype"],
            },
            start,
            images=min(images, task.examples["train"]),
            seed=point.seed,
            lsq=method.cut.lsq,
            statistics=method.cut.statistics,
        )
        if 10 * plan.workspace.flops(step) <= budget_flops:
            break
    return step
