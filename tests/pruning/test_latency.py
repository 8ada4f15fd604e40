"""A target of seconds: few measurements, each made once, and the cache of them."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, pruning
from ctl_jax.errors import UserError
from ctl_jax.pruning import _latency
from ctl_jax.pruning._allocation import ALLOCATIONS


def trace(batch: int = 1) -> pruning.Groups:
    def apply(v, x):
        return jnp.tanh(jnp.tanh(x @ v["a"]) @ v["b"]) @ v["c"]

    variables = {"a": jnp.ones((3, 60)), "b": jnp.ones((60, 80)), "c": jnp.ones((80, 2))}
    return pruning.trace(apply, variables, jnp.ones((batch, 3)))


GROUPS = trace()
SCORES = {name: np.arange(group.size) for name, group in GROUPS.items()}
FULL = GROUPS.costs.flops()


def affine(keep: pruning.Keep) -> float:
    """As a device behaves: some seconds whatever the widths, the rest with the FLOPs."""
    return 0.2 + GROUPS.costs.flops(keep) / FULL


class Meter:
    """A measure that counts its calls."""

    def __init__(self, measure=affine):
        self.calls = 0
        self.measure = measure

    def __call__(self, keep):
        self.calls += 1
        return self.measure(keep)


def select(seconds, groups=GROUPS, **options):
    return pruning.select(groups, SCORES, latency=seconds, scope="channels", **options)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("seconds", [0.25, 0.5, 0.9, 1.1])
def test_a_target_is_met_from_below_with_few_measurements(seconds, allocation):
    meter = Meter()
    keep = select(seconds, allocation=allocation, measure=meter)
    assert 0.97 * seconds < affine(keep) <= seconds
    assert meter.calls <= 5
    assert keep.notes == (
        f"latency {affine(keep):.4g} s, asked {seconds} ({meter.calls} networks measured)",
    )


@pytest.mark.parametrize(
    "measure",
    [
        lambda keep: 1 + (len(keep["a"]) > 40),  # a cliff
        lambda keep: 1 + (GROUPS.costs.flops(keep) / FULL) ** 8,
        lambda keep: affine(keep) * np.random.default_rng(len(keep["b"])).uniform(0.9, 1.1) + 0.3,
    ],
)
def test_the_search_ends_where_time_is_no_line_in_the_flops(measure):
    meter = Meter(measure)
    keep = select(1.2, measure=meter)
    assert measure(keep) <= 1.2
    assert meter.calls <= _latency.MEASUREMENTS
    assert 1 < len(keep["a"]) < 60


def test_a_full_network_that_is_far_too_slow_does_not_mislead_the_search():
    meter = Meter(lambda keep: affine(keep) if len(keep["a"]) < 60 else 50.0)
    keep = select(1.15, measure=meter)
    assert 1.05 < affine(keep) <= 1.15
    assert meter.calls <= _latency.MEASUREMENTS


def test_widths_are_found_to_the_last_channel_where_no_flops_tell(monkeypatch):
    monkeypatch.setattr(_latency, "MEASUREMENTS", 30)
    keep = select(1.5, measure=lambda keep: 1.0 if len(keep["a"]) <= 47 else 2.0)
    assert len(keep["a"]) == 47


def test_a_target_that_the_full_network_meets():
    meter = Meter()
    keep = select(1.2, measure=meter)
    assert (len(keep["a"]), len(keep["b"]), meter.calls) == (60, 80, 1)


def test_round_to_and_progress(caplog):
    with caplog.at_level(logging.INFO, logger="ctl_jax"):
        keep = select(0.6, measure=affine, round_to=8)
    assert {len(keep["a"]) % 8, len(keep["b"]) % 8} == {0}
    assert "asked 0.600000 s" in caplog.text


def test_below_what_can_be_reached():
    lowest = affine({"a": 1, "b": 1})
    with pytest.raises(UserError, match=f"latency is 0.1, expected at least {lowest:.3g}: .* 1.2"):
        select(0.1, measure=affine)


def test_the_traced_function_is_what_is_measured(monkeypatch):
    monkeypatch.setattr(_latency, "_measured", {})
    seen = []

    def clock(fn, small, x):
        seen.append(jax.eval_shape(fn, small, x).shape)
        return 1.0 + small["a"].size / 1000

    monkeypatch.setattr(compute, "latency", clock)
    groups = trace(batch=7)
    keep = select(1.1, groups=groups)
    assert 0.98 * 1.1 <= 1.0 + 3 * len(keep["a"]) / 1000 <= 1.1 + 1e-9
    assert set(seen) == {(7, 2)}
    before = len(seen)
    # The process remembers, for another trace of the same network, too; not for other inputs.
    assert select(1.1, groups=trace(batch=7)) == keep
    assert len(seen) == before
    select(1.1, groups=trace(batch=8))
    assert seen[before:] == [(8, 2)] * before


def test_on_this_device(monkeypatch):
    monkeypatch.setattr(_latency, "_measured", {})
    keep = select(1000.0)
    assert len(keep["a"]) == 60
    assert 0 < next(iter(_latency._measured.values())) < 1


def test_cache(tmp_path):
    path = tmp_path / "new" / "latency.json"
    meter = Meter()
    keep = select(0.5, measure=meter, cache=path)
    calls = meter.calls
    assert select(0.5, measure=meter, cache=str(path)) == keep
    assert meter.calls == calls
    content = json.loads(path.read_text())
    assert (content["version"], len(content["seconds"])) == (1, calls)
    assert [file.name for file in path.parent.iterdir()] == ["latency.json"]
    # Other inputs are another program.
    select(0.5, groups=trace(batch=2), measure=meter, cache=path)
    assert meter.calls > calls


def test_what_another_process_wrote_is_not_lost(tmp_path):
    path = tmp_path / "latency.json"
    timed = _latency.measured_by(GROUPS, affine, path)
    path.write_text(json.dumps({"version": 1, "seconds": {"other": 3.0}}))
    full = pruning.Keep({n: np.arange(g.size) for n, g in GROUPS.items()}, GROUPS.layout)
    timed(full)
    seconds = json.loads(path.read_text())["seconds"]
    assert seconds.pop("other") == 3.0
    assert list(seconds.values()) == [affine(full)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no cache of latencies, expected one or no file"),
        ("[]", "is no cache of latencies"),
        ('{"version": 1, "seconds": {"a": null}}', "is no cache of latencies"),
        ('{"version": 2, "seconds": {}}', "has version 2, expected 1"),
    ],
)
def test_a_file_that_is_no_cache(tmp_path, text, message):
    path = tmp_path / "latency.json"
    path.write_text(text)
    with pytest.raises(UserError, match=f"cache .*latency.json {message}"):
        select(0.5, measure=affine, cache=path)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), None, "fast"])
def test_a_measure_that_returns_no_seconds(value):
    with pytest.raises(UserError, match=f"measure returned {value!r}, expected a positive number"):
        select(0.5, measure=lambda keep: value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "1", True])
def test_bad_seconds(seconds):
    with pytest.raises(UserError, match=f"latency is {seconds!r}, expected a positive number"):
        select(seconds)
