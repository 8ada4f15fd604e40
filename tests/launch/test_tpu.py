"""Workers on fake TPU VMs: folders in which the launcher's commands really run."""

import os
import pathlib
import shlex
import shutil
import signal
import tarfile
import threading
import time

import pytest

from ctl_jax import startup
from ctl_jax.errors import UserError
from launch import remote, tpu

OWN = ["--name=run", "--project=p", "--zone=z", "--type=v4-8"]
# What a shell would make something else of.
PROGRAM = [
    "--config=configs/quickstart.py",
    "--workdir=gs://bucket/run",
    "--config.data.dirs=('folder:/a b', \"$HOME'\", '`x` & ;')",
]

# In bash, since it is called so often: Python takes ten times as long to start.
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


@pytest.fixture
def cloud(cluster):
    cluster.shell("gcloud", f"CLOUD={cluster.folder}\n{GCLOUD}")
    cluster.shell("uv", UV.format(program=cluster.program, folder=cluster.folder))
    (cluster.folder / "vms").mkdir()
    cluster.source = cluster.folder / "checkout"
    _make_checkout(cluster.source)
    return cluster


def _make_checkout(folder):
    for name in ("ctl_jax", "configs"):
        (folder / name).mkdir(parents=True)
    names = ("pyproject.toml", "setup.py", "README.md", "ctl_jax/main.py", "configs/quickstart.py")
    for name in names:
        (folder / name).write_text(name)


def _run(cloud, *own, program=PROGRAM):
    return tpu.main([*OWN, f"--source={cloud.source}", "--poll_s=0.1", *own, "--", *program])


