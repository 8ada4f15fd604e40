"""The best model of each task: what it is, what it is worth, and what it cost to find."""

import itertools
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ctl_jax import formatting
from ctl_jax.records import EvaluateRecord, RunTask, TrialRecord, full_method, searched
from ctl_jax.report import spending
from ctl_jax.report._budgets import labels
from ctl_jax.report._table import Table, read


class Best(NamedTuple):
    """The best model of a task, which was evaluated on its test split.

    Attributes:
      task: the task.
      trial: made the model.
      test: its evaluation.
      spent: FLOPs of all that was done on the task, by purpose: "train", "extract" and "validate"
        of this trial, "search" of the others and of `auto`, "prune" of all, "test", and
        "pretrain" where this run pretrained (for all of its tasks together).
      shared: how much of it was not computed, since trials share steps; "" of nothing.
    """

    task: RunTask
    trial: TrialRecord
    test: EvaluateRecord
    spent: Mapping[str, int]
    shared: str = ""


def best(lines: Iterable[Mapping[str, Any]]) -> list[Best]:
    """The best models that were evaluated, in the run's order of tasks.

    Args:
      lines: objects of `records.jsonl`, in any order.

    Raises:
      UserError: the records are incomplete or contradict each other.
    """
    return of_table(read(lines))


def of_table(table: Table) -> list[Best]:
    """The best models that were evaluated; see `best`."""
    trials = {trial.id: trial for trial in table.trials}
    found = []
    for task in table.tasks:
        test = table.evaluations.get(task.name)
        if test is not None and test.trial in trials:
            trial = trials[test.trial]
            spent = _spent(table, trial, test)
            found.append(Best(task, trial, test, spent, _shared(table, task)))
    return found


def _shared(table: Table, task: RunTask) -> str:
    found = spending.sharing(table, task.name)
    saved = found.charged - found.computed
    return f"; trials share steps, which saved {formatting.flops(saved)} of it" if saved > 0 else ""


def _spent(table: Table, trial: TrialRecord, test: EvaluateRecord) -> dict[str, int]:
    others = [t for t in table.trials if t.task == trial.task and t.id != trial.id]
    spent = {
        "train": trial.ledger.train,
        "extract": trial.ledger.extract,
        "validate": trial.ledger.validate,
        "search": trial.ledger.search + sum(map(searched, others)),
        "prune": trial.ledger.prune + sum(other.ledger.prune for other in others),
        "test": test.flops,
        "pretrain": table.pretrain.flops if table.pretrain else 0,
    }
    return {purpose: flops for purpose, flops in spent.items() if flops}


def facts(found: Best, model: str) -> list[tuple[str, str]]:
    """What there is to say of a model, as names and texts.

    Args:
      found: the model.
      model: name of the run's network.
    """
    trial, test = found.trial, found.test
    what = f"{full_method(trial)} of {model}, budget {labels([trial.budget])[0]}"
    if trial.learning_rate is not None:
        what += f", learning rate {trial.learning_rate:g}"
    counted = f"{test.examples:,} images"
    if test.correct is not None:
        counted = f"{test.correct:,} of {counted}"
    return [
        ("model", what),
        ("channels", widths(test.widths)),
        (
            f"{test.split} {test.metric}",
            f"{formatting.metric(test.score)}, 95% interval {formatting.metric(test.low)} to "
            f"{formatting.metric(test.high)} ({counted})",
        ),
        (
            "a prediction",
            f"{formatting.flops(test.forward_flops)} "
            f"({_share(test.forward_flops, test.whole_forward_flops)} of the whole network), "
            f"{formatting.si(test.params)} parameters ({_share(test.params, test.whole_params)}), "
            f"{_milliseconds(test.latency_s)} on {test.device} "
            f"({_share(test.latency_s, test.whole_latency_s)})",
        ),
        (
            "spent",
            f"{formatting.flops(sum(found.spent.values()))} in all: "
            + ", ".join(f"{what} {formatting.flops(flops)}" for what, flops in found.spent.items())
            + found.shared,
        ),
    ]


def widths(by_stage: Mapping[str, Sequence[int]]) -> str:
    """Numbers of channels by stage; stages in a row that have the same are joined.

    Example:
      >>> widths({"stem": (64,), "stage1": (32, 64), "stage2": (32, 64)})
      'stem 64; stage1 to stage2 32, 64'
    """
    parts = []
    for numbers, stages in itertools.groupby(by_stage, key=lambda stage: tuple(by_stage[stage])):
        names = list(stages)
        name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        parts.append(f"{name} {', '.join(map(str, numbers))}")
    return "; ".join(parts)


def lines(table: Table, workdir: str | os.PathLike[str]) -> list[str]:
    """The best models as plain text, each with its folder and the command to go on with.

    Args:
      table: the run's records.
      workdir: folder of the run; "" of several runs, whose models are in as many folders.
    """
    models = of_table(table)
    if not models:
        return []
    assert table.run is not None
    shown = ["", "The best model of each task:" if len(table.tasks) > 1 else "The best model:"]
    folder = os.fspath(workdir)
    for found in models:
        told = facts(found, table.run.model)
        if folder:
            task = f" --task={found.task.name}" if len(table.tasks) > 1 else ""
            command = f"python -m ctl_jax.predict {shlex.quote(folder)} IMAGES...{task}"
            where = os.path.join(folder, "models", found.trial.id)
            told += [("folder", where), ("to go on", command)]
        width = max(len(name) for name, _ in told)
        shown += ["", found.task.title, *(f"  {name.ljust(width)}  {what}" for name, what in told)]
    return shown


def _share(value: float, whole: float) -> str:
    return f"{value / whole:.2f}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
