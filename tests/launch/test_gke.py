"""Manifests: by Kubernetes' rules, and as a small controller runs them here."""

import contextlib
import io
import os
import re
import subprocess

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from ctl_jax import cluster as ctl_cluster
from launch import gke

OWN = ["--name=run", "--image=registry/ctl:1"]
GPU = ["--gpu=nvidia-l4:2"]
# Kubernetes would replace $(HOME), a shell would replace more.
PROGRAM = [
    "--config=configs/quickstart.py",
    "--workdir=gs://bucket/run",
    "--config.data.dirs=('folder:/a b', '$(HOME) $HOME `x`: {y} # \"z\"')",
]


def _documents(capsys, *own, program=PROGRAM):
    assert gke.main([*OWN, *own, "--", *program]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    return list(yaml.safe_load_all(output))


def _check_job_spec(spec):
    """What Kubernetes requires of a Job (batch/v1), beyond the types."""
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] > 0
    assert spec["backoffLimit"] >= 0
    pod = spec["template"]["spec"]
    # Else a podFailurePolicy is refused.
    assert pod["restartPolicy"] == "Never"
    names = {container["name"] for container in pod["containers"]}
    for rule in spec["podFailurePolicy"]["rules"]:
        assert rule["action"] in ("FailJob", "FailIndex", "Ignore", "Count")
        assert len({"onExitCodes", "onPodConditions"} & rule.keys()) == 1
        if exits := rule.get("onExitCodes"):
            assert exits["operator"] in ("In", "NotIn")
            assert exits["containerName"] in names
            assert exits["values"] == sorted(set(exits["values"]))
            assert 0 not in exits["values"]
        for condition in rule.get("onPodConditions", ()):
            assert condition == {"type": "DisruptionTarget", "status": "True"}
    assert all(isinstance(value, str) for value in pod["nodeSelector"].values())
    (container,) = pod["containers"]
    assert all(isinstance(argument, str) for argument in container["args"])
    assert all(isinstance(variable["value"], str) for variable in container["env"])
    resources = container["resources"]
    # A device cannot be asked for without being limited to the same.
    for device, count in resources.get("limits", {}).items():
        assert resources["requests"][device] == count
    mounts = [mount["name"] for mount in container.get("volumeMounts", ())]
    assert mounts == [volume["name"] for volume in pod.get("volumes", ())]
    return pod, container


def _expand(text, env):
    """As the kubelet replaces $(NAME) in arguments."""
    found = re.compile(r"\$(\$|\((\w+)\))")
    return found.sub(lambda m: "$" if m[1] == "$" else env.get(m[2], m[0]), text)


def test_workers_are_an_indexed_job(capsys):
    (job,) = _documents(capsys, *GPU, "--workers=8", "--service_account=me", "--namespace=ns")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["metadata"] == {"name": "run", "namespace": "ns"}
    spec = job["spec"]
    pod, container = _check_job_spec(spec)
    assert spec["completions"] == 8
    assert spec["podReplacementPolicy"] == "Failed"
    assert pod["serviceAccountName"] == "me"
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert container["image"] == "registry/ctl:1"
    # Longer than a checkpoint takes.
    assert pod["terminationGracePeriodSeconds"] >= 120


def test_spot_nodes_have_less_time(capsys):
    (job,) = _documents(capsys, *GPU, "--spot")
    pod, _ = _check_job_spec(job["spec"])
    assert pod["terminationGracePeriodSeconds"] <= 25
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    (toleration,) = pod["tolerations"]
    assert toleration["key"] == "cloud.google.com/gke-spot"


def test_groups_are_job_sets(capsys):
    documents = _documents(
        capsys, "--tpu=tpu-v5-lite-podslice:4x4", "--workers=2", "--hosts=4", "--retries=3"
    )
    assert [document["metadata"]["name"] for document in documents] == ["run-0", "run-1"]
    for index, document in enumerate(documents):
        assert (document["apiVersion"], document["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
        spec = document["spec"]
        policy = spec["failurePolicy"]
        assert policy["maxRestarts"] == 3
        (rule,) = policy["rules"]
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
        assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
        # The reason that a Job has that failed by its podFailurePolicy.
        assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
        (replicated,) = spec["replicatedJobs"]
        assert replicated["replicas"] == 1
        job = replicated["template"]["spec"]
        _, container = _check_job_spec(job)
        assert job["completions"] == 4
        # One pod lost, and the group is started again as a whole.
        assert job["backoffLimit"] == 0
        actions = [rule["action"] for rule in job["podFailurePolicy"]["rules"]]
        assert actions == ["FailJob", "FailJob"]
        assert container["resources"]["limits"] == {"google.com/tpu": 4}
        assert container["args"][-2] == f"--worker={index}/2"
        for pod in range(4):
            group = _expand(container["args"][-1], {"JOB_COMPLETION_INDEX": str(pod)})
            address, number, count = ctl_cluster._explicit(group.removeprefix("--group="))
            assert (number, count) == (pod, 4)
            host, _, port = address.partition(":")
            # <JobSet>-<replicated job>-<job>-<pod>.<JobSet>, and a label has 63 letters at most.
            name = document["metadata"]["name"]
            assert host == f"{name}-{replicated['name']}-0-0.{name}"
            assert int(port) in [entry["containerPort"] for entry in container["ports"]]


def test_a_claim_is_mounted_and_may_hold_the_workdir(capsys):
    program = [PROGRAM[0], "--workdir=/mnt/shared/runs/x"]
    (job,) = _documents(
        capsys, "--cpus=4", "--memory=8Gi", "--claim=nfs:/mnt/shared", program=program
    )
    pod, container = _check_job_spec(job["spec"])
    assert container["volumeMounts"][0]["mountPath"] == "/mnt/shared"
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "nfs"}
    assert container["resources"] == {"requests": {"memory": "8Gi", "cpu": 4}}


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    workers=st.integers(1, 4),
    hosts=st.integers(1, 8),
    spot=st.booleans(),
    value=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30),
)
def test_every_argument_arrives_as_it_was(workers, hosts, spot, value):
    program = [*PROGRAM, f"--config.x={value}"]
    argv = [*OWN, *GPU, f"--workers={workers}", f"--hosts={hosts}", *["--spot"] * spot]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert gke.main([*argv, "--", *program]) == 0
    documents = list(yaml.safe_load_all(output.getvalue()))
    assert len(documents) == (1 if hosts == 1 else workers)
    for document in documents:
        spec = document["spec"]
        if hosts > 1:
            spec = spec["replicatedJobs"][0]["template"]["spec"]
        _, container = _check_job_spec(spec)
        arguments = [_expand(argument, {"HOME": "/root"}) for argument in container["args"]]
        assert arguments[: len(program)] == program


