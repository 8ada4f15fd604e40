"""When a training is saved, evaluated and stopped."""

import signal

import jax
import numpy as np
import pytest

from ctl_jax import interrupts
from ctl_jax.experiment import checkpointing
from ctl_jax.experiment.checkpointing import Dev, Keeper, Lost
from ctl_jax.finetune import Scores, Snapshot, TrainState
from ctl_jax.finetune.checkpoints import Checkpoint

TOTAL = 30


class Memory:
    """Checkpoints in memory."""

    def __init__(self):
        self.saved = {}
        self.busy = False

    def exist(self):
        return bool(self.saved)

    def newest(self, like):
        return self.saved[max(self.saved)] if self.saved else None

    def save(self, checkpoint):
        assert checkpoint.step > max(self.saved, default=0)
        self.saved[checkpoint.step] = checkpoint


@pytest.fixture
def clock(monkeypatch):
    """Seconds, set by hand."""
    now = [0.0]
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def caught():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    interrupts.install()
    with interrupts.catching():
        yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def now(step):
    """Weights that say which step they are of."""
    params = {"w": np.float32(step)}
    return Snapshot(TrainState(np.int32(step), params, {}, {}, jax.random.key(0)), (), float(step))


def train(keeper, clock, start=0, stop=TOTAL, seconds=1.0, told=None):
    """As `fit` calls it: after every update, each of which takes some time."""
    with interrupts.deferred():
        for step in range(start + 1, stop + 1):
            clock[0] += seconds
            if step == told:
                signal.raise_signal(signal.SIGTERM)
            keeper(step, lambda: now(step))  # noqa: B023


def test_it_saves_every_few_seconds_where_it_looks(clock):
    memory = Memory()
    train(Keeper(memory, TOTAL, every_s=7, look_every=5), clock)
    # The clock is looked at after 5, 10, ... updates, and started again by each save.
    assert sorted(memory.saved) == [10, 20]
    assert memory.saved[20].snapshot.wall_s == 20


def test_a_training_of_less_time_saves_nothing(clock):
    memory = Memory()
    train(Keeper(memory, TOTAL, every_s=60), clock)
    assert not memory.saved


def test_zero_seconds_mean_only_when_told_to_stop(clock, caught):
    memory = Memory()
    keeper = Keeper(memory, TOTAL, every_s=0)
    train(keeper, clock, stop=17, seconds=1e6)
    assert not memory.saved
    with pytest.raises(interrupts.Stopped):
        train(keeper, clock, start=17, told=18)
    assert sorted(memory.saved) == [18]


def test_one_that_is_still_being_written_is_not_waited_for(clock):
    memory = Memory()
    memory.busy = True
    keeper = Keeper(memory, TOTAL, every_s=5)
    train(keeper, clock, stop=20)
    memory.busy = False
    train(keeper, clock, start=20)
    assert sorted(memory.saved) == [21, 26]


def test_what_another_worker_has_is_left_to_it(clock):
    memory, lost = Memory(), []
    keeper = Keeper(memory, TOTAL, every_s=2, is_lost=lambda: bool(lost))
    train(keeper, clock, stop=10)
    before = set(memory.saved)
    lost.append(1)
    with pytest.raises(Lost):
        train(keeper, clock, start=10)
    assert set(memory.saved) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_training_saves_its_end(clock, caught, number):
    memory = Memory()
    keeper = Keeper(memory, TOTAL, every_s=60)

    def trial():
        with keeper.kept():
            train(keeper, clock)
            signal.raise_signal(number)  # As it is evaluated.

    with pytest.raises(interrupts.Stopped):
        trial()
    assert sorted(memory.saved) == [TOTAL]


def test_a_signal_before_the_training_saves_nothing(clock, caught):
    memory = Memory()
    keeper = Keeper(memory, TOTAL, every_s=60)

    def trial():
        with keeper.kept():
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(interrupts.Stopped):
        trial()
    assert not memory.saved


class Evaluations:
    """Accuracy by step, and which were asked for."""

    def __init__(self, by_step):
        self.by_step, self.asked, self.interrupt = by_step, [], None

    def __call__(self, variables):
        step = int(variables["params"]["w"])
        if step == self.interrupt:
            signal.raise_signal(signal.SIGTERM)
        self.asked.append(step)
        return Scores("accuracy", self.by_step[step], None)


@pytest.fixture
def scores():
    """Best at 12, and as good at 24."""
    return Evaluations({6: 0.3, 12: 0.6, 18: 0.5, 24: 0.6})


def evaluating(memory, scores, **options):
    return Keeper(memory, TOTAL, evaluate=scores, evaluate_every=6, every_s=9, **options)


