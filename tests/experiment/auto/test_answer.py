"""The steps of `auto`, by what is finished: made-up records of steps that were never run."""

import copy
import dataclasses
import itertools
import random

import pytest

from ctl_jax import experiment, records
from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment import parse_method
from ctl_jax.experiment.auto import answer, policy
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.kept_models import TRIAL, is_so_far, keeping
from ctl_jax.experiment.kinds import look
from ctl_jax.experiment.plan import make_plan
from ctl_jax.experiment.steps import closure, ready
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.tasks import TaskLoader
from ctl_jax.experiment.workspace import Workspace

from ..samples import HEAD, LOOK, RECORD

ANSWERS = (
    records.HeadAnswer(method="dense@32px", solver="ridge", images=300),
    records.HeadAnswer(method="dense@32px", solver="kernel", images=300),
    records.HeadAnswer(method="filters@0.5:lsq", solver="ridge", images=300),
)
# Networks that are looked at, and on how many images.
LOOKS = (("dense", 40), ("dense@32px", 60))


class Done(dict):
    """Made-up records, by step; what a strategy sees of a run's folder."""

    def __init__(self, *, answers=ANSWERS, trains=False, best=0, dev=0.9, speeds=None):
        super().__init__()
        self._speeds = speeds
        self._answers, self._trains, self._best, self._dev = answers, trains, best, dev

    def __contains__(self, step):
        return super().__contains__(step.id)

    def record(self, step):
        return self[step.id]

    def finish(self, step):
        makers = {
            "look": self._look,
            "head": self._head,
            "pace": self._pace,
            TRIAL: self._trial,
        }
        self[step.id] = makers.get(step.kind, lambda step: None)(step)

    def _look(self, step):
        looks, each = [], step
        while each.params["images"]:
            looks.append((each.params["method"], each.params["images"]))
            each = each.inputs["before"]
        following = LOOKS[len(looks)] if len(looks) < len(LOOKS) else (None, 0)
        is_last = following[0] is None
        return dataclasses.replace(
            LOOK,
            id=step.id,
            budget_flops=step.params["budget_flops"],
            looks=tuple(
                records.LookedAt(
                    method=method, images=images, of=(), fitted=(), scores=(), fit_flops=7
                )
                for method, images in reversed(looks)
            ),
            next_method=following[0],
            next_images=following[1],
            answers=self._answers if is_last else (),
            trains=is_last and self._trains,
        )

    def _pace(self, step):
        trains = step.params["phases"][0].get("solver", "sgd") == "sgd"
        speed = self._speeds["training" if trains else step.params["image_size"]]
        if "heads" in step.params:
            speed = self._speeds.get("heads", 1e9)
        return records.PaceRecord(
            id=step.id, device="cpu", flops_per_second=speed, flops=1, wall_s=1.0
        )

    def _head(self, step):
        number = [
            n
            for n, each in enumerate(self._answers)
            if (each.solver, each.images) == (step.params["solver"], step.params["images"])
            and (each.method == "dense@32px") == (step.params["image_size"] == 32)
        ]
        entropy = 0.5 if number == [self._best] else 1.0
        return dataclasses.replace(HEAD, id=step.id, notes={"cross_entropy": entropy})

    def _trial(self, step):
        trained = step.params["auto"]["best"] is None
        dev = self._dev if trained else 0.5
        return dataclasses.replace(RECORD, id=step.id, dev=dev, steps=10**6)


@pytest.fixture(scope="module")
def plan(weights):
    config = experiment.default_config()
    config.stream.variant, config.methods = "digits", ("auto",)
    config.data.image_size, config.pruning.round_to = 16, 1
    config.weights = str(weights)
    config.budgets.amounts = ("1e10",)
    checked = validate(config)
    return make_plan(Workspace(checked, TaskLoader(checked.data), Store("nowhere", {})))


