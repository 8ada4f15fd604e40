"""Which models stay: none, the best of each task, or all."""

import dataclasses

import pytest

from ctl_jax import records
from ctl_jax.experiment.kept_models import is_so_far, keeping, ranks, superseded, winners
from ctl_jax.experiment.kinds import predict
from ctl_jax.experiment.steps import Step

from .samples import RECORD


class Finished:
    """Scores on dev by learning rate; None of a trial that diverged."""

    def __init__(self, **scores):
        self._scores = {(name[:-1], float(name[-1])): dev for name, dev in scores.items()}

    def _key(self, step):
        return step.params["task"]["name"], step.params["learning_rate"]

    def __contains__(self, step):
        return self._key(step) in self._scores

    def record(self, step):
        task, rate = self._key(step)
        dev = self._scores[task, rate]
        changes = {"task": task, "learning_rate": rate, "id": step.id, "dev": dev}
        return dataclasses.replace(RECORD, **changes, diverged=dev is None)


def trial(name):
    """Of a task, by a rate: "a1"."""
    return Step("finetune", {"task": {"name": name[:-1]}, "learning_rate": float(name[-1])})


def names(steps):
    return [f"{s.params['task']['name']}{s.params['learning_rate']:.0f}" for s in steps]


STEPS = [*map(trial, ("a1", "b1", "a2", "b2")), Step("pretrain", {"any": 0})]


@pytest.mark.parametrize(
    ("scores", "best", "every"),
    [
        ({}, [], ["a1", "b1", "a2", "b2"]),
        # A task's winner is known when all of its trials are done.
        ({"a1": 0.5, "b1": 0.5, "b2": 0.9}, ["b2"], ["a1", "b1", "a2", "b2"]),
        # Of equal ones the smaller rate.
        ({"a1": 0.5, "a2": 0.5, "b1": 0.4, "b2": 0.2}, ["a1", "b1"], ["a1", "b1", "a2", "b2"]),
        # Whatever diverged has nothing to keep.
        ({"a1": None, "a2": 0.0, "b1": None, "b2": None}, ["a2"], ["a2"]),
    ],
)
def test_which_models_stay(scores, best, every):
    finished = Finished(**scores)
    assert names(winners(STEPS, finished)) == best
    for mode, expected in (("none", []), ("best", best), ("all", every)):
        found = keeping(lambda finished: STEPS, mode)(finished)
        assert [step.id for step in found[: len(STEPS)]] == [step.id for step in STEPS]
        # The best are evaluated.
        trials = [step.inputs["weights"] for step in found[len(STEPS) :]]
        assert names(trials) == (expected if mode == "best" else [])
        assert all(step.keep for step in trials)
        assert names(step for step in found if step.keep) == expected


def test_the_best_so_far_of_each_task():
    found = ranks(STEPS[:4], Finished(a1=0.5, a2=0.7, b1=None))
    assert set(found) == {"a", "b"}
    assert found["a"] < records.rank(Finished(a1=0.5).record(trial("a1"))) < found["b"]


def test_what_auto_has_so_far_is_no_winner_and_does_not_stay():
    so_far = dataclasses.replace(
        trial("a3"), params={**trial("a3").params, "auto": {"so_far": True}}
    )
    last = dataclasses.replace(trial("a1"), params={**trial("a1").params, "auto": {"best": 0}})
    assert [is_so_far(step) for step in (so_far, last, trial("a2"))] == [True, False, False]
    finished = Finished(a1=0.5, a3=0.9)
    assert names(winners([so_far, last], finished)) == ["a1"]
    assert ranks([so_far, last], finished) == ranks([last], finished)
    for mode, expected in (("none", []), ("best", ["a1"]), ("all", ["a1"])):
        found = keeping(lambda finished: [so_far, last], mode)(finished)
        assert names(step for step in found if step.keep) == expected


def of_search(method, rate, phases=({},)):
    params = {"task": {"name": "a"}, "method": method, "budget": "9 flops", "seed": 0}
    return Step("finetune", {**params, "learning_rate": rate, "phases": list(phases)})


class Done:
    """Models of all steps are there."""

    def __init__(self, steps):
        self.records = self.products = {step.id for step in steps}


def test_models_that_lost_go_once_the_search_of_a_learner_is_over():
    lost, won = of_search("previous", 0.1), of_search("previous", 0.2)
    # Of a method without a learner, and a head that was fitted, no task starts.
    other, fitted = of_search("dense", 0.1), of_search("previous", None, phases=())
    steps = [lost, won, other, fitted]
    done, before = Done(steps), {step.id: step for step in steps}
    assert superseded(before, done, predicted=False) == set()
    after = before | {won.id: won.kept()}
    assert superseded(after, done, predicted=False) == {lost.id}


def test_models_that_lost_go_once_the_best_has_predicted():
    lost, won, other = (of_search("dense", rate) for rate in (0.1, 0.2, 0.3))
    other = dataclasses.replace(other, params={**other.params, "seed": 1})
    prediction = predict.make(won)
    wanted = {step.id: step for step in (lost, won, other, prediction)}
    assert superseded(wanted, Done([lost, won, other]), predicted=True) == {lost.id}
    assert superseded(wanted, Done(wanted.values()), predicted=True) == {lost.id}
    assert superseded(wanted, Done(wanted.values()), predicted=False) == set()
