"""A run's records: those of the run itself and of its methods, and all of them in their order."""

import collections
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax

import ctl_jax
from ctl_jax import files, records
from ctl_jax.experiment import chains
from ctl_jax.experiment.finished import Finished
from ctl_jax.experiment.kept_models import TRIAL, counted, is_so_far
from ctl_jax.experiment.kinds import prune, rung
from ctl_jax.experiment.plan import Plan
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.tasks import TaskInfo

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def lines(plan: Plan, wanted: dict[str, Step], finished: Finished) -> Iterator[records.Record]:
    """All records of what the config asks for, in the plan's order."""
    store = plan.workspace.store
    trials = [step for step in wanted.values() if step.kind == TRIAL]
    others = [step for step in wanted.values() if step.kind != TRIAL and step in finished]
    counted = _counted(trials, finished)
    there = [step.id for step in (*others, *counted) if step in finished]
    loaded = dict(zip(there, files.at_once(store.load, there), strict=True))
    yield run_record(plan)
    cuts = collections.Counter(
        record.cut
        for step in others
        for record in loaded[step.id]
        if isinstance(record, records.PruneRecord)
    )
    for step in others:
        for record in loaded[step.id]:
            if isinstance(record, records.PruneRecord):
                # Of a task's images, drawn, or of what a learner trained, there are several of one
                # name.
                several = record.task is not None or ":" in record.cut or cuts[record.cut] > 1
                name = f"{record.cut}-{record.id}" if several else record.cut
                store.save_keep(name, record.keep)
            yield record
    yield from method_records(plan)
    said: set[str] = set()
    yield from chains.undecided(plan, finished)
    # A search by rungs has its trial at last.
    rungs = (step for step in wanted.values() if step.kind == rung.KIND and step not in finished)
    yield from map(pending_record, rungs)
    for step in counted:
        if step not in finished:
            yield pending_record(step)
            continue
        for record in loaded[step.id]:
            if isinstance(record, records.TrialRecord):
                # It may have been done for another stream that has the task.
                record = dataclasses.replace(record, variant=plan.config.stream.variant)
            # Each trial says the same of its task.
            if isinstance(record, records.TaskRecord):
                if (text := repr(record)) in said:
                    continue
                said.add(text)
            yield record


def _counted(trials: Sequence[Step], finished: Finished) -> list[Step]:
    """The trials; of those of `auto` the last one that is done, of each search."""
    there = {step.id for step in counted(trials)}
    last: dict[Any, Step] = {}
    for step in trials:
        is_candidate = step.id in there or is_so_far(step)
        if "auto" in step.params and step in finished and is_candidate:
            params = step.params
            key = (params["task"]["name"], params["method"], params["budget"], params["seed"])
            if key not in last or is_so_far(last[key]):
                last[key] = step
    stay = {step.id for step in last.values()}
    return [step for step in trials if "auto" not in step.params or step.id in stay]


def run_record(plan: Plan) -> records.RunRecord:
    """What was run, on what, with which versions."""
    config = plan.config
    return records.RunRecord(
        variant=config.stream.variant,
        model=plan.workspace.network.name,
        tasks=tuple(map(_task, plan.tasks)),
        missing=tuple(
            records.MissingTask(name=spec.name, title=spec.title, reason=reason)
            for spec, reason in plan.missing
        ),
        methods=tuple(plan.methods),
        budgets=tuple(map(str, plan.budgets)),
        # A rule's are those of its trials.
        learning_rates=config.finetune.learning_rates if config.finetune.search == "grid" else (),
        seeds=config.seeds,
        config=config.to_dict(),
        versions=versions(),
        device=jax.devices()[0].device_kind,
    )


def versions() -> dict[str, str]:
    """Of what numbers depend on, by package."""
    return {
        "ctl_jax": ctl_jax.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def computed_here(lines: Sequence[records.Record]) -> list[records.Record]:
    """A step's records, with what this process, or its group, computed it on."""
    return [
        dataclasses.replace(line, computed_on=_hardware())
        if isinstance(line, records.Computed)
        else line
        for line in lines
    ]


@functools.cache
def _hardware() -> records.Hardware:
    # Linux alone tells which cores are this process's: a launcher may have bound it to some.
    mine = getattr(os, "sched_getaffinity", lambda pid: range(os.cpu_count() or 1))(0)
    return records.Hardware(
        device=jax.devices()[0].device_kind,
        devices=jax.device_count(),
        processor=_processor(),
        cores=len(mine),
    )


def _processor() -> str:
    try:
        told = pathlib.Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*: *(.*\S)", told, re.MULTILINE)
    return found[1] if found else platform.machine()


def _task(task: TaskInfo) -> records.RunTask:
    counts = {f"{name}_examples": task.examples[name] for name in ("train", "dev", "dev_test")}
    return records.RunTask(
        name=task.spec.name,
        title=task.spec.title,
        dataset=task.spec.dataset,
        domain=task.spec.domain,
        year=task.spec.year,
        kind=task.spec.kind,
        num_classes=task.num_classes,
        **counts,
        notes=tuple(task.notes),
        passed_over=dict(task.passed_over),
    )


def method_records(plan: Plan) -> list[records.MethodRecord]:
    """What each method makes of the network, without the task's head."""
    found = []
    for name, method in plan.methods.items():
        cost, start, cut = plan.cost(method, 0), plan.start(method), method.cut
        if cost is None:
            # The records of its trials tell.
            continue
        keep, groups = None, plan.workspace.groups
        if cut is not None and start is not None:
            keep, groups = (
                prune.planned(start, plan.workspace),
                prune.groups_of(start, plan.workspace),
            )
        found.append(
            records.MethodRecord(
                method=name,
                scope=cut.scope if cut else None,
                ratio=cut.ratio if cut else None,
                criterion=(cut.criterion or plan.config.pruning.criterion) if cut else None,
                params=cost.params,
                forward_flops=cost.forward,
                # Of several phases that of the last.
                flops_per_step=cost.step,
                groups=len(groups),
                cut_groups=0 if keep is None else prune.cut_groups(keep),
                notes=() if keep is None else tuple(prune.notes(groups, keep)),
            )
        )
    return found


def pending_record(step: Step) -> records.PendingRecord:
    """A trial that is wanted and not done."""
    params, settings = step.params, step.params["finetune"]
    trains = params["learning_rate"] is not None
    return records.PendingRecord(
        id=step.id,
        task=params["task"]["name"],
        method=params["method"],
        budget=params["budget"],
        seed=params["seed"],
        learning_rate=params["learning_rate"],
        batch_size=settings["batch_size"] if trains else None,
        label_smoothing=settings.get("label_smoothing", 0.0) if trains else None,
    )
