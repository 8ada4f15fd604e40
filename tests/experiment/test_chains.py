"""Trials that start from what other trials have learnt."""

import collections
import functools
import itertools
import json

import chex
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ctl_jax import data, experiment, models
from ctl_jax.errors import UserError
from ctl_jax.experiment import strategies
from ctl_jax.experiment.steps import KINDS, closure

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def previous():
    """A strategy: each task starts from what the one before has learnt."""

    @strategies.strategy("previous")
    def previous(plan):
        def wanted(finished):
            steps = []
            axes = lambda p: (p.method.name, p.budget, p.seed, p.learning_rate)  # noqa: E731
            for _, points in itertools.groupby(sorted(plan.points(), key=axes), key=axes):
                last = None
                for point in points:
                    last = plan.trial(point, weights=last, finished=finished)
                    steps.append(last)
            return steps

        return wanted

    yield
    del strategies._MAKERS["previous"]


def test_a_task_starts_from_what_the_one_before_has_learnt(
    previous, config, console, tmp_path, monkeypatch
):
    config.strategy = "previous"
    config.methods = ("filters@0.5",)
    config.budgets.num, config.budgets.min_flops = 1, config.budgets.max_flops
    config.finetune.learning_rates = (0.1,)
    starts, kind = [], KINDS["finetune"]

    def run(step, workspace, job):
        starts.append(workspace.variables(step.inputs["weights"]))
        return kind.run(step, workspace, job)

    monkeypatch.setitem(KINDS, "finetune", type(kind)(**{**vars(kind), "run": run}))
    experiment.run(config, tmp_path, console)
    lines = map(json.loads, (tmp_path / "records.jsonl").read_text().splitlines())
    trials = [line for line in lines if line["type"] == "trial"]
    assert [trial["task"] for trial in trials] == ["digits", "shapes"]
    # Both are trials of one pruned network.
    assert {(t["scope"], t["ratio"], t["flops_per_step"]) for t in trials} == {
        ("filters", 0.5, trials[0]["flops_per_step"])
    }
    # The first one's model was kept since the second needed it, and is what it started from.
    (kept,) = (tmp_path / "models").iterdir()
    assert kept.name == trials[0]["id"]
    chex.assert_trees_all_equal(starts[1], models.load(kept).variables)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(starts[1]["params"]["stem_bn"], starts[0]["params"]["stem_bn"])


@pytest.fixture
def stream(config):
    """Three tasks of two domains, one budget, two learning rates."""
    config.stream.variant = "digits+shapes+textures"
    config.budgets.num, config.budgets.min_flops = 1, config.budgets.max_flops
    return config


def read(workdir):
    """Records of a run by type, without what the clock decides."""
    found = collections.defaultdict(list)
    for line in map(json.loads, (workdir / "records.jsonl").read_text().splitlines()):
        found[line["type"]].append({k: v for k, v in line.items() if k != "wall_s"})
    return found


def chosen(trials):
    """The best trial of each task of each method on dev, of equal ones that of the smaller rate."""
    best = {}
    for trial in sorted(trials, key=lambda trial: (-trial["dev"], trial["learning_rate"])):
        best.setdefault((trial["method"], trial["task"]), trial)
    return best


def features(variables, split):
    module = models.create("resnet18", num_outputs=1, stages=(1, 1), width=8)
    images = models.Preprocess.parse("imagenet")(split.images)
    return np.asarray(models.representation(module, variables, images, head="last"))


def test_a_stream_by_three_learners(stream, console, tmp_path):
    """Which task each starts from, and by what, is what scikit-learn says of the kept models."""
    stream.methods = ("previous", "dynamic:filters@0.5", "dynamic@domain:scratch")
    stream.data.max_eval_examples, stream.keep_predictions = 100, True
    experiment.run(stream, tmp_path, console)
    found = read(tmp_path)
    best = chosen(found["trial"])
    names = [task["name"] for task in found["run"][0]["tasks"]]
    assert names == ["digits", "shapes", "textures"]
    for trial in found["trial"]:
        number, of_method = names.index(trial["task"]), trial["method"]
        before = names[:number]
        if of_method == "previous":
            assert trial["start_task"] == (before[-1] if before else None)
            assert (trial["candidates"], trial["choice_flops"]) == ({}, 0)
        elif of_method == "dynamic@domain:scratch":
            # Each is of a domain of its own.
            assert (trial["start_task"], trial["candidates"]) == (None, {})
        else:
            assert list(trial["candidates"]) == (["", *before] if before else [])
            if before:
                first = max(trial["candidates"], key=trial["candidates"].get)
                assert trial["start_task"] == (first or None)
    # The best of each search, and nothing else, stay for tasks to come.
    kept = {path.name for path in (tmp_path / "models").iterdir() if path.name[0] != "."}
    assert kept == {trial["id"] for trial in best.values()}
    compared = found["neighbours"]
    assert len(compared) == 2 + 3
    for record in compared:
        task = data.load(
            next(s for s in data.stream("digits+shapes+textures") if s.name == record["task"]),
            image_size=16,
        )
        assert (record["examples"], record["dev_examples"]) == (len(task.splits["train"]), 100)
        if record["source"] is None:
            continue
        model = best["dynamic:filters@0.5", record["source"]]["id"]
        variables = models.load(tmp_path / "models" / model).variables
        other = KNeighborsClassifier()
        other.fit(features(variables, task.splits["train"]), task.splits["train"].labels)
        dev = task.splits["dev"]
        index = np.sort(np.random.default_rng(0).permutation(len(dev.labels))[:100])
        score = other.score(features(variables, dev)[index], dev.labels[index])
        assert record["dev"] == pytest.approx(score, abs=1e-9)
        trial = best["dynamic:filters@0.5", record["task"]]
        assert trial["candidates"][record["source"]] == record["dev"]
        costs = [each["flops"] for each in compared if each["task"] == record["task"]]
        assert trial["choice_flops"] == sum(costs)
        width, forward = record["features"], trial["forward_flops"] - 2 * 16 * 10
        images = record["examples"] + 100
        assert width == 16
        assert record["flops"] == images * forward + 2 * record["examples"] * 100 * width
    # What the best network of each task says, beside the labels.
    assert {each["trial"] for each in found["predict"]} == kept
    for name in names:
        first = min((best[m, name] for m in stream.methods), key=lambda t: -t["dev"])
        (event,) = [each for each in found["predict"] if each["trial"] == first["id"]]
        with np.load(tmp_path / "predictions" / f"{name}.npz") as saved:
            right = saved["outputs"].argmax(axis=1) == saved["targets"]
            assert len(saved["classes"]) == event["classes"] == saved["outputs"].shape[1]
        assert right.mean() == event["top1"] == first["dev_test"]
        assert event["top5"] == first["dev_test_top5"]
        assert (event["params"], event["params_bytes"]) == (first["params"], 4 * first["params"])


