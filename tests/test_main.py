"""The command: what it prints and how it ends."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import fsspec
import pytest

from ctl_jax import object_store
from ctl_jax.main import main

from .quickly import FLAGS

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUICKSTART = "--config=configs/quickstart.py"


def _start(*arguments, **variables):
    return subprocess.Popen(
        [sys.executable, "-m", "ctl_jax.main", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **variables},
    )


def _run(*arguments):
    process = _start(*arguments)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--config: expected a config file"),
        ((QUICKSTART,), "--workdir: expected the run's folder"),
        (("--config=configs/nowhere.py", "--workdir=W"), "there is no 'configs/nowhere.py'"),
        ((QUICKSTART, "--workdirs=W"), "workdirs"),
        ((QUICKSTART, "--workdir=W", "stray"), "unexpected argument 'stray'"),
        ((QUICKSTART, "--workdir=W", "--worker=8/8"), "--worker=8/8: expected i/n with 0 <= i < n"),
        ((QUICKSTART, "--workdir=W", "--group=host,0/2"), "--group=host,0/2: expected HOST:PORT"),
        (
            (QUICKSTART, "--workdir=W", "--config.finetune.batchsize=3"),
            "config.finetune.batchsize: unknown key; did you mean config.finetune.batch_size?",
        ),
        ((QUICKSTART, "--workdir=W", "--config.finetune.batch_size=x"), "batch_size=x"),
        ((QUICKSTART, "--workdir=W", "--config.weights=a\nb"), "config.weights='a\\nb': expected"),
        ((QUICKSTART, "--workdir=s3://x"), "s3://x: expected a local folder or gs://BUCKET/FOLDER"),
        ((QUICKSTART, "--workdir=~nobody-here/x"), "there is no user 'nobody-here'"),
        (("--config=~nobody-here/c.py", "--workdir=W"), "there is no user 'nobody-here'"),
        (("--config=configs/nevis.py:variants=TINY", "--workdir=W"), "expected variant="),
        (
            (QUICKSTART, "--workdir=W", "--config.methods=('dense', 'densest')"),
            "unknown method 'densest'",
        ),
        (
            ("--config=configs/nevis.py:variant=HUGE", "--workdir=W"),
            "HUGE",
        ),
    ],
)
def test_bad_input_is_one_line_and_a_status(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    arguments = [a.replace("=W", f"={tmp_path}/run") for a in arguments]
    status = main(["ctl_jax.main", *arguments])
    output, errors = capsys.readouterr()
    assert status == 2
    assert output == ""
    assert errors.startswith("ctl_jax: ")
    assert expected in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (ConnectionError("no network"), 1, "/config.json: no answer (ConnectionError: no network)"),
        (FileNotFoundError("404"), 2, "/steps: there is no bucket gs://bucket; expected one that"),
    ],
)
def test_wrong_input_alone_is_status_2(error, status, expected, bucket, monkeypatch, capsys):
    """A store that does not answer may do so for the same command later."""

    def fail(*args, **kwargs):
        raise error

    store = fsspec.get_filesystem_class("gs")
    for name in ("pipe_file", "cat_file", "ls"):
        monkeypatch.setattr(store, name, fail)
    monkeypatch.setattr(object_store, "PATIENCE_S", 0)
    monkeypatch.chdir(ROOT)
    assert main(["ctl_jax.main", QUICKSTART, f"--workdir={bucket}/run"]) == status
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"ctl_jax: gs://bucket/run{expected}")


def test_a_program_ends_with_its_status(tmp_path):
    status, output, errors = _run(QUICKSTART, f"--workdir={tmp_path}/run", "--config.seeds=é\n")
    assert (status, output) == (2, "")
    assert errors == "ctl_jax: --config.seeds[0]=é: expected an integer\n"


@pytest.mark.parametrize("flag", ["--help", "--helpfull", "--helpshort", "-h", "-?"])
def test_help_explains(flag, capsys):
    assert main(["ctl_jax.main", flag]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    for text in ("configs/quickstart.py", "--config", "--workdir", "--[no]plan", "--worker"):
        assert text in output


@pytest.mark.parametrize("module", ["ctl_jax.main", "ctl_jax.data", "launch.tpu", "launch.gke"])
def test_help_ends_well_where_there_is_no_home(module, tmp_path):
    """Nobody, not even root, can make a folder in a file."""
    home = {"HOME": "/dev/null/home", "TMPDIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    home["MPLBACKEND"] = "nowhere"
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert module in done.stdout


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [(signal.SIGTERM, 75, "Told to stop (SIGTERM)."), (signal.SIGINT, 130, "Interrupted.")],
)
def test_a_signal_while_it_is_imported(number, status, message, tmp_path):
    process = _start(QUICKSTART, f"--workdir={tmp_path / 'run'}")
    maps = pathlib.Path(f"/proc/{process.pid}/maps")
    deadline = time.monotonic() + 60
    while "/jaxlib/" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors.startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(tmp_path):
    workdir = tmp_path / "run"
    arguments = (
        QUICKSTART,
        f"--workdir={workdir}",
        "--config.stream.variant=digits",
        "--config.pretrain.task=",
        "--config.methods=scratch",
        "--config.budgets.num=1",
        f"--config.budgets.max_flops={4e9}",
        f"--config.budgets.min_flops={4e9}",
        "--config.finetune.learning_rates=(0.01, 0.02, 0.05, 0.1)",
    )
    process = _start(*arguments, XLA_FLAGS=FLAGS)
    deadline = time.monotonic() + 240
    while not list(workdir.glob("steps/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    message, command = errors.splitlines()
    assert message == "Interrupted. Nothing done is lost. This goes on:"

    again = subprocess.run(
        shlex.split(command),
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": FLAGS},
        capture_output=True,
        text=True,
    )
    output = again.stdout
    assert (again.returncode, again.stderr) == (0, "")
    assert "Trials: 4 =" in output
    for name in ("records.jsonl", "results.csv", "report.html"):
        assert f"wrote {workdir / name}" in output
        assert (workdir / name).exists()
