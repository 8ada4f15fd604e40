"""Clusters that are folders of this machine: fakes of their commands, first on PATH."""

import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import pytest

from launch import tpu
from launch.gcloud import Place, Slice

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


OWN = ("--name=run", "--project=p", "--zone=z", "--type=v4-8")
FLAGS = ("--config=configs/quickstart.py", "--workdir=gs://bucket/run")

# The fake gcloud. In bash, since it is called so often: Python takes ten times as long to start.
# A file early-VERB-NAME has how often the command fails, and what it says then. With late-VERB-NAME
# it does what it is asked for first.
GCLOUD = r"""
fails() {
  local left why file=$CLOUD/$1-$verb-$name
  [[ -e $file ]] && read -r left why < "$file" && ((left > 0)) || return 1
  echo "$((left - 1)) $why" > "$file"
  printf 'ERROR: (gcloud.x)\n%s\n' "$why" >&2
}
verb=$4 name=$5
if [[ $verb == scp ]]; then name=${6%%:*}; fi
# A file for each VM: what is asked at once for two of them is not mixed.
printf '%s\0' "$@" $'\n' >> "$CLOUD/asked-$name"
if fails early; then exit 1; fi
vm=$CLOUD/vms/$name
if [[ $verb == create ]]; then
  mkdir -p "$vm/home" "$vm/shm"
  cat "$CLOUD/becomes-$name" 2> /dev/null > "$vm/states" ||
    echo WAITING_FOR_RESOURCES PROVISIONING ACTIVE > "$vm/states"
fi
if [[ ! -d $vm ]]; then echo "ERROR: (gcloud.x) NOT_FOUND: no '$name'" >&2; exit 1; fi
case $verb in
  describe)
    read -ra states < "$vm/states"
    # As FAILED/the_reason.
    tr / '\t' <<< "${states[0]}"
    ((${#states[@]} == 1)) || echo "${states[@]:1}" > "$vm/states"
    ;;
  delete) rm -r "$vm" ;;
  scp) cp "$5" "$vm/home/${6#*:}" ;;
  ssh)
    text=${!#}
    text=${text#--command=}
    # Memory is a folder of each VM.
    cd "$vm/home" && HOME=$PWD bash -c "${text//\/dev\/shm/$vm/shm}"
    status=$?
    # Once its program has said that it sleeps.
    if [[ -e $CLOUD/preempt-$name ]] && grep -qs sleep "$vm/home/ctl_jax/log"; then
      rm "$CLOUD/preempt-$name"
      kill -9 "$(cat "$vm/shm/ctl_jax/pid")"
      echo ACTIVE SUSPENDING SUSPENDED > "$vm/states"
    fi
    exit $status
    ;;
esac
if fails late; then exit 1; fi
"""

# Makes an environment whose Python is the program of the tests.
UV = """
case "$1" in
  venv) mkdir -p venv/bin && cp {program} venv/bin/python ;;
  pip) [[ -d code/ctl_jax && ! -e {folder}/no_index ]] || {{ echo 'uv: no index' >&2; exit 1; }} ;;
esac
"""


class Cloud(Cluster):
    """A cluster of fake TPU VMs: folders in which the launcher's commands really run."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.shell("gcloud", f"CLOUD={folder}\n{GCLOUD}")
        self.shell("uv", UV.format(program=self.program, folder=folder))
        (folder / "vms").mkdir()
        self.source = folder / "checkout"
        for name in ("ctl_jax", "configs"):
            (self.source / name).mkdir(parents=True)
        files = ("pyproject.toml", "setup.py", "README.md", "ctl_jax/main.py")
        for name in (*files, "configs/quickstart.py"):
            (self.source / name).write_text(name)

    def run(self, *own: str, program: Sequence[str] = FLAGS) -> int:
        """Runs the launcher; its exit status."""
        flags = [*OWN, f"--source={self.source}", "--poll_s=0.1", *own]
        return tpu.main([*flags, "--", *program])

    def machine(self, name: str) -> Slice:
        """A machine of the launcher's."""
        return Slice(Place("p", "z", "v4-8", "tpu-ubuntu2204-base", spot=False), name)

    def machines(self) -> list[str]:
        """The machines that are there."""
        return sorted(path.name for path in (self.folder / "vms").iterdir())

    def fail(self, command: str, *, times: int = 99, why: str = "no such luck") -> None:
        """Lets a command fail: early-VERB-NAME, or late-VERB-NAME to be done first."""
        (self.folder / command).write_text(f"{times} {why}\n")

    def verbs(self, name: str) -> list[str]:
        """What gcloud was asked to do with a machine."""
        return [asked[3] for asked in self.asked() if name in asked[4:6]]


@pytest.fixture
def cluster(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster without any command of its own yet."""
    return _on_path(Cluster, tmp_path, monkeypatch)


@pytest.fixture
def cloud(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud of TPU VMs."""
    return _on_path(Cloud, tmp_path, monkeypatch)


def _on_path(kind, tmp_path, monkeypatch):
    folder = tmp_path / "cluster"
    folder.mkdir()
    made = kind(folder)
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
