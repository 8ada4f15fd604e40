"""How a group's processes hear of the same work."""

from typing import NamedTuple

import pytest

from ctl_jax import interrupts
from ctl_jax.experiment import teamwork
from ctl_jax.finetune import group


class Claim(NamedTuple):
    index: int


@pytest.fixture
def said(monkeypatch):
    """What the first process says."""
    numbers = []
    monkeypatch.setattr(group, "of_first", lambda number: numbers.append(number) or number)
    return numbers


def hearing(monkeypatch, numbers):
    """Another process, that hears these."""
    numbers = iter(numbers)
    monkeypatch.setattr(group, "of_first", lambda number: next(numbers))
    return [index for index, claim in teamwork.jobs(None) if claim is None]


def test_the_others_do_what_the_first_does(said, monkeypatch):
    claims = [Claim(4), Claim(-1), Claim(0)]
    done = []
    for index, claim in teamwork.jobs(iter(claims)):
        done.append((index, claim))
        if index == -1:
            teamwork.pause(0)  # As it waits for another worker.
    assert done == [(claim.index, claim) for claim in claims]
    assert hearing(monkeypatch, said) == [4, -1, 0]


def test_nothing_to_do(said, monkeypatch):
    assert list(teamwork.jobs(iter([]))) == []
    assert hearing(monkeypatch, said) == []


@pytest.mark.parametrize("waiting", [True, False])
def test_a_group_that_agrees_to_stop_takes_nothing_more(said, monkeypatch, waiting):
    monkeypatch.setattr(group, "stop_requested", lambda: len(said) == 2)
    jobs = teamwork.jobs(iter([Claim(1), Claim(2)]))
    assert next(jobs)[0] == 1
    with pytest.raises(interrupts.Stopped):
        teamwork.pause(0) if waiting else next(jobs)
