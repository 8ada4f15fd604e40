"""A run from its config to its report: what is done already, and what is left."""

import contextlib
import functools
import itertools
from typing import Any

import jax
import rich.console

from ctl_jax import files, finetune, interrupts, report
from ctl_jax.cluster import Worker
from ctl_jax.errors import UserError
from ctl_jax.experiment import records, tables
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.keeping import Lost
from ctl_jax.experiment.networks import Network, abstract_variables, make_network
from ctl_jax.experiment.plan import Plan, make_plan
from ctl_jax.experiment.pretrain import pretrain
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.queue import Queue
from ctl_jax.experiment.store import Record, Store
from ctl_jax.experiment.tasks import TaskLoader
from ctl_jax.experiment.teamwork import is_lost, jobs, pause
from ctl_jax.experiment.worker import Workplace, run_trial
from ctl_jax.finetune import group

_ALONE = Worker()


def run(
    config: Any,
    workdir: files.PathLike,
    console: rich.console.Console,
    *,
    plan_only: bool = False,
    worker: Worker = _ALONE,
) -> None:
    """Runs an experiment, or what is left of it, and writes its records and report.

    Args:
      config: from a config file; validated here.
      workdir: the run's folder, local or `gs://bucket/path`. What is done there already is not done
        again, and what another process does there at the moment is waited for.
      console: where the plan, the progress and the summary go.
      plan_only: stop after printing the plan; nothing is written.
      worker: which of several workers this is that share the folder. One may be a group of
        processes (`cluster.join_group`), each of which calls this; the first one reads and writes.

    Raises:
      UserError: anything wrong with the config, the data, the weights or the folder; found before
        any work.
      KeyboardInterrupt: after what was done was saved, and its records and report written; a
        `Stopped` where `interrupts` are caught.
    """
    config = validate(config)
    if not group.is_first():
        console = rich.console.Console(quiet=True)
    # How often it is saved changes nothing about a run.
    settings = {k: v for k, v in config.to_dict().items() if k != "checkpoint"}
    store = Store(workdir, settings, functools.partial(_warn, console))
    if group.is_first():
        store.check()

    def on_prepare(name: str) -> None:
        console.print(f"making embedded task {name} (once)", highlight=False)

    loader = TaskLoader(config, on_prepare)
    plan = make_plan(config, loader, on_prepare)
    _check_devices(config, plan)
    ids = [trial.id for trial in plan.trials]
    if group.is_first():
        if plan.pretraining is not None:
            store.is_done(plan.pretraining.id)  # Says what is damaged.
        store.tell_of_lost(ids)
        tables.print_plan(console, config, plan, done=len(store.done(ids)))
    if plan_only:
        return
    queue = None
    if group.is_first():
        store.create()
        costs = [trial.spent_flops + trial.validate_flops for trial in plan.trials]
        queue = Queue(
            store, ids, costs, worker, on_wait=functools.partial(_say, console), sleep=pause
        )
    try:
        # Each process of a group has to do the same, so none may leave it anywhere.
        with interrupts.deferred(jax.process_count() > 1):
            _execute(config, plan, loader, store, queue, console)
    except BaseException:
        # What is done can be looked at. What went wrong before counts, not what does here.
        with contextlib.suppress(Exception):
            _report(config, plan, store, queue, console, complete=False)
        raise
    _report(config, plan, store, queue, console, complete=True)


