"""Which worker and which process of a group: from flags, and from what clusters set."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import textwrap

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax import cluster
from ctl_jax.cluster import Worker
from ctl_jax.errors import UserError

from .quickly import FLAGS

ARRAY = {
    "SLURM_ARRAY_TASK_ID": "6",
    "SLURM_ARRAY_TASK_MIN": "2",
    "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_MAX": "10",
    "SLURM_ARRAY_TASK_COUNT": "5",
}
TASKS = {"SLURM_PROCID": "1", "SLURM_NTASKS": "3"}


@hypothesis.given(count=st.integers(1, 10**6), data=st.data())
def test_a_worker_is_named_by_the_flag(count, data):
    index = data.draw(st.integers(0, count - 1))
    assert cluster.worker_from(f"{index}/{count}", {}) == Worker(index, count)


def test_without_a_flag_there_is_one_worker_whatever_the_environment_says():
    assert cluster.worker_from("", ARRAY | TASKS) == Worker(0, 1)


def test_a_worker_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Worker(0, 2).index = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "flag", ["8/8", "9/8", "0/0", "-1/8", "1", "1/", "/2", "a/b", "1/2/3", " 1/2", "AUTO"]
)
def test_a_wrong_worker_is_one_line(flag):
    with pytest.raises(UserError, match=r"--worker=.*expected i/n with 0 <= i < n"):
        cluster.worker_from(flag, {})


@pytest.mark.parametrize(
    ("env", "grouped", "expected"),
    [
        (ARRAY, False, Worker(2, 5)),
        (ARRAY, True, Worker(2, 5)),
        (TASKS, False, Worker(1, 3)),
        # The tasks of a group are its processes: the array numbers the workers.
        (TASKS, True, Worker(0, 1)),
        (ARRAY | TASKS, True, Worker(2, 5)),
        (ARRAY | TASKS, False, Worker(2 * 3 + 1, 5 * 3)),
        ({"JOB_COMPLETION_INDEX": "3", "CTL_JAX_WORKERS": "4"}, False, Worker(3, 4)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, False, Worker(1, 2)),
        ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b,c"}, False, Worker(1, 3)),
        ({"CLOUD_TPU_TASK_ID": "0"}, False, Worker(0, 1)),
        # Each pod of an Indexed Job on TPU nodes of one host is host 0 of its own slice.
        (
            {
                "JOB_COMPLETION_INDEX": "3",
                "CTL_JAX_WORKERS": "4",
                "TPU_WORKER_ID": "0",
                "TPU_WORKER_HOSTNAMES": "localhost",
            },
            False,
            Worker(3, 4),
        ),
    ],
)
def test_auto_reads_what_the_cluster_set(env, grouped, expected):
    assert cluster.worker_from("auto", env, grouped=grouped) == expected


def test_all_tasks_of_an_array_are_different_workers():
    found = [
        cluster.worker_from(
            "auto",
            ARRAY
            | {"SLURM_ARRAY_TASK_ID": str(job)}
            | {"SLURM_PROCID": str(task), "SLURM_NTASKS": "3"},
        )
        for job in range(2, 12, 2)
        for task in range(3)
    ]
    assert sorted(worker.index for worker in found) == list(range(15))
    assert {worker.count for worker in found} == {15}


@pytest.mark.parametrize("numbers", [(1, 5), (1, 3, 7), (0, 9), (4,)])
@pytest.mark.parametrize("step", [1, 2, 4])
def test_tasks_of_an_array_with_gaps_are_workers_too(numbers, step):
    """Slurm tells a step whatever the list is."""
    array = {
        "SLURM_ARRAY_TASK_MIN": str(min(numbers)),
        "SLURM_ARRAY_TASK_MAX": str(max(numbers)),
        "SLURM_ARRAY_TASK_STEP": str(step),
        "SLURM_ARRAY_TASK_COUNT": str(len(numbers)),
    }
    found = [
        cluster.worker_from("auto", array | {"SLURM_ARRAY_TASK_ID": str(each)}) for each in numbers
    ]
    assert found[0].index == 0
    assert len({worker.count for worker in found}) == 1


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, r"the environment names no worker; expected .*SLURM_ARRAY_TASK_ID.*--worker=i/n"),
        ({"JOB_COMPLETION_INDEX": "3"}, r"\$CTL_JAX_WORKERS is None; expected a number"),
        (TASKS | {"SLURM_NTASKS": "x"}, r"\$SLURM_NTASKS is 'x'; expected a number"),
        (TASKS | {"SLURM_PROCID": "3"}, r"\$SLURM_PROCID is '3', which is number 3 of 3"),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "12"}, r"number 5 of 5; expected numbers from 0 to 4"),
    ],
)
def test_auto_says_what_is_lacking(env, expected):
    with pytest.raises(UserError, match=expected):
        cluster.worker_from("auto", env)


@pytest.mark.parametrize(
    "flag",
    [
        "host:80",
        "host,0/2",
        ":80,0/2",
        "host:0,0/2",
        "host:65536,0/2",
        "host:x,0/2",
        "host:80,2/2",
        "host:80,",
        "0/2",
    ],
)
def test_a_wrong_group_is_one_line(flag):
    with pytest.raises(UserError, match=r"--group=.*expected HOST:PORT,i/n with 0 <= i < n"):
        cluster.join_group(flag, {})


def test_no_group_touches_nothing():
    code = (
        "import os, sys; from ctl_jax import cluster; cluster.join_group('', os.environ);"
        "cluster.worker_from('0/2', os.environ); sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, False),
        # One task on each machine: all GPUs of the machine are its own.
        ({"SLURM_STEP_TASKS_PER_NODE": "1", "CUDA_VISIBLE_DEVICES": "0,1"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4),1"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, True),
        # Several tasks that see the same GPUs take one each, as JAX has it.
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,4"}, False),
        # With --gpus-per-task a task sees its own alone, whatever its number.
        ({"SLURM_STEP_TASKS_PER_NODE": "4", "CUDA_VISIBLE_DEVICES": "0"}, True),
    ],
)
def test_devices_of_a_task(env, expected):
    assert cluster._sees_its_own_devices(env) is expected


JOIN = """
import os, sys
from ctl_jax import cluster, errors
try:
    cluster.join_group(sys.argv[1], os.environ, timeout_s=int(sys.argv[2]))