def _wait_for(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _verbs(cloud, name):
    return [asked[3] for asked in cloud.asked() if name in asked[4:6]]


def test_workers_are_started_and_what_is_lost_goes_on(cloud, capsys):
    cloud.behave(0, 75, 0)
    cloud.behave(1, "sleep", 0)
    (cloud.folder / "preempt-run-1").touch()
    assert _run(cloud, "--workers=2", "--spot") == 0

    started = {0: [], 1: []}
    for entry in cloud.started():
        started[entry["index"]].append(entry)
    # One was told to stop, the other's VM was taken away.
    assert [len(entries) for entries in started.values()] == [2, 2]
    for index, entries in started.items():
        for entry in entries:
            assert entry["count"] == 2
            expected = ["-m", "ctl_jax.main", *PROGRAM, f"--worker={index}/2"]
            assert entry["arguments"] == expected
            # Where the config file is.
            assert entry["cwd"].endswith("ctl_jax/code")
    assert _verbs(cloud, "run-0").count("create") == 1
    assert _verbs(cloud, "run-1").count("create") == 2
    creation = next(asked for asked in cloud.asked() if asked[3] == "create")
    assert creation[:3] == ["compute", "tpus", "queued-resources"]
    flags = ("--spot", "--accelerator-type=v4-8", "--project=p", "--zone=z")
    for flag in (*flags, "--runtime-version=tpu-ubuntu2204-base"):
        assert flag in creation
    # Nothing is left that costs.
    assert not any((cloud.folder / "vms").iterdir())
    output = capsys.readouterr().out
    assert "run-0: started again" in output
    assert "run-1: SUSPENDED" in output
    assert output.count(": done\n") == 2


@pytest.mark.parametrize(("ending", "tries"), [(1, 3), (2, 1)])
def test_a_program_that_fails_ends_its_worker(cloud, capsys, ending, tries):
    cloud.behave(0, ending)
    assert _run(cloud, "--tries=3") == ending
    assert len(cloud.started()) == tries
    output = capsys.readouterr().out
    assert f"run-0: failed with status {ending}, {tries} of 3 times" in output
    # The end of its log says why.
    assert f"worker 0: {ending}\n" in output
    assert _verbs(cloud, "run-0")[-1] == "delete"


def test_the_same_command_follows_what_it_finds(cloud, capsys):
    assert _run(cloud, "--keep") == 0
    assert _run(cloud, "--keep") == 0
    # Done already: not started a second time.
    assert len(cloud.started()) == 1
    # Other work starts on the same VM, and needs no other set-up.
    assert _run(cloud, "--keep", program=[*PROGRAM, "--config.seeds=1"]) == 0
    assert len(cloud.started()) == 2
    assert _verbs(cloud, "run-0").count("create") == 1
    assert "delete" not in _verbs(cloud, "run-0")
    last = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(last)[4:6] == ["delete", "run-0"]
    # What failed earlier is tried again, since its cause may be gone.
    cloud.behave(0, 1, 0)
    assert _run(cloud, "--keep", "--tries=1", program=[*PROGRAM, "--config.seeds=2"]) == 1
    assert _run(cloud, "--keep", "--tries=1", program=[*PROGRAM, "--config.seeds=2"]) == 0
    capsys.readouterr()
    assert tpu.main([*OWN, "--delete"]) == 0
    assert not any((cloud.folder / "vms").iterdir())


def test_other_work_that_still_runs_is_stopped_first(cloud):
    place = tpu._place(tpu._parser().parse_args(OWN))
    machine = tpu.Slice(place, "run-0")
    assert machine.create() == ""
    archive = cloud.folder / "code.tar.gz"
    archive.write_bytes(remote.archive(cloud.source, "configs/quickstart.py"))
    assert machine.copy(archive, remote.ARCHIVE) == ""
    assert machine.shell(remote.setup("a", None, "")).returncode == 0
    cloud.behave(0, "sleep", 0)
    for _ in range(2):  # The second time it runs already.
        assert machine.shell(remote.start("b", PROGRAM)).returncode == 0
    assert machine.shell(remote.poll("b")).stdout.startswith(f"{remote.MARK} running\n")
    assert machine.shell(remote.poll("c")).stdout.startswith(f"{remote.MARK} other\n")
    _wait_for(lambda: len(cloud.started()) == 1)
    pid = (cloud.folder / "vms/run-0/shm/ctl_jax/pid").read_text().strip()
    assert machine.shell(remote.start("c", PROGRAM)).returncode == 0
    assert not pathlib.Path(f"/proc/{pid}").exists()
    # A rebooted VM has nothing in its memory, and no such process.
    state = cloud.folder / "vms/run-0/shm/ctl_jax"
    _wait_for((state / "c.status").exists)
    assert machine.shell(remote.poll("c")).stdout.startswith(f"{remote.MARK} 0\n")
    (state / "c.status").unlink()
    (state / "shell").write_text("999999999")
    assert machine.shell(remote.poll("c")).stdout.startswith(f"{remote.MARK} gone\n")
    # A program that does not start is not waited for without end.
    cloud.shell("setsid", "exit 1\n")
    done = machine.shell(remote.start("d", PROGRAM).replace("seq 100", "seq 2"))
    assert done.returncode == 1
    assert "no process number in " in done.stderr


def test_a_set_up_that_fails_is_said(cloud, capsys):
    (cloud.folder / "no_index").touch()
    assert _run(cloud, "--tries=2") == 1
    output = capsys.readouterr().out
    assert "run-0: the program was not installed: uv: no index, 2 of 2 times\n" in output
    assert cloud.started() == []


def test_the_users_own_set_up_runs_once_in_a_shell_of_its_own(cloud):
    own = "--setup=cd /; echo \"$HOME\" >> ~/'data set'; exit 0"
    cloud.behave(0, 75, 0)
    assert _run(cloud, "--keep", own) == 0
    home = cloud.folder / "vms/run-0/home"
    assert (home / "data set").read_text() == f"{home}\n"


def test_a_machine_that_does_not_answer_is_replaced(cloud, monkeypatch):
    monkeypatch.setattr("launch.supervision._SILENT", 2)
    shell = tpu.Slice.shell
    silent = iter([True] * 2)

    def sometimes(self, text, **arguments):
        if next(silent, False):
            text = "exit 255"
        return shell(self, text, **arguments)

    monkeypatch.setattr(tpu.Slice, "shell", sometimes)
    assert _run(cloud) == 0
    assert _verbs(cloud, "run-0").count("create") == 2


def _fail(cloud, when, *, times=99, why="no such luck"):
    (cloud.folder / when).write_text(f"{times} {why}\n")


@pytest.mark.parametrize("own", [[], ["--delete"]])
def test_a_deletion_that_fails_is_tried_again_and_told(cloud, capsys, monkeypatch, own):
    monkeypatch.setattr("launch.supervision._AGAIN_S", (0.01, 0.02))
    for name in ("run-0", "run-1"):
        tpu.Slice(tpu._place(tpu._parser().parse_args(OWN)), name).create()
    argv = ["--workers=2", *own]
    _fail(cloud, "early-delete-run-0", times=2)
    assert _run(cloud, *argv) == 0
    assert "run-0: cannot be deleted: no such luck; again in 0.02 s\n" in capsys.readouterr().out
    assert not any((cloud.folder / "vms").iterdir())

    tpu.Slice(tpu._place(tpu._parser().parse_args(OWN)), "run-0").create()
    _fail(cloud, "early-delete-run-0")
    assert _run(cloud, *argv) == 1
    # What stays is named at the end, with the command for it, and nothing else.
    output = capsys.readouterr().out
    left, command = output.splitlines()[-2:]
    assert left.startswith("Still there, and paid for")
    assert command.startswith("  gcloud compute tpus queued-resources delete run-0 --project=p ")
    (cloud.folder / "early-delete-run-0").unlink()
    assert os.system(command) == 0
    assert not any((cloud.folder / "vms").iterdir())


@pytest.mark.parametrize(
    ("file", "content", "status", "expected"),
    [
        ("early-create-run-0", "99 no quota", 1, "creation failed: no quota"),
        ("late-create-run-0", "99 no answer", 1, "creation failed: no answer"),
        ("early-scp-run-0", "99 disk full", 1, "the code was not copied: disk full"),
        ("becomes-run-0", "FAILED/no_zone", 1, "FAILED: no_zone"),
        ("becomes-run-0", "SUSPENDED", 1, "SUSPENDED"),
        ("early-ssh-run-0", "99 port 22", 255, "cannot be reached: port 22"),
    ],
)
def test_nothing_is_tried_for_ever(cloud, capsys, monkeypatch, file, content, status, expected):
    monkeypatch.setattr("launch.supervision._SILENT", 2)
    (cloud.folder / file).write_text(f"{content}\n")
    tries = 1 if file.startswith("late") else 2
    assert _run(cloud, f"--tries={tries}") == status
    assert f"run-0: {expected}, {tries} of {tries} times\n" in capsys.readouterr().out
    assert cloud.started() == []
    # Nothing is left, also where the creation was only said to have failed.
    assert not any((cloud.folder / "vms").iterdir())


def test_a_machine_that_starts_anew_each_time_is_given_up(cloud, capsys, monkeypatch):
    cloud.behave(0, "sleep")
    shell = tpu.Slice.shell

    def rebooted(self, text, **arguments):
        done = shell(self, text, **arguments)
        if "nohup" in text:
            memory = cloud.folder / "vms/run-0/shm/ctl_jax"
            for name in ("shell", "pid"):
                os.kill(int((memory / name).read_text()), signal.SIGKILL)
            shutil.rmtree(memory)
        return done

    monkeypatch.setattr(tpu.Slice, "shell", rebooted)
    assert _run(cloud, "--tries=2") == 1
    output = capsys.readouterr().out
    assert (
        "run-0: the program is gone: the machine was started anew, or does other work, 2 of"
        in output
    )
    assert not any((cloud.folder / "vms").iterdir())


def test_a_machine_that_came_all_the_same_is_used(cloud, capsys):
    _fail(cloud, "late-create-run-0", times=1)
    assert _run(cloud) == 0
    assert _verbs(cloud, "run-0").count("create") == 1
    assert "run-0: creation failed: no such luck, 1 of 3 times\n" in capsys.readouterr().out
    assert not any((cloud.folder / "vms").iterdir())


def test_a_machine_that_can_no_longer_be_asked_for_is_named(cloud, capsys, monkeypatch):
    monkeypatch.setattr("launch.supervision._SILENT", 2)
    monkeypatch.setattr("launch.supervision._AGAIN_S", ())
    cloud.behave(0, "sleep")
    state = tpu.Slice.state

    def lost(self):
        # As where the credentials end, once the program runs.
        if cloud.started():
            for verb in ("describe", "delete"):
                _fail(cloud, f"early-{verb}-run-0", why="log in again")
        return state(self)

    monkeypatch.setattr(tpu.Slice, "state", lost)
    assert _run(cloud, "--tries=1") == 255
    output = capsys.readouterr().out
    assert "run-0 cannot be described: log in again, 1 of 1 times\n" in output
    assert shlex.split(output.splitlines()[-1])[4:6] == ["delete", "run-0"]
    os.kill(int((cloud.folder / "vms/run-0/shm/ctl_jax/pid").read_text()), signal.SIGKILL)


def test_ctrl_c_names_what_goes_on(cloud, capsys, monkeypatch):
    def interrupted(self):
        self._machine.create()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert self._stop.wait(60)
        return 75

    monkeypatch.setattr(tpu.Supervisor, "run", interrupted)
    assert _run(cloud) == 130
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("The machines go on: the same command follows them")
    assert shlex.split(output[-1])[4:6] == ["delete", "run-0"]


def test_a_refusal_is_told_before_the_others_end(cloud, capsys, monkeypatch):
    _fail(cloud, "early-describe-run-0", why="PERMISSION_DENIED: no quota")
    fail, started = startup.fail, []

    def told(*arguments):
        started.append(len(cloud.started()))
        return fail(*arguments)

    monkeypatch.setattr(startup, "fail", told)
    assert _run(cloud, "--workers=2") == 2
    assert started == [0]
    output, errors = capsys.readouterr()
    assert errors == "launch.tpu: run-0 cannot be described: PERMISSION_DENIED: no quota\n"
    assert "run-1: done\n" in output
    assert not any((cloud.folder / "vms").iterdir())


def test_a_refused_request_is_one_line(cloud, one_line):
    _fail(cloud, "early-describe-run-0", why="PERMISSION_DENIED: no quota")
    argv = [*OWN, f"--source={cloud.source}", "--", *PROGRAM]
    line = one_line(tpu.main, argv)
    assert line == "launch.tpu: run-0 cannot be described: PERMISSION_DENIED: no quota\n"


def test_a_dry_run_prints_the_commands_and_runs_none(cloud, capsys):
    argv = [
        *OWN[:3],
        "--type=v4-32",
        "--group",
        "--workers=2",
        "--dry_run",
        f"--source={cloud.source}",
    ]
    assert tpu.main([*argv, "--", *PROGRAM]) == 0
    assert cloud.asked() == []
    # Each command is for bash, and some have lines of their own.
    words = shlex.split(capsys.readouterr().out)
    for verb, number in [("create", 2), ("scp", 2), ("delete", 2)]:
        assert words.count(verb) == number
    commands = [word for word in words if "nohup" in word]
    for index, command in enumerate(commands):
        started = shlex.split(shlex.split(command.splitlines()[-2])[4])
        start = started.index("../venv/bin/python")
        end = started.index("&")
        flags = [f"--worker={index}/2", "--group=auto"]
        assert started[start:end] == ["../venv/bin/python", "-m", "ctl_jax.main", *PROGRAM, *flags]
    assert len(commands) == 2


@pytest.mark.parametrize(
    ("own", "program", "expected"),
    [
        (["--name=Run"], PROGRAM, "--name=Run: expected at most 61 small letters"),
        ([f"--name={'a' * 61}", "--workers=11"], PROGRAM, "a: expected at most 60 small letters"),
        (["--zone="], PROGRAM, "--zone=: expected a name"),
        (["--workers=0"], PROGRAM, "--workers=0: expected a positive number"),
        (["--workers=x"], PROGRAM, "argument --workers: invalid int value: 'x'"),
        (["--worker=2"], PROGRAM, "unrecognized arguments: --worker=2"),
        (["--poll_s=0"], PROGRAM, "--poll_s=0.0: expected a positive number of seconds"),
        (["--type=tpu"], PROGRAM, "--type=tpu: expected an accelerator type such as v4-8"),
        (["--type=v5litepod-16"], PROGRAM, "expected --group, or one host such as v5litepod-8"),
        (["--type=v9-8"], PROGRAM, "--type=v9-8: expected one of v2-N, v3-N, v4-N, v5litepod-N,"),
        (["--type=v6e-12", "--group"], PROGRAM, "expected v6e-N with N 4, 8, 16, 32, 64"),
        (["--source=/nowhere"], PROGRAM, "expected a config file inside '/nowhere'"),
        ([], [], "expected --config after '--'"),
        ([], PROGRAM[:1], "expected --workdir after '--'"),
        ([], ["--config=configs/no.py", PROGRAM[1]], "expected a config file inside"),
        ([], ["--config=/etc/passwd", PROGRAM[1]], "--config=/etc/passwd: expected a config file"),
        ([], [PROGRAM[0], "--workdir=runs/x"], "--workdir=runs/x: expected gs://BUCKET/FOLDER"),
        ([], [PROGRAM[0], "--workdir=gs://"], "--workdir=gs://: expected gs://BUCKET/FOLDER"),
        ([], [*PROGRAM, "--worker=0/2"], "--worker=0/2: expected none"),
        ([], [*PROGRAM, "x"], "'x' after '--': expected flags as --name=value"),
    ],
)
def test_bad_input_is_one_line(cloud, one_line, own, program, expected):
    line = one_line(tpu.main, [*OWN, f"--source={cloud.source}", *own, "--", *program])
    assert line.startswith("launch.tpu: ")
    assert expected in line
    assert cloud.asked() == []


def test_without_gcloud_it_is_one_line(cloud, one_line, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    line = one_line(tpu.main, [*OWN, f"--source={cloud.source}", "--", *PROGRAM])
    assert line == "launch.tpu: gcloud: not found; expected the Google Cloud CLI on PATH\n"


def test_help_has_the_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        tpu.main(["--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert "python -m launch.tpu --name=nevis" in output
    assert "--dry_run" in output


def test_the_archive_is_the_code_and_the_same_each_time(tmp_path):
    source = tmp_path / "checkout"
    _make_checkout(source)
    for name in ("ctl_jax/__pycache__/x.pyc", "mine/b.py", "mine/c.py"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).touch()
    first = remote.archive(source, "configs/quickstart.py")
    os.utime(source / "setup.py", (1, 1))
    assert remote.archive(source, "configs/quickstart.py") == first
    (tmp_path / "code.tar.gz").write_bytes(remote.archive(source, "mine/b.py:variant=TINY"))
    with tarfile.open(tmp_path / "code.tar.gz") as tar:
        files = {member.name for member in tar.getmembers() if member.isfile()}
    code = {"pyproject.toml", "setup.py", "README.md", "ctl_jax/main.py", "configs/quickstart.py"}
    assert files == code | {"mine/b.py"}
    (source / "setup.py").write_text("changed")
    assert remote.archive(source, "configs/quickstart.py") != first
    (source / "README.md").unlink()
    with pytest.raises(UserError, match=r"expected a checkout with 'README\.md' in it"):
        remote.archive(source, "configs/quickstart.py")


def test_keys_tell_parts_apart():
    assert remote.key("ab", "c") != remote.key("a", "bc")
    assert remote.key(b"ab") == remote.key("ab")