def _say(console: rich.console.Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _warn(console: rich.console.Console, line: str) -> None:
    line = f"ctl_jax: {line}"
    console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _check_devices(config: Any, plan: Plan) -> None:
    """Sees whether the devices can share a batch evenly, and hold the least that they must."""
    sizes = {"finetune.batch_size": config.finetune.batch_size}
    if plan.pretraining is not None:
        sizes["pretrain.batch_size"] = config.pretrain.batch_size
    mesh = finetune.make_mesh()
    for key, size in sizes.items():
        try:
            finetune.check_batch(mesh, size)
        except UserError as error:
            raise UserError(f"config.{key}={size}: {error}") from None
        pixels = 3 * config.data.image_size**2
        _check_fits(f"config.{key}={size}: its images", 4 * pixels * size // mesh.size)
    for name, cost in plan.costs.items():
        _check_fits(f"config.model: the parameters of {name!r}", 4 * cost(0).params)


def _check_fits(what: str, size: int) -> None:
    if (there := finetune.memory_bytes()) is not None and size > there:
        raise UserError(
            f"{what} take {size / 1e9:,.1f} GB as float32; expected less than the memory, which "
            f"is {there / 1e9:,.1f} GB"
        )


def _execute(
    config: Any,
    plan: Plan,
    loader: TaskLoader,
    store: Store,
    queue: Queue | None,
    console: rich.console.Console,
) -> None:
    # One compiled step a recipe; within it jax keeps one program an architecture.
    make_step = functools.cache(functools.partial(finetune.make_step, plan.module))
    with Progress(console, plan.total_flops) as progress:
        place = Workplace(config, plan.module, progress, functools.partial(_warn, console))
        networks = _make_networks(place, plan, store, queue)
        done = store.done(trial.id for trial in plan.trials) if queue else frozenset()
        there = [trial for trial in plan.trials if trial.id in done]
        progress.advance(sum(trial.spent_flops + trial.validate_flops for trial in there))
        number = len(there)
        for index, claim in jobs(queue.take() if queue else None):
            trial = plan.trials[index]
            network = networks[trial.method.name]
            with (
                contextlib.suppress(Lost),
                claim or contextlib.nullcontext(),
                progress.stage(f"{trial.task.spec.title}, {trial.method.name}", trial.steps),
            ):
                lines = run_trial(
                    place,
                    make_step(network.recipe),
                    network,
                    loader.load(trial.task.spec),
                    trial,
                    store.scratch(trial.id) if claim else None,
                    functools.partial(is_lost, claim),
                )
                with interrupts.deferred():
                    kept = claim is not None and claim.commit(lines)
                if kept:
                    number += 1
                    progress.advance(
                        trial.spent_flops + trial.validate_flops,
                        f"[{number}/{len(plan.trials)}] {tables.outcome(lines[-1])}",
                    )


def _make_networks(
    place: Workplace, plan: Plan, store: Store, queue: Queue | None
) -> dict[str, Network]:
    """Each method's network, of real weights."""
    variables = plan.weights
    if plan.pretraining is not None:
        whole = abstract_variables(place.config, plan.module)
        variables = pretrain(place, plan.pretraining, whole, store, queue)
    if variables is None:
        # Only `scratch` is left, and draws its weights from each trial's seed.
        return dict(plan.networks)
    networks = {}
    for name, abstract in plan.networks.items():
        networks[name] = make_network(place.config, plan.groups, abstract.method, variables)
        if (keep := networks[name].keep) is not None and queue is not None:
            store.save_keep(name, keep.to_json())
    return networks


def _report(
    config: Any,
    plan: Plan,
    store: Store,
    queue: Queue | None,
    console: rich.console.Console,
    *,
    complete: bool,
) -> None:
    """Writes records and report, unless another worker does."""
    if queue is None:
        return
    with queue.reporting(complete=complete) as mine:
        if mine:
            missing = _write(config, plan, store, console)
            if complete and missing:
                raise UserError(
                    f"--workdir={store.workdir}: {len(missing)} of {len(plan.trials)} trials were "
                    f"done and are gone or damaged, e.g. trials/{missing[0]}.jsonl; the same "
                    f"command does them again"
                )


def _write(config: Any, plan: Plan, store: Store, console: rich.console.Console) -> list[str]:
    """Writes records and report of what is done; ids of the trials that are not."""
    ids = [trial.id for trial in plan.trials]
    before = [plan.pretraining.id] if plan.pretraining is not None else []
    done = store.done([*before, *ids])
    lines: list[Record] = [records.run_record(config, plan)]
    lines += itertools.chain(*(store.load_trial(id) for id in before if id in done))
    lines += records.method_records(config, plan)
    lines += itertools.chain(*(store.load_trial(id) for id in ids if id in done))
    paths = [store.save_records(lines), *report.write(lines, store.workdir)]
    console.print(report.summary(lines), highlight=False, markup=False, soft_wrap=True)
    for path in paths:
        _say(console, f"wrote {path}")
    return [id for id in ids if id not in done]