@pytest.fixture
def case(plan, monkeypatch):
    """A task that `auto` is to learn, with looks that are models, too."""
    monkeypatch.setattr(answer, "_LONG", 0)

    def make(**keys):
        workspace = copy.copy(plan.workspace)
        workspace.config = dataclasses.replace(workspace.config, **{"keep_models": "best", **keys})
        changed = dataclasses.replace(plan, workspace=workspace)
        (point,) = changed.points()
        return answer.Case(changed, point, 10**10, {})

    return make


def to_the_end(case, done, rng=None):
    """All that was wanted on the way, as steps are finished one by one, in any order."""
    wanted = [answer.steps(case, done)]
    while left := {id: step for id, step in closure(wanted[-1]).items() if step not in done}:
        there = list(ready(left).values())
        done.finish(rng.choice(there) if rng else there[0])
        wanted.append(answer.steps(case, done))
    return wanted


def ids(steps):
    return list(closure(steps))


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("keep_models", ["none", "best"])
def test_nothing_that_was_wanted_is_given_up(case, trains, keep_models):
    """In whatever order steps are finished: the same trial."""
    last = set()
    for seed in range(3):
        made, done = case(keep_models=keep_models), Done(trains=trains)
        wanted = to_the_end(made, done, random.Random(seed))
        for before, after in itertools.pairwise(wanted):
            assert set(ids(before)) <= set(ids(after))
        # By another worker, which sees all of it at once.
        again = answer.steps(case(keep_models=keep_models), done)
        assert ids(again) == ids(wanted[-1])
        last.add(wanted[-1][-1].id)
    assert len(last) == 1


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_head_of_the_least_cross_entropy_is_the_trial(case, best):
    made, done = case(), Done(best=best)
    trial = to_the_end(made, done)[-1][-1]
    assert (trial.kind, trial.params["method"]) == (TRIAL, "auto")
    assert not is_so_far(trial)
    assert trial.params["budget_flops"] == 10**10
    chosen = trial.params["auto"]
    assert chosen["best"] == best
    assert [each["method"] for each in chosen["answers"]] == [each.method for each in ANSWERS]
    assert done.record(trial.inputs["weights"]).notes["cross_entropy"] == 0.5
    # All that was not taken is below it, so that it is charged.
    lost = {f"{look.LOST}/{number}" for number in range(3) if number != best}
    assert trial.inputs.keys() == {"weights", look.LOOKED, *lost}
    network = parse_method(ANSWERS[best].method)
    assert trial.params["image_size"] == (network.image_size or 16)
    # Of several workers each may fit one of the heads.
    heads = [each for each in closure([trial]).values() if each.kind == "head"]
    assert {each.params["judged_on"] for each in heads} == {"left out"}
    assert len(heads) == len(ANSWERS)


def test_looks_follow_each_other_and_each_is_a_trial_so_far(case):
    made, done = case(), Done()
    wanted = to_the_end(made, done)
    looks = [step for step in closure(wanted[-1]).values() if step.kind == "look"]
    assert [(step.params["method"], step.params["images"]) for step in looks[1:]] == list(LOOKS)
    so_far = [step for step in wanted[-1] if is_so_far(step)]
    assert [step.params["auto"]["answers"][0]["images"] for step in so_far] == [40, 60]
    # Their models stay while the trial is not done.
    assert not any(step.keep for step in wanted[-1])
    assert all(step.keep for step in wanted[-2] if is_so_far(step))
    # The next look waits until the one before has its model.
    for steps in wanted[:-1]:
        trials = [step for step in steps if is_so_far(step) and step not in done]
        assert len(trials) <= 1


def test_the_trial_does_not_depend_on_which_models_are_kept(case):
    trials, so_far = {}, {}
    for mode in ("none", "best", "all"):
        steps = to_the_end(case(keep_models=mode), Done())[-1]
        trials[mode] = steps[-1].id
        so_far[mode] = sum(map(is_so_far, steps))
    assert len(set(trials.values())) == 1
    assert so_far == {"none": 0, "best": 2, "all": 2}


