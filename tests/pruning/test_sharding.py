"""Arrays over several devices, in a process of its own that has them."""

import os
import pathlib
import subprocess
import sys

from ..quickly import FLAGS

CASES = pathlib.Path(__file__).with_name("sharding_cases.py")


def test_on_four_devices():
    flags = f"{FLAGS} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(CASES)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=CASES.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
