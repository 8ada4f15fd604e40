"""A run from its config to its report: what is done already, and what is left."""

import functools
import pathlib
from typing import Any

import rich.console

from ctl_jax import finetune, report
from ctl_jax.experiment import records, tables
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.networks import Network, make_network
from ctl_jax.experiment.plan import Plan, make_plan
from ctl_jax.experiment.pretrain import pretrain
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.store import Record, Store
from ctl_jax.experiment.tasks import TaskLoader
from ctl_jax.experiment.worker import run_trial


def run(
    config: Any, workdir: pathlib.Path, console: rich.console.Console, *, plan_only: bool = False
) -> None:
    """Runs an experiment, or what is left of it, and writes its records and report.

    Args:
      config: from a config file; validated here.
      workdir: the run's folder. What is done there already is not done again.
      console: where the plan, the progress and the summary go.
      plan_only: stop after printing the plan; nothing is written.

    Raises:
      UserError: anything wrong with the config, the data, the weights or the folder; found before
        any work.
      KeyboardInterrupt: after the records and the report of what is done were written.
    """
    config = validate(config)
    store = Store(workdir, config.to_dict())
    store.check()

    def on_prepare(name: str) -> None:
        console.print(f"making embedded task {name} (once)", highlight=False)

    loader = TaskLoader(config, on_prepare)
    plan = make_plan(config, loader, on_prepare)
    tables.print_plan(console, config, plan, done=sum(store.is_done(t.id) for t in plan.trials))
    if plan_only:
        return
    store.create()
    try:
        _execute(config, plan, loader, store, console)
    finally:
        # Also when interrupted: what is done can be looked at.
        _write(config, plan, store, console)


def _execute(
    config: Any, plan: Plan, loader: TaskLoader, store: Store, console: rich.console.Console
) -> None:
    # One compiled step a recipe; within it jax keeps one program an architecture.
    make_step = functools.cache(functools.partial(finetune.make_step, plan.module))
    with Progress(console, plan.total_flops) as progress:
        networks = _make_networks(config, plan, store, progress)
        for number, trial in enumerate(plan.trials, start=1):
            flops = trial.spent_flops + trial.validate_flops
            if store.is_done(trial.id):
                progress.advance(flops)
                continue
            network = networks[trial.method.name]
            with progress.stage(f"{trial.task.spec.title}, {trial.method.name}", trial.steps):
                lines = run_trial(
                    config,
                    plan.module,
                    make_step(network.recipe),
                    network,
                    loader.load(trial.task.spec),
                    trial,
                    progress,
                )
            store.save_trial(trial.id, lines)
            progress.advance(flops, f"[{number}/{len(plan.trials)}] {tables.outcome(lines[-1])}")


def _make_networks(config: Any, plan: Plan, store: Store, progress: Progress) -> dict[str, Network]:
    """Each method's network, of real weights."""
    variables = plan.weights
    if plan.pretraining is not None:
        variables = pretrain(config, plan.module, plan.pretraining, store, progress)
    if variables is None:
        # Only `scratch` is left, and draws its weights from each trial's seed.
        return dict(plan.networks)
    networks = {}
    for name, abstract in plan.networks.items():
        networks[name] = make_network(config, plan.groups, abstract.method, variables)
        if (keep := networks[name].keep) is not None:
            store.save_keep(name, keep.to_json())
    return networks


def _write(config: Any, plan: Plan, store: Store, console: rich.console.Console) -> None:
    lines: list[Record] = [records.run_record(config, plan)]
    if plan.pretraining is not None and store.is_done(plan.pretraining.id):
        lines += store.load_trial(plan.pretraining.id)
    lines += records.method_records(config, plan)
    for trial in plan.trials:
        if store.is_done(trial.id):
            lines += store.load_trial(trial.id)
    paths = [store.save_records(lines), *report.write(lines, store.workdir)]
    console.print(report.summary(lines), highlight=False, markup=False, soft_wrap=True)
    for path in paths:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
