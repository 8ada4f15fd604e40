"""What a run consists of: every trial, with what it costs, before the first one starts."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctl_jax import data
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import Config
from ctl_jax.experiment.config import budgets as config_budgets
from ctl_jax.experiment.costs import Cost
from ctl_jax.experiment.methods import Method
from ctl_jax.experiment.networks import compute_dtype, round_to
from ctl_jax.finetune.step import MAX_STEPS


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """A task as a plan sees it: no images.

    Attributes:
      spec: the task's names and kind.
      num_classes: how many classes it has.
      examples: examples of each split that is used, after `data.max_eval_examples`.
      fingerprint: hash of its images and labels.
      corrupt: examples that were left out because they cannot be read.
      notes: what was put right in its data, or may not be as it should.
      passed_over: how many files beside the examples are none, by their kind.
    """

    spec: data.TaskSpec
    num_classes: int
    examples: Mapping[str, int]
    fingerprint: str
    corrupt: int = 0
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One finetuning, wholly determined.

    Attributes:
      id: hash of everything that its numbers depend on.
      task: what it is trained on.
      method: how its model comes about.
      budget_flops: training compute that it may spend.
      learning_rate: the schedule's peak.
      seed: of the head's task order, crops, flips, and of `scratch`'s weights.
      cost: of its architecture on its task.
      steps: updates that the budget pays for.
      evaluations: on dev while it trains, before the one at its end.
    """

    id: str
    task: TaskInfo
    method: Method
    budget_flops: int
    learning_rate: float
    seed: int
    cost: Cost
    steps: int
    evaluations: int = 0

    @property
    def spent_flops(self) -> int:
        """Training FLOPs of all its steps, at most the budget."""
        return self.steps * self.cost.step

    @property
    def validate_flops(self) -> int:
        """FLOPs of evaluating it on dev, while it trains and at its end, and once on dev_test."""
        return self.dev_flops * (self.evaluations + 1) + self.dev_test_flops

    @property
    def dev_flops(self) -> int:
        """FLOPs of evaluating it once on dev."""
        return self.cost.forward * self.task.examples["dev"]

    @property
    def dev_test_flops(self) -> int:
        """FLOPs of evaluating it once on dev_test."""
        return self.cost.forward * self.task.examples["dev_test"]


def budgets(config: Config) -> tuple[int, ...]:
    """The run's budgets in FLOPs.

    Raises:
      UserError: one has another unit.
    """
    found = config_budgets(config.budgets)
    if other := next((b for b in found if b.unit != "flops"), None):
        raise UserError(f"config.budgets.amounts: '{other}': expected budgets in flops")
    return tuple(sorted(int(budget.amount) for budget in found))


def make_trials(
    config: Config,
    tasks: Sequence[TaskInfo],
    methods: Sequence[Method],
    costs: Mapping[str, Callable[[int], Cost]],
    weights_id: str,
) -> tuple[Trial, ...]:
    """Tasks x methods x budgets x seeds x learning rates, in that order.

    Args:
      config: the validated config.
      tasks: the stream's tasks that there are.
      methods: the run's methods.
      costs: a cost function for each method's name.
      weights_id: hash that stands for the pretrained weights.

    Returns:
      The trials. None depends on another, so their order does not matter to their numbers.

    Raises:
      UserError: a budget pays for less than one step of some method on some task, or for more
        steps than a training can count.
    """
    trials: list[Trial] = []
    amounts = budgets(config)
    for task, method in itertools.product(tasks, methods):
        cost = costs[method.name](task.num_classes)
        whose = f"FLOPs for {method.name!r} on task {task.spec.name!r}"
        if amounts[0] < cost.step:
            raise UserError(
                f"config.budgets.min_flops={amounts[0]:.4g}: expected at least one step, which "
                f"costs {cost.step:,} {whose}"
            )
        if amounts[-1] // cost.step > MAX_STEPS:
            raise UserError(
                f"config.budgets.max_flops={amounts[-1]:.4g}: expected at most {MAX_STEPS:,} "
                f"steps, each of which costs {cost.step:,} {whose}"
            )
        trials.extend(
            Trial(
                _trial_id(config, task, method, budget, rate, seed, weights_id),
                task,
                method,
                budget,
                rate,
                seed,
                cost,
                budget // cost.step,
                _evaluations(budget // cost.step, config.finetune.evaluate_every),
            )
            for budget, seed, rate in itertools.product(
                amounts, config.seeds, config.finetune.learning_rates
            )
        )
    return tuple(trials)


def _evaluations(steps: int, every: int) -> int:
    """How many of a training's steps but its last are multiples of `every`."""
    return (steps - 1) // every if every else 0


# Part of every trial's id: raise it when a change of the program changes trials' numbers.
TRIAL_FORMAT = 3
# Keys of `config.finetune` at the values at which a trial is as if they were not there.
_NEUTRAL = {"evaluate_every": 0, "report": "last", "compute_dtype": "float32"}


def _trial_id(
    config: Config,
    task: TaskInfo,
    method: Method,
    budget: int,
    rate: float,
    seed: int,
    weights_id: str,
) -> str:
    """A hash of what the trial's numbers depend on, and of nothing else.

    Not the list of tasks, budgets or methods that the trial is one of: only its own.
    """
    dtype, multiple = compute_dtype(config), round_to(config)
    given = config.to_dict()
    settings = given["finetune"] | {"compute_dtype": dtype}
    # What changes nothing is left out, so that trials of before such keys keep their ids.
    without = {"learning_rates", *(key for key in _NEUTRAL if settings[key] == _NEUTRAL[key])}
    return content_id(
        {
            "format": TRIAL_FORMAT,
            "task": [task.spec.name, task.fingerprint, task.num_classes, dict(task.examples)],
            "image_size": given["data"]["image_size"],
            "model": given["model"],
            "weights": weights_id if method.pretrained else None,
            "method": method.name,
            "pruning": given["pruning"] | {"round_to": multiple} if method.scope else None,
            "finetune": {k: v for k, v in settings.items() if k not in without},
            "budget_flops": budget,
            "learning_rate": rate,
            "seed": seed,
        }
    )


def content_id(content: Any) -> str:
    """A short hash of plain values: the same on every machine and in every process."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
