"""The console output of a run: its plan beforehand, a line a trial."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.table

from ctl_jax import data, formatting, records
from ctl_jax.compute import Budget
from ctl_jax.experiment import searches, stretches
from ctl_jax.experiment.kept_models import TRIAL
from ctl_jax.experiment.kinds import prune
from ctl_jax.experiment.plan import Plan
from ctl_jax.experiment.steps import Finished, Step
from ctl_jax.experiment.tasks import TaskInfo


def print_plan(
    console: rich.console.Console, plan: Plan, wanted: Mapping[str, Step], finished: Finished
) -> None:
    """Prints tasks, methods, budgets, trials and total FLOPs.

    Args:
      console: where to.
      plan: of the run.
      wanted: the steps that are wanted as far as is known, by id.
      finished: what is done.
    """
    _print_tasks(console, plan)
    _print_methods(console, plan)
    workspace, config = plan.workspace, plan.config
    if plan.pretraining is not None and workspace.source is not None:
        console.print(
            f"Pretraining: {config.pretrain.steps} steps on {workspace.source.spec.title}, "
            f"{formatting.flops(workspace.flops(plan.pretraining))}",
            highlight=False,
        )
    console.print(f"Budgets: {', '.join(formatting.budgets(plan.budgets))}", highlight=False)
    trials = [step for step in wanted.values() if step.kind == TRIAL]
    of_weights = (f"weights: {remark}" for remark in workspace.network.origin.get("remarks", ()))
    for note in [*of_weights, *_notes(plan, trials)]:
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    done, points = sum(step in finished for step in trials), plan.points()
    whole = _axes(plan)
    if any(point.learning_rate is None for point in points):
        whole += " (one trial where no step is made)"
    known = (
        f"{len(trials)} = {whole}"
        if len(trials) == len(points)
        else (f"{len(trials)} so far, by the strategy {config.strategy!r} over {whole}")
    )
    total = sum(map(workspace.flops, wanted.values()))
    console.print(
        f"Trials: {known}; {done} done already. In all {formatting.flops(total)}, "
        "evaluation included.",
        highlight=False,
    )


def _axes(plan: Plan) -> str:
    """What the run's trials are a product of."""
    config, search = plan.config, plan.config.finetune
    axes = (plan.tasks, plan.methods, plan.budgets, config.seeds)
    tasks, methods, budgets, seeds = map(len, axes)
    whole = f"{tasks} tasks x {methods} methods x {budgets} budgets x {seeds} seeds"
    if search.search == "rule":
        return f"{whole}, learning rates by a rule"
    if search.search == "random":
        return f"{whole} x {search.trials} drawn learning rates and label smoothings"
    whole += f" x {len(search.learning_rates)} learning rates"
    for values, name in (
        (search.batch_sizes, "batch sizes"),
        (search.label_smoothings, "label smoothings"),
    ):
        whole += f" x {len(values)} {name}" if values else ""
    return whole


def _print_tasks(console: rich.console.Console, plan: Plan) -> None:
    tasks = rich.table.Table(title=f"Tasks of {_stream(plan)}", title_justify="left")
    for column in ("task", "domain", "metric"):
        tasks.add_column(column)
    for column in ("classes", "train", "dev", "dev_test"):
        tasks.add_column(column, justify="right")
    for task in plan.tasks:
        counts = (task.num_classes, *(task.examples[n] for n in ("train", "dev", "dev_test")))
        tasks.add_row(task.spec.name, task.spec.domain, task.spec.metric, *map(str, counts))
    console.print(tasks)
    for task in plan.tasks:
        _print_about(console, task, [*task.notes, *formatting.passed_over(task.passed_over)])
    for spec, reason in plan.missing:
        console.print(f"missing: {spec.title}: {reason}", style="yellow", markup=False)


def print_loaded(console: rich.console.Console, info: TaskInfo, task: data.Task) -> None:
    """Prints what is wrong with a task's examples, which is known once they are decoded."""
    corrupt = [f"{len(task.corrupt)} corrupt examples left out"] if task.corrupt else []
    _print_about(console, info, [*corrupt, *(n for n in task.notes if n not in info.notes)])


def _print_about(console: rich.console.Console, task: TaskInfo, lines: Sequence[str]) -> None:
    for line in lines:
        line = f"{task.spec.title}: {line}"
        console.print(line, style="yellow", markup=False, soft_wrap=True)


