"""What each task starts from, by the scores of candidates."""

import dataclasses

import pytest

from ctl_jax import data, records
from ctl_jax.experiment.learners import Begin, Case, Learnt
from ctl_jax.experiment.learners.dynamic import dynamic, within_domain
from ctl_jax.experiment.learners.previous import previous
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.tasks import TaskInfo

DOMAINS = {"a": "object", "b": "ocr", "c": "object", "d": "object", "unknown": None}
TASKS = {
    name: TaskInfo(
        data.TaskSpec(name, name, name, "folder", domain, "single_label", 2015), 2, {}, name
    )
    for name, domain in DOMAINS.items()
}
MODELS = {name: Step("pretrain", {"of": name}) for name in TASKS}
RECORD = records.NeighboursRecord(
    id="",
    task="",
    source=None,
    neighbours=5,
    examples=1,
    dev_examples=1,
    image_size=8,
    features=1,
    metric="accuracy",
    dev=0.0,
    flops=1,
    wall_s=0.0,
)


class Finished(dict):
    """Scores by what the features are of: a task, or the pretrained network, ""."""

    def __contains__(self, step):
        return super().__contains__(step.params["of"])

    def record(self, step):
        return dataclasses.replace(RECORD, dev=self[step.params["of"]])


def case(task, *before, has_start=True):
    learnt = [Learnt(TASKS[name], MODELS[name]) for name in before]

    def compare(weights):
        return Step("neighbours", {"of": weights.params["of"] if weights else ""})

    return Case(TASKS[task], learnt, has_start, compare)


def named(begin):
    return begin.weights and begin.weights.params["of"]


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({"": 0.1, "a": 0.2, "b": 0.3}, "b"),
        ({"": 0.3, "a": 0.2, "b": 0.3}, None),
        ({"": 0.1, "a": 0.3, "b": 0.3}, "a"),
    ],
)
def test_the_best_features_win_and_of_equal_ones_the_first(scores, chosen):
    found = dynamic(case("c", "a", "b"), Finished(scores))
    assert named(found) == chosen
    assert [look.params["of"] for look in found.chosen_by] == ["", "a", "b"]


def test_candidates_are_compared_first():
    looks = dynamic(case("c", "a", "b"), Finished({"": 0.1, "b": 0.5}))
    assert [look.params["of"] for look in looks] == ["", "a", "b"]


def test_one_candidate_needs_no_comparison():
    assert dynamic(case("a"), Finished()) == Begin()
    assert named(dynamic(case("b", "a", has_start=False), Finished())) == "a"
    # What trained nothing has left what it started from, which is no candidate of its own.
    left = case("c")._replace(before=[Learnt(TASKS["a"], None)])
    assert dynamic(left, Finished()) == Begin()
    twice = case("c", has_start=False)._replace(
        before=[Learnt(TASKS["a"], MODELS["a"]), Learnt(TASKS["b"], MODELS["a"])]
    )
    assert named(dynamic(twice, Finished())) == "a"


def test_random_weights_are_no_candidate_beside_others():
    looks = dynamic(case("c", "a", "b", has_start=False), Finished())
    assert [look.params["of"] for look in looks] == ["a", "b"]


def test_within_a_domain():
    found = within_domain(case("d", "a", "b", "c"), Finished({"": 0.1, "a": 0.2, "b": 0.9, "c": 0}))
    assert named(found) == "a"
    assert [look.params["of"] for look in found.chosen_by] == ["", "a", "c"]
    assert within_domain(case("unknown", "a", "b"), Finished()) == Begin()


def test_previous():
    assert previous(case("a"), Finished()) == Begin()
    assert named(previous(case("c", "a", "b"), Finished())) == "b"
