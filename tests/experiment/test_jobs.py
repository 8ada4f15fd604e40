"""How a group's processes hear of the same work."""

from typing import NamedTuple

import jax
import pytest

from ctl_jax import interrupts
from ctl_jax.experiment import jobs
from ctl_jax.experiment.steps import KINDS, Kind, Step
from ctl_jax.experiment.store import Store
from ctl_jax.finetune import multihost

KIND = Kind(1, lambda *args: 1, lambda *args: None, lambda *args: None)
STORE = Store("nowhere", {})


class Claim(NamedTuple):
    step: Step


@pytest.fixture(autouse=True)
def kind(monkeypatch):
    monkeypatch.setitem(KINDS, "fake", KIND)


def step(number):
    source = Step("fake", {"number": "source"}, keep=True)
    return Step("fake", {"number": number}, {"weights": source})


@pytest.fixture
def said(monkeypatch):
    """What the first process of two says."""
    told = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost, "of_first", lambda number: told.append(number) or number)
    monkeypatch.setattr(multihost, "bytes_of_first", lambda text: told.append(text) or text)
    monkeypatch.setattr(multihost, "stop_requested", lambda: False)
    return told


def hearing(monkeypatch, told):
    """Another process, that hears these."""
    told = iter(told)
    monkeypatch.setattr(multihost, "of_first", lambda number: next(told))
    monkeypatch.setattr(multihost, "bytes_of_first", lambda text: next(told))
    return list(jobs.jobs(None, STORE))


def test_the_others_do_what_the_first_does(said, monkeypatch):
    claims = [Claim(step(number)) for number in (4, 1, 0)]
    done = []
    for job in jobs.jobs(iter(claims), STORE):
        done.append(job)
        assert job.scratch == STORE.scratch(job.step.id)
        if len(done) == 2:
            jobs.pause(0)  # As it waits for another worker.
    assert [job.claim for job in done] == claims
    heard = hearing(monkeypatch, said)
    assert [job.step.id for job in heard] == [claim.step.id for claim in claims]
    assert all(job.claim is job.scratch is None for job in heard)
    assert heard[0].step.inputs["weights"].keep


def test_nothing_to_do(said, monkeypatch):
    assert list(jobs.jobs(iter([]), STORE)) == []
    assert hearing(monkeypatch, said) == []


@pytest.mark.parametrize("waiting", [True, False])
def test_a_group_that_agrees_to_stop_takes_nothing_more(said, monkeypatch, waiting):
    monkeypatch.setattr(multihost, "stop_requested", lambda: len(said) == 3)
    ours = jobs.jobs(iter([Claim(step(1)), Claim(step(2))]), STORE)
    assert next(ours).step.params["number"] == 1
    with pytest.raises(interrupts.Stopped):
        jobs.pause(0) if waiting else next(ours)
