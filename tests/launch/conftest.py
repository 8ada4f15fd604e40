"""Clusters that are folders of this machine: fakes of their commands, first on PATH."""

import json
import os
import pathlib
import sys
from collections.abc import Callable

import pytest

# Takes the place of Python on the cluster. Notes its arguments and what the cluster told it, and
# ends as the file for its worker says, one line each time: with a status, or "sleep" for long.
_PROGRAM = """\
import json, os, pathlib, sys, time
sys.path.insert(0, {root!r})
from ctl_jax import cluster

folder = pathlib.Path({folder!r})
flags = dict(a[2:].split("=", 1) for a in sys.argv[3:] if "=" in a)
grouped = "group" in flags
worker = cluster.worker_from(flags.get("worker", ""), os.environ, grouped=grouped)
script = folder / f"worker-{{worker.index}}"
lines = script.read_text().split() if script.exists() else ["0"]
if not grouped or os.environ.get("SLURM_PROCID", "0") == "0":
    # At once, since the other processes of a group read it meanwhile.
    (folder / f"new-{{os.getpid()}}").write_text("\\n".join(lines[1:] or lines))
    os.replace(folder / f"new-{{os.getpid()}}", script)
line = json.dumps({{"arguments": sys.argv[1:], "index": worker.index, "count": worker.count,
                   "cwd": os.getcwd()}}) + "\\n"
file = os.open(folder / "started.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(file, line.encode())
# Last: from here on a test may kill it.
print(f"worker {{worker.index}}: {{lines[0]}}", flush=True)
if lines[0] == "sleep":
    time.sleep(60)
sys.exit(int(lines[0]))
"""


class Cluster:
    """A folder of fake commands, of what they were asked, and of what programs do."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "program.py").write_text(
            _PROGRAM.format(folder=str(folder), root=str(pathlib.Path(__file__).parents[2]))
        )
        self.program = self.bin / "fake_python"
        # -S -E: as little of Python's start as possible.
        self._write(self.program, f'exec {sys.executable} -S -E {folder}/program.py "$@"\n')

    def _write(self, path: pathlib.Path, text: str) -> None:
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)

    def command(self, name: str, text: str) -> None:
        """Puts a command on PATH: a file of Python."""
        source = self.folder / f"{name}.py"
        source.write_text(text)
        self._write(self.bin / name, f'exec {sys.executable} -S -E {source} "$@"\n')

    def shell(self, name: str, text: str) -> None:
        """Puts a command on PATH: a text for bash."""
        self._write(self.bin / name, text)

    def behave(self, worker: int, *endings: int | str) -> None:
        """How a worker's program ends: the first time, the second, ... and from then on."""
        (self.folder / f"worker-{worker}").write_text("\n".join(map(str, endings)))

    def started(self) -> list[dict]:
        """What was started so far, in its order."""
        path = self.folder / "started.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def asked(self) -> list[list[str]]:
        """The arguments of each call that was noted: a NUL after each, a line after all."""
        calls = [path.read_text().split("\n\0") for path in sorted(self.folder.glob("asked-*"))]
        return [call.split("\0")[:-1] for each in calls for call in each if call]


@pytest.fixture
def cluster(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster without any command of its own yet."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    made = Cluster(folder)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


@pytest.fixture
def one_line(capsys: pytest.CaptureFixture[str]) -> Callable[[Callable, list[str]], str]:
    """Runs a launcher that must end with one line and status 2, and gives the line."""

    def run(main: Callable, argv: list[str]) -> str:
        with pytest.raises(SystemExit) as ended:
            sys.exit(main(argv))
        assert ended.value.code == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert errors.count("\n") == 1
        return errors

    return run
