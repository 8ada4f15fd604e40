"""Trials that start from a head that is fitted on features: what they share, cost and reach."""

import dataclasses
import io
import json
import shutil

import pytest
import rich.console

from ctl_jax import data, experiment, finetune, models, records
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.tasks import TaskLoader

pytestmark = pytest.mark.usefixtures("without_figures")

METHODS = (
    "probe",
    "probe@logistic@last",
    "filters@0.5:bn@1stages+probe",
    "dense+lp_ft",
    "dense+lp_ft@ensemble",
    "dense+adapt",
    "dense@24px+probe",
)


@pytest.fixture(scope="module")
def small(on_digits):
    """A task, five methods and two budgets: the second pays for two passes."""
    config = on_digits.copy_and_resolve_references()
    config.methods = METHODS
    config.budgets.amounts = ("5e7", "8e8")
    config.finetune.learning_rates = (0.0002, 0.002)
    config.keep_models = "all"
    return config


@pytest.fixture(scope="module")
def quiet():
    return rich.console.Console(file=io.StringIO(), width=140)


@pytest.fixture(scope="module")
def done(small, tmp_path_factory, quiet):
    workdir = tmp_path_factory.mktemp("probes") / "run"
    experiment.run(small, workdir, quiet)
    return workdir


@pytest.fixture(scope="module")
def lines(done):
    text = (done / "records.jsonl").read_text()
    found = [records.from_json(json.loads(line)) for line in text.splitlines()]
    return {kind: [line for line in found if line.type == kind] for kind in records.TYPES}


def of(lines, method):
    return [trial for trial in lines["trial"] if trial.method == method]


def trains(method):
    """Whether more than a head is trained."""
    return "lp_ft" in method or "adapt" in method


def test_every_method_is_tried_as_often_as_it_has_rates(lines):
    counts = {method: len(of(lines, method)) for method in METHODS}
    assert counts == {method: 4 if trains(method) else 2 for method in METHODS}


def test_what_is_spent_is_within_the_budget_and_in_the_ledger(lines):
    for trial in lines["trial"]:
        ledger = trial.ledger
        assert 0 < trial.spent_flops <= trial.budget_flops
        assert trial.spent_flops == ledger.train + ledger.extract + ledger.prune
        assert (ledger.prune > 0) == ("filters" in trial.method)
        assert min(ledger.extract, ledger.train, ledger.validate) > 0
        # What is trained before the last head is no update of the trial's.
        assert (trial.steps > 0) == ("lp_ft" in trial.method)
        assert (trial.learning_rate is None) == (not trains(trial.method))
    # A larger budget pays for more images, until there are no more.
    for method in METHODS:
        few, many = of(lines, method)[0], of(lines, method)[-1]
        assert few.examples < many.examples <= 1000
    assert of(lines, "probe")[-1].examples == 1000


def test_features_are_computed_once_and_charged_to_each(lines):
    shards = {(each.split, each.start, each.stop, each.image_size) for each in lines["extract"]}
    assert {shard[0] for shard in shards} == {"train", "dev", "dev_test"}
    # Those that several trials have are not of several steps.
    assert len(shards) < len(lines["extract"]) < len(shards) * len(METHODS)
    # Trials of one head, at two rates, have one step of it.
    assert len(lines["head"]) == 10 + 2 + len(lines["adapt"]) == 10 + 2 + 4


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_as_good_as_its_record_says(done, small, lines, method):
    """Scores come from features on disk; the model's, from images."""
    config = validate(small)
    loader = TaskLoader(config.data)
    for trial in of(lines, method):
        model = models.load(done / "models" / trial.id)
        split = loader.load(data.stream("digits")[0], image_size=model.image_size).splits["dev"]
        logits = model.logits(split.images)
        found = finetune.score(logits, split.labels, num_classes=10)
        # Features on disk are float16: an image between two classes may fall on another side.
        assert found.value == pytest.approx(trial.dev, abs=1 / 40 + 1e-9)


def test_a_trial_goes_on_from_exactly_the_head(done, small, quiet, monkeypatch, tmp_path):
    """Before its first update the network scores what the head did on features."""
    small = small.copy_and_resolve_references()
    small.methods, small.keep_models = ("dense+lp_ft",), "none"
    shutil.copytree(done, tmp_path / "run")
    for path in (tmp_path / "run" / "steps").iterdir():
        if '"type": "trial"' in path.read_text():
            path.unlink()
    begun, fit = [], finetune.fit

    def seen(legs, variables, *args, **options):
        begun.append(variables)
        return fit(legs, variables, *args, **options)

    monkeypatch.setattr(finetune, "fit", seen)
    experiment.run(small, tmp_path / "run", quiet)
    assert len(begun) == 4
    config = validate(small)
    loader = TaskLoader(config.data)
    split = loader.load(data.stream("digits")[0]).splits["dev"]
    module = models.create("resnet18", 1, stages=(1, 1), width=8)
    scores = [
        finetune.evaluate(module, "imagenet", each, split.images, split.labels, num_classes=10)
        for each in begun
    ]
    lines = map(json.loads, (tmp_path / "run" / "records.jsonl").read_text().splitlines())
    heads = {line["examples"]: line["dev"] for line in lines if line["type"] == "head"}
    assert {score.value for score in scores} == set(heads.values())


def test_the_same_command_again_computes_nothing(done, small, quiet, monkeypatch):
    def never(*args, **options):
        raise AssertionError

    before = {path.name: path.read_bytes() for path in (done / "steps").iterdir()}
    monkeypatch.setattr(finetune, "extract", never)
    experiment.run(small, done, quiet)
    assert before == {path.name: path.read_bytes() for path in (done / "steps").iterdir()}


def test_damaged_arrays_are_made_again_where_they_are_needed(done, small, quiet, lines):
    trial = of(lines, "probe")[0]
    step = done / "steps" / f"{trial.id}.jsonl"
    content = step.read_bytes()
    for path in (done / "arrays").iterdir():
        path.write_bytes(path.read_bytes()[:-4])
    step.unlink()
    experiment.run(small, done, quiet)
    again = records.from_json(json.loads(step.read_text().splitlines()[0]))
    first = records.from_json(json.loads(content.splitlines()[0]))
    assert dataclasses.replace(again, wall_s=0) == dataclasses.replace(first, wall_s=0)
    assert any("damaged" in path.name for path in (done / "arrays").iterdir())
