"""Standard output and error that last, in programs of their own."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Prints, works, and says so in a file.
PROGRAM = """
import sys
from ctl_jax import streams
streams.install()
print("caf\\udce9 é", flush=True)
print("more", flush=True)
print("an error", file=sys.stderr)
with open(sys.argv[1], "w") as done:
    done.write(f"{done.fileno() > 2}")
sys.exit(streams.settle(int(sys.argv[2]), printing=sys.argv[3] == "printing"))
"""


def _run(tmp_path, *, redirect="", output=subprocess.PIPE, status=0, printing=True, **variables):
    """Runs the program in a shell with that redirection: its status, output and errors."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM, encoding="utf-8", errors="backslashreplace")
    words = [sys.executable, str(script), "done", str(status), "printing" if printing else "run"]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", *words],
        cwd=tmp_path,
        stdout=output,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        timeout=60,
        check=False,
    )
    assert (tmp_path / "done").read_text() == "True"
    return done.returncode, done.stdout, done.stderr


def test_what_is_printed_arrives(tmp_path):
    status, output, errors = _run(tmp_path, PYTHONIOENCODING="utf-8")
    assert (status, output, errors) == (0, "caf\\udce9 é\nmore\n".encode(), b"an error\n")


def test_a_terminal_without_the_letters(tmp_path):
    status, output, _ = _run(tmp_path, PYTHONIOENCODING="ascii")
    assert (status, output) == (0, b"caf\\udce9 \\xe9\nmore\n")


@pytest.mark.parametrize("printing", [True, False])
def test_a_reader_that_goes_away_ends_nothing(tmp_path, printing):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = _run(tmp_path, output=writing, printing=printing)
    finally:
        os.close(writing)
    assert done == (0, None, b"an error\n")


@pytest.mark.parametrize("redirect", [">&-", ">&- 2>&-", ">&- 2>&- <&-", "2>&-"])
def test_what_is_closed(tmp_path, redirect):
    """And no file gets the number of what is closed: libraries would write into it."""
    assert _run(tmp_path, redirect=redirect)[0] == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(
    ("printing", "status", "ends"), [(True, 0, 1), (False, 0, 0), (True, 2, 2), (False, 75, 75)]
)
def test_a_full_disk_is_said(tmp_path, printing, status, ends):
    """A run that is done is done; what only prints has failed."""
    found, _, errors = _run(tmp_path, redirect=">/dev/full", status=status, printing=printing)
    assert found == ends
    assert errors == (
        b"an error\nctl_jax: standard output: No space left on device; some of it is lost\n"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_errors_on_a_full_disk(tmp_path):
    assert _run(tmp_path, redirect="2>/dev/full") == (0, b"caf\\udce9 \xc3\xa9\nmore\n", b"")


@pytest.mark.parametrize(("unbuffered", "arrives"), [("1", b"at once\n"), ("", b"")])
def test_output_waits_no_longer_than_it_would(unbuffered, arrives):
    """A program that is killed has printed what Python would have let it print."""
    code = (
        "from ctl_jax import streams; import os; streams.install(); print('at once'); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        timeout=60,
        check=True,
    )
    assert done.stdout == arrives


LABELLED = """
import sys
from ctl_jax import streams
streams.install()
print("first")
streams.label("worker 3/8 | ")
print("a\\n\\nb", flush=True)
print("begun", end=""); sys.stdout.flush(); print(", ended")
print(f"{sys.stdout.isatty()} é", file=sys.stderr)
"""


def test_lines_of_one_of_many_are_plain_and_labelled():
    """Open MPI makes terminals of its processes' output."""
    reading, writing = os.openpty()
    code = LABELLED.replace("import sys", "import os, sys; assert os.isatty(1)", 1)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        timeout=60,
        check=True,
    )
    os.close(writing)
    printed = os.read(reading, 1000).replace(b"\r\n", b"\n")
    os.close(reading)
    expected = ["first", *(f"worker 3/8 | {line}" for line in ("a", "", "b", "begun, ended")), ""]
    assert printed.decode() == "\n".join(expected)
    assert done.stderr.decode() == "worker 3/8 | False é\n"
