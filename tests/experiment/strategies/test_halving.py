"""Successive halving: which settings go on, whatever is finished first."""

import dataclasses
import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl_jax import compute, experiment, interrupts, records, report
from ctl_jax.experiment import runner
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.kinds import rung
from ctl_jax.experiment.plan import make_plan as plan_of
from ctl_jax.experiment.steps import closure
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.strategies import halving
from ctl_jax.experiment.tasks import TaskLoader
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import multihost

from ..samples import RECORD

pytestmark = pytest.mark.usefixtures("without_figures")

RUNG = records.RungRecord(
    id="",
    task="",
    method="dense",
    budget="9 flops",
    seed=0,
    learning_rate=0.1,
    batch_size=8,
    label_smoothing=0.0,
    steps=1,
    dev=0.5,
    diverged=False,
    ledger=compute.Ledger(),
    looked_flops=0,
    flops=0,
    wall_s=0.0,
)


@pytest.mark.parametrize(
    ("count", "updates", "levels"),
    [
        (16, 1000, [(1 / 16, 8), (1 / 8, 4), (1 / 4, 2), (1 / 2, 1)]),
        (5, 1000, [(1 / 8, 3), (1 / 4, 2), (1 / 2, 1)]),
        (2, 2, [(1 / 2, 1)]),
        # Of eight updates the first rung has one.
        (16, 8, [(1 / 8, 4), (1 / 4, 2), (1 / 2, 1)]),
        (16, 1, []),
        (16, 0, []),
    ],
)
def test_half_goes_on_to_twice_as_much(count, updates, levels):
    assert halving._levels(count, updates) == levels


class Finished:
    """Rungs and trials that are finished, each as good as its learning rate says."""

    def __init__(self, scores=(), diverged=()):
        self.scores, self.diverged, self.done = dict(scores), set(diverged), {}

    def __contains__(self, step):
        return step.id in self.done

    def add(self, step):
        rate = step.params["learning_rate"]
        is_lost = rate in self.diverged
        about = {
            "id": step.id,
            "learning_rate": rate,
            "dev": None if is_lost else self.scores.get(rate, 0.5),
            "diverged": is_lost,
        }
        of = {"ledger": compute.Ledger(train=100, validate=10), "looked_flops": 1}
        like = RUNG if step.kind == rung.KIND else RECORD
        self.done[step.id] = dataclasses.replace(like, **about, **(of if like is RUNG else {}))

    def record(self, step):
        return self.done[step.id]


@pytest.fixture
def strategy(config, make_plan):
    """Of one task, method and budget, for some learning rates."""

    def make(*rates, budgets=("4e7",), methods=("dense",)):
        config.stream.variant, config.methods = "digits", methods
        config.budgets.amounts, config.finetune.learning_rates = budgets, rates
        config.strategy = "halving"
        return make_plan(config).strategy

    return make


def finish(strategy, finished, order=None):
    """Does one ready step after the other; all that was wanted, in the order in which it was."""
    seen = {}
    while True:
        wanted = closure(strategy(finished))
        assert set(seen) <= set(wanted), "it is not monotone"
        seen |= dict.fromkeys(wanted)
        left = [step for step in wanted.values() if step not in finished]
        if not left:
            return list(wanted.values())
        ready = [s for s in left if all(each in finished for each in s.inputs.values())]
        finished.add((order or random.Random(0)).choice(ready))


RATES = (0.01, 0.02, 0.04, 0.08, 0.16)


@settings(max_examples=25)
@given(st.permutations(range(5)), st.sets(st.sampled_from(RATES)), st.randoms())
def test_what_is_wanted_at_last_does_not_depend_on_the_order(made, scores, diverged, order):
    scores = dict(zip(RATES, scores, strict=True))
    steps = finish(made, Finished(scores, diverged), order)
    assert [s.id for s in steps] == [s.id for s in finish(made, Finished(scores, diverged))]
    by_until = itertools.groupby(
        [step for step in steps if step.kind == rung.KIND], key=lambda s: s.params["until"]
    )
    tried = [{step.params["learning_rate"] for step in group} for _, group in by_until]
    best = sorted(set(RATES) - diverged, key=scores.get, reverse=True)
    expected = [set(RATES), set(best[:3]), set(best[:2])]
    assert tried == [rates for rates in expected if rates]
    (trial,) = [step for step in steps if step.kind == "finetune"]
    won = best[0] if best else min(RATES)
    assert trial.params["learning_rate"] == won
    assert ("rung" in trial.inputs) == bool(best)
    others = len(set(RATES)) - bool(best)
    assert len(trial.params["rungs"]["lost"]) == others
    assert trial.params["rungs"]["flops"] == 111 * others + bool(best)


