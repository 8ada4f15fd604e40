"""Budgets on an axis of FLOPs."""

import types

from ctl_jax.report._budgets import axis, labels


def _trial(task, budget, flops):
    return types.SimpleNamespace(task=task, budget=budget, budget_flops=flops)


def test_flops_stand_where_they_say():
    names = ["32000000000 flops", "4000000000 flops"]
    assert list(axis(names, []).items()) == [(names[1], 4 * 10**9), (names[0], 32 * 10**9)]


def test_other_units_stand_at_their_mean_over_tasks():
    trials = [
        # Two trials of one task count as much as one of another.
        _trial("a", "2 epochs", 100),
        _trial("a", "2 epochs", 100),
        _trial("b", "2 epochs", 400),
        _trial("a", "1 epoch", 50),
    ]
    found = axis(["30 seconds", "2 epochs", "1 epoch", "100 flops"], trials)
    assert list(found.items()) == [
        ("1 epoch", 50),
        ("100 flops", 100),
        ("2 epochs", 250),
        ("30 seconds", None),
    ]


def test_labels():
    names = ["4000000000 flops", "4000000001 flops", "2 epochs", "1 epoch", "30 seconds"]
    assert labels(names) == ["4 GFLOP", "4.000000001 GFLOP", "2 epochs", "1 epoch", "30 s"]
    assert labels(names[:1]) == ["4 GFLOP"]