@pytest.mark.parametrize("mode", ["none", "best", "all"])
def test_models_that_stay_in_the_end(case, mode):
    made, done = case(keep_models=mode), Done(trains=True, dev=0.1)
    to_the_end(made, done)
    strategy = keeping(lambda finished: answer.steps(made, finished), mode)
    kept = [step for step in strategy(done) if step.keep]
    assert [step.id for step in kept] == (
        [answer.steps(made, done)[-1].id] if mode != "none" else []
    )
    if mode == "none":
        # Nor on the way.
        done = Done(trains=True)
        every = [step for steps in to_the_end(made, done) for step in steps]
        assert not any(step.keep for step in every if step.kind == TRIAL)


@pytest.mark.parametrize(("dev", "is_taken"), [(0.9, True), (0.1, False), (None, False)])
def test_training_is_tried_beside_the_head(case, dev, is_taken):
    """Where it diverged, too."""
    made, done = case(), Done(trains=True, dev=dev)
    wanted = to_the_end(made, done)
    *before, last = wanted[-1]
    fitted = before[-1] if is_taken else before[-2]
    assert is_so_far(fitted)
    assert (last.params["auto"]["best"] is None) == is_taken
    trained = last if is_taken else before[-1]
    if not is_taken:
        # By its id and what it cost: its model is not needed for the other one.
        assert last.params["auto"][look.TRAINED]["id"] == trained.id
        assert last.params["auto"][look.TRAINED]["dev"] == dev
    # It has what was not spent: two heads on features of one network, one of another, two looks.
    plan, candidates = made.plan, {each.method: each for each in made.plan.candidates()}
    cut = plan.workspace.charge(
        plan.wish(made.point._replace(method=parse_method("filters@0.5:lsq+probe")), 10**10).start,
        made.point.task.spec.name,
        done=False,
    )
    features = 300 * (
        candidates["dense@32px"].image_flops + candidates["filters@0.5:lsq"].image_flops
    )
    looks = 40 * candidates["dense"].image_flops + 2 * 7
    assert trained.params["auto"]["spent"] == features + looks + cut.prune + cut.extract + 3
    assert trained.params["method"] == "auto"
    assert trained.params["learning_rate"] in plan.config.finetune.learning_rates
    assert trained.params["phases"]
    # Its inputs say what it was chosen by; it starts from the given weights.
    lost = {f"{look.LOST}/{number}" for number in range(3)}
    assert trained.inputs.keys() == {look.LOOKED, *lost}
    # The head is a model before the training begins.
    begun = next(steps for steps in wanted if trained.id in ids(steps))
    assert [step.keep for step in begun if step.id == fitted.id] == [True]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (10**4, r"enough for 2 images, which cost \S+ FLOPs for 'dense\S*' on task 'digits'$"),
        (10**30, r"at most 2,147,483,647 steps, each of which costs \S+ FLOPs for 'auto' on task"),
    ],
)
def test_a_budget_for_nothing_or_too_much(case, budget, expected):
    made = case()._replace(budget_flops=budget)
    with pytest.raises(
        UserError, match=f"^config.budgets.amounts='10000000000 flops': expected {expected}"
    ):
        answer.steps(made, None)


def test_the_least_that_a_budget_has_to_pay_for(case):
    """So much is enough, by a flop."""
    made = case()
    with pytest.raises(UserError) as error:
        answer.steps(made._replace(budget_flops=1), None)
    least = int(str(error.value).partition("cost ")[2].partition(" ")[0].replace(",", ""))
    (step,) = answer.steps(made._replace(budget_flops=least), None)
    workspace = made.plan.workspace
    workspace.loader.load(made.point.task.spec)
    setting = look.setting_of(step, 32)
    assert policy.decide(look.prior(), setting, []).options
    with pytest.raises(UserError, match="enough for 2 images"):
        answer.steps(made._replace(budget_flops=least - 1), None)
    assert not policy.decide(look.prior(), setting._replace(budget_flops=least - 1), []).options


