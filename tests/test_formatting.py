"""Numbers as text."""

import pytest

from ctl_jax import formatting


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 FLOP"),
        (7, "7 FLOP"),
        (999.4, "999 FLOP"),
        (999.9, "1 kFLOP"),
        (1000, "1 kFLOP"),
        (49_000_000_000, "49 GFLOP"),
        (1.5e12, "1.5 TFLOP"),
        (999_999_999_999, "1 TFLOP"),
        (123_456 * 10**15, "123 EFLOP"),
    ],
)
def test_flops(value, expected):
    assert formatting.flops(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.05, "+5.0%"), (-0.123, "-12.3%"), (0, "+0.0%"), (12, "+1200.0%")]
)
def test_percent(value, expected):
    assert formatting.percent(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(2, "2.0 s"), (90, "1.5 min"), (5400, "1.5 h"), (0, "0.0 s")]
)
def test_duration(value, expected):
    assert formatting.duration(value) == expected


def test_metric():
    assert (formatting.metric(0.5), formatting.metric(None)) == ("0.500", formatting.DASH)
