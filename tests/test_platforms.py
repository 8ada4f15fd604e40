"""What the environment asks of JAX, and does not get."""

import subprocess

import jax
import pytest

from ctl_jax import platforms
from ctl_jax.errors import UserError


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--xla_nowhere=1", "Unknown flag in XLA_FLAGS: --xla_nowhere=1"),
        ("--xla_force_host_platform_device_count=x", "Couldn't interpret value x for flag"),
    ],
)
def test_flags_that_xla_refuses(monkeypatch, flags, said):
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(UserError) as error:
        platforms.check_flags()
    assert str(error.value).startswith(f"XLA_FLAGS={flags}: {said}")
    assert "\n" not in str(error.value)


def test_flags_that_xla_takes(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    platforms.check_flags()


@pytest.mark.parametrize("flags", ["", " "])
def test_without_flags_there_is_nothing_to_check(monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    platforms.check_flags()


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        (
            {"JAX_PLATFORMS": "cqu"},
            RuntimeError(
                "Unable to initialize backend 'cqu': Backend 'cqu' is not in the list of known "
                "backends: ['cpu', 'tpu']. (set JAX_PLATFORMS='' to automatically choose)"
            ),
        ),
        ({"JAX_PLATFORMS": "cuda"}, AssertionError()),
        ({"JAX_PLATFORM_NAME": "gpu"}, RuntimeError("Unknown backend\n  gpu")),
    ],
)
def test_devices_that_are_not_there(monkeypatch, variables, error):
    """As JAX says it, which has its devices already here."""

    def fail():
        raise error

    for name in platforms._CHOOSING:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax, "devices", fail)
    asked = " ".join(f"{name}={value}" for name, value in variables.items())
    with pytest.raises(UserError, match=f"^{asked}: JAX has no such devices here") as found:
        platforms.check_devices()
    assert str(found.value).endswith("a platform that there is (here: cpu), or the variable unset")
    assert "\n" not in str(found.value)
    assert "automatically" not in str(found.value)


def test_devices_that_fail_unasked(monkeypatch):
    """Then it is the machine's fault, and no input is wrong."""

    def fail():
        raise RuntimeError("The TPU is already in use by process with pid 7")

    for name in platforms._CHOOSING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(RuntimeError, match="already in use"):
        platforms.check_devices()


def test_devices_that_are_there():
    platforms.check_devices()
    platforms.import_jax()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_disable_jit", True),
        ("jax_no_execution", True),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_transfer_guard", "disallow"),
        ("jax_transfer_guard_host_to_device", "log"),
        ("jax_default_prng_impl", "rbg"),
        ("jax_random_seed_offset", 5),
        ("jax_threefry_partitionable", False),
    ],
)
def test_settings_that_a_run_can_not_have_are_undone(name, value):
    before = {each: getattr(jax.config, each) for each in platforms._NEEDED}
    draw = jax.random.key_data(jax.random.split(jax.random.key(0)))
    try:
        jax.config.update(name, value)
        said = platforms.put_right()
        assert said.startswith(f"{name.upper()}={value}: set aside")
        assert "\n" not in said
        assert platforms.put_right() == ""
        again = jax.jit(lambda: jax.random.key_data(jax.random.split(jax.random.key(0))))()
        assert (again == draw).all()
    finally:
        for each, old in before.items():
            jax.config.update(each, old)


def test_other_settings_are_the_users():
    assert platforms.put_right() == ""
    with jax.enable_x64(True):
        assert platforms.put_right() == ""
