"""Methods along the stream: error against all FLOPs spent so far, and what each task started from.

As in Nevis'22 every trial of a search is charged, summed over the tasks up to this one: training,
features, cuts, searches, and what a learner chose its start by; evaluations are not, nor is
pretraining. A task whose trials all diverged counts with an error of 1.
"""

import csv
import io
import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ctl_jax import records
from ctl_jax.records import FinalRecord, TrialRecord
from ctl_jax.report._results import searches
from ctl_jax.report._table import Table


class Passed(NamedTuple):
    """A task that a method has learnt on its way along the stream.

    Attributes:
      method: its name.
      budget: as in the run.
      seed: of its trials.
      number: the place of the task in the stream, from 1.
      task: its name.
      start_task: the task whose network it started from; None: none.
      trial_flops: what the trial that won spent of its budget.
      task_flops: of all trials of its search, and of the choice of what they start from.
      total_flops: the same, of this task and all before it.
      error: 1 - dev_test.
      mean_error: the mean of this task and all before it.
      candidates: scores on dev by which the start was chosen, see `records.TrialRecord`.
    """

    method: str
    budget: str
    seed: int
    number: int
    task: str
    start_task: str | None
    trial_flops: int
    task_flops: int
    total_flops: int
    error: float
    mean_error: float
    candidates: Mapping[str, float]


class Learner(NamedTuple):
    """A method at a budget after the whole stream, as means over seeds.

    Attributes:
      method: its name.
      budget: of each trial, as in the run.
      total_flops: spent on all tasks.
      error: mean over the tasks.
      seeds: how many there are.
      on_front: whether no other has both a smaller error and fewer FLOPs.
    """

    method: str
    budget: str
    total_flops: float
    error: float
    seeds: int
    on_front: bool


def along(table: Table) -> list[Passed]:
    """The tasks that each method, budget and seed has passed: up to the first that is not done."""
    complete, found = searches(table), list[Passed]()
    for method, budget, seed in itertools.product(table.methods, table.budgets, table.seeds):
        total, errors = 0, list[float]()
        for number, task in enumerate(table.task_names, start=1):
            trials = complete.get((task, method, budget, seed))
            if trials is None:
                break
            best = records.winner(trials)
            spent = best.choice_flops + sum(map(charged, trials))
            total += spent
            errors.append(1.0 if best.dev_test is None else 1 - best.dev_test)
            found.append(
                Passed(
                    method,
                    budget,
                    seed,
                    number,
                    task,
                    best.start_task,
                    best.spent_flops,
                    spent,
                    total,
                    errors[-1],
                    statistics.fmean(errors),
                    best.candidates,
                )
            )
    return found


def charged(trial: TrialRecord) -> int:
    """FLOPs of a trial that count along the stream."""
    ledger = trial.ledger
    return ledger.train + ledger.extract + ledger.prune + ledger.search


def learners(passed: Sequence[Passed], tasks: int) -> list[Learner]:
    """A point for each method and budget that has passed all of the tasks, in the run's order.

    Args:
      passed: from `along`.
      tasks: how many the stream has.
    """
    ends: dict[tuple[str, str], list[Passed]] = {}
    for each in passed:
        if each.number == tasks:
            ends.setdefault((each.method, each.budget), []).append(each)
    found = [
        Learner(
            *where,
            statistics.fmean(each.total_flops for each in ended),
            statistics.fmean(each.mean_error for each in ended),
            len(ended),
            False,
        )
        for where, ended in ends.items()
    ]
    return [each._replace(on_front=not _is_beaten(each, found)) for each in found]


def _is_beaten(one: Learner, others: Iterable[Learner]) -> bool:
    mine = one.total_flops, one.error
    return any(
        other.total_flops <= one.total_flops
        and other.error <= one.error
        and (other.total_flops, other.error) != mine
        for other in others
    )


def stream_csv(passed: Iterable[Passed]) -> str:
    """`stream.csv`: a line a method, budget, seed and task."""
    names = Passed._fields[:-1]
    return _csv(names, ({name: getattr(each, name) for name in names} for each in passed))


def final_csv(finals: Iterable[FinalRecord]) -> str:
    """`final.csv`: a line for each network that was evaluated on test at the very end."""
    names = [
        *("task", "method", "budget", "seed", "trial", "trained_on", "split", "examples"),
        *("metric", "score", "low", "high", "top5", "flops"),
    ]
    return _csv(names, ({name: getattr(each, name) for name in names} for each in finals))


