"""Manifests: by Kubernetes' and JobSet's schemas and rules, and as small controllers run them."""

import contextlib
import io
import json
import os
import pathlib
import re
import subprocess

import hypothesis
import jsonschema
import kubernetes_validate
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
# The oldest that launch/README.md names, and two later ones.
VERSIONS = ("1.31", "1.34", "1.37")


# What a JobSet of v0.10 (jobset.x-k8s.io/v1alpha2) may have, of what is used here, and nothing
# else; its template is a Job's.
JOB_SET = json.loads((pathlib.Path(__file__).parent / "job_set.json").read_text())


def _documents(capsys, *own, program=PROGRAM, versions=VERSIONS[:1]):
    assert gke.main([*OWN, *own, "--", *program]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    documents = list(yaml.safe_load_all(output))
    for document in documents:
        spec = _validate(document, versions)
        _check_restricted(*_check_job_spec(spec))
    return documents


def _validate(document, versions=VERSIONS):
    """Checks it by the schemas; the spec of its Job."""
    job = document
    if document["kind"] == "JobSet":
        jsonschema.validate(document, JOB_SET)
        (replicated,) = document["spec"]["replicatedJobs"]
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": document["metadata"]}
        job["spec"] = replicated["template"]["spec"]
    for version in versions:
        kubernetes_validate.validate(job, version, strict=True)
    return job["spec"]


def _check_restricted(pod, container):
    """The Pod Security Standard "restricted", for what is used here; for TPUs "baseline"."""
    context = pod["securityContext"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert not own.keys() - {"allowPrivilegeEscalation", "capabilities"}
    if "google.com/tpu" in container["resources"]["requests"]:
        # Their files are root's.
        assert context["runAsUser"] == 0
    else:
        assert context["runAsNonRoot"]
        assert context["runAsUser"] > 0
        assert own["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for volume in pod.get("volumes", ()):
        assert volume.keys() == {"name", "persistentVolumeClaim"}


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
    # The end of the log is in the pod's status.
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    mounts = [mount["name"] for mount in container.get("volumeMounts", ())]
    assert mounts == [volume["name"] for volume in pod.get("volumes", ())]
    return pod, container


def _expand(text, env):
    """As the kubelet replaces $(NAME) in arguments."""
    found = re.compile(r"\$(\$|\((\w+)\))")
    return found.sub(lambda m: "$" if m[1] == "$" else env.get(m[2], m[0]), text)


@pytest.mark.parametrize(
    "own",
    [
        [*GPU, "--spot", "--workers=3", "--claim=nfs:/mnt", "--service_account=a.b"],
        ["--cpus=4", "--memory=1.5Gi", "--retries=0"],
        ["--tpu=tpu-v4-podslice:2x2x1"],
        ["--tpu=tpu-v6e-slice:4x4", "--hosts=4", "--workers=2", "--spot", "--claim=a.b:/mnt"],
        [*GPU, "--hosts=2", "--memory=64Gi"],
    ],
)
def test_manifests_are_what_kubernetes_takes(capsys, own):
    document = _documents(capsys, *own, versions=VERSIONS)[0]
    # The schemas are strict, from the top to the bottom.
    spec = _validate(document)
    for part in (document, document["spec"], spec, spec["template"]["spec"]["containers"][0]):
        part["spce"] = 1
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            _validate(document)
        del part["spce"]


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
    assert pod["terminationGracePeriodSeconds"] <= 15
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
        wrong, again = policy["rules"]
        assert (wrong["action"], again["action"]) == (
            "FailJobSet",
            "RestartJobSetAndIgnoreMaxRestarts",
        )
        # The reason that a Job has that failed by its podFailurePolicy.
        assert wrong["onJobFailureReasons"] == again["onJobFailureReasons"] == ["PodFailurePolicy"]
        (replicated,) = spec["replicatedJobs"]
        assert replicated["replicas"] == 1
        job = replicated["template"]["spec"]
        _, container = _check_job_spec(job)
        assert job["completions"] == 4
        # One pod lost, and the group is started again as a whole.
        assert job["backoffLimit"] == 0
        actions = [rule["action"] for rule in job["podFailurePolicy"]["rules"]]
        assert actions == ["FailJob", "FailJob", "FailJob"]
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
    # A config may be there, too, and the workdir all of it.
    program = ["--config=/mnt/shared/c.py:x=1", "--workdir=/mnt/shared"]
    _documents(capsys, "--cpus=4", "--claim=nfs:/mnt/shared/", program=program)
    program = [PROGRAM[0], "--workdir=/mnt/shared/runs/x"]
    (job,) = _documents(
        capsys, "--cpus=4", "--memory=8Gi", "--claim=nfs:/mnt/shared", program=program
    )
    pod, container = _check_job_spec(job["spec"])
    assert container["volumeMounts"][0]["mountPath"] == "/mnt/shared"
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "nfs"}
    assert container["resources"] == {"requests": {"memory": "8Gi", "cpu": 4}}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]


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


def _run_pod(spec, env, index):
    """One pod of a Job: its exit status."""
    _, container = _check_job_spec(spec)
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    variables["JOB_COMPLETION_INDEX"] = str(index)
    command = [_expand(word, variables) for word in [*container["command"], *container["args"]]]
    return subprocess.run(command, env=env | variables, check=False).returncode


def _apply(spec, env, at_most=20):
    """Does what the controller of Jobs does: a pod for each index, replaced by the Job's policy.

    Returns:
      What it says of the Job, in its words: a reason and a message.
    """
    failures = 0
    for index in range(spec["completions"]):
        for _ in range(at_most):
            status = _run_pod(spec, env, index)
            if status == 0:
                break
            number, action = next(
                (
                    (number, rule["action"])
                    for number, rule in enumerate(spec["podFailurePolicy"]["rules"])
                    if status in rule.get("onExitCodes", {"values": []})["values"]
                ),
                (None, "Count"),
            )
            if action == "FailJob":
                return "PodFailurePolicy", (
                    f"Container main for pod default/run-{index}-x2bqp failed with exit code "
                    f"{status} matching FailJob rule at index {number}"
                )
            failures += action == "Count"
            if failures > spec["backoffLimit"]:
                return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    return "CompletionsReached", "Reached expected number of succeeded pods"


def _apply_job_set(document, env, at_most=20):
    """Does what the controller of JobSets does, from v0.10: the action of the first rule."""
    policy = document["spec"]["failurePolicy"]
    counted = 0
    for _ in range(at_most):
        (replicated,) = document["spec"]["replicatedJobs"]
        reason, message = _apply(replicated["template"]["spec"], env)
        if reason == "CompletionsReached":
            return "Completed"
        action = "RestartJobSet"
        for rule in policy["rules"]:
            patterns = rule.get("onJobFailureMessagePatterns", [""])
            if reason in rule["onJobFailureReasons"] and any(
                re.search(pattern, message) for pattern in patterns
            ):
                action = rule["action"]
                break
        if action == "FailJobSet" or (
            action == "RestartJobSet" and counted >= policy["maxRestarts"]
        ):
            return "Failed"
        counted += action == "RestartJobSet"
    raise AssertionError("restarted for ever")


@pytest.fixture
def env(cluster):
    (cluster.bin / "python").symlink_to(cluster.program)
    return dict(os.environ)


def test_a_job_goes_on_after_preemption(cluster, env, capsys):
    (job,) = _documents(capsys, *GPU, "--workers=3", "--retries=1")
    # Preemption is no failure, however often.
    cluster.behave(1, 75, 75, 75, 0)
    cluster.behave(2, 1, 0)
    assert _apply(job["spec"], env)[0] == "CompletionsReached"
    started = cluster.started()
    assert [entry["index"] for entry in started] == [0, 1, 1, 1, 1, 2, 2]
    for entry in started:
        assert entry["count"] == 3
        assert entry["arguments"] == ["-m", "ctl_jax.main", *PROGRAM, "--worker=auto"]


@pytest.mark.parametrize(("ending", "retries", "starts"), [(2, 2, 1), (1, 2, 3), (1, 0, 1)])
def test_a_job_that_fails_ends(cluster, env, capsys, ending, retries, starts):
    own = ["--workers=2", f"--retries={retries}"]
    (job,) = _documents(capsys, *GPU, *own)
    cluster.behave(0, ending)
    assert _apply(job["spec"], env)[0] in ("PodFailurePolicy", "BackoffLimitExceeded")
    assert len(cluster.started()) == starts
    # And so does a group.
    document = _documents(capsys, *GPU, *own, "--hosts=2")[1]
    cluster.behave(1, ending)
    assert _apply_job_set(document, env) == "Failed"
    assert len(cluster.started()) == 2 * starts


def test_a_group_goes_on_after_preemption(cluster, env, capsys):
    (document,) = _documents(capsys, *GPU, "--hosts=2", "--retries=1")
    cluster.behave(0, 75, 75, 75, 1, 0)
    assert _apply_job_set(document, env) == "Completed"
    assert len(cluster.started()) == 6


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
        ([*GPU, "--claim=nfs:/"], PROGRAM, "--claim=nfs:/: expected NAME:FOLDER"),
        ([*GPU, "--claim=nfs:mnt"], PROGRAM, "--claim=nfs:mnt: expected NAME:FOLDER"),
        ([*GPU, "--claim=N_s:/mnt"], PROGRAM, "--claim=N_s: expected at most 253 small letters"),
        ([*GPU, "--name=a_b"], PROGRAM, "--name=a_b: expected at most 61 small letters"),
        ([*GPU, f"--name={'a' * 62}"], PROGRAM, "expected at most 61"),
        ([*GPU, f"--name={'a' * 46}", "--hosts=2"], PROGRAM, "expected at most 45"),
        ([*GPU, "--name=3d", "--hosts=2"], PROGRAM, "--name=3d: expected at most 45 small letters"),
        ([*GPU, "--namespace=Lab"], PROGRAM, "--namespace=Lab: expected at most 63 small letters"),
        ([*GPU, "--service_account="], PROGRAM, "--service_account=: expected at most 253 small"),
        ([*GPU, "--image="], PROGRAM, "--image=: expected an image such as HOST/NAME:TAG"),
        ([*GPU, "--image=Ctl:1"], PROGRAM, "--image=Ctl:1: expected an image"),
        (GPU, [PROGRAM[0], "--workdir=gs://"], "--workdir=gs://: expected gs://BUCKET/FOLDER"),
        (GPU, [PROGRAM[0], "--workdir=gs:///x"], "--workdir=gs:///x: expected gs://BUCKET/FOLDER"),
        (GPU, ["--config=configs/no.py", PROGRAM[1]], "no.py: expected a config file inside"),
        ([*GPU, "--retries=-1"], PROGRAM, "--retries=-1: expected 0 or more"),
        ([*GPU, "--workers=100001"], PROGRAM, "--workers=100001: expected 100000 at most"),
        ([*GPU, "--workers=0"], PROGRAM, "--workers=0: expected a positive number"),
        ([*GPU, "--hosts=0"], PROGRAM, "--hosts=0: expected a positive number"),
        ([], PROGRAM, "0 of --gpu, --tpu and --cpus given; expected one of them"),
        ([*GPU, "--cpus=1"], PROGRAM, "2 of --gpu, --tpu and --cpus given"),
        (["--gpu=nvidia-l4"], PROGRAM, "--gpu=nvidia-l4: expected TYPE:COUNT"),
        (["--tpu=tpu-v4-podslice"], PROGRAM, "expected TYPE:TOPOLOGY"),
        (
            ["--tpu=tpu-v5-lite-podslice:4x4", "--hosts=3"],
            PROGRAM,
            "--hosts=3: expected hosts of 4 chips, so --hosts=4",
        ),
        (["--tpu=tpu-v5-lite-podslice:4x4"], PROGRAM, "--hosts=1: expected hosts of"),
        (["--tpu=tpu-v5-lite-podslice:4x4", "--hosts=2"], PROGRAM, "--hosts=2: expected hosts of"),
        (["--tpu=tpu-v4-podslice:2x2x2"], PROGRAM, "--hosts=1: expected hosts of 4 chips"),
        (["--tpu=tpu-v4-podslice:2x4"], PROGRAM, "tpu-v4-podslice has no such topology"),
        (["--tpu=tpu-v9:2x2"], PROGRAM, "--tpu=tpu-v9:2x2: expected one of the types tpu-v3-"),
        (["--gpu=nvidia-l4:17"], PROGRAM, "--gpu=nvidia-l4:17: expected TYPE:COUNT with at most"),
        (["--cpus=1", "--memory=0Gi"], PROGRAM, "--memory=0Gi: expected a quantity"),
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