def _print_methods(console: rich.console.Console, plan: Plan) -> None:
    title = "Methods (without task head)"
    if not plan.config.finetune.batch_size:
        title = f"Methods (without task head; a step of {searches.LEAST_BATCH} images)"
    methods = rich.table.Table(title=title, title_justify="left")
    counted = [budget for budget in plan.budgets if budget.unit == "flops"]
    ends = tuple(dict.fromkeys(counted[:1] + counted[-1:]))
    methods.add_column("method", no_wrap=True)
    for column in ("parameters", "forward", "training step", "of dense"):
        methods.add_column(column, justify="right")
    for budget in formatting.budgets(ends):
        methods.add_column(f"steps in {budget}", justify="right")
    dense = plan.cost(plan.methods["dense"], 0) if "dense" in plan.methods else None
    whole = dense.step if dense else None
    for name, method in plan.methods.items():
        cost = plan.cost(method, 0)
        if cost is None:
            methods.add_row(name, "as it will be cut")
        elif cost.step is None:
            methods.add_row(name, f"{cost.params:,}", formatting.flops(cost.forward), "none")
        else:
            methods.add_row(
                name,
                f"{cost.params:,}",
                formatting.flops(cost.forward),
                formatting.flops(cost.step),
                f"{cost.step / whole:.2f}" if whole else "",
                *(str(int(budget.amount) // cost.step) for budget in ends),
            )
    console.print(methods)
    for name, method in plan.methods.items():
        start = plan.start(method)
        if method.cut is not None and start is not None and plan.cost(method, 0):
            for note in prune.planned(start, plan.workspace).notes:
                console.print(f"{name}: {note}", style="yellow", markup=False)


def _notes(plan: Plan, trials: Sequence[Step]) -> list[str]:
    """What the trials do not do that the config seems to ask for."""
    updates = {
        step.id: stretches.total_updates(stretches.plan(step, plan.workspace)) for step in trials
    }
    by_budget: dict[str, list[Any]] = {str(budget): [] for budget in plan.budgets}
    for step in trials:
        # Of a head that is fitted, how many images there are is what a budget pays for.
        start = step.inputs.get("weights")
        paid = updates[step.id], start and start.params.get("images")
        # A strategy may spend less than a budget at first.
        by_budget.setdefault(step.params["budget"], []).append(paid)
    notes = [
        f"Budgets of {least.amount:,.0f} and {more.amount:,.0f} FLOPs pay for the same steps, of "
        f"every method and task"
        for least, more in itertools.pairwise(plan.budgets)
        if least.unit == more.unit == "flops"
        and by_budget[str(least)] == by_budget[str(more)] != []
    ]
    every = plan.config.finetune.evaluate_every
    if every and (short := sum(made <= every for made in updates.values())):
        notes.append(
            f"{short} of {len(trials)} trials have no more than the {every} steps of "
            f"config.finetune.evaluate_every, and are evaluated only at their end"
        )
    return notes


def _stream(plan: Plan) -> str:
    """The stream's name, with what was done to it."""
    stream = plan.config.stream
    changes = [stream.ablation, f"shuffled: {stream.shuffle}" if stream.shuffle else ""]
    return ", ".join(filter(None, [stream.variant, *changes]))


def outcome(record: records.Record) -> str:
    """One line about a finished step; "" where there is nothing to say."""
    match record:
        case records.TrialRecord():
            return _trial(record)
        case records.PretrainRecord():
            return (
                f"pretrained on {record.task}: dev accuracy {record.metric:.3f}, loss "
                f"{record.loss:.3f}"
            )
        case records.EvaluateRecord():
            return (
                f"{record.task}: the best model's {record.metric} on {record.split} is "
                f"{record.score:.3f} ({record.low:.3f} to {record.high:.3f})"
            )
        case records.PaceRecord():
            return f"measured {formatting.flops(record.flops_per_second)} a second"
        case _:
            return ""


def _trial(record: records.TrialRecord) -> str:
    budget = formatting.budgets([Budget.parse(record.budget)])[0]
    rate = "" if record.learning_rate is None else f" lr {record.learning_rate:g}"
    head = f"{record.task} {record.method} {budget}{rate} seed {record.seed}"
    if record.diverged:
        return f"{head}: diverged after {record.steps} steps"
    done = f"{record.steps} steps"
    if not record.steps and record.examples:
        done = f"{record.solver} on {record.examples} images"
    return (
        f"{head}: {done}, {record.metric} dev {record.dev:.3f}, "
        f"dev_test {record.dev_test:.3f}, {record.wall_s:.1f} s"
    )