def transfer_csv(passed: Iterable[Passed]) -> str:
    """`transfer.csv`: a line for each network that a task could have started from.

    `source` is the task that it was trained on, empty for the method's own start, `score` that of
    its features on dev, empty where none were compared, `chosen` 1 where the task started from it.
    """
    names = ("method", "budget", "seed", "task", "source", "score", "chosen")
    return _csv(names, (row for each in passed for row in _candidates(each)))


def _candidates(passed: Passed) -> Iterator[dict[str, Any]]:
    start = passed.start_task or ""
    scores: Mapping[str, float | None] = passed.candidates or {start: None}
    for source, score in scores.items():
        about = {name: getattr(passed, name) for name in ("method", "budget", "seed", "task")}
        yield {**about, "source": source, "score": score, "chosen": int(source == start)}


def _csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Matrix(NamedTuple):
    """Which network each task could have started from, and how good its features were.

    Attributes:
      method: the one that chose.
      budget: as in the run.
      tasks: a row each.
      sources: what the networks were trained on, a column each; "" is the method's own start.
      scores: of features on dev, by row and column; None where there was no such network.
      starts: by row the column of the network that the task started from, None of another one.
    """

    method: str
    budget: str
    tasks: list[str]
    sources: list[str]
    scores: list[list[float | None]]
    starts: list[int | None]


def matrices(passed: Sequence[Passed], budgets: Sequence[str]) -> list[Matrix]:
    """What tasks could start from, by the methods with a learner that compares features.

    Args:
      passed: from `along`.
      budgets: in order.

    Returns:
      A matrix a method, of its largest budget and its first seed there; those of the largest budget
      first.
    """
    firsts: dict[str, Passed] = {}
    for each in sorted(passed, key=lambda each: -budgets.index(each.budget)):
        if each.candidates:
            firsts.setdefault(each.method, each)
    places = [(first.method, first.budget, first.seed) for first in firsts.values()]
    return [
        _matrix([each for each in passed if (each.method, each.budget, each.seed) == where])
        for where in places
    ]


def _matrix(passed: Sequence[Passed]) -> Matrix:
    sources = list(dict.fromkeys(source for each in passed for source in each.candidates))
    starts = [each.start_task or "" for each in passed]
    return Matrix(
        passed[0].method,
        passed[0].budget,
        [each.task for each in passed],
        sources,
        [[each.candidates.get(source) for source in sources] for each in passed],
        [sources.index(start) if start in sources else None for start in starts],
    )


def running(
    passed: Sequence[Passed], seed: int, budgets: Sequence[str]
) -> tuple[str, dict[str, list[Passed]]]:
    """The tasks that each method has passed with a seed, at the largest budget of all.

    Args:
      passed: from `along`.
      seed: the one.
      budgets: in order.

    Returns:
      The budget, "" of nothing, and tasks by method.
    """
    of_seed = [each for each in passed if each.seed == seed]
    last = max((each.budget for each in of_seed), key=budgets.index, default="")
    found: dict[str, list[Passed]] = {}
    for each in of_seed:
        if each.budget == last:
            found.setdefault(each.method, []).append(each)
    return last, found


def starts(passed: Sequence[Passed], budgets: Sequence[str]) -> dict[str, list[str]]:
    """What each task started from, by the methods for which it is not always the same.

    At the largest budget that a method has, of its first seed, in the order of the stream; with the
    score on dev of the features that were chosen, where they were compared.
    """
    found: dict[str, dict[int, Passed]] = {}
    last: dict[str, Passed] = {}
    for each in sorted(passed, key=lambda each: -budgets.index(each.budget)):
        first = last.setdefault(each.method, each)
        if (each.budget, each.seed) == (first.budget, first.seed):
            found.setdefault(each.method, {})[each.number] = each
    learning = {each.method for each in passed if each.start_task or each.candidates}
    return {
        method: [_start(tasks[number]) for number in sorted(tasks)]
        for method, tasks in found.items()
        if method in learning
    }


def _start(passed: Passed) -> str:
    score = passed.candidates.get(passed.start_task or "")
    shown = "" if score is None else f" ({score:.3f} of {len(passed.candidates)})"
    return f"{passed.start_task or 'its own start'}{shown}"
