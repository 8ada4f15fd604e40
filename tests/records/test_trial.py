"""Which trial wins."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import records

OUTCOMES = st.tuples(
    st.booleans(), st.none() | st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([None, 0.01, 0.1])
)


def better(one, other):
    """The rule in words: finite before diverged, higher dev, none or a smaller rate, smaller id."""
    if one.diverged != other.diverged:
        return other.diverged
    devs = [-1 if trial.dev is None else trial.dev for trial in (one, other)]
    if devs[0] != devs[1]:
        return devs[0] > devs[1]
    if one.learning_rate != other.learning_rate:
        return (one.learning_rate or 0) < (other.learning_rate or 0)
    return one.id < other.id


@given(outcomes=st.lists(OUTCOMES, min_size=1, max_size=6), order=st.randoms())
def test_the_winner_is_better_than_all_others(make_trial, outcomes, order):
    trials = [
        make_trial(id=str(index), diverged=diverged, dev=dev, learning_rate=rate)
        for index, (diverged, dev, rate) in enumerate(outcomes)
    ]
    best = records.winner(trials)
    assert all(better(best, trial) for trial in trials if trial is not best)
    ranked = sorted(trials, key=records.rank)
    assert all(better(one, two) for one, two in itertools.pairwise(ranked))
    shuffled = list(trials)
    order.shuffle(shuffled)
    assert records.winner(shuffled) is ranked[0] is best


def test_the_full_name_of_auto_says_what_it_chose(make_trial):
    chosen = make_trial(method="auto", notes={"chosen": "filters@0.5:lsq@48px+probe"})
    assert records.full_method(chosen) == "auto: filters@0.5:lsq@48px+probe"
    assert records.full_method(make_trial(method="dense", notes={})) == "dense"