# Applies a Job as its controller does: a pod for each index, replaced by the rules of its policy.
def _apply(job, env, at_most=20):
    spec = job["spec"]
    _, container = _check_job_spec(spec)
    failures = 0
    for index in range(spec["completions"]):
        variables = {entry["name"]: entry["value"] for entry in container["env"]}
        variables["JOB_COMPLETION_INDEX"] = str(index)
        command = [_expand(word, variables) for word in [*container["command"], *container["args"]]]
        for _ in range(at_most):
            status = subprocess.run(command, env=env | variables, check=False).returncode
            if status == 0:
                break
            action = "Count"
            for rule in reversed(spec["podFailurePolicy"]["rules"]):
                if status in rule.get("onExitCodes", {"values": []})["values"]:
                    action = rule["action"]
            failures += action == "Count"
            if action == "FailJob" or failures > spec["backoffLimit"]:
                return "Failed"
    return "Complete"


@pytest.fixture
def env(cluster):
    (cluster.bin / "python").symlink_to(cluster.program)
    return dict(os.environ)


def test_a_job_goes_on_after_preemption(cluster, env, capsys):
    (job,) = _documents(capsys, *GPU, "--workers=3", "--retries=1")
    # Preemption is no failure, however often.
    cluster.behave(1, 75, 75, 75, 0)
    cluster.behave(2, 1, 0)
    assert _apply(job, env) == "Complete"
    started = cluster.started()
    assert [entry["index"] for entry in started] == [0, 1, 1, 1, 1, 2, 2]
    for entry in started:
        assert entry["count"] == 3
        assert entry["arguments"] == ["-m", "ctl_jax.main", *PROGRAM, "--worker=auto"]


@pytest.mark.parametrize(("ending", "starts"), [(2, 1), (1, 3)])
def test_a_job_that_fails_ends(cluster, env, capsys, ending, starts):
    (job,) = _documents(capsys, *GPU, "--workers=2", "--retries=2")
    cluster.behave(0, ending)
    assert _apply(job, env) == "Failed"
    assert len(cluster.started()) == starts


@pytest.mark.parametrize(
    ("own", "program", "expected"),
    [
        (GPU, [], "expected --config after '--'"),
        (GPU, PROGRAM[:1], "expected --workdir after '--'"),
        (GPU, [*PROGRAM, "--group=auto"], "--group=auto: expected none"),
        (GPU, [PROGRAM[0], "--workdir=runs/x"], "--workdir=runs/x: expected gs://BUCKET/FOLDER"),
        (
            [*GPU, "--claim=nfs:/mnt"],
            [PROGRAM[0], "--workdir=/mnt/../x"],
            "or a folder in that of --claim",
        ),
        ([*GPU, "--claim=nfs"], PROGRAM, "--claim=nfs: expected NAME:FOLDER"),
        ([*GPU, "--name=a_b"], PROGRAM, "--name=a_b: expected at most 40 small letters"),
        ([*GPU, f"--name={'a' * 41}"], PROGRAM, "expected at most 40"),
        ([*GPU, "--workers=0"], PROGRAM, "--workers=0: expected a positive number"),
        ([*GPU, "--hosts=0"], PROGRAM, "--hosts=0: expected a positive number"),
        ([], PROGRAM, "0 of --gpu, --tpu and --cpus given; expected one of them"),
        ([*GPU, "--cpus=1"], PROGRAM, "2 of --gpu, --tpu and --cpus given"),
        (["--gpu=nvidia-l4"], PROGRAM, "--gpu=nvidia-l4: expected TYPE:COUNT"),
        (["--tpu=tpu-v4-podslice"], PROGRAM, "expected TYPE:TOPOLOGY"),
        (
            ["--tpu=tpu-v5-lite-podslice:4x4", "--hosts=3"],
            PROGRAM,
            "--hosts=3: expected hosts of 1, 2, 4 or 8 chips",
        ),
        (["--tpu=tpu-v5-lite-podslice:4x4"], PROGRAM, "--hosts=1: expected hosts of"),
        (["--cpus=1", "--memory=lots"], PROGRAM, "--memory=lots: expected a quantity"),
        (["--cpus=0"], PROGRAM, "--cpus=0: expected a positive number"),
        (["--pods=3"], PROGRAM, "unrecognized arguments: --pods=3"),
    ],
)
def test_bad_input_is_one_line(one_line, own, program, expected):
    line = one_line(gke.main, [*OWN, *own, "--", *program])
    assert line.startswith("launch.gke: ")
    assert expected in line


def test_help_has_the_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        gke.main(["--help"])
    assert ended.value.code == 0
    assert "| kubectl apply -f -" in capsys.readouterr().out
