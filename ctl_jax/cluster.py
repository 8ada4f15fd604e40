"""Workers and groups: which part of a run this process is, by the environment of its launcher.

  --worker=3/8                  the fourth of eight workers: each takes whole trials
  --group=10.0.0.1:8476,0/2     the first of two processes that train each trial together
  --worker=auto --group=auto    both from what the cluster has put into the environment

A worker is one process or one group. All processes of a group are given the same `--worker`.

JAX connects the processes of a group. That it waits for one of them, for which and where, it does
not say, and in the end it aborts the process with its stack: so the wait is watched here.
"""

import dataclasses
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from ctl_jax import interrupts
from ctl_jax.errors import UserError

# The number of pods of a Kubernetes Job is not told to its pods; launch/gke.py sets this.
WORKERS_VARIABLE = "CTL_JAX_WORKERS"
# How long the processes of a group wait for one another at the start, and how long between two
# looks at what is wrong.
TIMEOUT_S = 300
_LOOK_S = 3

# (index, count) of the tasks that a cluster starts, by the names it gives them.
_TASKS = {
    "Slurm's srun": ("SLURM_PROCID", "SLURM_NTASKS"),
    "an Indexed Job of Kubernetes": ("JOB_COMPLETION_INDEX", WORKERS_VARIABLE),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
}
_TPU_INDEXES = ("CLOUD_TPU_TASK_ID", "TPU_WORKER_ID")


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of the workers of a run.

    Attributes:
      index: from 0 to count - 1.
      count: how many workers the run was started with.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UserError(f"worker {self.index} of {self.count}: expected 0 <= index < count")


def worker_from(flag: str, env: Mapping[str, str], *, grouped: bool = False) -> Worker:
    """Which worker this process is, or its group.

    Args:
      flag: "" for the only one, "i/n" for number i (from 0) of n, or "auto": a Slurm job array,
        the tasks of Slurm's `srun`, an Indexed Job of Kubernetes with CTL_JAX_WORKERS set, Open
        MPI, or the hosts of a TPU slice, whichever the environment shows first.
      env: the environment.
      grouped: whether this process is one of a group (`--group` was given). Tasks are processes
        of the group then, and only an array numbers the workers.

    Returns:
      The worker.

    Raises:
      UserError: `flag` has another form, or "auto" finds no index or an impossible one.
    """
    if not flag:
        return Worker()
    if flag != "auto":
        return Worker(*_part(flag, f"--worker={flag}", "i/n with 0 <= i < n, e.g. 0/8, or auto"))
    array = _slurm_array(env)
    if grouped:
        # Without an array the group is the only worker.
        return array or Worker()
    tasks = _tasks(env)
    if array is not None and tasks is not None and "SLURM_PROCID" in env:
        # Every task of every job in the array takes trials of its own.
        return Worker(array.index * tasks.count + tasks.index, array.count * tasks.count)
    found = array or tasks or _tpu(env)
    if found is None:
        known = [f"{name} ({index})" for name, (index, _) in _TASKS.items()]
        raise UserError(
            "--worker=auto: the environment names no worker; expected a Slurm array "
            f"(SLURM_ARRAY_TASK_ID), {', '.join(known)} or a TPU slice (TPU_WORKER_ID); "
            "or give --worker=i/n"
        )
    return found


def label(worker: Worker, process: int = 0, processes: int = 1) -> str:
    """What the lines of one of many processes begin with, which may end up in one place.

    Args:
      worker: which one it is of.
      process: its number in its group.
      processes: of its group.

    Returns:
      E.g. "worker 3/8 | ", as the flags have it; "" for a process that is alone.
    """
    names = []
    if worker.count > 1:
        names.append(f"worker {worker.index}/{worker.count}")
    if processes > 1:
        names.append(f"process {process}/{processes}")
    return f"{', '.join(names)} | " if names else ""


