"""Budgets: their units, and their texts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.compute.budgets import UNITS, Budget, Pace, unit
from ctl_jax.errors import UserError

PACE = Pace(dense_epoch_flops=1e12, dense_step_flops=4e9, flops_per_second=lambda: 5e10)


@pytest.mark.parametrize(
    ("text", "budget", "canonical"),
    [
        ("2e12", Budget(2e12), "2000000000000 flops"),
        (" 2_000 FLOPs ", Budget(2000), "2000 flops"),
        ("1flop", Budget(1.0), "1 flop"),
        ("2epochs", Budget(2.0, "epochs"), "2 epochs"),
        ("2.0 epochs", Budget(2, "epochs"), "2 epochs"),
        ("1 epoch", Budget(1, "epochs"), "1 epoch"),
        (".5epochs", Budget(0.5, "epochs"), "0.5 epochs"),
        ("1e-7 epoch", Budget(1e-7, "epochs"), "1e-07 epochs"),
        ("2e1epochs", Budget(20, "epochs"), "20 epochs"),
        ("1e16", Budget(10**16), "1e+16 flops"),
        ("50_000steps", Budget(5e4, "steps"), "50000 steps"),
        ("30 seconds", Budget(30, "seconds"), "30 seconds"),
    ],
)
def test_texts(text, budget, canonical):
    assert Budget.parse(text) == budget
    assert str(budget) == canonical


@given(st.floats(1e-300, 1e30), st.sampled_from(list(UNITS)))
def test_a_text_is_read_back_and_equal_budgets_have_one(amount, name):
    budget = Budget(float(max(1, round(amount))) if name == "flops" else amount, name)
    assert Budget.parse(str(budget)) == budget
    assert str(Budget.parse(f"{budget.amount!r}{name}")) == str(budget)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected an amount and a unit"),
        ("epochs", "expected an amount and a unit"),
        ("-1 epochs", "expected an amount and a unit"),
        ("inf", "expected an amount and a unit"),
        ("2 epochs 3", "expected an amount and a unit"),
        ("0 epochs", "budget of 0 epochs: expected more than 0"),
        ("1e400 seconds", r"budget of inf seconds: .* at most 1e\+30"),
        ("0.5", r"budget of 0\.5 flops: expected a whole number"),
        ("2 epoch s", "expected an amount and a unit"),
        (
            "2 days",
            "budget of 2 'days': unknown unit; expected one of flops, epochs, steps, seconds",
        ),
    ],
)
def test_what_is_no_budget_is_one_line(text, expected):
    with pytest.raises(UserError, match=expected) as error:
        Budget.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("budget", "flops"),
    [
        (Budget(4e9), 4 * 10**9),
        (Budget(1e30), int(1e30)),
        (Budget(2, "epochs"), 2 * 10**12),
        (Budget(50, "steps"), 200 * 10**9),
        (Budget(30, "seconds"), 1500 * 10**9),
    ],
)
def test_what_a_budget_pays_for(budget, flops):
    assert budget.flops(PACE) == flops


@given(st.integers(1, 10**3), st.integers(1, 10**12))
def test_tenths_of_an_epoch_pay_for_as_many_steps(tenths, step):
    """Rounding may not cost a step where an epoch has ten."""
    paid = Budget(tenths / 10, "epochs").flops(Pace(10.0 * step, step, lambda: 1.0))
    assert paid // step == tenths


@pytest.mark.parametrize("name", UNITS)
def test_only_what_is_measured_asks_for_the_device(name):
    def measure():
        asked.append(name)
        return 1.0

    asked = []
    Budget(3, name).flops(Pace(1e9, 1e7, measure))
    assert bool(asked) == UNITS[name].measured
    assert re.fullmatch("[a-z_]+s", name)
    assert UNITS[name].sentence.endswith(".")


def test_a_unit_is_one_function(monkeypatch):
    monkeypatch.delitem(UNITS, "minutes", raising=False)

    @unit("minutes", "A minute of training on this device.", measured=True)
    def minutes(amount, pace):
        return 60 * amount * pace.flops_per_second()

    try:
        assert Budget.parse("1minute").flops(PACE) == 3 * 10**12
        assert str(Budget(0.5, "minutes")) == "0.5 minutes"
    finally:
        del UNITS["minutes"]
