"""Policies of which trained models stay in a run's folder."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ctl_jax import records
from ctl_jax.experiment.kinds import evaluate, final, predict
from ctl_jax.experiment.kinds.look import TRAINED
from ctl_jax.experiment.methods import parse_method
from ctl_jax.experiment.steps import Done, Finished, Step, Strategy, pending

TRIAL = "finetune"


def _none(steps: list[Step], finished: Finished) -> set[str]:
    return set()


def _all(steps: list[Step], finished: Finished) -> set[str]:
    trials = counted(steps)
    return {s.id for s in trials if s not in finished or not _result(finished, s).diverged}


def _best(steps: list[Step], finished: Finished) -> set[str]:
    return {step.id for step in winners(steps, finished)}


# `config.keep_models`: from the steps of a run and what is finished to the ids that keep theirs.
MODES: dict[str, Callable[[list[Step], Finished], set[str]]] = {
    "none": _none,
    "best": _best,
    "all": _all,
}


def keeping(strategy: Strategy, mode: str) -> Strategy:
    """The strategy with those of its steps marked whose models stay.

    Args:
      strategy: says which steps are wanted.
      mode: "none", "best" (of each task, once all of its trials that are wanted are done) or "all".
        The best are evaluated on the test split, too.
    """

    def wanted(finished: Finished) -> list[Step]:
        steps = list(strategy(finished))
        kept = MODES[mode](steps, finished)
        marked = [step.kept() if step.id in kept else step for step in steps]
        best = [step for step in marked if step.id in kept] if mode == "best" else []
        return [*marked, *map(evaluate.make, best)]

    return wanted


def counted(steps: Iterable[Step]) -> list[Step]:
    """The trials among some steps without those of `auto` that others have taken the place of."""
    trials = [step for step in steps if step.kind == TRIAL]
    of_auto = [step.params["auto"] for step in trials if "auto" in step.params]
    lost = {chosen[TRAINED]["id"] for chosen in of_auto if TRAINED in chosen}
    return [step for step in trials if step.id not in lost and not is_so_far(step)]


def is_so_far(trial: Step) -> bool:
    """Whether a trial is what `auto` has so far, which a later one takes the place of."""
    return bool(trial.params.get("auto", {}).get("so_far"))


Search = tuple[str, str, str, int]


def search_of(trial: Step) -> Search:
    """Which search a trial is of."""
    params = trial.params
    return params["task"]["name"], params["method"], params["budget"], params["seed"]


def after_searches(strategy: Strategy, makers: Sequence[Callable[[Step], Step]]) -> Strategy:
    """The strategy, with further steps for the best trial of each search that is done.

    Args:
      strategy: says which steps are wanted.
      makers: make them of the trial: `predict.make`, `final.make`.
    """

    def wanted(finished: Finished) -> list[Step]:
        steps = list(strategy(finished))
        best = winners(steps, finished, search_of)
        return [*steps, *(make(trial) for make in makers for trial in best)]

    return wanted


def later_search(trial: Step, predicted: bool) -> Search | None:
    """Which search a trial is of whose best network is needed once the search is done.

    Args:
      trial: any step.
      predicted: whether the best networks predict, or are evaluated on test; otherwise learners
        alone need them.
    """
    if trial.kind != TRIAL:
        return None
    is_trained = bool(trial.params.get("phases"))
    if not predicted and not (is_trained and parse_method(trial.params["method"]).learner):
        return None
    return search_of(trial)


def ranks(
    trials: Iterable[Step], finished: Finished, predicted: bool = False
) -> dict[str | Search, Any]:
    """The rank of the best finished trial of each task, and of each `later_search`.

    By the task's name, and by the search. Of the trials of `auto` that a later one takes the place
    of, none.
    """
    found: dict[str | Search, Any] = {}
    for step in counted(trials):
        if step in finished:
            add_rank(found, step, _result(finished, step), predicted)
    return found


def add_rank(
    found: dict[str | Search, Any], trial: Step, record: records.TrialRecord, predicted: bool
) -> None:
    """Adds a finished trial to `ranks`."""
    rank = records.rank(record)
    for key in (record.task, later_search(trial, predicted)):
        if key is not None:
            found[key] = min(rank, found.get(key, rank))


def superseded(wanted: Mapping[str, Step], finished: Done, predicted: bool) -> set[str]:
    """Ids of trials whose models nothing needs any more: others won their searches."""
    there = [wanted[id] for id in finished.products if id in wanted]
    searches = {each.id: key for each in there if (key := later_search(each, predicted))}
    if not searches:
        return set()
    won = {step.id for step in there if step.keep and step.id in searches}
    for step in wanted.values():
        if step.kind == predict.KIND:
            won.add(predict.trial_of(step).id)
        elif step.kind == final.KIND:
            won.add(step.params["of"])
    over = {searches[id] for id in won if id in searches}
    _, needed = pending(wanted, finished)
    return {id for id, search in searches.items() if search in over} - needed - won


def _result(finished: Finished, trial: Step) -> records.TrialRecord:
    record = finished.record(trial)
    assert isinstance(record, records.TrialRecord)
    return record


def winners(
    steps: Iterable[Step],
    finished: Finished,
    key: Callable[[Step], Any] = lambda trial: trial.params["task"]["name"],
) -> list[Step]:
    """The best trial of each task whose trials are all done and did not all diverge.

    Args:
      steps: of a run.
      finished: what is done.
      key: what tells the trials that compete from others; without it, the name of the task.
    """
    by_task: dict[Any, list[Step]] = {}
    for step in counted(steps):
        by_task.setdefault(key(step), []).append(step)
    found = []
    for trials in by_task.values():
        if all(step in finished for step in trials):
            best = records.winner(map(_result, itertools.repeat(finished), trials))
            if not best.diverged:
                found += [step for step in trials if step.id == best.id]
    return found