def test_it_evaluates_on_the_way_but_not_at_the_end(clock, scores):
    keeper = evaluating(Memory(), scores)
    train(keeper, clock)
    assert scores.asked == [6, 12, 18, 24]
    assert keeper.dev[1] == Dev(12, 0.6, None)
    assert keeper.best is None


def test_it_remembers_the_first_of_the_best(clock, scores):
    keeper = evaluating(Memory(), scores, keep_best=True)
    train(keeper, clock)
    assert keeper.best.dev.step == 12
    assert keeper.best.variables["params"]["w"] == 12


@pytest.mark.parametrize("stop", [7, 12, 13, 18, 29])
def test_it_goes_on_with_what_it_knew(clock, scores, caught, stop):
    memory = Memory()
    seen = []
    first = evaluating(memory, scores, keep_best=True, on_dev=seen.append)
    with pytest.raises(interrupts.Stopped):
        train(first, clock, told=stop)
    assert max(memory.saved) == stop
    with interrupts.catching():
        again = evaluating(memory, scores, keep_best=True, on_dev=seen.append)
        start = again.resume(lambda: None)
        assert int(start.state.step) == stop
        train(again, clock, start=stop)
    # Each step once, whatever was interrupted, and one that was saved first is caught up with.
    assert scores.asked == [6, 12, 18, 24]
    assert [dev.step for dev in again.dev] == [6, 12, 18, 24]
    assert seen == again.dev
    assert again.best.dev.step == 12
    assert again.best.variables["params"]["w"] == 12


def test_a_signal_as_it_evaluates_is_not_waited_for(clock, scores, caught):
    memory = Memory()
    scores.interrupt = 18
    with pytest.raises(interrupts.Stopped):
        train(evaluating(memory, scores), clock)
    assert scores.asked == [6, 12]
    assert max(memory.saved) == 18


def test_without_checkpoints_there_is_nothing_to_go_on_from():
    assert Keeper(Memory(), TOTAL, every_s=1).resume(pytest.fail) is None
    assert Keeper(None, TOTAL, every_s=1).resume(pytest.fail) is None


def test_a_checkpoint_that_was_read_is_not_written_again(clock, caught, scores):
    memory = Memory()
    memory.save(Checkpoint(now(6), None, {"dev": [], "best": None}))
    scores.interrupt = 6
    with pytest.raises(interrupts.Stopped):
        evaluating(memory, scores).resume(lambda: None)
    assert sorted(memory.saved) == [6]


def test_in_which_phase_it_was_is_no_matter(clock, caught):
    """Steps are counted over all phases."""
    memory = Memory()
    keeper = Keeper(memory, TOTAL, every_s=9, look_every=5)

    def later(step):
        snapshot = now(step)
        state = snapshot.state._replace(step=np.int32(step - 12))
        return snapshot._replace(state=state, phase=1, before=12) if step > 12 else snapshot

    for step in range(1, 26):
        clock[0] += 1
        keeper(step, lambda step=step: later(step))
    assert sorted(memory.saved) == [10, 20]
    asked = []
    memory.newest = lambda like: asked.append(like(1)) or memory.saved[20]
    start = Keeper(memory, TOTAL, every_s=9).resume(lambda phase: f"phase {phase}")
    assert (start.step, start.phase, asked) == (20, 1, ["phase 1"])


def test_another_step_goes_on_where_a_training_was_left(clock):
    """With its evaluations, also that of where it was left."""
    evaluate = Evaluations({5: 0.5, 10: 0.7, 15: 0.6})
    options = {"every_s": 60, "evaluate": evaluate, "evaluate_every": 5, "keep_best": True}
    first = Keeper(None, TOTAL, until=10, **options)
    train(first, clock, stop=10)
    left = first.left()
    assert (left.step, left.notes["best"]) == (10, Dev(10, 0.7, None))
    second = Keeper(None, TOTAL, until=17, begin=lambda like: left, **options)
    assert second.resume(None).step == 10
    train(second, clock, start=10, stop=17)
    assert second.dev == [Dev(5, 0.5, None), Dev(10, 0.7, None), Dev(15, 0.6, None)]
    assert second.best.dev.step == 10
    assert evaluate.asked == [5, 10, 15]


def test_what_was_saved_where_a_training_is_left_is_there(clock):
    """It was stopped after that; and its own checkpoint counts more than where it began."""
    memory = Memory()
    memory.save(Checkpoint(now(10), None, {"dev": [], "best": None}))
    keeper = Keeper(memory, TOTAL, every_s=60, until=10, begin=pytest.fail)
    assert keeper.resume(None).step == 10
    assert keeper.left().step == 10
