"""The begin of the commands, in programs of their own, and how they complain."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ctl_jax import startup

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = """
import json, os, sys
from ctl_jax import startup
startup.prepare("it", with_jax=len(sys.argv) > 2)
name = os.fsencode(sys.argv[1]).hex()
print(json.dumps([os.environ.get("HOME"), sys.getfilesystemencoding(), name]))
print("é")
"""


def _start(tmp_path, *arguments, **variables):
    script = tmp_path / "it.py"
    script.write_text(PROGRAM, encoding="utf-8")
    return subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"\\xe9"),
        ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, b"\\xe9"),
        ({"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}, b"\xe9"),
        ({"LC_ALL": "C.UTF-8"}, "é".encode()),
    ],
)
def test_names_of_files_are_utf8_in_any_locale(tmp_path, variables, shown):
    name = "é".encode() + b"\xe9"
    done = _start(tmp_path, name, **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    first, second = done.stdout.splitlines()
    assert json.loads(first)[1:] == ["utf-8", name.hex()]
    assert second == shown


def test_a_home_that_cannot_be_made(tmp_path):
    """Nobody, not even root, can make a folder in a file."""
    done = _start(tmp_path, "x", HOME="/dev/null/home", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.splitlines()[0])[0] == f"{tmp_path}/ctl_jax-{os.getuid()}"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"CTL_JAX_CACHE": "~nobody-here/x"}, "it: variable CTL_JAX_CACHE: ~nobody-here/x: there"),
        ({"JAX_ENABLE_X64": "maybe"}, "it: JAX_ENABLE_X64=maybe: invalid truth value 'maybe'"),
        ({"JAX_NUM_CPU_DEVICES": "x"}, 'it: JAX_NUM_CPU_DEVICES=x: Invalid value "x" for JAX fl'),
    ],
)
def test_an_environment_that_is_wrong(tmp_path, variables, expected):
    done = _start(tmp_path, "x", "with_jax", **variables)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(expected)
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("x=é: expected 'a  b'", "x=é: expected 'a  b'"),
        ("a\nb\r\n", "a\\nb\\r\\n"),
        ("caf\udce9", "caf\\udce9"),
        ("\x1b[1m\u2028\0", "\\x1b[1m\\u2028\\x00"),
    ],
)
def test_a_complaint_is_one_line(capsys, message, line):
    assert startup.fail("it", ValueError(message)) == 2
    assert capsys.readouterr() == ("", f"it: {line}\n")
    assert startup.fail("it", message, status=1) == 1
