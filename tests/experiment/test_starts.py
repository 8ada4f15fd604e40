"""What a method starts from, as steps: given weights, cuts, and what a learner hands on."""

import pytest

from ctl_jax.experiment import parse_method, starts
from ctl_jax.experiment.learners import Begin
from ctl_jax.experiment.steps import Step


def kinds(step: Step | None) -> list[str]:
    """The kinds of the steps, from the last one back to the first."""
    found = []
    while step is not None:
        found.append(step.kind)
        step = step.inputs.get("weights")
    return found


@pytest.fixture
def begun(config, make_plan):
    """Plans of one task and method, which start it from what another task has left."""
    config.stream.variant, config.methods = "digits", ("dense",)

    def begun(name, **learner):
        for key, value in learner.items():
            setattr(config.learner, key, value)
        plan = make_plan(config)
        point = plan.points()[0]
        before, method = plan.trial(point), parse_method(name)
        return plan.on(point.task, method, 0, point.budget, Begin(before)), method, before

    return begun


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dense", []),
        ("scratch", []),
        ("dense@1stages", ["shorten"]),
        ("filters@0.5", ["prune"]),
        ("filters@0.5@1stages", ["prune", "shorten"]),
        # Corrections of a cut are of a trial, which pays for their images.
        ("filters@0.5:lsq", ["prune"]),
    ],
)
def test_without_a_learner(config, make_plan, name, expected):
    config.stream.variant, config.methods = "digits", (name,)
    plan = make_plan(config)
    method = plan.methods[name]
    assert kinds(starts.weights(plan, method)) == expected
    assert starts.is_trained(plan, method) == (name != "scratch")
    assert not starts.was_cut(plan, method)


@pytest.mark.parametrize(
    ("name", "learner", "expected"),
    [
        ("previous", {}, []),
        ("previous:filters@0.5", {"cut": "once"}, []),
        ("previous:filters@0.5", {"cut": "every"}, ["prune"]),
        ("previous:filters@0.5", {"cut": "every", "restore": True}, ["prune", "regrow"]),
        # What `auto` may choose behind a learner is of the network that it was handed, and is cut
        # as the learner says for methods alone.
        ("filters@0.5", {"cut": "once"}, ["prune"]),
        ("dense@1stages", {"cut": "every"}, ["shorten"]),
    ],
)
def test_what_was_learnt_is_handed_on(begun, name, learner, expected):
    plan, method, before = begun(name, **learner)
    found = starts.weights(plan, method)
    assert kinds(found) == [*expected, *kinds(before)]
    assert starts.is_trained(plan, method)
    assert starts.was_cut(plan, method) == (bool(method.learner) and learner.get("cut") != "every")


@pytest.mark.parametrize(
    ("name", "by_task", "by_seed"),
    [
        ("filters@0.5", False, False),
        ("filters@0.5:random", False, True),
        ("filters@0.5:taylor", True, True),
    ],
)
def test_a_cut_is_of_a_task_and_a_seed_where_they_decide(config, make_plan, name, by_task, by_seed):
    config.methods = (name,)
    plan = make_plan(config)
    (method,), (task, other, *_) = plan.methods.values(), plan.tasks
    of = starts.weights(plan, method, task, 0)
    assert (starts.weights(plan, method, other, 0).id != of.id) == by_task
    assert (starts.weights(plan, method, task, 1).id != of.id) == by_seed
    assert starts.weights(plan, method, task, 0) is of
