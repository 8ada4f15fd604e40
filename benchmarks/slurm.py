"""Runs under a real Slurm that take what Slurm does to jobs, and end as an undisturbed one does.

  python benchmarks/slurm.py [--keep]

It brings up a Slurm of one node on this machine, in a temporary folder, with ports and a key of its
own, and ends it again; it needs Debian's packages `slurm-wlm` and `munge` or their like, and skips
where they are missing. Then launch/slurm.sh runs there: an array of two workers; a job that its
user cancels, which has to stay out of the queue, and to go on by the same sbatch; one that is put
into the queue again from outside; one that comes to its time limit; one that a job of a higher
partition takes the place of. Each results.csv is compared byte for byte, and each loss to the last
bit, with those of a run that Slurm had nothing to do with. Some four minutes on two CPU cores.
"""

import argparse
import contextlib
import getpass
import os
import pathlib
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import kills

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
# Nodes of more CPUs than there are, so that jobs start at once; no cgroups, no accounting.
CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
SlurmdPort={other_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=usual Nodes=ALL Default=YES State=UP PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=ALL State=UP PriorityTier=2 PreemptMode=OFF
"""
# The steps of `kills`, and more of them: so long that every job is in the middle of its work.
CONFIG = kills.CONFIG.replace("return config", "config.seeds = tuple(range(6))\n    return config")
REQUEUED = "into the queue again"


@contextlib.contextmanager
def cluster(folder: pathlib.Path) -> Iterator[None]:
    """A Slurm that the commands of this process and its children find, until the body ends."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host, conf = socket.gethostname().partition(".")[0], folder / "slurm.conf"
    user, (port, other) = getpass.getuser(), _free_ports()
    conf.write_text(CONF.format(host=host, user=user, port=port, other_port=other, folder=folder))
    os.environ["SLURM_CONF"] = str(conf)
    files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log"}
    munge = [f"--{option}={folder}/munge.{ending}" for option, ending in files.items()]
    munge += [f"--seed-file={folder}/munge.seed", "--foreground", "--force"]
    commands = (
        ["munged", *munge],
        ["slurmctld", "-D", "-c", "-f", str(conf)],
        ["slurmd", "-D", "-c", "-f", str(conf), "-N", host],
    )
    daemons = []
    try:
        for command in commands:
            log = open(folder / f"{command[0]}.txt", "w")  # noqa: SIM115
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(1)
        until("the node is idle", lambda: "idle" in ask("sinfo", "--noheader", "--format=%T"), 60)
        yield
    finally:
        subprocess.run(["scancel", "--user", user], check=False)
        time.sleep(3)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=60)


def _free_ports() -> list[int]:
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        return [one.getsockname()[1], other.getsockname()[1]]


def ask(*command: str) -> str:
    """What a command prints; "" where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def until(what: str, is_so: Callable[[], object], limit_s: float = 400) -> None:
    """Waits until it is so."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"after {limit_s:g} s it is not so that {what}")
        time.sleep(0.1)


