"""Looks of `auto`: scores of heads on some features, what they cost, and who is charged."""

import dataclasses
import types

import chex
import numpy as np
import pytest
import scipy.stats

from ctl_jax import heads
from ctl_jax.compute import Ledger
from ctl_jax.data.task import TaskSpec
from ctl_jax.experiment.auto import expectation, policy
from ctl_jax.experiment.auto.candidates import Candidate
from ctl_jax.experiment.auto.expectation import Recipe
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import look
from ctl_jax.experiment.kinds.extract import FEATURES, LABELS
from ctl_jax.experiment.steps import Step

from ..samples import HEAD

SPEC = TaskSpec("pets", "Pets", "pets", "tfds", "object", "single_label", 2015)
CLASSES, WIDTH = 3, 12
STAGES = Candidate("dense@1stages", Recipe(1.0, 0.5), 500, 5)
WHOLE = Candidate("dense", Recipe(1.0, 1.0), 1000, WIDTH, inside={STAGES.method: (4, 9)})
CUT = Candidate("filters@0.5:lsq", Recipe(1.0, 1.0, 0.5), 400, WIDTH, fixed_flops=70)


def test_the_entropy_of_labels():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    assert look.label_entropy(labels, 3) == pytest.approx(scipy.stats.entropy([5, 3, 2]), abs=0.01)
    # With one more image of all classes; also of a class that no image is of.
    expected = scipy.stats.entropy([50.25, 30.25, 20.25, 0.25])
    assert look.label_entropy(labels, 4) == pytest.approx(expected)
    assert look.label_entropy(np.zeros(10, np.int32), 2) > 0


def test_the_entropy_of_several_labels_is_the_mean_of_theirs():
    labels = np.zeros((99, 3), np.uint8)
    labels[:49, 0] = labels[:9, 1] = 1
    counts = np.array([49.5, 9.5, 0.5])
    expected = scipy.stats.entropy([counts, 100 - counts]).mean()
    assert look.label_entropy(labels, 3) == pytest.approx(expected)


def a_look(method="", images=0, before=None, *, multi_label=False, **changes):
    """The step, of a task of 200 images in two shards."""
    shards = [Step("extract", {"start": start}) for start in (0, 120)]
    inputs = {f"train/{n}": shard for n, shard in enumerate(shards)} if images else {}
    params = {
        "task": {"name": "pets", "num_classes": CLASSES, "examples": {"train": 200}},
        "multi_label": multi_label,
        "seed": 0,
        "budget_flops": 10**7,
        "epoch_flops": 10**9,
        "candidates": [each.to_json() for each in (WHOLE, STAGES, CUT)],
        "method": method,
        "images": images,
    }
    return Step("look", params | changes, inputs | ({"before": before} if before else {}))


class Place:
    """Features of a task, and records of steps that are done."""

    def __init__(self, multi_label=False):
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, CLASSES, 200)
        features = rng.normal(size=(200, WIDTH)).astype(np.float16)
        features[:, :CLASSES] += 2 * np.eye(CLASSES)[self.labels]
        self.features = features
        if multi_label:
            self.labels = np.eye(CLASSES, dtype=np.uint8)[self.labels]
        self.tasks = {"pets": types.SimpleNamespace(spec=SPEC)}
        self.loader = types.SimpleNamespace(load=lambda spec: None, native_side=lambda spec: 48)
        self.done = {}

    def arrays(self, step):
        part = slice(0, 120) if step.params["start"] == 0 else slice(120, 200)
        return {FEATURES: self.features[part], LABELS: self.labels[part]}

    def result(self, step):
        return self.done[step.id]

    def run(self, step):
        (record,) = look.run(step, self, Job(step)).records
        self.done[step.id] = record
        return record


def test_the_first_look_computes_nothing():
    workspace, step = Place(), a_look()
    record = workspace.run(step)
    assert (record.looks, record.flops, record.spent_flops) == ((), 0, 0)
    assert look.flops(step, workspace) == 0
    assert record.native_side == 48
    assert {option.method for option in record.options} <= {"dense", STAGES.method, CUT.method}
    assert record.next_method or record.answers


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_look_fits_heads_on_what_is_there(multi_label):
    workspace = Place(multi_label)
    first = a_look(multi_label=multi_label)
    workspace.run(first)
    step = a_look("dense", 150, first, multi_label=multi_label)
    record = workspace.run(step)
    (seen,) = record.looks
    assert (seen.method, seen.images, seen.fitted) == ("dense", 150, (150, 75, 150))
    assert seen.of == ("dense", "dense", STAGES.method)
    flops = 0
    columns = [slice(None), slice(None), slice(4, 9)]
    for images, score, part in zip(seen.fitted, seen.scores, columns, strict=True):
        shards = [
            heads.Shard(workspace.features[a:b, part], workspace.labels[a:b])
            for a, b in ((0, min(120, images)), (120, images))
            if a < b
        ]
        fitted = heads.fit("ridge", shards, CLASSES, multi_label=multi_label, seed=0)
        entropy = look.label_entropy(workspace.labels[:images], CLASSES)
        assert score == expectation.entropy(entropy, fitted.notes["cross_entropy"])
        flops += fitted.flops
    # The first stages' features tell nothing of the classes.
    assert seen.scores[0] > seen.scores[2]
    assert flops == seen.fit_flops == record.flops <= look.flops(step, workspace)
    assert record.spent_flops == 150 * WHOLE.image_flops + flops
    # It knows of the one before.
    following = a_look(CUT.method, 60, step, multi_label=multi_label)
    assert workspace.run(following).looks[:1] == record.looks


