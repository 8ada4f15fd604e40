"""Steps: ids, what depends on what, and what is left to do."""

import dataclasses
import json
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax.errors import UserError
from ctl_jax.experiment import steps
from ctl_jax.experiment.steps import KINDS, Kind, Step, closure, from_json, pending, ready, to_json


class Done(NamedTuple):
    """Ids of what is done."""

    records: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    """ "train" keeps its variables as checkpoints, "cut" makes them again from its inputs."""
    nothing = lambda *args: None  # noqa: E731
    for name, restore in (("train", None), ("cut", nothing)):
        monkeypatch.setitem(KINDS, name, Kind(1, nothing, nothing, nothing, restore))


def train(number, **inputs):
    return Step("train", {"number": number}, inputs)


def cut(number, **inputs):
    return Step("cut", {"number": number}, inputs)


PRETRAINED = train(0)
CUT = cut(0, weights=PRETRAINED)
DENSE, PRUNED = train(1, weights=PRETRAINED), train(1, weights=CUT)


def test_ids_hold_all_that_decides_the_numbers(monkeypatch):
    others = [train(2), cut(0), CUT, DENSE, PRUNED, cut(0, weights=train(1)), train(0, other=CUT)]
    ids = [step.id for step in (PRETRAINED, *others)]
    assert len(set(ids)) == len(ids)
    assert train(1, weights=cut(0, weights=train(0))).id == PRUNED.id
    assert PRUNED.kept().id == PRUNED.id
    monkeypatch.setitem(KINDS, "train", dataclasses.replace(KINDS["train"], version=2))
    # Also of what depends on it.
    assert cut(0, weights=train(0)).id != CUT.id


def test_a_step_survives_the_way_to_another_process():
    there = from_json(json.loads(json.dumps(to_json(PRUNED.kept()))))
    assert (there.id, there.keep) == (PRUNED.id, True)
    assert closure([there]).keys() == closure([PRUNED]).keys()


def test_inputs_come_before_their_readers_and_everything_once():
    wanted = closure([PRUNED, DENSE, DENSE.kept()])
    assert list(wanted) == [PRETRAINED.id, CUT.id, PRUNED.id, DENSE.id]
    assert [step.keep for step in wanted.values()] == [False, False, False, True]


@pytest.mark.parametrize(
    ("records", "models", "left"),
    [
        ([], [], [PRETRAINED, CUT, DENSE, PRUNED]),
        ([PRETRAINED], [PRETRAINED], [CUT, DENSE, PRUNED]),
        # Its variables are needed, and gone.
        ([PRETRAINED], [], [PRETRAINED, CUT, DENSE, PRUNED]),
        ([PRETRAINED, CUT, DENSE], [], [PRETRAINED, PRUNED]),
        ([PRETRAINED, CUT, DENSE], [PRETRAINED], [PRUNED]),
        # Nothing that is left needs them.
        ([PRETRAINED, CUT, DENSE, PRUNED], [], []),
        ([CUT, DENSE, PRUNED], [], [PRETRAINED]),
    ],
)
def test_what_is_left(records, models, left):
    done = Done(*(frozenset(step.id for step in each) for each in (records, models)))
    found, needed = pending(closure([CUT, DENSE, PRUNED]), done)
    assert list(found) == [step.id for step in left]
    assert needed == ({PRETRAINED.id} if DENSE in left or PRUNED in left or CUT in left else set())


def test_a_model_that_is_to_stay_is_made_again():
    done = Done(frozenset([PRETRAINED.id, DENSE.id]), frozenset([PRETRAINED.id]))
    assert pending(closure([DENSE]), done)[0] == {}
    found, needed = pending(closure([DENSE.kept()]), done)
    assert list(found) == [DENSE.id]
    assert needed == {DENSE.id, PRETRAINED.id}


def test_a_step_is_ready_when_its_inputs_are_done():
    wanted = closure([DENSE, PRUNED])
    assert list(ready(pending(wanted, Done())[0])) == [PRETRAINED.id]
    done = Done(*2 * [frozenset([PRETRAINED.id])])
    assert list(ready(pending(wanted, done)[0])) == [DENSE.id, CUT.id]
    # The cut is done; but the variables that it cuts are gone.
    done = Done(frozenset([PRETRAINED.id, CUT.id]))
    assert list(ready(pending(wanted, done)[0])) == [PRETRAINED.id]


@hypothesis.given(st.data())
def test_whatever_is_done_the_rest_can_be_done_one_after_the_other(data):
    """Any graph of steps, any of them done, any of their models gone."""
    made = []
    for number in range(data.draw(st.integers(1, 8))):
        inputs = data.draw(st.lists(st.sampled_from(made), max_size=2) if made else st.just([]))
        kind = data.draw(st.sampled_from([train, cut]))
        made.append(kind(number, **{f"input{i}": step for i, step in enumerate(inputs)}))
    wanted = closure(step.kept() if data.draw(st.booleans()) else step for step in made)
    some = st.sets(st.sampled_from(list(wanted)))
    records, models = data.draw(some), data.draw(some)
    for _ in range(2 * len(wanted) + 1):
        left, needed = pending(wanted, Done(frozenset(records), frozenset(models)))
        if not left:
            break
        now = ready(left)
        assert now
        step = wanted[data.draw(st.sampled_from(list(now)))]
        for each in step.inputs.values():
            assert each.id in records
            assert {source.id for source in steps.stored(each)} <= models
        records.add(step.id)
        if step.id in needed and KINDS[step.kind].restore is None:
            models.add(step.id)
    assert not left
    assert records >= wanted.keys()


def test_a_second_kind_of_a_name_is_refused():
    with pytest.raises(UserError, match="kind of steps 'train': there is one"):
        steps.register("train", KINDS["train"])
