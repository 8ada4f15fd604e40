"""Watched runs: what is seen of them, that each thing is seen once, and that nothing is lost."""

import contextlib
import dataclasses
import json

import pytest

from ctl_jax import experiment, interrupts, records
from ctl_jax.cluster import Worker
from ctl_jax.errors import UserError
from ctl_jax.experiment import rungs, watchers, watching
from ctl_jax.experiment.checkpointing import Lost
from ctl_jax.experiment.kinds import evaluate, rung
from ctl_jax.experiment.steps import Step
from ctl_jax.finetune import multihost

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def small(config):
    """Two trials on digits, one of which is evaluated on test in the end; with looks at dev."""
    config.stream.variant = "digits"
    config.methods = ("dense", "filters@0.5")
    config.budgets.num = 1
    config.budgets.max_flops = config.budgets.min_flops
    config.finetune.learning_rates = (0.05,)
    config.finetune.log_every, config.finetune.evaluate_every = 2, 4
    config.keep_models = "best"
    config.checkpoint.every_s = 0.0
    config.watch = ("notes",)
    return config


@dataclasses.dataclass
class Notes:
    """What a watcher saw: (step, what), and how it left each step."""

    seen: list = dataclasses.field(default_factory=list)
    left: list = dataclasses.field(default_factory=list)
    run: watchers.Run | None = None

    def watch(self, run):
        self.run = run

        @contextlib.contextmanager
        def follow(step):
            try:
                yield lambda seen: self.seen.append((step, seen))
                self.left.append((step.id, None))
            except BaseException as error:
                self.left.append((step.id, type(error)))
                raise

        return lambda step: None if step.kind == "prune" else follow(step)

    @property
    def finished(self):
        return [(step, seen) for step, seen in self.seen if seen.finished]

    def on_the_way(self, kind=records.TrainRecord):
        return [seen.record for _, seen in self.seen if isinstance(seen.record, kind)]


@pytest.fixture
def notes(monkeypatch):
    found = Notes()
    monkeypatch.setitem(watchers._WATCHERS, "notes", found.watch)
    return found


def _records(workdir):
    lines = (workdir / "records.jsonl").read_text().splitlines()
    return [records.from_json(json.loads(line)) for line in lines]


def _of(kind, lines):
    return [line for line in lines if isinstance(line, kind)]


def _plain(lines):
    """Without the time that it took."""
    return {json.dumps({**records.to_json(line), "wall_s": 0}, sort_keys=True) for line in lines}


def test_all_is_seen_once_and_no_number_changes(small, notes, console, tmp_path):
    experiment.run(small, tmp_path / "watched", console)
    lines = _records(tmp_path / "watched")
    (run,) = _of(records.RunRecord, lines)
    assert (notes.run.name, notes.run.record.device) == ("watched", run.device)
    assert notes.run.record.config["watch"] == ("notes",)
    for kind in (records.TrainRecord, records.DevRecord):
        there = _of(kind, lines)
        assert len(there) == len(notes.on_the_way(kind)) > 2
        assert _plain(there) == _plain(notes.on_the_way(kind))
    done = {path.stem for path in (tmp_path / "watched" / "steps").iterdir()}
    cuts = {line.id for line in _of(records.PruneRecord, lines)}
    ids = [step.id for step, _ in notes.finished]
    assert sorted(ids) == sorted(done - cuts)
    assert notes.left == [(id, None) for id in ids]
    trials = {line.id: line for line in _of(records.TrialRecord, lines)}
    kinds = {step.id: step.kind for step, _ in notes.finished}
    assert {id for id, kind in kinds.items() if kind == "finetune"} == set(trials)
    for step, seen in notes.finished:
        if (trial := trials.get(step.id)) is not None:
            assert (step.training, seen.at) == (trial.id, trial.steps)
            wanted = ("dev", "dev_test", "spent_flops", "wall_s")
            values = {name: getattr(trial, name) for name in wanted}
            assert {name: seen.values[f"result/{name}"] for name in wanted} == values
            told = ("task", "method", "budget", "learning_rate", "batch_size", "seed")
            assert {n: step.settings[n] for n in told} == {n: getattr(trial, n) for n in told}
            assert not {f"result/{name}" for name in step.settings} & set(seen.values)
    # What evaluates a trial's network says of which training that is.
    (tested,) = _of(records.EvaluateRecord, lines)
    ((step, seen),) = [found for found in notes.finished if found[0].kind == "evaluate"]
    assert (step.id, step.training, seen.at) == (tested.id, tested.trial, None)
    assert step.name in {each.name for each, _ in notes.finished if each.id == tested.trial}
    assert seen.values["test/score"] == tested.score
    # Nothing is said twice when nothing is left to do; and without a watcher all is the same.
    before = len(notes.seen)
    experiment.run(small, tmp_path / "watched", console)
    small.watch = ()
    experiment.run(small, tmp_path / "alone", console)
    assert len(notes.seen) == before
    results = [(tmp_path / name / "results.csv").read_text() for name in ("watched", "alone")]
    assert results[0] == results[1]


