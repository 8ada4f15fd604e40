"""The steps of `auto`, named one after the other by what is finished."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ctl_jax import records
from ctl_jax.experiment import stretches, tunings
from ctl_jax.experiment.auto import candidates
from ctl_jax.experiment.auto.candidates import Candidate
from ctl_jax.experiment.kinds import head, look
from ctl_jax.experiment.methods import Method, parse_method
from ctl_jax.experiment.steps import Finished, Step
from ctl_jax.experiment.strategies import Point


class Plan(candidates.Costs, Protocol):
    """What is asked of a run's plan."""

    def wish(self, point: Point, budget_flops: int) -> head.Wish:
        """A head of a point's method, on what its network is after a cut and its correction."""

    def answer(
        self, point: Point, budget_flops: int, inputs: Mapping[str, Step], chosen: Mapping[str, Any]
    ) -> Step:
        """The trial of `auto` whose head is fitted."""

    def candidates(self) -> Sequence[Candidate]:
        """Those of the run."""


def steps(
    plan: Plan,
    point: Point,
    budget_flops: int,
    inputs: Mapping[str, Step],
    finished: Finished | None,
) -> list[Step]:
    """The steps that are wanted so far, with what is below them; the trial at last.

    Args:
      plan: of the run.
      point: whose method is `auto`.
      budget_flops: what may be spent, all in all.
      inputs: of the trial: what measured the budget.
      finished: what is done; None: nothing is.
    """
    found = _of_task(plan, point, budget_flops)
    step = look.make(budget_flops, found, _wish(plan, point, found[0].method, budget_flops))
    while finished is not None and step in finished:
        record = finished.record(step)
        assert isinstance(record, records.LookRecord)
        if record.next_method is None:
            return _at_last(
                plan, point, budget_flops, {**inputs, look.LOOKED: step}, record, finished
            )
        method, images = record.next_method, record.next_images
        wish = _wish(plan, point, method, budget_flops)
        step = look.make(budget_flops, found, wish, step, method, images)
    return [step]


def _of_task(plan: Plan, point: Point, budget_flops: int) -> list[Candidate]:
    """The candidates with what is spent on a task before the first image: corrections of cuts."""
    found = []
    for candidate in plan.candidates():
        start = _wish(plan, point, candidate.method, budget_flops).start
        fixed = stretches.spent(plan.place.charge(start, done=False))
        found.append(candidate._replace(fixed_flops=fixed))
    return found


def _wish(
    plan: Plan, point: Point, network: str, budget_flops: int, solver: str = "ridge"
) -> head.Wish:
    return plan.wish(point._replace(method=_method(network, solver)), budget_flops)


def _method(network: str, solver: str) -> Method:
    probe = tunings.parse(network, f"probe@{solver}")
    return dataclasses.replace(parse_method(network), tuning=probe)


def _at_last(
    plan: Plan,
    point: Point,
    budget_flops: int,
    inputs: Mapping[str, Step],
    record: records.LookRecord,
    finished: Finished,
) -> list[Step]:
    """The heads that are left to fit, and the trial of the best of them."""
    fitted = [
        head.make(
            _wish(plan, point, each.method, budget_flops, each.solver),
            each.images,
            judged_on="left out",
        )
        for each in record.answers
    ]
    if not all(step in finished for step in fitted):
        # Of several workers each may take one.
        return [inputs[look.LOOKED], *fitted]
    entropies = [_entropy(finished.record(step)) for step in fitted]
    best = entropies.index(min(entropies))
    lost = {f"{look.LOST}/{n}": step for n, step in enumerate(fitted) if n != best}
    answers = [dataclasses.asdict(each) for each in record.answers]
    chosen = {"answers": answers, "best": best}
    point = point._replace(method=_method(answers[best]["method"], answers[best]["solver"]))
    inputs = {"weights": fitted[best], **inputs, **lost}
    return [plan.answer(point, budget_flops, inputs, chosen)]


def _entropy(record: records.Record) -> float:
    """The cross-entropy of a head on images that were left out of its fit."""
    assert isinstance(record, records.HeadRecord)
    return float(record.notes["cross_entropy"])
