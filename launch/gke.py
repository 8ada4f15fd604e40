"""Prints the manifests that run `ctl_jax.main` on Kubernetes (GKE), for `kubectl apply`.

Eight workers, each a pod with one GPU (each takes whole trials):

  python -m launch.gke --name=nevis --image=IMAGE --workers=8 --gpu=nvidia-l4:1 --spot -- \\
    --config=configs/nevis.py:variant=SHORT --workdir=gs://my-bucket/runs/nevis \\
    | kubectl apply -f -

Two workers, each a group of four pods that train each trial together, on TPU slices; this needs
JobSet (https://jobset.sigs.k8s.io) in the cluster:

  python -m launch.gke --name=nevis --image=IMAGE --workers=2 --hosts=4 \\
    --tpu=tpu-v5-lite-podslice:4x4 -- \\
    --config=configs/nevis.py:variant=SHORT --workdir=gs://my-bucket/runs/nevis \\
    | kubectl apply -f -

IMAGE is made by launch/Dockerfile. A pod that is preempted, or that was told to stop (exit status
75), is replaced without limit and goes on from the workdir; wrong input (2) ends the job, and so
does one failure more than --retries.
"""

import argparse
import pathlib
import re
import sys
from typing import Any

import yaml  # type: ignore[import-untyped]

from ctl_jax import startup, streams
from ctl_jax.errors import UserError
from launch import arguments, manifests, tpus

_COMMAND = "launch.gke"
_TPU_EXAMPLE = "tpu-v5-lite-podslice:2x4"
# https://pkg.go.dev/github.com/distribution/reference
_IMAGE = re.compile(
    r"([a-zA-Z0-9][a-zA-Z0-9.-]*(:\d+)?/)?"
    r"{part}(/{part})*(:\w[\w.-]{{0,127}})?(@\w+(?:[-.+_]\w+)*:[0-9a-fA-F]{{32,}})?".format(
        part=r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    )
)
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITY = re.compile(r"\+?(\d+\.?\d*|\.\d+)([KMGTPE]i|[kMGTPE]|[eE][+-]?\d+)?")
# Kubernetes: pods of an Indexed Job at once.
_MOST_PODS = 100_000
# The most that a node has: Google's a2-megagpu-16g.
_MOST_GPUS = 16


