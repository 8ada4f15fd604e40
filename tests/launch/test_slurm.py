"""Jobs of a fake Slurm: sbatch reads the script's options, srun really starts the tasks."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "slurm.sh"
PROGRAM = [
    "--config=configs/quickstart.py",
    "--workdir=/shared/run",
    "--config.data.dirs=('folder:/a b', \"$HOME\", '`x` & ;')",
]

# One job after the other, each again for as long as it asks for it.
SBATCH = """
import json, os, pathlib, re, shutil, subprocess, sys

folder = pathlib.Path(__file__).parent
own, script = {}, None
arguments = sys.argv[1:]
while arguments and arguments[0].startswith("--"):
    name, _, value = arguments.pop(0)[2:].partition("=")
    own[name] = value
script = pathlib.Path(arguments.pop(0))
# Slurm runs a copy, and reads its options up to the first line that is neither comment nor empty.
for line in script.read_text().splitlines():
    if line.startswith("#SBATCH --"):
        name, _, value = line.removeprefix("#SBATCH --").partition("=")
        own.setdefault(name, value)
    elif line and not line.startswith("#"):
        break
(folder / "options.json").write_text(json.dumps(own))
shutil.copy(script, folder / "slurm_script")
first, _, last = own.get("array", "").partition("-")
env = os.environ | {"SLURM_SUBMIT_DIR": os.getcwd(), "SLURM_JOB_NUM_NODES": own.get("nodes", "1")}
for job in range(int(first or 0), int(last or first or 0) + 1):
    array = {"ID": job, "MIN": first, "COUNT": int(last or 0) - int(first or 0) + 1, "STEP": 1}
    array["MAX"] = last
    # The last of an array has the number that also stands for all of it.
    number = name = str(100 + int(last or 0) - job)
    if first:
        env |= {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
        env["SLURM_ARRAY_JOB_ID"], name = "100", f"100_{job}"
    env["SLURM_JOB_ID"] = number
    again = folder / f"requeue-{name}"
    while True:
        done = subprocess.run(["bash", folder / "slurm_script", *arguments], env=env)
        if not again.exists():
            break
        again.unlink()
sys.exit(done.returncode)
"""
SRUN = """
import os, pathlib, subprocess, sys

folder = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
while arguments[0].startswith("--"):
    arguments.pop(0)
nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
tasks = [
    subprocess.Popen(arguments, env=os.environ | {
        "SLURM_PROCID": str(task), "SLURM_NTASKS": str(nodes), "SLURM_LOCALID": "0",
        "SLURM_STEP_TASKS_PER_NODE": f"1(x{nodes})" if nodes > 1 else "1",
    })
    for task in range(nodes)
]
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """
import pathlib, sys

folder = pathlib.Path(__file__).parent
if sys.argv[1:-1] == ["--oneliner", "show", "job"]:
    print((folder / "job").read_text())
else:
    assert sys.argv[1] == "requeue", sys.argv
    (folder / f"requeue-{sys.argv[2]}").touch()
"""
# What Slurm 22.05 said of jobs after their steps had ended, in these fields among others.
JOB = (
    "JobId=7 JobName=ctl_jax UserId=root(0) JobState={state} Reason={reason} Dependency=(null) "
    "Requeue=1 Restarts={restarts} BatchFlag=1 RunTime=00:00:03 StartTime=2026-11-28T19:37:36 "
    "EndTime=2026-11-28T19:37:39 PreemptEligibleTime=2026-11-28T19:37:36 PreemptTime={preempted}"
)


def _job(state="RUNNING", reason="None", restarts=0, preempted="None"):
    return JOB.format(state=state, reason=reason, restarts=restarts, preempted=preempted)


@pytest.fixture
def slurm(cluster, monkeypatch):
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        cluster.command(name, text)
    (cluster.folder / "job").write_text(_job())
    monkeypatch.setenv("CTL_JAX_PYTHON", str(cluster.program))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return cluster


def _sbatch(*own, program=PROGRAM):
    arguments = ["sbatch", *own, str(SCRIPT), *program]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_an_array_is_workers_and_what_was_stopped_goes_on(slurm):
    slurm.behave(1, 75, 75, 0)
    done = _sbatch("--array=4-6")
    assert done.returncode == 0, done.stderr
    assert [entry["index"] for entry in slurm.started()] == [0, 1, 1, 1, 2]
    for entry in slurm.started():
        assert entry["count"] == 3
        assert entry["arguments"] == ["-m", "ctl_jax.main", *PROGRAM, "--worker=auto"]
    options = json.loads((slurm.folder / "options.json").read_text())
    # To the steps, in time for a checkpoint; and into the queue again.
    assert options["signal"] == "TERM@120"
    assert "requeue" in options
    assert options["open-mode"] == "append"


def test_nodes_are_a_group(slurm):
    assert _sbatch("--array=0-1", "--nodes=2").returncode == 0
    started = slurm.started()
    flags = ["--worker=auto", "--group=auto"]
    assert all(entry["arguments"][-2:] == flags for entry in started)
    # Both processes of a group are the same worker.
    assert [entry["index"] for entry in started] == [0, 0, 1, 1]
    assert {entry["count"] for entry in started} == {2}


def test_one_job_is_the_only_worker(slurm):
    assert _sbatch().returncode == 0
    (entry,) = slurm.started()
    assert entry["arguments"] == ["-m", "ctl_jax.main", *PROGRAM]


def test_a_program_that_fails_is_not_started_again(slurm):
    slurm.behave(0, 1, 0)
    assert _sbatch("--array=0-0").returncode == 1
    assert len(slurm.started()) == 1


def test_a_job_that_slurm_tells_to_stop_waits_for_its_step(slurm, monkeypatch):
    # The step ends a moment after the signal, as one that saves.
    flag = slurm.folder / "told"
    slurm.shell("srun", f"touch {flag}; sleep 0.5; exit 75\n")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    job = subprocess.Popen(["bash", str(SCRIPT), *PROGRAM])
    deadline = time.monotonic() + 60
    while not flag.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 75
    assert (slurm.folder / "requeue-7").exists()


@pytest.mark.parametrize(
    ("program", "env", "expected"),
    [
        ([], {}, "expected --config=FILE, see --help"),
        (PROGRAM[:1], {}, "expected --workdir=FOLDER that all nodes see"),
        ([*PROGRAM, "--worker=1/2"], {}, "--worker=1/2: expected none"),
        ([*PROGRAM, "x y"], {}, "'x y': expected flags of ctl_jax.main"),
        (PROGRAM, {"CTL_JAX_PYTHON": "/no/python"}, "'/no/python': expected a Python"),
        (PROGRAM, {"SLURM_JOB_ID": ""}, "not in a Slurm job; expected sbatch launch/slurm.sh"),
    ],
)
def test_bad_input_is_one_line(slurm, program, env, expected):
    done = subprocess.run(
        ["bash", str(SCRIPT), *program],
        env=os.environ | {"SLURM_JOB_ID": "7"} | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("launch/slurm.sh: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert slurm.started() == []


def _stopped(slurm, monkeypatch, status=75):
    """What becomes of a job whose step ended so."""
    slurm.shell("srun", f"exit {status}\n")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    done = subprocess.run(
        ["bash", str(SCRIPT), *PROGRAM], capture_output=True, text=True, check=False
    )
    return done, (slurm.folder / "requeue-7").exists()


@pytest.mark.parametrize(
    ("job", "requeued", "says"),
    [
        # --signal, scancel --signal=TERM, or a preemption with a time of grace.
        (_job(), True, "stopped before its end; into the queue again"),
        (_job(preempted="2026-11-28T19:37:39"), True, "into the queue again"),
        # scancel; also after a preemption of long ago.
        (_job("COMPLETING"), False, "cancelled; nothing done is lost, the same sbatch goes on"),
        (_job("COMPLETING", preempted="2026-11-28T19:30:00"), False, "cancelled"),
        # The end of its time, and PreemptMode=CANCEL.
        (_job("COMPLETING", reason="TimeLimit"), True, "into the queue again"),
        (_job("COMPLETING", preempted="2026-11-28T19:37:39"), True, "into the queue again"),
        # scontrol requeue from outside, PreemptMode=REQUEUE, a node that fails.
        (_job("COMPLETING", restarts=1), False, "Slurm puts it into the queue again"),
        (_job("PENDING", reason="BeginTime", restarts=1), False, "Slurm puts it into"),
    ],
)
def test_a_stopped_job_goes_on_unless_it_was_cancelled(slurm, monkeypatch, job, requeued, says):
    (slurm.folder / "job").write_text(job)
    done, again = _stopped(slurm, monkeypatch)
    assert (done.returncode, again, done.stderr) == (75, requeued, "")
    assert done.stdout.startswith("launch/slurm.sh: job 7: ")
    assert says in done.stdout


def test_restarts_that_the_job_knows_of_are_no_new_ones(slurm, monkeypatch):
    (slurm.folder / "job").write_text(_job("COMPLETING", restarts=2))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    done, again = _stopped(slurm, monkeypatch)
    assert not again
    assert "cancelled" in done.stdout


def test_what_was_ended_before_it_could_save_goes_on(slurm, monkeypatch):
    # A group that waits for its processes, or Python at its very start.
    assert _stopped(slurm, monkeypatch, status=143)[1]


def test_a_controller_that_does_not_answer_is_asked_again(slurm, monkeypatch):
    slurm.shell("sleep", f'echo "$1" >> {slurm.folder}/pauses\n')
    # A requeue that Slurm was faster with is no failure.
    said = slurm.folder / "job"
    later = slurm.folder / "later"
    later.write_text(_job("PENDING", restarts=1))
    show = f'if [[ "$1" == --oneliner ]]; then cat {said}; exit; fi'
    slurm.shell("scontrol", f"{show}\nmv {later} {said}\nexit 1\n")
    done, _ = _stopped(slurm, monkeypatch)
    assert done.returncode == 75
    assert done.stdout.endswith("Slurm puts it into the queue again\n")

    slurm.shell("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1\n")
    done, _ = _stopped(slurm, monkeypatch)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "launch/slurm.sh: job 7: not in the queue again, for scontrol failed; the same sbatch "
        "goes on\n"
    )
    assert (slurm.folder / "pauses").read_text().split() == ["0", "5", "0", "5", "5", "5"]


def test_help_has_the_commands():
    done = subprocess.run(
        ["bash", str(SCRIPT), "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "sbatch --array=0-7" in done.stdout
    assert "#" not in done.stdout


def test_the_script_is_sound():
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_finds_nothing():
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
