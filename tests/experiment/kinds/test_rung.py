"""Trainings that are left at rungs: what is gone on with is the training of one go."""

import dataclasses
import functools

import chex
import numpy as np
import pytest

from ctl_jax import compute, interrupts, records
from ctl_jax.experiment import rungs
from ctl_jax.experiment.kinds import finetune as trials
from ctl_jax.experiment.kinds import rung
from ctl_jax.experiment.steps import Step, closure
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.workspace import DamagedModel
from ctl_jax.finetune import multihost

UPDATES = 21


@pytest.fixture(params=["last", "best", "two phases"])
def trial(request, one_trial, thirds, config, tmp_path):
    """One of some updates, which is evaluated on the way, and a folder."""
    config.finetune.log_every, config.finetune.evaluate_every = 2, 4
    config.finetune.report = "best" if request.param == "best" else "last"
    trial = one_trial(thirds("single_label"))
    (phase,) = trials.plan(trial.step, trial.workspace)
    trial.workspace.store = Store(tmp_path, {})
    trial.workspace.store.create()
    trial = trial.with_(budget_flops=UPDATES * phase.cost.step + 1)
    if request.param == "two phases":
        probe = {"train": ["head/*"], "batch_norm": "frozen", "share": 0.2, "rate": 1.0}
        rest = {"train": ["*"], "batch_norm": "batch", "share": 0.8, "rate": 0.1}
        trial = trial.with_(phases=[probe, rest])
    return trial


def do(trial, step, scratch=None):
    """Runs a step and keeps what it gives."""
    output = dataclasses.replace(trial, step=step).run(scratch)
    trial.workspace.store.save(step.id, output.records)
    if output.arrays:
        trial.workspace.store.save_arrays(step.id, output.arrays())
    return output


def climb(trial, *untils):
    """The rungs of a trial, done; and their outputs."""
    steps, outputs = [], []
    for until in untils:
        steps.append(rung.make(trial.step, until, steps[-1] if steps else None))
        outputs.append(do(trial, steps[-1]))
    return steps, outputs


def plain(lines):
    """Records of a trial without its id and the time that it took."""
    left = ("id", "trial", "wall_s")
    return [{k: v for k, v in records.to_json(line).items() if k not in left} for line in lines]


def test_a_trial_by_rungs_is_that_of_one_go(trial):
    """Its records and its network, to the bit; computed is what each step adds."""
    whole = trial.run()
    (*steps, last), outputs = climb(trial, 3, 8, 13)
    final = rungs.finish(trial.step, last, ["a", "b"], 1000)
    output = do(trial, final)
    *log, record = output.records
    *expected, alone = whole.records
    assert plain(log) == plain(expected)
    chex.assert_trees_all_equal(output.model().variables, whole.model().variables)
    assert record.ledger == alone.ledger.add("search", 1000)
    changed = {
        name
        for name, value in records.to_json(record).items()
        if value != records.to_json(alone)[name]
    }
    assert changed == {"id", "ledger", "own_flops", "wall_s"}
    made = [each.records[-1] for each in outputs]
    # Of the rungs, 8 is a multiple of those updates that are evaluated anyway.
    dev_flops = 40 * trials.plan(trial.step, trial.workspace)[-1].cost.forward
    assert [each.looked_flops for each in made] == [dev_flops, dev_flops, 2 * dev_flops]
    computed = [each.flops for each in made] + [record.own_flops]
    assert computed == [trial.workspace.flops(step) for step in (*steps, last, final)]
    assert sum(computed) == alone.ledger.total + made[-1].looked_flops


def test_a_rung_says_what_a_trial_would_that_ends_there(trial):
    """The score of the network as it is then, or of the best so far."""
    settings = trial.step.params["finetune"]
    often = trial.with_(finetune={**settings, "evaluate_every": 2}).run().records
    dev = {line.step: line.dev for line in often if isinstance(line, records.DevRecord)}
    steps, outputs = climb(trial, 4, 10)
    made = [each.records[-1] for each in outputs]
    if settings["report"] == "best":
        assert [each.dev for each in made] == [dev[4], max(dev[4], dev[8], dev[10])]
    else:
        assert [each.dev for each in made] == [dev[4], dev[10]]
    stretches = trials.plan(trial.step, trial.workspace)
    for record, until, evaluations in zip(made, (4, 10), (1, 2), strict=True):
        assert (record.steps, record.diverged) == (until, False)
        assert record.learning_rate == trial.step.params["learning_rate"]
        train = trials.spent_by(stretches, until)
        validate = evaluations * 40 * stretches[-1].cost.forward
        assert record.ledger == compute.Ledger(train=train, validate=validate)
    assert len({step.id for step in (*steps, trial.step)}) == 3


def test_one_that_was_stopped_often_is_the_same(trial, tmp_path, monkeypatch):
    whole, (first,) = climb(trial, 13)[1][0], climb(trial, 6)[0]
    step = rung.make(trial.step, 13, first)
    scratch = tmp_path / "scratch"
    # After some updates, and after the last.
    for looks in (1, 2, 3, 1):
        asked = iter([False] * (looks - 1) + [True])
        monkeypatch.setattr(multihost, "stop_requested", functools.partial(next, asked))
        with pytest.raises(interrupts.Stopped):
            dataclasses.replace(trial, step=step).run(scratch)
    monkeypatch.undo()
    again = do(trial, step, scratch)
    assert again.records[-1].dev == whole.records[-1].dev
    arrays = [each.arrays() for each in (whole, again)]
    np.testing.assert_array_equal(*(each["content"] for each in arrays))


def test_one_that_diverged_leaves_nothing(trial):
    bad = trial.with_(learning_rate=1e30)
    (_,), (output,) = climb(bad, 7)
    record = output.records[-1]
    assert (record.diverged, record.dev) == (True, None)
    assert record.steps <= 7
    assert output.arrays() == {}


@pytest.mark.parametrize("damage", ["content", "meta", "gone"])
def test_damaged_trainings_are_named(trial, damage):
    (step,), (output,) = climb(trial, 5)
    path, arrays = trial.workspace.store.arrays(step.id), dict(output.arrays())
    path.unlink()
    if damage != "gone":
        arrays[damage] = arrays[damage] ^ np.uint8(1)
        trial.workspace.store.save_arrays(step.id, arrays)
    with pytest.raises(DamagedModel) as error:
        dataclasses.replace(trial, step=rungs.finish(trial.step, step, [], 0)).run()
    assert error.value.step.id == step.id


def test_trainings_stay_until_it_is_known_which_go_on():
    base = Step("finetune", {"number": 0})
    lost, kept = rung.make(base, 1), rung.make(Step("finetune", {"number": 1}), 1)
    second = rung.make(Step("finetune", {"number": 1}), 2, kept)
    products = {lost.id, kept.id, "another"}
    undecided = closure([lost.kept(), kept.kept()])
    assert rung.over(undecided, {}, products) == []
    decided = closure([lost, kept, second.kept()])
    assert rung.over(decided, {second.id: second}, products) == [lost.id]
    assert set(rung.over(decided, {}, {*products, second.id})) == {lost.id, kept.id}
