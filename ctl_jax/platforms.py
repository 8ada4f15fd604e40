"""The environment's settings for JAX, checked before any work: platforms, XLA's flags.

JAX says what is wrong with them in tracebacks of its own, when it is imported or first used, and
XLA ends the process.
"""

import os
import re
import subprocess
import sys

from ctl_jax.errors import UserError

# Variables that choose JAX's devices.
_CHOOSING = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_NUM_CPU_DEVICES")
# What XLA writes before its message: level and date, time, process, place in its source.
_LOG_LINE = re.compile(r"^[EF]\d{4} .*?\S+\.cc:\d+\] (.*)$", re.MULTILINE)
_START_S = 300
# Settings of JAX that a run cannot have otherwise. Its steps are compiled programs that copy where
# they say so, and flax mixes types; and all its numbers follow from the config, so that random ones
# must come of the same generator wherever a part of the run is computed.
_NEEDED = {
    "jax_disable_jit": False,
    "jax_no_execution": False,
    "jax_no_tracing": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_default_prng_impl": "threefry2x32",
    "jax_random_seed_offset": 0,
    "jax_threefry_partitionable": True,
}


def import_jax() -> None:
    """Imports JAX.

    Raises:
      UserError: a variable of the environment holds what is no value of JAX's setting.
    """
    try:
        import jax  # noqa: F401
    except ValueError as error:
        settings = [each for each in os.environ if each.startswith("JAX_")]
        named = [each for each in settings if each.lower() in str(error).lower()]
        raise UserError(
            f"{_settings(*(named or settings))}: {error}; expected values as JAX's documentation "
            "has them, or the variable unset"
        ) from None


def check_flags() -> None:
    """Sees whether XLA takes its flags, in another process: XLA ends the one where it does not.

    Raises:
      UserError: it does not.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if not flags.strip():
        return
    done = _python("import jax; jax.devices()", JAX_PLATFORMS="cpu", JAX_PLATFORM_NAME="")
    # Whatever else may be wrong is found later.
    if done.returncode and (said := _LOG_LINE.search(done.stderr)):
        raise UserError(f"XLA_FLAGS={flags}: {said[1].strip()}; expected flags that XLA knows")


def check_devices() -> None:
    """Sees whether JAX finds the devices that the environment asks for.

    Raises:
      UserError: it does not.
    """
    import jax

    try:
        jax.devices()
    # An AssertionError where no backend of a known name was built in.
    except (RuntimeError, AssertionError, ValueError) as error:
        if not (asked := _settings(*_CHOOSING)):
            raise
        others = {name: "" for name in _CHOOSING if name in os.environ}
        code = "import jax; print(*{d.platform for d in [*jax.devices(), *jax.devices('cpu')]})"
        found = ", ".join(sorted(_python(code, **others).stdout.split())) or "none"
        said = " ".join(str(error).split()).partition(" (set JAX_PLATFORMS")[0]
        reason = f" ({said})" if said else ""
        raise UserError(
            f"{asked}: JAX has no such devices here{reason}; expected a platform that there is "
            f"(here: {found}), or the variable unset"
        ) from None


def put_right() -> str:
    """Undoes settings of JAX that a run cannot have.

    Returns:
      What was undone, for the user, in one line; empty if nothing was.
    """
    import jax

    undone = []
    for name, needed in _NEEDED.items():
        value = getattr(jax.config, name, None)
        if value is not None and value != needed:
            jax.config.update(name, needed)
            undone.append(f"{name.upper()}={value}")
    if not undone:
        return ""
    return f"{', '.join(undone)}: set aside, for a run needs JAX's default there"


def _settings(*names: str) -> str:
    """Those of the variables that are set, as a shell has them."""
    return " ".join(f"{name}={value}" for name in names if (value := os.environ.get(name)))


def _python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    quiet = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # JAX takes an empty number for none.
    env = {k: v for k, v in {**os.environ, **quiet, **variables}.items() if v}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_START_S,
        env=env,
        check=False,
    )
