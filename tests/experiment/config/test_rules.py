"""What values of the config's keys make sense; the table of what does not is in test_checking."""

from ctl_jax.experiment.config import rules


def test_names_may_be_added():
    names = {"grid": 1}
    check = rules.one_of(names)
    assert not check.holds("halving")
    names["halving"] = 2
    assert check.holds("halving")
    assert check.expected == "one of grid, halving"
    assert rules.one_of(("", "a")).expected == "one of '', a"


def test_the_strategies_that_there_are_may_be_named():
    assert rules.STRATEGY.holds("grid")
