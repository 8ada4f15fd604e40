"""Everything that is known of a run before its first step: tasks, methods, and what is wanted."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ctl_jax import data, models, records
from ctl_jax.compute import Budget, Pace
from ctl_jax.compute.budgets import UNITS
from ctl_jax.errors import UserError
from ctl_jax.experiment import chains, preparation, searches, starts, stretches
from ctl_jax.experiment.auto import answer, candidates
from ctl_jax.experiment.auto.candidates import Candidate
from ctl_jax.experiment.config import Config, budgets
from ctl_jax.experiment.descriptions import Descriptions, plain
from ctl_jax.experiment.kept_models import after_searches, keeping
from ctl_jax.experiment.kinds import (
    final,
    finetune,
    head,
    neighbours,
    pace,
    predict,
    pretrain,
)
from ctl_jax.experiment.learners import Begin
from ctl_jax.experiment.method_costs import MethodCost
from ctl_jax.experiment.methods import Method, parse_method
from ctl_jax.experiment.steps import Finished, Step, Strategy
from ctl_jax.experiment.strategies import Point
from ctl_jax.experiment.tasks import TaskInfo, find_tasks
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune.phases import SGD
from ctl_jax.finetune.step import MAX_STEPS


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is about.

    Attributes:
      workspace: the network, the tasks' data, the folder.
      tasks: of the stream, those that there is data for.
      missing: the others, each with the reason.
      methods: by name, in order.
      budgets: in order.
      pretraining: makes the weights where none are given; None where not needed.
      weights_id: hash of the weights that were given; None where none were.
      only_seed: of its trials, in the plan of one task for a learner, see chains.py.
      begin: what its only task starts from, in such a plan; None: as methods say.
    """

    workspace: Workspace
    tasks: tuple[TaskInfo, ...]
    missing: tuple[tuple[data.TaskSpec, str], ...]
    methods: dict[str, Method]
    budgets: tuple[Budget, ...]
    pretraining: Step | None
    weights_id: str | None
    only_seed: int | None = None
    begin: Begin | None = None

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.workspace.config

    @functools.cached_property
    def described(self) -> Descriptions:
        """What steps say of the run's methods."""
        return Descriptions(self.workspace, self.weights_id)

    @functools.cached_property
    def strategy(self) -> Strategy:
        """Which steps the run wants, with what is to be kept of them."""
        made = chains.over_stream(self)
        makers: list[Callable[[Step], Step]] = []
        makers += [predict.make] if self.config.keep_predictions else []
        makers += [final.make] if self.config.stream.final else []
        if makers:
            made = after_searches(made, makers)
        return keeping(made, self.config.keep_models)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of trials, in order."""
        return self.config.seeds if self.only_seed is None else (self.only_seed,)

    @property
    def is_measured(self) -> bool:
        """Whether trials depend on what is finished: on measurements, cuts, or looks at a task."""
        measured = any(UNITS[budget.unit].measured for budget in self.budgets)
        return measured or any(m.is_auto or m.is_open for m in self.methods.values())

    def points(self) -> list[Point]:
        """Tasks x methods x budgets x seeds x settings that are tried, in that order."""
        axes = (self.tasks, self.methods.values(), self.budgets, self.seeds)
        return [
            Point(task, method, budget, seed, *setting)
            for task, method, budget, seed in itertools.product(*axes)
            for setting in self._searched(task, method, seed)
        ]

    def _searched(self, task: TaskInfo, method: Method, seed: int) -> list[searches.Setting]:
        """The settings that are tried for a method on a task."""
        if all(phase.get("solver", SGD) != SGD for phase in self.described.phases(method)):
            return [searches.NONE]
        name, examples = task.spec.name, task.examples["train"]
        return self.workspace.once(
            ("searched", name, seed),
            lambda: searches.settings(self.config.finetune, examples, name, seed),
        )

    def batch_size(self, task: TaskInfo) -> int:
        """Images per batch where no list of sizes is tried."""
        return searches.batch_size(self.config.finetune, task.examples["train"])

    @property
    def inherited(self) -> Step | None:
        """What makes the network that a learner starts its only task from; None: no task before."""
        return self.begin.weights if self.begin else None

    def start(
        self, method: Method, task: TaskInfo | None = None, seed: int | None = None
    ) -> Step | None:
        """The step that makes what a method starts from; see `starts.weights`."""
        return starts.weights(self, method, task, seed)

    def wanted(self, point: Point, finished: Finished | None = None) -> list[Step]:
        """What a point wants so far: its trial, or what has to be done before that is known."""
        if not point.method.is_auto:
            return [self.trial(point, finished=finished)]
        measured = self._measured(point, self.pretraining, finished)
        if isinstance(measured, Step):
            return [measured]
        return answer.steps(answer.Case(self, point, *measured), finished)

    def _measured(
        self, point: Point, weights: Step | None, finished: Finished | None
    ) -> tuple[int, dict[str, Step]] | Step:
        """A budget in FLOPs, with the step that measured it; or that step, where it is not done."""
        budget, speed, found = point.budget, 0.0, {}
        if UNITS[budget.unit].measured:
            measuring = self.pace(point, weights)
            if finished is None or measuring not in finished:
                return measuring
            record = finished.record(measuring)
            assert isinstance(record, records.PaceRecord)
            speed = record.flops_per_second
            # So that it is still wanted once it is done.
            found[answer.PACE] = measuring
        task, step = point.task, self._dense_step(point.task)
        return budget.flops(Pace(self._dense_epoch(task), step, lambda: speed)), found

    def trial(
        self, point: Point, weights: Step | None = None, finished: Finished | None = None
    ) -> Step:
        """The step of a trial.

        Args:
          point: which.
          weights: what it starts from instead of its method's own start: another trial, say.
          finished: what is done; needed where a budget is measured.

        Returns:
          The finetuning; or what has to be measured first, where that is not done.
        """
        method = point.method
        start = weights or self.start(method, point.task, point.seed)
        if start and method.is_open and (finished is None or start not in finished):
            return start
        measured = self._measured(point, start, finished)
        if isinstance(measured, Step):
            return measured
        amount, found = measured
        inputs = _weights(start) | found | self._chosen_by()
        if prepared := preparation.prepared(self, point, amount, start):
            inputs["weights"] = prepared
        trial = self._trial(point, amount, inputs)
        self.check(point, trial)
        return trial

    def updates(self, trial: Step) -> int:
        """How many updates the training of a trial makes, without what is done before it."""
        return stretches.total_updates(stretches.plan(trial, self.workspace))

    def candidates(self) -> list[Candidate]:
        """What `auto` chooses from."""
        return self.workspace.once("candidates", lambda: candidates.find(self))

    def wish(self, point: Point, budget_flops: int) -> head.Wish:
        """A head of a point's method, on what its network is after a cut and its correction."""

        def make() -> head.Wish:
            (phase,) = self.described.phase_list(point.method)
            start = self.start(point.method, point.task, point.seed)
            return preparation.wish(
                self, point, phase, preparation.corrected(self, point, budget_flops, start)
            )

        of_point = (point.task.spec.name, point.seed, point.method, self.origin)
        return self.workspace.once(("wish", *of_point, budget_flops), make)

    def answer(
        self, point: Point, budget_flops: int, inputs: Mapping[str, Step], chosen: Mapping[str, Any]
    ) -> Step:
        """The trial of `auto`.

        Args:
          point: with the method that was chosen, and a learning rate where that makes steps.
          budget_flops: what `auto` may spend.
          inputs: what it starts from, as "weights", and what it was chosen by.
          chosen: plain values that say so; what was "spent" before, where it makes steps.
        """
        trial = self._trial(point, budget_flops, {**inputs, **self._chosen_by()})
        (name,) = {m.name for m in self.methods.values() if m.is_auto}
        params = {**trial.params, "method": name, "auto": chosen}
        return dataclasses.replace(trial, params=params)

    @property
    def origin(self) -> str:
        """What tells plans of one task apart that start it from different networks."""
        return self.inherited.id if self.inherited else ""

    def _chosen_by(self) -> dict[str, Step]:
        """The inputs of a trial by which a learner chose what it starts from."""
        looks = self.begin.chosen_by if self.begin else ()
        return {f"{finetune.CHOSEN_BY}/{number}": look for number, look in enumerate(looks)}

    def on(
        self,
        task: TaskInfo,
        method: Method,
        seed: int,
        budget: Budget,
        begin: Begin,
    ) -> "Plan":
        """The plan of one task and method for a learner, which has said what they start from."""
        return dataclasses.replace(
            self,
            tasks=(task,),
            methods={method.name: method},
            only_seed=seed,
            budgets=(budget,),
            begin=begin,
        )

    def compare(self, finished: Finished) -> Step:
        """How good the features are of what the plan of one task starts from.

        Returns:
          A step of kinds/neighbours.py; or what has to be done before.
        """
        (task,), (method,), (seed,) = self.tasks, self.methods.values(), self.seeds
        network = Method() if method.is_auto else method
        start = self.start(network, task, seed)
        if start is not None and method.is_open and start not in finished:
            return start
        return neighbours.make(
            task.identity,
            self.described.network(network),
            start,
            seed=seed,
            compute_dtype=self.described.settings["compute_dtype"],
        )

    def epoch_flops(self, task: TaskInfo) -> int:
        """Of an epoch of training the whole network."""
        return round(self._dense_epoch(task))

    def _trial(self, point: Point, budget_flops: int, inputs: Mapping[str, Step]) -> Step:
        task, method, budget, seed, rate = point[:5]
        params = {
            "task": task.identity,
            "method": method.name,
            "start": "inherited" if self.inherited else method.start,
            "phases": self.described.phases_after_head(method),
            "budget": str(budget),
            "budget_flops": budget_flops,
            "learning_rate": rate,
            "seed": seed,
            "finetune": self.described.settings_of(point),
            **self.described.network(method),
        }
        return Step("finetune", params, dict(inputs))

    def pace(self, point: Point, weights: Step | None, *, of_heads: bool = False) -> Step:
        """The step that measures how fast a method is, from some weights on; or fits of heads."""
        method, settings = point.method, self.described.settings_of(point)
        params = {
            "phases": self.described.phases(method),
            # How much labels are smoothed takes no time.
            "finetune": {key: settings[key] for key in settings if key != "label_smoothing"},
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
            **self.described.network(method),
        }
        if of_heads:
            params[pace.HEADS] = True
        return Step("pace", params, _weights(weights))

    def cost(
        self, method: Method, num_classes: int, batch_size: int | None = None
    ) -> MethodCost | None:
        """What a method's network costs, and a step of its last phase.

        Args:
          method: which.
          num_classes: of the task.
          batch_size: of the step; None: the config's, or the least where tasks decide.

        Returns:
          The cost; None where its widths are known only when the cut is done.
        """
        if method.is_open:
            return None
        start, last = self.start(method), self.described.phase_list(method)[-1]
        size = method.image_size or self.config.data.image_size
        of = start, num_classes, size, last.head
        step = None
        if last.solver == SGD:
            recipe = stretches.recipe(self.described.settings, self.described.model, plain(last))
            batch_size = batch_size or searches.batch_size(self.config.finetune, 0)
            step = self.workspace.costs(recipe, start, batch_size, size, last.head)(
                num_classes
            ).step
        return MethodCost(step, self.workspace.forward(*of), self.workspace.params(*of))

    def _dense_epoch(self, task: TaskInfo) -> float:
        """FLOPs of an epoch of training the whole network."""
        return task.examples["train"] / self.batch_size(task) * self._dense_step(task)

    def _dense_step(self, task: TaskInfo) -> int:
        """FLOPs of a step of training the whole network."""
        batch_size = self.batch_size(task)

        def counted() -> int:
            cost = self.cost(Method(), task.num_classes, batch_size)
            assert cost is not None
            assert cost.step is not None
            return cost.step

        return self.workspace.once(("dense step", task.num_classes, batch_size), counted)

    def check(self, point: Point, step: Step) -> None:
        """Raises a UserError where a training can make less than one update, or too many."""
        start = step.inputs.get("weights")
        of_point = (point.task.spec.name, point.method, point.budget, point.batch_size)
        key = ("checked", step.kind, *of_point, start and start.id)
        self.workspace.once(key, lambda: self._check_once(point, step))

    def _check_once(self, point: Point, step: Step) -> None:
        planned = stretches.plan(step, self.workspace)
        for number, stretch in enumerate(planned, start=1):
            # With the maps of its images, where it is trained on some.
            images = self.described.settings_of(point)["batch_size"]
            cost = stretch.cost.step + images * stretch.cost.map
            whose = f"FLOPs for {point.method.name!r} on task {point.task.spec.name!r}"
            if len(planned) > 1:
                whose += f" in phase {number}, which has a share of {stretch.share:.2g}"
            if stretch.updates < 1:
                raise UserError(
                    f"{self.named(point.budget, 0)}: expected at least one step, which costs "
                    f"{cost:,} {whose}"
                )
            if stretch.updates > MAX_STEPS:
                raise UserError(
                    f"{self.named(point.budget, -1)}: expected at most {MAX_STEPS:,} steps, each "
                    f"of which costs {cost:,} {whose}"
                )

    def named(self, budget: Budget, end: int) -> str:
        """A budget as the config has it."""
        if self.config.budgets.amounts:
            return f"config.budgets.amounts='{budget}'"
        is_end = budget == budgets(self.config.budgets)[end]
        key = ("min_flops", "max_flops")[end] if is_end else "num"
        return f"config.budgets.{key}={budget.amount:.4g}"


def _weights(start: Step | None) -> dict[str, Step]:
    """The input of a step that starts from what another one made."""
    return {"weights": start} if start else {}


def make_plan(workspace: Workspace) -> Plan:
    """Looks at data and weights and lays out every trial; decodes no image and trains nothing.

    Args:
      workspace: of the run; gets its tasks.

    Returns:
      The plan.

    Raises:
      UserError: data or weights are missing or damaged, or a budget is below one step.
    """
    config = workspace.config
    found, missing = find_tasks(config.stream, workspace.loader)
    weights_id, pretraining = None, None
    if workspace.given is not None:
        weights_id = models.content_hash(workspace.given)
    elif config.pretrain.task:
        spec = data.source_spec(config.pretrain.task)
        workspace.source = workspace.loader.info(spec, whole=True)
        pretraining = pretrain.make(config, workspace.network, workspace.source)
    tasks = tuple(workspace.loader.info(spec) for spec in found)
    workspace.tasks = {task.spec.name: task for task in tasks}
    methods = {name: parse_method(name) for name in config.methods}
    return Plan(
        workspace, tasks, missing, methods, budgets(config.budgets), pretraining, weights_id
    )
