"""Runs of `auto`: what they spend, what they leave when they are stopped, and what goes on."""

import collections
import dataclasses
import io
import itertools
import json
import shutil

import numpy as np
import pytest
import rich.console

from ctl_jax import experiment, finetune, records, report
from ctl_jax.cluster import Worker
from ctl_jax.errors import UserError
from ctl_jax.experiment import best, parse_method, plan
from ctl_jax.experiment.auto import answer, candidates, policy
from ctl_jax.experiment.queue import Claim
from ctl_jax.experiment.tasks import TaskInfo, TaskLoader

BUDGET = 2e9


@pytest.fixture(scope="module", autouse=True)
def _looks():
    """Heads cost much beside features of tiny networks; models so far are made at any budget."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "_MOST_FIT", 1.0)
        patch.setattr(answer, "_LONG", 0)
        # They are of one network in all runs.
        find, found = candidates.find, []
        patch.setattr(candidates, "find", lambda plan: found or found.extend(find(plan)) or found)
        # Figures take long, and are tested elsewhere.
        patch.setattr(report, "write", lambda *args: [])
        patch.setattr(report, "summary", lambda *args: "")
        yield


@pytest.fixture(scope="module")
def small(on_digits):
    config = on_digits.copy_and_resolve_references()
    config.methods = ("auto",)
    config.budgets.amounts = (f"{BUDGET:g}",)
    config.finetune.log_every = 50
    config.keep_models = "best"
    return config


def changed(config, **keys):
    config = config.copy_and_resolve_references()
    if amount := keys.pop("budget", None):
        config.budgets.amounts = (f"{amount:g}",)
    return config.update(keys) or config


def run(config, workdir, **options):
    console = rich.console.Console(file=io.StringIO(), width=140)
    experiment.run(config, workdir, console, **options)


@pytest.fixture(scope="module")
def done(small, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("auto") / "run"
    run(small, workdir)
    return workdir


def read(workdir):
    found = collections.defaultdict(list)
    for line in (workdir / "records.jsonl").read_text().splitlines():
        record = records.from_json(json.loads(line))
        found[record.type].append(record)
    return found


def steps(workdir):
    """What each step came to, but for the time it took."""
    found = {}
    for path in (workdir / "steps").iterdir():
        # Without the seal, which is of the time, too.
        lines = map(json.loads, path.read_text().splitlines()[:-1])
        found[path.stem] = [
            {k: v for k, v in line.items() if not k.endswith("_s")} for line in lines
        ]
    return found


def kept(workdir):
    return {path.name for path in (workdir / "models").glob("[0-9a-f]*")}


def charged(trial):
    ledger = trial.ledger
    return ledger.train + ledger.extract + ledger.prune + ledger.search


def test_one_trial_that_spends_no_more_than_the_budget(done):
    lines = read(done)
    (trial,) = lines["trial"]
    assert trial.method == "auto"
    assert trial.spent_flops == charged(trial) <= trial.budget_flops == BUDGET
    first, *others = lines["look"]
    assert not first.looks
    assert others
    last = max(others, key=lambda look: len(look.looks))
    assert last.answers
    assert last.next_method is None
    # What was looked at on the way is charged, and computed from that many images.
    assert trial.ledger.search >= sum(look.fit_flops for look in last.looks) > 0
    assert last.spent_flops <= charged(trial)
    method = parse_method(trial.notes["chosen"])
    assert method.tuning.name == "probe"
    assert trial.image_size == (method.image_size or 16)
    (head,) = [each for each in lines["head"] if each.id == trial.notes["heads"][method.name]]
    assert (head.dev, head.dev_test) == (trial.dev, trial.dev_test)
    assert not lines["pending"]


def test_models_so_far_go_in_the_end(done):
    (trial,) = read(done)["trial"]
    assert kept(done) == {trial.id}
    assert best.best_models(done) == {"digits": done / "models" / trial.id}
    trials = [lines[-1] for lines in steps(done).values() if lines[-1]["type"] == "trial"]
    assert len(trials) > 1


@pytest.fixture
def interrupted(monkeypatch):
    """Runs, and is stopped as soon as some more steps are done; whether it was."""
    commit = Claim.commit

    def interrupted(count, *args, **options):
        left = itertools.count(count, -1)

        def stopping(claim, *lines, **how):
            found = commit(claim, *lines, **how)
            if next(left) <= 1:
                raise KeyboardInterrupt
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Claim, "commit", stopping)
            try:
                run(*args, **options)
            except KeyboardInterrupt:
                return True
        return False

    return interrupted


def test_stopped_and_resumed_it_comes_to_the_same(done, small, tmp_path, interrupted):
    """By one worker after the other; what there is so far is a model as soon as there is one."""
    workers, scores = itertools.cycle([Worker(0, 2), Worker(1, 2)]), []
    while interrupted(4, small, tmp_path, worker=next(workers)):
        lines = read(tmp_path)
        if lines["trial"]:
            (trial,) = lines["trial"]
            scores.append(trial.id)
            assert trial.spent_flops <= trial.budget_flops
            assert best.best_models(tmp_path)["digits"].name == trial.id
        else:
            assert not scores
            with pytest.raises(UserError, match="not done"):
                best.best_models(tmp_path)
    assert len(set(scores)) >= 1
    assert steps(tmp_path) == steps(done)
    assert kept(tmp_path) == kept(done)


def test_the_same_command_again_computes_nothing(done, small, monkeypatch):
    def never(*args, **options):
        raise AssertionError

    before = steps(done)
    monkeypatch.setattr(Claim, "commit", never)
    run(small, done)
    assert steps(done) == before


@pytest.mark.parametrize("mode", ["none", "all"])
def test_other_models_that_are_kept(done, small, tmp_path, mode):
    shutil.copytree(done, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "models")
    run(changed(small, keep_models=mode), tmp_path / "run")
    (trial,) = read(tmp_path / "run")["trial"]
    assert trial == read(done)["trial"][0]
    if mode == "all":
        assert kept(tmp_path / "run") == {trial.id}
    else:
        assert not (tmp_path / "run" / "models").exists() or not kept(tmp_path / "run")


def test_a_raised_budget_goes_on_from_the_features_that_are_there(done, small, tmp_path):
    shutil.copytree(done, tmp_path / "run")
    run(changed(small, budget=1.05 * BUDGET, keep_models="none"), tmp_path / "run")
    before, after = read(done), read(tmp_path / "run")
    (trial,) = after["trial"]
    assert charged(trial) <= trial.budget_flops == int(1.05 * BUDGET)
    shards = [{each.id: each for each in lines["extract"]} for lines in (before, after)]
    shared = shards[0].keys() & shards[1].keys()
    assert sum(each.split == "train" for each in map(shards[0].get, shared)) >= 1
    # Nothing is done again: those that were there are what they were, with the time they took.
    assert all(shards[0][id] == shards[1][id] for id in shared)


@pytest.fixture
def trains(small, monkeypatch):
    """A config whose budget pays for some training, which is enough here."""
    monkeypatch.setattr(policy, "EPOCHS", 0.05)
    monkeypatch.setattr(policy, "_MOST_FIT", 0.0)
    return changed(small, budget=3e9)


def judged(monkeypatch, verdict):
    monkeypatch.setattr(policy, "is_better", lambda *args: verdict)


def test_the_whole_network_is_trained_and_the_better_one_taken(
    trains, tmp_path, monkeypatch, interrupted
):
    judged(monkeypatch, False)
    fit = finetune.fit

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            run(trains, tmp_path)
    # Training takes long: the fitted head is there meanwhile.
    lines = read(tmp_path)
    (so_far,), (pending,) = lines["trial"], lines["pending"]
    assert (so_far.steps, so_far.method, pending.method) == (0, "auto", "auto")
    assert best.best_models(tmp_path)["digits"].name == so_far.id
    assert finetune.fit is fit
    run(trains, tmp_path)
    (fitted,) = read(tmp_path)["trial"]
    assert fitted.steps == 0
    assert kept(tmp_path) == {fitted.id}
    assert (fitted.dev, fitted.notes["chosen"]) == (so_far.dev, so_far.notes["chosen"])
    (trained,) = (
        lines[-1]
        for lines in steps(tmp_path).values()
        if lines[-1]["type"] == "trial" and lines[-1]["steps"]
    )
    # What lost is charged,
    assert fitted.ledger.search >= trained["ledger"]["train"] > 0
    assert so_far.spent_flops < fitted.spent_flops == charged(fitted) <= fitted.budget_flops
    # and so it is where the other one lost, in the same folder.
    judged(monkeypatch, True)
    run(trains, tmp_path)
    (last,) = read(tmp_path)["trial"]
    assert last.id == trained["id"]
    assert last.method == "auto"
    assert last.notes["chosen"] == "dense"
    assert last.spent_flops == charged(last) == fitted.spent_flops
    # All that an update more would have cost is not left.
    assert last.spent_flops + last.flops_per_step > last.budget_flops
    assert last.id in kept(tmp_path)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (1e4, r"expected enough for 2 images, which cost [0-9,]+ FLOPs for 'dense\S*' on task"),
        (
            1e30,
            r"expected at most 2,147,483,647 steps, each of which costs [0-9,]+ FLOPs for 'auto'",
        ),
    ],
)
def test_a_budget_that_pays_for_nothing_or_too_much(small, tmp_path, budget, message):
    with pytest.raises(UserError, match=rf"^config.budgets.amounts='\S+ flops': {message}"):
        run(changed(small, budget=budget), tmp_path, plan_only=True)


def test_several_labels_an_image(small, tmp_path, thirds, monkeypatch):
    task = thirds("multi_label")
    examples = {name: len(split) for name, split in task.splits.items()}
    info = TaskInfo(task.spec, task.num_classes, examples, task.fingerprint)

    def load(loader, spec, *, image_size=16, whole=False):
        index = np.arange(image_size) * 16 // image_size
        splits = {
            name: dataclasses.replace(split, images=split.images[:, index][:, :, index])
            for name, split in task.splits.items()
        }
        return dataclasses.replace(task, splits=splits)

    monkeypatch.setattr(plan, "find_tasks", lambda settings, loader: ((task.spec,), ()))
    monkeypatch.setattr(TaskLoader, "info", lambda loader, spec, whole=False: info)
    monkeypatch.setattr(TaskLoader, "native_side", lambda loader, spec: 16)
    monkeypatch.setattr(TaskLoader, "load", load)
    # All images, each half of them alone for the look.
    monkeypatch.setattr(policy, "SHARE", 0.9)
    monkeypatch.setattr(policy, "_LEAST", 1)
    monkeypatch.setattr(policy, "EPOCHS", 1000)
    run(changed(small, budget=1e8, keep_models="none"), tmp_path)
    lines = read(tmp_path)
    (trial,) = lines["trial"]
    assert trial.metric == "mAP"
    assert charged(trial) <= trial.budget_flops
    assert trial.dev > 0.6
    assert any(look.looks for look in lines["look"])