def test_killed_along_the_stream(stream, console, tmp_path, monkeypatch):
    """Whatever step a run is stopped before, it ends like one that was left alone."""
    stream.methods, stream.stream.variant = ("dynamic:filters@0.5",), "digits+shapes"
    stream.learner.cut, stream.learner.restore = "every", True
    experiment.run(stream, tmp_path / "alone", console)
    done = 0

    def stopped(kind, step, workspace, job):
        nonlocal done
        done += 1
        if done % 4 == 0:
            raise KeyboardInterrupt
        return kind.run(step, workspace, job)

    for name, kind in list(KINDS.items()):
        run = functools.partial(stopped, kind)
        monkeypatch.setitem(KINDS, name, type(kind)(**{**vars(kind), "run": run}))
    times = 0
    while True:
        try:
            experiment.run(stream, tmp_path / "killed", console)
            break
        except KeyboardInterrupt:
            times += 1
    assert times == 2
    alone, killed = (read(tmp_path / name) for name in ("alone", "killed"))
    for kind in ("trial", "neighbours", "regrow", "prune"):
        assert killed[kind] == alone[kind] != []
    for name in ("results.csv", "means.csv"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    models_of = [{p.name for p in (tmp_path / n / "models").iterdir()} for n in ("alone", "killed")]
    assert models_of[0] == models_of[1]


@pytest.mark.parametrize("restore", [False, True])
def test_learners_that_cut_before_every_task(stream, console, tmp_path, restore):
    stream.methods, stream.finetune.learning_rates = ("previous:filters@0.5",), (0.02,)
    stream.stream.variant = "digits+shapes"
    stream.learner.cut, stream.learner.restore = "every", restore
    experiment.run(stream, tmp_path, console)
    found = read(tmp_path)
    first, second = found["trial"]
    assert second["start_task"] == "digits"
    # Of what is left, or of what it was.
    assert (second["params"] == first["params"]) == restore
    assert second["params"] <= first["params"]
    assert len(found["prune"]) == 2
    assert len(found["regrow"]) == restore
    # Each model says which channels of the whole network it has.
    for trial in found["trial"]:
        model = models.load(tmp_path / "models" / trial["id"])
        assert models.count_params(model.variables) == trial["params"]


def test_what_a_task_leaves_that_trains_nothing_is_what_it_started_from(
    stream, console, tmp_path, monkeypatch
):
    stream.methods = ("previous:probe", "probe", "previous:auto", "auto")
    stream.stream.variant = "digits+shapes"
    experiment.run(stream, tmp_path, console)
    found = collections.defaultdict(list)
    for trial in read(tmp_path)["trial"]:
        assert trial["start_task"] is None
        found[trial["method"]].append((trial["task"], trial["dev"], trial["ledger"]))
    assert found["previous:probe"] == found["probe"]
    assert found["previous:auto"] == found["auto"]


def test_trials_to_come_are_pending(stream, make_plan):
    stream.methods = ("dense", "previous:filters@0.5", "dynamic")
    plan = make_plan(stream)

    class Nothing:
        def __contains__(self, step):
            return False

    wanted = closure(plan.strategy(Nothing()))
    trials = [step for step in wanted.values() if step.kind == "finetune"]
    # Of a learner the first task alone is known.
    assert len(trials) == (3 + 1 + 1) * 2
    to_come = list(experiment.chains.undecided(plan, Nothing()))
    assert len({record.id for record in to_come}) == len(to_come) == 2 * 2 * 2
    assert {record.task for record in to_come} == {"shapes", "textures"}
    assert {record.method for record in to_come} == {"previous:filters@0.5", "dynamic"}


def test_one_network_alone_is_left(stream, make_plan):
    stream.methods = ("previous:dense+lp_ft@ensemble",)
    with pytest.raises(UserError, match=r"lp_ft@ensemble' leaves two networks; expected one that"):
        make_plan(stream).strategy(set())