@pytest.fixture(scope="module")
def made(on_digits):
    config = on_digits.copy_and_resolve_references()
    config.methods, config.budgets.amounts = ("dense",), ("4e7",)
    config.finetune.learning_rates, config.strategy = RATES, "halving"
    checked = validate(config)
    workspace = Workspace(checked, TaskLoader(checked.data), Store("nowhere", {}), pytest.fail)
    return plan_of(workspace).strategy


def test_trainings_stay_only_while_it_is_open_which_go_on(strategy):
    wanted, finished = strategy(0.1, 0.2), Finished({0.1: 0.9})
    first = wanted(finished)
    assert [step.keep for step in first] == [True, True]
    finished.add(first[0])
    assert [step.keep for step in wanted(finished)] == [True, True]
    finished.add(first[1])
    *rungs, trial = wanted(finished)
    assert [step.keep for step in rungs] == [False, False]
    assert trial.inputs["rung"].id == first[0].id


def test_one_setting_and_one_update_are_whole_trials(strategy, config, make_plan):
    """And what makes no update of its own; as the grid has them."""
    for rates, budget, methods in (((0.1,), "4e7", ("dense",)), ((0.1, 0.2), "4e6", ("dense",))):
        wanted = strategy(*rates, budgets=(budget,), methods=methods)(Finished())
        config.strategy = "grid"
        assert [s.id for s in wanted] == [s.id for s in make_plan(config).strategy(Finished())]
    wanted = closure(strategy(0.1, 0.2, budgets=("1e9",), methods=("probe",))(Finished()))
    assert rung.KIND not in {step.kind for step in wanted.values()}


@pytest.fixture
def run(on_digits, console, tmp_path, monkeypatch):
    """Runs a search of four learning rates; gives its records."""
    monkeypatch.setattr(runner.report, "write", lambda lines, workdir: [])

    def run(name):
        config = on_digits.copy_and_resolve_references()
        config.methods, config.budgets.amounts = ("dense",), ("4e7",)
        config.finetune.learning_rates, config.strategy = RATES[:4], "halving"
        config.finetune.log_every, config.checkpoint.every_s = 2, 0.0
        experiment.run(config, tmp_path / name, console)
        lines = map(json.loads, (tmp_path / name / "records.jsonl").read_text().splitlines())
        return list(lines)

    return run


def test_a_run_that_was_stopped_and_lost_files_ends_with_the_same_numbers(
    run, tmp_path, monkeypatch
):
    lines = run("undisturbed")
    (row,) = report.results(lines)
    made = [line for line in lines if line["type"] == "rung"]
    assert len(made) == 4 + 2
    (trial,) = [line for line in lines if line["type"] == "trial"]
    computed = sum(line["flops"] for line in made) + trial["own_flops"]
    assert sum(trial["ledger"].values()) == computed
    assert row["search_flops"] == trial["ledger"]["search"] > 0
    assert row["spent_flops"] <= row["budget_flops"]
    assert not _rungs(tmp_path / "undisturbed")
    looks, stops, damaged = itertools.count(1), 0, None
    monkeypatch.setattr(multihost, "stop_requested", lambda: next(looks) % 9 == 0)
    while True:
        try:
            again = run("disturbed")
            break
        except interrupts.Stopped:
            stops += 1
            left = _rungs(tmp_path / "disturbed")
            if left and not damaged:
                damaged = left[-1]
                damaged.write_bytes(b"cut off")
    assert stops > 2
    assert damaged
    assert [_timeless(line) for line in again] == [_timeless(line) for line in lines]


def _rungs(workdir):
    """Files of the trainings that are left; nothing else here has arrays."""
    return list((workdir / "arrays").glob("*.safetensors"))


def _timeless(line):
    return {key: value for key, value in line.items() if key not in ("wall_s", "latency_s")}