def main(argv: list[str]) -> int:
    """Prints what the command line asks for."""
    own, program = arguments.split(argv)
    options = _parser().parse_args(own)
    try:
        run = _run(options, program)
        documents = manifests.job_sets(run) if run.hosts > 1 else [manifests.job(run)]
    except UserError as error:
        arguments.fail(_COMMAND, error)
    print(yaml.safe_dump_all(documents, sort_keys=False, width=100), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(_COMMAND, __doc__)
    add = parser.add_argument
    add("--name", required=True, help="name of the Job; groups are called NAME-0, NAME-1, ...")
    add("--image", required=True, help="container image with ctl_jax and configs")
    add("--namespace", default="default", help="Kubernetes namespace (%(default)s)")
    add("--workers", type=int, default=1, help="how many workers (%(default)s)")
    add("--hosts", type=int, default=1, help="pods of one worker; more are a group (%(default)s)")
    add("--gpu", help="TYPE:COUNT of each pod, e.g. nvidia-h100-80gb:8")
    add("--tpu", help="TYPE:TOPOLOGY of each worker, e.g. tpu-v5-lite-podslice:2x4")
    add("--cpus", type=int, help="cores of each pod, for a run without accelerators")
    add("--memory", help="memory of each pod, e.g. 64Gi")
    add("--spot", action="store_true", help="cheaper nodes that may be taken away")
    add("--claim", help="NAME:FOLDER: mounts a PersistentVolumeClaim, e.g. for data or the workdir")
    add("--service_account", help="Kubernetes service account; it must write a gs:// workdir")
    add("--retries", type=int, default=6, help="failures that do not end the job (%(default)s)")
    return parser


def _run(options: argparse.Namespace, program: list[str]) -> manifests.Run:
    arguments.check_number("workers", options.workers, most=_MOST_PODS)
    arguments.check_number("hosts", options.hosts, most=_MOST_PODS)
    arguments.check_number("retries", options.retries, least=0)
    longest = manifests.longest_ending(options.workers, options.hosts)
    arguments.check_label("name", options.name, longest, letter_first=options.hosts > 1)
    arguments.check_label("namespace", options.namespace, letter_first=False)
    if not _IMAGE.fullmatch(options.image):
        raise UserError(f"--image={options.image}: expected an image such as HOST/NAME:TAG")
    if options.service_account is not None:
        arguments.check_subdomain("service_account", options.service_account)
    claim = _claim(options.claim)
    config, workdir = arguments.check_program(program)
    if not (claim and _is_inside(config.split(":")[0], claim[1])):
        # The image is made of it.
        arguments.check_config(config, pathlib.Path.cwd())
    if not arguments.is_in_bucket(workdir) and not (claim and _is_inside(workdir, claim[1])):
        raise UserError(
            f"--workdir={workdir}: expected gs://BUCKET/FOLDER, or a folder in that of --claim"
        )
    selector, resources = _devices(options)
    if options.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    return manifests.Run(
        name=options.name,
        namespace=options.namespace,
        image=options.image,
        program=tuple(program),
        workers=options.workers,
        hosts=options.hosts,
        selector=selector,
        resources=resources,
        spot=options.spot,
        claim=claim,
        service_account=options.service_account,
        retries=options.retries,
    )


def _devices(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, Any]]:
    """Node selector and resources of a pod."""
    given = [flag for flag in ("gpu", "tpu", "cpus") if getattr(options, flag) is not None]
    if len(given) != 1:
        raise UserError(f"{len(given)} of --gpu, --tpu and --cpus given; expected one of them")
    requests: dict[str, Any] = {}
    if options.memory is not None:
        match = _QUANTITY.fullmatch(options.memory)
        if match is None or not float(match[1]):
            raise UserError(f"--memory={options.memory}: expected a quantity such as 64Gi")
        requests["memory"] = options.memory
    if options.cpus is not None:
        requests["cpu"] = arguments.check_number("cpus", options.cpus)
        return {}, {"requests": requests}
    if options.gpu is not None:
        match = re.fullmatch(r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?):([1-9]\d*)", options.gpu)
        if match is None or int(match[2]) > _MOST_GPUS:
            raise UserError(
                f"--gpu={options.gpu}: expected TYPE:COUNT with at most {_MOST_GPUS} in a pod, "
                "e.g. nvidia-l4:1"
            )
        device, count = "nvidia.com/gpu", int(match[2])
        selector = {"cloud.google.com/gke-accelerator": match[1]}
    else:
        device, count, selector = _tpu(options)
    return selector, {"requests": requests | {device: count}, "limits": {device: count}}


def _tpu(options: argparse.Namespace) -> tuple[str, int, dict[str, str]]:
    match = re.fullmatch(r"([a-z0-9-]+):([1-9]\d*(?:x[1-9]\d*){1,2})", options.tpu)
    if match is None:
        raise UserError(f"--tpu={options.tpu}: expected TYPE:TOPOLOGY, e.g. {_TPU_EXAMPLE}")
    chips = tpus.chips_of_host(match[1], match[2], options.hosts)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": match[1],
        "cloud.google.com/gke-tpu-topology": match[2],
    }
    return manifests.TPU, chips, selector


def _claim(text: str | None) -> tuple[str, str] | None:
    """Name of a PersistentVolumeClaim, and where it is mounted."""
    if text is None:
        return None
    name, _, folder = text.partition(":")
    folder = folder.rstrip("/")
    if not re.fullmatch(r"/[^:]+", folder) or ".." in folder.split("/"):
        raise UserError(f"--claim={text}: expected NAME:FOLDER, e.g. data:/mnt/data")
    return arguments.check_subdomain("claim", name), folder


def _is_inside(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/") and ".." not in path.split("/")


if __name__ == "__main__":
    startup.prepare(_COMMAND, with_jax=False)
    sys.exit(streams.settle(main(sys.argv[1:]), printing=True))