def join_group(flag: str, env: Mapping[str, str], *, timeout_s: int = TIMEOUT_S) -> None:
    """Connects the processes of a group, before anything else touches JAX's devices.

    While the others do not come, lines on standard error say whom it waits for, where and why. In
    the end the program ends with one line and status 1: JAX's own client would abort the process,
    with its stack.

    Args:
      flag: "" for no group; "HOST:PORT,i/n" for process i (from 0) of n, of which the first
        listens at the address; "auto" for what JAX detects: a TPU pod, Slurm's `srun`, Open MPI,
        Kubernetes.
      env: the environment.
      timeout_s: how long to wait for the others.

    Raises:
      UserError: `flag` has another form, "auto" detects nothing, or the port cannot be used.
    """
    if not flag:
        return
    settings: dict[str, Any] = {}
    if flag == "auto":
        if _sees_its_own_devices(env):
            # JAX would give each process the one device of its number on the machine.
            settings["local_device_ids"] = []
        expected = "all processes of the cluster's job, started together"
    else:
        address, index, count = _explicit(flag)
        settings = {
            "coordinator_address": address,
            "num_processes": count,
            "process_id": index,
            "local_device_ids": [],
        }
        expected = f"{count} processes with this address, and number 0 on that machine"
        if index == 0 and not _is_free(address):
            # JAX's service says it at length, and may crash at the program's end.
            raise UserError(f"--group={flag}: the port is in use; expected a free one")
    try:
        _connect(settings, flag, expected, timeout_s)
    except (RuntimeError, ValueError, OSError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if flag == "auto":
            expected = (
                "a TPU pod, Slurm's srun, Open MPI, or Kubernetes with its Python package; "
                "or give --group=HOST:PORT,i/n"
            )
        raise UserError(f"--group={flag}: {reason}; expected {expected}") from error


def _part(text: str, given: str, expected: str) -> tuple[int, int]:
    """The numbers of "i/n"."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(f"{given}: expected {expected}")
    return int(match[1]), int(match[2])


def _explicit(flag: str) -> tuple[str, int, int]:
    """Address, process and number of processes of "HOST:PORT,i/n"."""
    expected = "HOST:PORT,i/n with 0 <= i < n, e.g. 10.0.0.1:8476,0/2, or auto"
    address, _, part = flag.rpartition(",")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--group={flag}: expected {expected}")
    return address, *_part(part, f"--group={flag}", expected)


def _number(env: Mapping[str, str], name: str) -> int:
    value = env.get(name)
    if value is None or not re.fullmatch(r"\d{1,9}", value.strip()):
        raise UserError(f"--worker=auto: ${name} is {value!r}; expected a number")
    return int(value)


def _named(env: Mapping[str, str], index_name: str, index: int, count: int) -> Worker:
    if not index < count:
        raise UserError(
            f"--worker=auto: ${index_name} is {env[index_name]!r}, which is number {index} of "
            f"{count}; expected numbers from 0 to {count - 1}"
        )
    return Worker(index, count)


def _slurm_array(env: Mapping[str, str]) -> Worker | None:
    if "SLURM_ARRAY_TASK_ID" not in env:
        return None
    number, first = (_number(env, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN"))
    step = _number(env, "SLURM_ARRAY_TASK_STEP") if "SLURM_ARRAY_TASK_STEP" in env else 1
    count = _number(env, "SLURM_ARRAY_TASK_COUNT")
    if "SLURM_ARRAY_TASK_MAX" in env:
        # In a list with gaps, --array=1,5, nobody is told which number comes when. What would be
        # the shares of those that lack is taken up by the others, like that of a worker that died.
        count = (_number(env, "SLURM_ARRAY_TASK_MAX") - first) // step + 1
    return _named(env, "SLURM_ARRAY_TASK_ID", (number - first) // step, count)


def _tasks(env: Mapping[str, str]) -> Worker | None:
    for index, count in _TASKS.values():
        if index in env:
            return _named(env, index, _number(env, index), _number(env, count))
    return None


def _tpu(env: Mapping[str, str]) -> Worker | None:
    for name in _TPU_INDEXES:
        if name in env:
            # As GKE sets it; without it the slice is one host.
            hosts = env.get("TPU_WORKER_HOSTNAMES", "localhost").split(",")
            return _named(env, name, _number(env, name), len(hosts))
    return None


def _sees_its_own_devices(env: Mapping[str, str]) -> bool:
    """Whether a task of Slurm or Open MPI should use all GPUs that it sees.

    So it is where it is alone on its machine, or was given its own by the cluster.
    """
    # Slurm writes 4(x2) for two machines with four tasks each.
    tasks = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("OMPI_COMM_WORLD_LOCAL_SIZE") or ""
    alone = re.fullmatch(r"1(\(x\d+\))?(,1(\(x\d+\))?)*", tasks) is not None
    visible = env.get("CUDA_VISIBLE_DEVICES", "")
    return alone or (visible != "" and "," not in visible)


def _is_free(address: str) -> bool:
    """Whether this machine can listen at the address's port, on all interfaces as JAX does."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    port = int(address.rpartition(":")[2])
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError:
        return False
    return True


def _connect(settings: Mapping[str, Any], flag: str, expected: str, timeout_s: int) -> None:
    """Joins JAX's group, says what it waits for, and ends the program where it takes longer.

    In a thread, since JAX's client cannot be interrupted. A signal ends the program at once: there
    is nothing to save yet, and the client's own end takes seconds and says much.
    """
    import jax  # What reads `--worker` alone does not wait for it.

    failed: list[BaseException] = []

    def join() -> None:
        try:
            # The deadline comes first: past its own, the client aborts the process.
            jax.distributed.initialize(**settings, initialization_timeout=timeout_s + 60)
        except BaseException as error:
            failed.append(error)

    client = threading.Thread(target=join, daemon=True)
    end, said = time.monotonic() + timeout_s, ""
    with interrupts.catching(False):
        client.start()
        while True:
            client.join(max(0, min(_LOOK_S, end - time.monotonic())))
            if not client.is_alive():
                break
            reason = _why_alone()
            if time.monotonic() >= end:
                _say(flag, f"{reason} within {timeout_s:g} s; expected {expected}")
                # Not 2, wrong input: another try may well find them.
                os._exit(1)
            if reason != said:
                _say(flag, f"{reason} yet; waiting for {timeout_s:g} s at most")
                said = reason
    if failed:
        raise failed[0]


def _say(flag: str, line: str) -> None:
    print(f"ctl_jax: --group={flag}: {line}", file=sys.stderr, flush=True)


def _why_alone() -> str:
    """Who of this process's group did not come, where to, and what is seen of the reason."""
    # There is no public way to what JAX has detected.
    from jax._src.distributed import global_state as group

    if group.coordinator_address is None:
        return "the address of the group's process 0 was not found out"
    return _why(group.coordinator_address, group.process_id, group.num_processes)


def _why(address: str, process: int, processes: int) -> str:
    """See `_why_alone`: of one process of so many, of which number 0 is to be at the address."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except socket.gaierror:
        return f"the name {host!r} of process 0, at {address}, was not known"
    except OSError as error:
        return f"process 0 did not answer at {address} ({(error.strerror or str(error)).lower()})"
    if process:
        return f"process 0 at {address} was there, but not all {processes} processes were"
    if processes == 2:
        return f"process 1 did not come to process 0 at {address}"
    return f"not all of processes 1 to {processes - 1} came to process 0 at {address}"
