"""The ledger adds up and takes no purpose that it does not know."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.compute import Ledger
from ctl_jax.errors import UserError

PURPOSES = ("train", "extract", "validate", "search", "prune", "pretrain")
amounts = st.integers(0, 10**18)
ledgers = st.builds(Ledger, **dict.fromkeys(PURPOSES, amounts))


@given(ledgers, st.sampled_from(PURPOSES), amounts)
def test_add_changes_one_purpose(ledger, purpose, flops):
    after = ledger.add(purpose, flops)
    assert after.total == ledger.total + flops
    assert after.as_dict() == ledger.as_dict() | {purpose: getattr(ledger, purpose) + flops}


@given(ledgers, ledgers)
def test_ledgers_add(one, other):
    both = one + other
    assert both.total == one.total + other.total
    assert both == other + one
    assert one + Ledger() == one
    assert Ledger(**both.as_dict()) == both


def test_frozen_and_ordered():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ledger().train = 1
    assert tuple(Ledger().as_dict()) == PURPOSES


@pytest.mark.parametrize("flops", [-1, 1.5, True, None])
def test_bad_flops(flops):
    with pytest.raises(UserError, match=r"train is .*; expected an int of at least 0"):
        Ledger().add("train", flops)
    with pytest.raises(UserError, match=r"validate is .*; expected an int of at least 0"):
        Ledger(validate=flops)


def test_unknown_purpose():
    with pytest.raises(UserError, match=r"unknown purpose 'fun'; expected one of train, extract"):
        Ledger().add("fun", 1)
    with pytest.raises(UserError, match="unknown purpose 'total'"):
        Ledger().add("total", 1)