class Job:
    """A job, or an array of them, of launch/slurm.sh on a run of its own."""

    def __init__(self, folder: pathlib.Path, name: str, *options: str):
        self.name, self._folder, self._options = name, folder, options
        self.workdir = folder / name
        self.submit()

    def submit(self) -> None:
        """Puts it into the queue; its log goes on."""
        logs = f"--output={self._folder}/{self.name}-%j.txt"
        program = [f"--config={self._folder}/config.py", f"--workdir={self.workdir}"]
        script = str(ROOT / "launch" / "slurm.sh")
        self.id = ask("sbatch", "--parsable", logs, *self._options, script, *program).strip()
        if not self.id:
            sys.exit(f"{self.name}: sbatch failed")

    @property
    def log(self) -> str:
        """All that its jobs have printed."""
        return "".join(p.read_text() for p in sorted(self._folder.glob(f"{self.name}-*.txt")))

    def states(self) -> set[str]:
        """Of its jobs, e.g. {"RUNNING"}."""
        fields = ask("scontrol", "--oneliner", "show", "job", self.id).split()
        return {each.partition("=")[2] for each in fields if each.startswith("JobState=")}

    def works(self) -> None:
        """Waits until a trial is done, so that it is in the middle of the next."""
        until(f"{self.name} works", lambda: re.search(r"\[\d+/\d+\] ", self.log))

    def ends(self, state: str = "COMPLETED") -> None:
        """Waits until all its jobs have ended, which has to be so; none is kept waiting."""

        def ended() -> bool:
            states = self.states()
            if "PENDING" in states:
                # Slurm waits two minutes before it starts a job again.
                ask("scontrol", "update", f"JobId={self.id}", "StartTime=now")
            return not states & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}

        def stays() -> bool:
            if not ended():
                return False
            # One that comes into the queue again may be there a moment later.
            time.sleep(3)
            return ended()

        until(f"{self.name} ends", stays)
        if self.states() != {state}:
            sys.exit(f"{self.name}: {self.states()}, expected {state}; it printed\n{self.log}")


def undisturbed(folder: pathlib.Path) -> dict[str, object]:
    """What a run finds that no Slurm knows of."""
    paths = [f"--config={folder}/config.py", f"--workdir={folder}/alone"]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ctl_jax.main", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    print(f"alone, without Slurm: {time.monotonic() - began:.0f} s")
    return kills.found(folder / "alone")


def array(folder: pathlib.Path) -> Job:
    """Two workers share a run."""
    job = Job(folder, "array", "--array=0-1")
    job.ends()
    return job


def cancel(folder: pathlib.Path) -> Job:
    """A job that its user cancels ends; the same sbatch goes on."""
    job = Job(folder, "cancel")
    job.works()
    ask("scancel", job.id)
    job.ends("CANCELLED")
    assert "cancelled; nothing done is lost" in job.log, job.log
    assert REQUEUED not in job.log, job.log
    job.submit()
    job.ends()
    return job


def requeue(folder: pathlib.Path) -> Job:
    """A job that is put into the queue again from outside; the script need not do it as well."""
    job = Job(folder, "requeue")
    job.works()
    ask("scontrol", "requeue", job.id)
    job.ends()
    assert f"Slurm puts it {REQUEUED}" in job.log, job.log
    return job


def limit(folder: pathlib.Path) -> Job:
    """A job that is told to stop before its time is over, which is a minute, as often as it is."""
    job = Job(folder, "limit", "--time=1", "--signal=TERM@45")
    job.ends()
    assert f"stopped before its end; {REQUEUED}" in job.log, job.log
    return job


def preempted(folder: pathlib.Path) -> Job:
    """A job that Slurm would end for good to make room."""
    job = Job(folder, "preempted")
    job.works()
    ask("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    job.ends()
    assert f"stopped before its end; {REQUEUED}" in job.log, job.log
    return job


def main() -> None:
    """Brings Slurm up, and prints how each kind of job ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder, with all logs")
    arguments = parser.parse_args()
    # Debian's daemons are where only root looks.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        print(f"skipped: no {', '.join(missing)} here")
        return
    os.environ |= {"JAX_PLATFORMS": "cpu", "CTL_JAX_PYTHON": sys.executable}
    os.chdir(ROOT)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
    (folder / "config.py").write_text(CONFIG)
    unequal = 0
    with cluster(folder):
        expected = undisturbed(folder)
        for disturbed in (array, cancel, requeue, limit, preempted):
            began = time.monotonic()
            job = disturbed(folder)
            same = kills.found(job.workdir) == expected
            unequal += not same
            took, says = time.monotonic() - began, "equal" if same else "NOT EQUAL"
            print(f"{job.name}: {says}, {took:.0f} s")
            print("".join(f"  {line}\n" for line in job.log.splitlines() if "slurm.sh:" in line))
    if arguments.keep:
        print(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(unequal)


if __name__ == "__main__":
    main()