def test_interrupted_and_gone_on_with_nothing_is_seen_twice(
    small, notes, console, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(multihost, "stop_requested", lambda: len(notes.seen) >= 4)
        with pytest.raises(interrupts.Stopped):
            experiment.run(small, tmp_path, console)
    assert [error for _, error in notes.left] == [None]
    assert len(notes.seen) == 4
    # Another worker goes on with it.
    experiment.run(small, tmp_path, console, worker=Worker(1, 2))
    lines = _records(tmp_path)
    for kind in (records.TrainRecord, records.DevRecord):
        points = [(record.trial, record.step) for record in notes.on_the_way(kind)]
        assert points == list(dict.fromkeys(points))
        assert set(points) == {(record.trial, record.step) for record in _of(kind, lines)}
    ids = [step.id for step, _ in notes.finished]
    assert len(ids) == len(set(ids)) == len(list((tmp_path / "steps").iterdir())) - 1


def test_what_ends_a_step_is_told_to_those_that_follow_it(notes):
    follow = watching.Watching({"notes": notes.watch}, watchers.Run(None, None), pytest.fail)
    record = records.TrainRecord(
        trial="t", step=1, flops_per_step=1, flops=1, loss=1, learning_rate=1, wall_s=1
    )
    for error in (MemoryError, Lost, KeyboardInterrupt):
        with contextlib.suppress(error), follow.following(_trial()):
            follow.see(record)
            raise error
    assert [error for _, error in notes.left] == [MemoryError, None, None]


@pytest.mark.parametrize("where", ["follow", "enter", "see", "exit", "sys.exit"])
def test_one_that_fails_is_left_out_and_nothing_is_lost(
    small, notes, console, tmp_path, monkeypatch, where
):
    calls = []

    def fail(place):
        if place == where.replace("sys.", ""):
            calls.append(place)
            raise SystemExit(3) if where == "sys.exit" else RuntimeError("no\nnetwork")

    @contextlib.contextmanager
    def follow(step):
        fail("enter")
        yield lambda seen: fail("see")
        fail("exit")

    def begin(step):
        fail("follow")
        return follow(step)

    monkeypatch.setitem(watchers._WATCHERS, "broken", lambda run: begin)
    small.watch = ("broken", "notes")
    experiment.run(small, tmp_path, console)
    assert len(calls) == 1
    said = [line for line in console.file.getvalue().splitlines() if "watcher" in line]
    error = "SystemExit: 3" if where == "sys.exit" else "RuntimeError: no network"
    assert len(said) == 1
    assert f"ctl_jax: watcher 'broken' failed with {error} ({__file__}:" in said[0]
    assert "the run goes on without it" in said[0]
    assert len(_of(records.TrialRecord, _records(tmp_path))) == 2
    assert len(notes.finished) == len(list((tmp_path / "steps").iterdir())) - 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("no"), r"config\.watch='broken': no$"),
        (KeyError("x"), r"config\.watch='broken': it failed with KeyError: 'x' \(.*\.py:\d+\)$"),
    ],
)
def test_one_that_cannot_begin_stops_the_run_before_any_work(
    small, console, tmp_path, monkeypatch, error, message
):
    def begin(run):
        raise error

    monkeypatch.setitem(watchers._WATCHERS, "broken", begin)
    small.watch = ("broken",)
    experiment.run(small, tmp_path / "run", console, plan_only=True)
    with pytest.raises(UserError, match=message):
        experiment.run(small, tmp_path / "run", console)
    assert not (tmp_path / "run").exists()


def _trial(**changes):
    params = {
        "task": {"name": "digits", "num_classes": 10},
        "method": "filters@0.5",
        "budget": "4000000000 flops",
        "budget_flops": 4 * 10**9,
        "learning_rate": 0.05,
        "seed": 3,
        "phases": [],
        "finetune": {"batch_size": 16, "momentum": 0.9},
        **changes,
    }
    return Step("finetune", params)


def test_parts_of_a_training_have_its_name():
    trial = _trial()
    first = rung.make(trial, 10)
    last = rungs.finish(trial, rung.make(trial, 20, first), [], 7)
    steps = [trial, first, last, evaluate.make(last)]
    found = list(map(watching.describe, steps))
    assert [each.id for each in found] == [step.id for step in steps]
    assert {each.training for each in found} == {trial.id}
    assert {each.name for each in found} == {
        f"digits/filters@0.5/4GFLOP/lr=0.05,batch=16,seed=3-{trial.id[:6]}"
    }
    assert found[0].settings == found[1].settings == found[3].settings


def test_a_name_says_what_there_is_to_say():
    alone = watching.describe(_trial(learning_rate=None, method="probe", budget="2 epochs"))
    assert alone.name == f"digits/probe/2epochs/seed=3-{alone.id[:6]}"
    settings = {"steps": 9, "learning_rate": 0.1, "batch_size": 64, "seed": 0}
    task = {"name": "a/b", "num_classes": 2}
    pretraining = watching.describe(Step("pretrain", {"pretrain": settings, "task": task}))
    assert pretraining.name == f"pretrain/a_b/lr=0.1,batch=64,seed=0-{pretraining.id[:6]}"
    cut = watching.describe(Step("prune", {"scope": "filters", "ratio": 0.5}))
    assert (cut.name, cut.training) == (f"prune/{cut.id[:6]}", cut.id)
    assert cut.settings == {"scope": "filters", "ratio": 0.5}


def test_numbers_that_are_not_finite_are_left_out():
    record = records.TrainRecord(
        trial="t", step=4, flops_per_step=2, flops=8, loss=float("nan"), learning_rate=1, wall_s=0.5
    )
    seen = watching.seen_of(record, {})
    assert (seen.at, seen.finished) == (4, False)
    assert seen.values == {"train/learning_rate": 1, "train/flops": 8, "train/wall_s": 0.5}