except errors.UserError as error:
    print(error)
    sys.exit(3)
import jax
print(jax.process_index(), jax.process_count(), jax.device_count())
"""


def _join(flag, timeout_s, **env):
    return subprocess.Popen(
        [sys.executable, "-c", JOIN, flag, str(timeout_s)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS, **env},
    )


def _free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def test_processes_of_a_group_find_each_other_or_say_why_not():
    port, lonely = _free_port(), _free_port()
    pair = [_join(f"127.0.0.1:{port},{index}/2", 60) for index in range(2)]
    # As Slurm's srun would start one task on this machine.
    task = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_TASKS_PER_NODE": "1",
        "JAX_COORDINATOR_PORT": str(_free_port()),
    }
    slurm = _join("auto", 60, **task)
    # The second of two nodes, which does not know the first one's name.
    nodes = {"SLURM_STEP_NODELIST": "nowhere.invalid", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
    unknown = _join("auto", 5, **task | nodes | {"JAX_COORDINATOR_PORT": "80"})
    alone = _join(f"127.0.0.1:{lonely},0/2", 1)
    nothing = _join("auto", 60)

    for index, process in enumerate(pair):
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert output.split() == [str(index), "2", "2"]
    output, errors = slurm.communicate(timeout=120)
    assert (slurm.returncode, output.split()) == (0, ["0", "1", "1"]), errors
    output, errors = alone.communicate(timeout=120)
    assert (alone.returncode, output) == (1, "")
    assert errors == (
        f"ctl_jax: --group=127.0.0.1:{lonely},0/2: process 1 did not come to process 0 at "
        f"127.0.0.1:{lonely} within 1 s; expected 2 processes with this address, and number 0 on "
        "that machine\n"
    )
    output, errors = unknown.communicate(timeout=120)
    assert (unknown.returncode, output) == (1, "")
    said = "ctl_jax: --group=auto: the name 'nowhere.invalid' of process 0, at nowhere.invalid:80"
    assert errors.splitlines() == [
        f"{said}, was not known yet; waiting for 5 s at most",
        f"{said}, was not known within 5 s; expected all processes of the cluster's job, started "
        "together",
    ]
    output, _ = nothing.communicate(timeout=120)
    assert nothing.returncode == 3
    assert output.startswith("--group=auto: ")
    assert output.endswith("or give --group=HOST:PORT,i/n\n")


WAIT = """
from ctl_jax import interrupts
interrupts.install()
print("waiting", flush=True)
with interrupts.catching():
"""


@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_ends_the_wait_for_the_others_at_once(index):
    """As `ctl_jax.main` has it; the client alone would be waited for."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", WAIT + textwrap.indent(JOIN, "    ")),
            *(f"127.0.0.1:{_free_port()},{index}/2", "60"),
        ],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS},
    )
    assert process.stdout.readline() == "waiting\n"
    assert "yet; waiting for 60 s at most" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=3)
    assert (process.returncode, output) == (75, "")
    assert errors.startswith("Told to stop (SIGTERM). Nothing done is lost.")


def test_a_group_that_did_not_come_together_is_explained():
    with socket.create_server(("localhost", 0)) as server:
        there = f"localhost:{server.getsockname()[1]}"
        assert cluster._why(there, 0, 2) == f"process 1 did not come to process 0 at {there}"
        expected = f"not all of processes 1 to 3 came to process 0 at {there}"
        assert cluster._why(there, 0, 4) == expected
        expected = f"process 0 at {there} was there, but not all 4 processes were"
        assert cluster._why(there, 2, 4) == expected
    expected = f"process 0 did not answer at {there} (connection refused)"
    assert cluster._why(there, 1, 2) == expected


@pytest.mark.parametrize(
    ("worker", "group", "expected"),
    [
        (Worker(), (), ""),
        (Worker(3, 8), (), "worker 3/8 | "),
        (Worker(3, 8), (1, 2), "worker 3/8, process 1/2 | "),
        (Worker(), (0, 2), "process 0/2 | "),
    ],
)
def test_lines_of_one_of_many_say_whose_they_are(worker, group, expected):
    assert cluster.label(worker, *group) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_port_in_use_is_one_line(host):
    with socket.create_server((host, 0)) as server:
        flag = f"127.0.0.1:{server.getsockname()[1]},0/2"
        with pytest.raises(UserError, match=f"--group={flag}: the port is in use; expected"):
            cluster.join_group(flag, {})
