"""Workers on fake TPU VMs: folders in which the launcher's commands really run."""

import os
import pathlib
import shlex
import tarfile
import time

import pytest

from ctl_jax.errors import UserError
from launch import remote, tpu

OWN = ["--name=run", "--project=p", "--zone=z", "--type=v4-8"]
# What a shell would make something else of.
PROGRAM = [
    "--config=configs/quickstart.py",
    "--workdir=gs://bucket/run",
    "--config.data.dirs=('folder:/a b', \"$HOME'\", '`x` & ;')",
]


def _wait_for(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_are_started_and_what_is_lost_goes_on(cloud, capsys):
    cloud.behave(0, 75, 0)
    cloud.behave(1, "sleep", 0)
    (cloud.folder / "preempt-run-1").touch()
    assert cloud.run("--workers=2", "--spot", program=PROGRAM) == 0

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
    assert cloud.verbs("run-0").count("create") == 1
    assert cloud.verbs("run-1").count("create") == 2
    creation = next(asked for asked in cloud.asked() if asked[3] == "create")
    assert creation[:3] == ["compute", "tpus", "queued-resources"]
    flags = ("--spot", "--accelerator-type=v4-8", "--project=p", "--zone=z")
    for flag in (*flags, "--runtime-version=tpu-ubuntu2204-base"):
        assert flag in creation
    # Nothing is left that costs.
    assert cloud.machines() == []
    output = capsys.readouterr().out
    assert "run-0: started again" in output
    assert "run-1: SUSPENDED" in output
    assert output.count(": done\n") == 2


def test_the_same_command_follows_what_it_finds(cloud, capsys):
    assert cloud.run("--keep") == 0
    assert cloud.run("--keep") == 0
    # Done already: not started a second time.
    assert len(cloud.started()) == 1
    # Other work starts on the same VM, and needs no other set-up.
    assert cloud.run("--keep", program=[*PROGRAM, "--config.seeds=1"]) == 0
    assert len(cloud.started()) == 2
    assert cloud.verbs("run-0").count("create") == 1
    assert "delete" not in cloud.verbs("run-0")
    last = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(last)[4:6] == ["delete", "run-0"]
    # What failed earlier is tried again, since its cause may be gone.
    cloud.behave(0, 1, 0)
    assert cloud.run("--keep", "--tries=1", program=[*PROGRAM, "--config.seeds=2"]) == 1
    assert cloud.run("--keep", "--tries=1", program=[*PROGRAM, "--config.seeds=2"]) == 0
    capsys.readouterr()
    assert tpu.main([*OWN, "--delete"]) == 0
    assert cloud.machines() == []


def test_other_work_that_still_runs_is_stopped_first(cloud):
    machine = cloud.machine("run-0")
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


def test_the_users_own_set_up_runs_once_in_a_shell_of_its_own(cloud):
    own = "--setup=cd /; echo \"$HOME\" >> ~/'data set'; exit 0"
    cloud.behave(0, 75, 0)
    assert cloud.run("--keep", own) == 0
    home = cloud.folder / "vms/run-0/home"
    assert (home / "data set").read_text() == f"{home}\n"


def test_a_refused_request_is_one_line(cloud, one_line):
    cloud.fail("early-describe-run-0", why="PERMISSION_DENIED: no quota")
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


def test_the_archive_is_the_code_and_the_same_each_time(cloud, tmp_path):
    source = cloud.source
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
