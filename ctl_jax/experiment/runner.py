"""A run from its config to its report: what is done already, and what is left."""

import contextlib
import functools
from collections.abc import Collection
from typing import Any

import jax
import ml_collections
import rich.console

from ctl_jax import files, finetune, interrupts, object_store, records, report
from ctl_jax.cluster import Worker
from ctl_jax.errors import UserError
from ctl_jax.experiment import cards, predictions, printing, run_records, steps, watchers
from ctl_jax.experiment.checkpointing import Lost
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.finished import Finished
from ctl_jax.experiment.jobs import jobs, pause
from ctl_jax.experiment.kept_models import (
    TRIAL,
    add_rank,
    is_so_far,
    later_search,
    ranks,
    superseded,
)
from ctl_jax.experiment.kinds import rung
from ctl_jax.experiment.plan import Plan, make_plan
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.queue import Claim, Queue
from ctl_jax.experiment.steps import KINDS, Step
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.tasks import TaskLoader
from ctl_jax.experiment.watching import Watching
from ctl_jax.experiment.workspace import DamagedModel, Workspace
from ctl_jax.finetune import multihost

_ALONE = Worker()


def run(
    config: ml_collections.ConfigDict,
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
        again, by whatever config it was asked for, and what another process does there at the
        moment is waited for.
      console: where the plan, the progress and the summary go.
      plan_only: stop after printing the plan; nothing is written, and no image is decoded.
      worker: which of several workers this is that share the folder. One may be a group of
        processes (`cluster.join_group`), each of which calls this; the first one reads and writes.

    Raises:
      UserError: anything wrong with the config, the data, the weights or the folder; found before
        any work.
      KeyboardInterrupt: after what was done was saved, and its records and report written; a
        `Stopped` where `interrupts` are caught.
    """
    checked = validate(config)
    watching = watchers.find(checked.watch)
    if not multihost.is_first():
        console = rich.console.Console(quiet=True)
    warn = functools.partial(_warn, console)
    store = Store(workdir, checked.to_dict(), warn)
    if multihost.is_first():
        store.check()

    def on_prepare(name: str) -> None:
        console.print(f"making synthetic task {name} (once)", highlight=False)

    loader = TaskLoader(checked.data, on_prepare)
    workspace = Workspace(checked, loader, store, warn)
    plan = make_plan(workspace)
    _check_devices(plan)
    # Only a group's first process knows what is done.
    tasks = list(workspace.tasks)
    if multihost.is_first():
        finished = store.finished()
        wanted = steps.closure(plan.strategy(finished))
        store.tell_of_lost(wanted, finished)
        printing.print_plan(console, plan, wanted, finished)
        tasks = _tasks_left(wanted, finished)
    if plan_only:
        return
    queue = watch = None
    if multihost.is_first():
        if watching:
            about = watchers.Run(store.workdir, run_records.run_record(plan))
            watch = Watching(watching, about, warn)
        store.create()
        queue = Queue(
            store,
            plan.strategy,
            workspace.flops,
            worker,
            key=steps.content_id(checked.to_dict()),
            before=finished,
            on_wait=functools.partial(_say, console),
            sleep=pause,
        )
    try:
        # Each process of a group has to do the same, so none may leave it anywhere.
        with interrupts.deferred(jax.process_count() > 1):
            _execute(plan, queue, console, tasks, watch)
    except object_store.Unreachable:
        raise
    except BaseException:
        # What is done can be looked at. What went wrong before counts, not what does here.
        with contextlib.suppress(Exception):
            _report(plan, queue, console, complete=False)
        raise
    mine = _report(plan, queue, console, complete=True)
    if worker.count > 1 or not mine:
        by = "" if mine else ", and its report written by another worker"
        _say(console, f"All steps of the run are done{by}. This worker ends.")


def _say(console: rich.console.Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _warn(console: rich.console.Console, line: str) -> None:
    line = f"ctl_jax: {line}"
    console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _check_devices(plan: Plan) -> None:
    """Sees whether the devices can share a batch evenly, and hold the least that they must."""
    config = plan.config
    tried = dict.fromkeys(map(plan.batch_size, plan.tasks))
    sizes = [("finetune.batch_size", size) for size in tried]
    if plan.pretraining is not None:
        sizes.append(("pretrain.batch_size", config.pretrain.batch_size))
    mesh = finetune.make_mesh()
    for key, size in sizes:
        try:
            finetune.check_batch(mesh, size)
        except UserError as error:
            raise UserError(f"config.{key}={size}: {error}") from None
        pixels = 3 * config.data.image_size**2
        _check_fits(f"config.{key}={size}: its images", 4 * pixels * size // mesh.size)
    for name, method in plan.methods.items():
        if cost := plan.cost(method, 0):
            _check_fits(f"config.model: the parameters of {name!r}", 4 * cost.params)


def _check_fits(what: str, size: int) -> None:
    if (there := finetune.memory_bytes()) is not None and size > there:
        raise UserError(
            f"{what} take {size / 1e9:,.1f} GB as float32; expected less than the memory, which "
            f"is {there / 1e9:,.1f} GB"
        )


def _execute(
    plan: Plan,
    queue: Queue | None,
    console: rich.console.Console,
    tasks: Collection[str],
    watch: Watching | None,
) -> None:
    workspace = plan.workspace
    workspace.watch = watch.see if watch else None
    # What is wrong with their images stops here.
    for name, info in workspace.tasks.items():
        if name in tasks:
            printing.print_loaded(console, info, workspace.loader.load(info.spec))
    with Progress(console) as progress:
        workspace.progress = progress
        damaged: set[str] = set()
        tally = _Tally(plan, progress)
        if queue is not None:
            queue.on_look = tally.look
        for job in jobs(queue.take() if queue else None, workspace.store):
            with (
                contextlib.suppress(Lost),
                job.claim or contextlib.nullcontext(),
                _stage(workspace, job.step),
                watch.following(job.step) if watch else contextlib.nullcontext(),
            ):
                try:
                    output = KINDS[job.step.kind].run(job.step, workspace, job)
                except DamagedModel as error:
                    # It is done again, and then this step.
                    _set_aside(workspace, error, damaged)
                    continue
                with interrupts.deferred():
                    if job.claim is not None and job.claim.commit(
                        run_records.computed_here(output.records),
                        output.model() if output.model and tally.keeps(job.claim, output) else None,
                        output.arrays() if output.arrays and job.claim.needed else None,
                        provisional=tally.is_provisional(job.claim) or _diverged(output),
                    ):
                        tally.done(job.step, output.records[-1])
                        if watch:
                            watch.see(output.records[-1])
    workspace.progress = None


def _set_aside(workspace: Workspace, error: DamagedModel, before: set[str]) -> None:
    """Moves a damaged model away, unless it is gone; `before` are the steps whose models were.

    Raises:
      UserError: it was made again already, and is damaged again.
    """
    id = error.step.id
    # Several steps may have been claimed that start from it: the first one moves it away.
    if not multihost.of_first(int(multihost.is_first() and workspace.store.has_product(id))):
        return
    if id in before:
        raise UserError(
            f"--workdir={workspace.store.workdir}: expected a place that keeps what is written; "
            f"what step {id} made cannot be read back"
        ) from None
    before.add(id)
    if multihost.is_first():
        workspace.store.set_aside_product(id, error.reason)


def _tasks_left(wanted: dict[str, Step], finished: steps.Done) -> list[str]:
    """Names of the tasks that something is left to do on."""
    left, _ = steps.pending(wanted, finished)
    return [task["name"] for s in left.values() if isinstance(task := s.params.get("task"), dict)]


def _stage(workspace: Workspace, step: Step) -> contextlib.AbstractContextManager[None]:
    label = KINDS[step.kind].label
    if label is None or workspace.progress is None:
        return contextlib.nullcontext()
    return workspace.progress.stage(*label(step, workspace))


def _diverged(output: steps.Output) -> bool:
    """Whether a model goes as soon as no step that starts from it is left, whoever asked for it."""
    record = output.records[-1]
    return isinstance(record, records.TrialRecord) and record.diverged


def _needs_best(plan: Plan) -> bool:
    """Whether the best network of a search is needed once the search is done."""
    learning = any(method.learner for method in plan.methods.values())
    return learning or plan.config.keep_predictions or plan.config.stream.final


class _Tally:
    """How far the run is, as far as its steps are known, and what was best so far."""

    def __init__(self, plan: Plan, progress: Progress):
        self._plan, self._progress = plan, progress
        self._done: set[str] = set()
        self._trials = 0
        self._best: dict[Any, Any] = {}
        self._predicted = plan.config.keep_predictions or plan.config.stream.final
        self._ranked = _needs_best(plan) or plan.config.keep_models == "best"

    def look(self, wanted: dict[str, Step], left: dict[str, Step], finished: Finished) -> None:
        """Sees what is wanted now, and what others have done meanwhile."""
        flops, store = self._plan.workspace.flops, self._plan.workspace.store
        for id in rung.over(wanted, left, finished.products):
            store.remove_arrays(id)
        trials = [step for step in wanted.values() if step.kind == TRIAL]
        self._trials, self._done = len(trials), {s.id for s in trials if s.id not in left}
        done = sum(flops(step) for id, step in wanted.items() if id not in left)
        self._progress.set(done, done + sum(map(flops, left.values())))
        self._best = ranks(trials, finished, self._predicted) if self._ranked else {}
        if self._plan.config.keep_models != "all":
            store.settle_models(finished, go=superseded(wanted, finished, self._predicted))

    def keeps(self, claim: Claim, output: steps.Output) -> bool:
        """Whether a step's model is needed, or may turn out to be the best of its task."""
        record = output.records[-1]
        if claim.needed or not isinstance(record, records.TrialRecord):
            return claim.needed
        if record.diverged or not self._ranked:
            return False
        # Those that may turn out to be asked for; of a learner, that a task may start from.
        of_task = [record.task] if self._plan.config.keep_models == "best" else []
        keys = [*of_task, *filter(None, [later_search(claim.step, self._predicted)])]
        return any(k not in self._best or records.rank(record) < self._best[k] for k in keys)

    def is_provisional(self, claim: Claim) -> bool:
        """Whether a model stays only as long as it is the best of its task."""
        if self._plan.config.keep_models == "best":
            return claim.step.keep or not claim.needed
        return not claim.needed

    def done(self, step: Step, record: records.Record) -> None:
        """This worker has done a step."""
        number = ""
        if isinstance(record, records.TrialRecord):
            self._done.add(step.id)
            number = f"[{len(self._done)}/{self._trials}] "
            if not is_so_far(step):
                add_rank(self._best, step, record, self._predicted)
        line = printing.outcome(record)
        self._progress.advance(self._plan.workspace.flops(step), line and f"{number}{line}")


def _report(
    plan: Plan, queue: Queue | None, console: rich.console.Console, *, complete: bool
) -> bool:
    """Writes records and report, unless another worker does; whether this one did."""
    if queue is None:
        return False
    with queue.reporting(complete=complete) as mine:
        if mine:
            missing = _write(plan, console, complete=complete)
            if complete and missing:
                raise UserError(
                    f"--workdir={plan.workspace.store.workdir}: {len(missing)} steps were done and "
                    f"are gone or damaged, e.g. steps/{missing[0]}.jsonl; the same command does "
                    f"them again"
                )
    return mine


def _write(plan: Plan, console: rich.console.Console, *, complete: bool) -> list[str]:
    """Writes records and report of what is done; ids of the steps that are not."""
    store = plan.workspace.store
    finished = store.finished()
    wanted = steps.closure(plan.strategy(finished))
    left, needed = steps.pending(wanted, finished)
    lines = list(run_records.lines(plan, wanted, finished))
    if complete and not left:
        mode = plan.config.keep_models
        store.settle_models(
            finished,
            stay=needed if mode == "all" else (),
            # What was the best before, or was kept in case it would be; and what diverged.
            go=wanted.keys() - needed if mode != "none" or _needs_best(plan) else (),
        )
    plain = [records.to_json(line) for line in lines]
    if complete and not left:
        predictions.write(plan.workspace, wanted)
    paths = [store.save_records(lines), *report.write(plain, store.workdir)]
    cards.write(plan, plain, finished.products)
    for path in paths:
        _say(console, f"wrote {path}")
    _say(console, f"\n{report.summary(plain, store.workdir)}")
    return list(left)
