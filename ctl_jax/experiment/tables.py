"""What a run prints about itself: its plan beforehand, a line a trial."""

import itertools
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

from ctl_jax import text
from ctl_jax.compute.budgets import Budget
from ctl_jax.experiment.plan import Plan
from ctl_jax.experiment.store import Record
from ctl_jax.experiment.trials import budgets


def print_plan(console: rich.console.Console, config: Any, plan: Plan, *, done: int) -> None:
    """Prints tasks, methods, budgets, trials and total FLOPs."""
    tasks = rich.table.Table(title=f"Tasks of {_stream(config)}", title_justify="left")
    for column in ("task", "domain", "metric"):
        tasks.add_column(column)
    for column in ("classes", "train", "dev", "dev_test"):
        tasks.add_column(column, justify="right")
    for task in plan.tasks:
        counts = (task.num_classes, *(task.examples[n] for n in ("train", "dev", "dev_test")))
        tasks.add_row(task.spec.name, task.spec.domain, task.spec.metric, *map(str, counts))
    console.print(tasks)
    for task in plan.tasks:
        if task.corrupt:
            line = f"{task.spec.title}: {task.corrupt} corrupt examples left out"
            console.print(line, style="yellow", markup=False)
        for line in (*task.notes, *text.passed_over(task.passed_over)):
            line = f"{task.spec.title}: {line}"
            console.print(line, style="yellow", markup=False, soft_wrap=True)
    for spec, reason in plan.missing:
        console.print(f"missing: {spec.title}: {reason}", style="yellow", markup=False)

    methods = rich.table.Table(title="Methods (without task head)", title_justify="left")
    amounts = budgets(config)
    ends = tuple(dict.fromkeys((amounts[0], amounts[-1])))
    methods.add_column("method", no_wrap=True)
    for column in ("parameters", "forward", "training step", "of dense"):
        methods.add_column(column, justify="right")
    for budget in text.budgets(map(Budget, ends)):
        methods.add_column(f"steps in {budget}", justify="right")
    whole = plan.costs["dense"](0).step if "dense" in plan.costs else None
    for name, cost_of in plan.costs.items():
        cost = cost_of(0)
        methods.add_row(
            name,
            f"{cost.params:,}",
            text.flops(cost.forward),
            text.flops(cost.step),
            f"{cost.step / whole:.2f}" if whole else "",
            *(str(budget // cost.step) for budget in ends),
        )
    console.print(methods)
    for name, network in plan.networks.items():
        for note in network.keep.notes if network.keep is not None else ():
            console.print(f"{name}: {note}", style="yellow", markup=False)
    if plan.pretraining is not None:
        console.print(
            f"Pretraining: {plan.pretraining.steps} steps on {plan.pretraining.task.spec.title}, "
            f"{text.flops(plan.pretraining.flops)}",
            highlight=False,
        )
    console.print(f"Budgets: {', '.join(text.budgets(map(Budget, amounts)))}", highlight=False)
    for note in _notes(config, plan, amounts):
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    console.print(
        f"Trials: {len(plan.trials)} = {len(plan.tasks)} tasks x {len(plan.networks)} methods x "
        f"{config.budgets.num} budgets x {len(config.seeds)} seeds x "
        f"{len(config.finetune.learning_rates)} learning rates; {done} done already. "
        f"In all {text.flops(plan.total_flops)}, evaluation included.",
        highlight=False,
    )


def _notes(config: Any, plan: Plan, amounts: Sequence[int]) -> list[str]:
    """What the trials do not do that the config seems to ask for."""
    steps: dict[int, list[int]] = {budget: [] for budget in amounts}
    for trial in plan.trials:
        steps[trial.budget_flops].append(trial.steps)
    notes = [
        f"Budgets of {least:,} and {more:,} FLOPs pay for the same steps, of every method and task"
        for least, more in itertools.pairwise(amounts)
        if steps[least] == steps[more]
    ]
    every = config.finetune.evaluate_every
    if every and (short := sum(trial.evaluations == 0 for trial in plan.trials)):
        notes.append(
            f"{short} of {len(plan.trials)} trials have no more than the {every} steps of "
            f"config.finetune.evaluate_every, and are evaluated only at their end"
        )
    return notes


def _stream(config: Any) -> str:
    """The stream's name, with what was done to it."""
    stream = config.stream
    changes = [stream.ablation, f"shuffled: {stream.shuffle}" if stream.shuffle else ""]
    return ", ".join(filter(None, [stream.variant, *changes]))


def outcome(record: Record) -> str:
    """One line about a finished trial."""
    head = (
        f"{record['task']} {record['method']} {text.flops(record['budget_flops'])} "
        f"lr {record['learning_rate']:g} seed {record['seed']}"
    )
    if record["diverged"]:
        return f"{head}: diverged after {record['steps']} steps"
    return (
        f"{head}: {record['steps']} steps, {record['metric']} dev {record['dev']:.3f}, "
        f"dev_test {record['dev_test']:.3f}, {record['wall_s']:.1f} s"
    )