@pytest.fixture
def looked():
    """A place, and its last look: at two networks, of one of them first stages are seen too."""
    workspace = Place()
    first = a_look()
    second = a_look("dense", 100, first)
    last = a_look(CUT.method, 80, second)
    for step in (first, second, last):
        workspace.run(step)
    return workspace, last


def a_trial(workspace, last, answers, best, results, **inputs):
    """The trial of some heads."""
    steps = {}
    for number, (answer, flops) in enumerate(zip(answers, results, strict=True)):
        head = Step("head", {"number": number})
        examples = answer["images"]
        workspace.done[head.id] = dataclasses.replace(HEAD, examples=examples, flops=flops)
        steps["weights" if number == best else f"{look.LOST}/{number}"] = head
    params = {"auto": {"answers": answers, "best": best}}
    return Step("finetune", params, {**steps, look.LOOKED: last, **inputs})


def answer(candidate, images, solver="ridge"):
    return {"method": candidate.method, "solver": solver, "images": images}


def test_features_of_each_network_are_charged_once(looked):
    workspace, last = looked
    fits = sum(each.fit_flops for each in workspace.result(last).looks)
    answers = [answer(WHOLE, 200), answer(WHOLE, 200, "kernel"), answer(CUT, 200)]
    cut = CUT.fixed_flops + 200 * CUT.image_flops
    # What is taken is charged by what it starts from: not what it looked at on the way.
    trial = a_trial(workspace, last, answers, 0, (1, 20, 300))
    assert look.searched(trial, workspace) == Ledger(search=fits + cut + 20 + 300)
    trial = a_trial(workspace, last, answers, 2, (1, 20, 300))
    assert look.searched(trial, workspace) == Ledger(search=fits + 200 * WHOLE.image_flops + 21)
    # One head alone: the other network was looked at.
    trial = a_trial(workspace, last, answers[:1], 0, (1,))
    looked_at = CUT.fixed_flops + 80 * CUT.image_flops
    assert look.searched(trial, workspace) == Ledger(search=fits + looked_at)
    # On fewer images than were looked at.
    trial = a_trial(workspace, last, [answer(WHOLE, 30)], 0, (1,))
    assert look.searched(trial, workspace) == Ledger(
        search=fits + looked_at + 70 * WHOLE.image_flops
    )


def test_a_network_that_was_trained_and_lost_is_charged(looked):
    workspace, last = looked
    answers = [answer(WHOLE, 200), answer(CUT, 200)]
    alone = look.searched(a_trial(workspace, last, answers, 0, (1, 20)), workspace)
    trial = a_trial(workspace, last, answers, 0, (1, 20))
    trial.params["auto"][look.TRAINED] = {"id": "t", "train": 5000, "validate": 40, "dev": 0.5}
    assert look.searched(trial, workspace) == alone + Ledger(search=5000, validate=40)
    # Of the one that was trained: both heads lost.
    trial = a_trial(workspace, last, answers, None, (1, 20))
    whole = workspace.result(last)
    both = 200 * WHOLE.image_flops + CUT.fixed_flops + 200 * CUT.image_flops + 21
    assert look.searched(trial, workspace).search == both + sum(x.fit_flops for x in whole.looks)


def test_other_trials_spent_nothing_on_it():
    assert look.searched(Step("finetune", {}), Place()) == Ledger()


def test_what_a_trial_says_of_its_heads(looked):
    workspace, last = looked
    answers = [answer(WHOLE, 200), answer(CUT, 200, "kernel")]
    trial = a_trial(workspace, last, answers, 1, (1, 20))
    heads_by_name = {
        "probe": trial.inputs[f"{look.LOST}/0"].id,
        "filters@0.5:lsq+probe@kernel": trial.inputs["weights"].id,
    }
    assert look.heads_tried(trial) == {
        "chosen": "filters@0.5:lsq+probe@kernel",
        "heads": heads_by_name,
    }
    assert look.heads_tried(a_trial(workspace, last, answers, None, (1, 20)))["chosen"] == "dense"


def test_the_prior_is_a_part_of_what_a_look_is():
    chex.assert_tree_all_finite(vars(look.prior()) | {"tasks": ()})
    assert len(look.prior().tasks) > 1
    assert len(look.prior_id()) == 16
    assert policy.SOLVERS[False] == "ridge"
