"""Kubernetes manifests of a run, as dicts: an Indexed Job of workers, or JobSets of groups."""

import dataclasses
from typing import Any

from ctl_jax.cluster import WORKERS_VARIABLE
from launch import arguments

# The resource that GKE calls its chips.
TPU = "google.com/tpu"
_PORT = 8476
# How long a pod has between SIGTERM and SIGKILL, for a checkpoint. A node of GKE that is taken away
# has 30 s, of which the last 15 are the system's own pods':
# https://cloud.google.com/kubernetes-engine/docs/concepts/spot-vms
_GRACE_S = 180
_SPOT_GRACE_S = 15
# Of the container, where root is not needed.
_USER = 1000
_CONTAINER = "main"
# The one job of a JobSet; part of its pods' names.
_GROUP = "group"


@dataclasses.dataclass(frozen=True)
class Run:
    """What the manifests say.

    Attributes:
      name: of the job.
      namespace: where it is made.
      image: of the container.
      program: arguments of `ctl_jax.main`.
      workers: how many.
      hosts: pods of each.
      selector: labels of the nodes.
      resources: of each pod.
      spot: whether nodes may be taken away.
      claim: PersistentVolumeClaim and the folder that it is mounted on.
      service_account: of the pods; None for the namespace's default.
      retries: failures that do not end the job yet, preemption not counted.
    """

    name: str
    namespace: str
    image: str
    program: tuple[str, ...]
    workers: int
    hosts: int
    selector: dict[str, str]
    resources: dict[str, Any]
    spot: bool
    claim: tuple[str, str] | None
    service_account: str | None
    retries: int


def longest_ending(workers: int, hosts: int) -> str:
    """What Kubernetes and JobSet put behind a run's name, at most, to name hosts and pods."""
    if hosts == 1:
        return f"-{workers - 1}"
    return f"-{workers - 1}-{_GROUP}-0-{hosts - 1}-abcde"


def job(run: Run) -> dict[str, Any]:
    """An Indexed Job: pod i is worker i."""
    rules: list[dict[str, Any]] = [
        {"action": "FailJob", "onExitCodes": _exited(arguments.BAD_INPUT)},
        {"action": "Ignore", "onExitCodes": _exited(arguments.PREEMPTED)},
        {"action": "Ignore", "onPodConditions": [_disrupted()]},
    ]
    # A replacement comes when the old pod is gone; one index never has two.
    spec = _job_spec(run, run.workers, ["--worker=auto"], rules, run.retries)
    spec["podReplacementPolicy"] = "Failed"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": run.name, "namespace": run.namespace},
        "spec": spec,
    }


def job_sets(run: Run) -> list[dict[str, Any]]:
    """A JobSet for each worker, so that the loss of a pod restarts its group and no other."""
    return [_job_set(run, index) for index in range(run.workers)]


def _job_set(run: Run, index: int) -> dict[str, Any]:
    name = f"{run.name}-{index}"
    # JobSet's name of the first pod; Kubernetes fills in the index of each.
    address = f"{name}-{_GROUP}-0-0.{name}:{_PORT}"
    flags = [
        f"--worker={index}/{run.workers}",
        f"--group={address},$(JOB_COMPLETION_INDEX)/{run.hosts}",
    ]
    # A group cannot go on without one of its pods. Of what ends its Job by these rules, wrong input
    # ends the JobSet, and the rest restarts it without limit; any other failure counts.
    rules: list[dict[str, Any]] = [
        {"action": "FailJob", "onExitCodes": _exited(arguments.BAD_INPUT)},
        {"action": "FailJob", "onExitCodes": _exited(arguments.PREEMPTED)},
        {"action": "FailJob", "onPodConditions": [_disrupted()]},
    ]
    metadata: dict[str, Any] = {"name": name, "namespace": run.namespace}
    if any(label.endswith("gke-tpu-topology") for label in run.selector):
        # All pods on one slice, and nothing else there.
        pool = "cloud.google.com/gke-nodepool"
        metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": pool}
    by_rule = {"onJobFailureReasons": ["PodFailurePolicy"]}
    policy = [
        {
            "name": "wrong_input",
            "action": "FailJobSet",
            **by_rule,
            # A Job's reason does not say by which rule it failed; what it says in words does.
            "onJobFailureMessagePatterns": [
                f"failed with exit code {arguments.BAD_INPUT} matching FailJob rule"
            ],
        },
        {"name": "preempted", "action": "RestartJobSetAndIgnoreMaxRestarts", **by_rule},
    ]
    replicated = {
        "name": _GROUP,
        "replicas": 1,
        "template": {"spec": _job_spec(run, run.hosts, flags, rules, 0)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": run.retries, "rules": policy},
            "replicatedJobs": [replicated],
        },
    }


def _exited(status: int) -> dict[str, Any]:
    """The condition of a pod whose program ended with a status."""
    return {"containerName": _CONTAINER, "operator": "In", "values": [status]}


def _disrupted() -> dict[str, str]:
    """The condition of a pod that was evicted, preempted, or lost its node."""
    return {"type": "DisruptionTarget", "status": "True"}


def _job_spec(
    run: Run, pods: int, flags: list[str], rules: list[dict[str, Any]], retries: int
) -> dict[str, Any]:
    return {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        "backoffLimit": retries,
        "podFailurePolicy": {"rules": rules},
        "template": {"spec": _pod(run, flags)},
    }


def _pod(run: Run, flags: list[str]) -> dict[str, Any]:
    # Kubernetes replaces $(NAME) in arguments, and leaves $$(NAME) as $(NAME).
    program = [argument.replace("$(", "$$(") for argument in run.program]
    of_pod, of_container = _security(run)
    container: dict[str, Any] = {
        "name": _CONTAINER,
        "image": run.image,
        "command": ["python", "-m", "ctl_jax.main"],
        "args": program + flags,
        "env": [{"name": WORKERS_VARIABLE, "value": str(run.workers)}],
        "resources": run.resources,
        # The log's last lines are in the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": of_container,
    }
    if run.hosts > 1:
        container["ports"] = [{"containerPort": _PORT}]
    pod: dict[str, Any] = {
        # The failure policies ask for it: a failed pod is replaced, not restarted in place.
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _SPOT_GRACE_S if run.spot else _GRACE_S,
        "nodeSelector": run.selector,
        "securityContext": of_pod,
        "containers": [container],
    }
    if run.service_account is not None:
        pod["serviceAccountName"] = run.service_account
    if run.spot:
        key = "cloud.google.com/gke-spot"
        taint = {"key": key, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        pod["tolerations"] = [taint]
    if run.claim is not None:
        name, folder = run.claim
        container["volumeMounts"] = [{"name": "shared", "mountPath": folder}]
        pod["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": name}}]
    return pod


def _security(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """The security contexts of a pod and of its container: the restricted ones.

    TPUs are the exception: the files of these devices are root's, so that the pods are those of the
    baseline. See https://kubernetes.io/docs/concepts/security/pod-security-standards.
    """
    pod: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    container: dict[str, Any] = {"allowPrivilegeEscalation": False}
    if TPU in run.resources["requests"]:
        return pod | {"runAsUser": 0}, container
    pod |= {"runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER}
    if run.claim is not None:
        # The folder is the user's, too, where its driver can do that.
        pod |= {"fsGroup": _USER, "fsGroupChangePolicy": "OnRootMismatch"}
    return pod, container | {"capabilities": {"drop": ["ALL"]}}