def test_a_task_of_one_image(case):
    made = case()
    task = dataclasses.replace(made.point.task, examples={**made.point.task.examples, "train": 1})
    made = made._replace(point=made.point._replace(task=task), budget_flops=10**9)
    with pytest.raises(UserError, match=r"^task 'digits': 1 training images; expected at least 2"):
        answer.steps(made, None)


def in_seconds(plan, seconds):
    """The steps of `auto` for a budget of time, by what is finished."""
    point = plan.points()[0]._replace(budget=Budget.parse(f"{seconds} seconds"))
    return lambda done: plan.wanted(point, done)


def finish_all(strategy, done):
    wanted = strategy(done)
    while left := {id: step for id, step in closure(wanted).items() if step not in done}:
        done.finish(next(iter(ready(left).values())))
        before, wanted = wanted, strategy(done)
        assert set(ids(before)) <= set(ids(wanted))
    return wanted


@pytest.mark.parametrize("slow", [1.0, 20.0])
def test_a_budget_of_time_is_spent_by_the_speed_of_the_network_that_is_chosen(plan, slow):
    """Sizes of images other than the config's make fewer FLOPs a second, or as many."""
    speeds = {size: 1e9 / (1.0 if size == 16 else slow) for size in (8, 16, 24, 32)}
    (trial,) = (
        step
        for step in finish_all(in_seconds(plan, 0.004), Done(speeds=speeds))
        if step.kind == TRIAL and not is_so_far(step)
    )
    last = trial.inputs[look.LOOKED]
    while last.params["images"]:
        last = last.inputs["before"]
    assert trial.params["budget_flops"] == 4 * 10**6
    assert last.params["budget_flops"] == 4 * 10**6
    options = policy.decide(look.prior(), look.setting_of(last, LOOK.native_side), ()).options
    best = options[0].candidate
    # It is the best by its own speed, which was measured.
    assert best.method in last.params["paced"]
    assert best.slowness == pytest.approx(slow if "px" in best.method else 1.0)
    assert ("px" in best.method) == (slow == 1)
    paces = {name for name in trial.inputs if name.startswith(answer.PACE)}
    measured = [name for name in last.params["paced"] if name != "dense"]
    assert paces == {
        answer.PACE,
        f"{answer.PACE}/fits",
        *(f"{answer.PACE}/{name}" for name in measured),
    }
    seconds = best.slowness * best.flops(options[0].images) / 1e9
    assert seconds <= 0.004


def test_training_takes_the_time_that_is_left(plan):
    """A FLOP of it takes twice as long as one of a forward pass."""
    speeds = dict.fromkeys((8, 16, 24, 32), 1000000000.0) | {"training": 5e8}
    done = Done(speeds=speeds, trains=True)
    trial = finish_all(in_seconds(plan, 1000), done)[-1]
    assert trial.params["auto"]["best"] is None
    assert f"{answer.PACE}/training" in trial.inputs
    looked = trial.inputs[look.LOOKED]
    assert looked.params["epoch_flops"] == 2 * plan.epoch_flops(plan.tasks[0])
    # What is left is halved; little was spent before.
    assert trial.params["auto"]["spent"] == pytest.approx(10**12 / 2, rel=1e-2)


def test_fits_take_the_time_that_they_take(plan):
    """Where they are slow, heads are fitted on fewer images, or on fewer features."""
    found = []
    for fits in (1e9, 1e8):
        done = Done(speeds=dict.fromkeys((8, 16, 24, 32), 1e9) | {"heads": fits})
        trial = finish_all(in_seconds(plan, 0.01), done)[-1]
        last = trial.inputs[look.LOOKED]
        while last.params["images"]:
            last = last.inputs["before"]
        setting = look.setting_of(last, LOOK.native_side)
        assert setting.fit_slowness == pytest.approx(1e9 / fits)
        best = policy.decide(look.prior(), setting, ()).options[0]
        fit = policy._fit(setting, best.candidate, best.kernel, best.images)
        assert best.candidate.price(best.images) + fit <= setting.budget_flops
        found.append(best.images)
    assert found[1] < found[0]
