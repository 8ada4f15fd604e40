"""Learners over a stream: each task's search begins once that of the tasks before it is done.

A learner says what a task starts from, a strategy how its settings are searched: the strategy is
made for each task alone, with a plan of that task, and knows nothing of the others.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ctl_jax import records
from ctl_jax.compute import Budget
from ctl_jax.experiment import strategies
from ctl_jax.experiment.kept_models import TRIAL, counted
from ctl_jax.experiment.learners import Begin, Case, Learner, Learnt
from ctl_jax.experiment.methods import LEARNERS, Method
from ctl_jax.experiment.steps import Finished, Step, Strategy, content_id
from ctl_jax.experiment.strategies import Point
from ctl_jax.experiment.tasks import TaskInfo

if TYPE_CHECKING:
    from ctl_jax.experiment.plan import Plan


class Chain(NamedTuple):
    """Tasks that are learnt one after the other.

    Attributes:
      plan: of the run.
      method: with its learner.
      seed: of its trials.
      budget: of each of its searches.
    """

    plan: "Plan"
    method: Method
    seed: int
    budget: Budget


class Link(NamedTuple):
    """A task of a chain that has begun.

    Attributes:
      task: which.
      plan: of the task alone; None as long as what it starts from is being chosen.
      steps: that are wanted for it.
    """

    task: TaskInfo
    plan: "Plan | None"
    steps: Sequence[Step]


def over_stream(plan: "Plan") -> Strategy:
    """The strategy of a run: `config.strategy`, for each task of a learner alone."""
    made = _without_learners(plan)
    found = chains(plan)

    def wanted(finished: Finished) -> list[Step]:
        steps = list(made(finished)) if made is not None else []
        for chain in found:
            steps += [step for link in links(chain, finished) for step in link.steps]
        return steps

    return wanted if found or made is None else made


def _without_learners(plan: "Plan") -> Strategy | None:
    methods = {name: method for name, method in plan.methods.items() if not method.learner}
    if not methods:
        return None
    return strategies.make(plan.config.strategy, dataclasses.replace(plan, methods=methods))


def chains(plan: "Plan") -> list[Chain]:
    """The chains of a run: one of each seed, budget, and method that has a learner."""
    learning = [method for method in plan.methods.values() if method.learner]
    axes = itertools.product(learning, plan.seeds, plan.budgets)
    return [Chain(plan, *axis) for axis in axes]


def links(chain: Chain, finished: Finished) -> Iterator[Link]:
    """The tasks of a chain that can have begun, in order, each with what is wanted for it."""
    plan, method, seed, budget = chain
    learner: Learner = LEARNERS[method.learner]
    before: list[Learnt] = []
    for task in plan.tasks:

        def compare(weights: Step | None, task: TaskInfo = task) -> Step:
            return plan.on(task, method, seed, budget, Begin(weights)).compare(finished)

        case = Case(task, tuple(before), method.start == "pretrained", compare)
        begin = learner(case, finished)
        if not isinstance(begin, Begin):
            yield Link(task, None, begin)
            return
        of_task, strategy = _search(chain, task, begin)
        steps = [*begin.chosen_by, *strategy(finished)]
        if not all(step in finished for step in steps):
            yield Link(task, of_task, steps)
            return
        left = _left(steps, finished) or begin.weights
        before.append(Learnt(task, left))
        if left is not None:
            # A task may start from it, also one that the run has only later.
            steps = [step.kept() if step.id == left.id else step for step in steps]
            if left.kind != TRIAL:
                steps.append(left.kept())
        yield Link(task, of_task, steps)


def _search(chain: Chain, task: TaskInfo, begin: Begin) -> tuple["Plan", Strategy]:
    """The plan of a task alone, and the strategy for it."""
    plan, method, seed, budget = chain

    def make() -> tuple["Plan", Strategy]:
        alone = plan.on(task, method, seed, budget, begin)
        return alone, strategies.make(plan.config.strategy, alone)

    about = (task.spec.name, method, seed, budget, begin.weights and begin.weights.id)
    return plan.workspace.once(("search", *about), make)


def _left(steps: Sequence[Step], finished: Finished) -> Step | None:
    """What makes the best network of a search; None where nothing was trained."""
    tried = counted(steps)
    found = {step.id: finished.record(step) for step in tried}
    trials = [record for record in found.values() if isinstance(record, records.TrialRecord)]
    best = records.winner(trials)
    if best.diverged:
        return None
    (trial,) = [step for step in tried if step.id == best.id]
    if trial.params["phases"]:
        return trial
    # A head that was fitted leaves the network as it was, or as it was trained before.
    start = trial.inputs.get("weights")
    while start is not None and start.kind == "head":
        start = start.inputs.get("weights")
    return start if start is not None and start.kind == "adapt" else None


def undecided(plan: "Plan", finished: Finished) -> Iterator[records.PendingRecord]:
    """The trials of which is not known yet what they are: of `auto`, and of tasks to come."""
    alone = {name: method for name, method in plan.methods.items() if not method.learner}
    yield from _of_auto(dataclasses.replace(plan, methods=alone), finished)
    for chain in chains(plan):
        begun = [link.plan for link in links(chain, finished) if link.plan is not None]
        for of_task in begun:
            yield from _of_auto(of_task, finished)
        for task in plan.tasks[len(begun) :]:
            of_task = plan.on(task, chain.method, chain.seed, chain.budget, Begin())
            yield from map(_to_come, of_task.points())


def _of_auto(plan: "Plan", finished: Finished) -> Iterator[records.PendingRecord]:
    for point in plan.points():
        if not point.method.is_auto:
            continue
        last = plan.wanted(point, finished)[-1]
        if last.kind != TRIAL or last not in finished:
            yield dataclasses.replace(_to_come(point), id=last.id, learning_rate=None)


def _to_come(point: Point) -> records.PendingRecord:
    is_auto = point.method.is_auto
    record = records.PendingRecord(
        id="",
        task=point.task.spec.name,
        method=point.method.name,
        budget=str(point.budget),
        seed=point.seed,
        learning_rate=None if is_auto else point.learning_rate,
        batch_size=None if is_auto else point.batch_size,
    )
    return dataclasses.replace(record, id=content_id(dataclasses.asdict(record)))
