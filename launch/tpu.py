"""Runs `ctl_jax.main` on Cloud TPU VMs until every trial is done, whatever is preempted meanwhile.

Eight workers, each a VM with one host, of spot capacity (each takes whole trials):

  python -m launch.tpu --name=nevis --project=my-project --zone=us-central2-b \\
    --type=v4-8 --workers=8 --spot -- \\
    --config=configs/nevis.py:variant=SHORT --workdir=gs://my-bucket/runs/nevis

One worker that is a slice of four hosts, which train each trial together: --type=v4-32 --group.
--dry_run prints every command and runs none. --delete removes the machines.

The machines are asked for as queued resources. Each gets the code of this checkout (or what
--install names), and runs the program apart from the connection. A VM that is taken away, or a
program that was told to stop (exit status 75), is started again and goes on from the workdir.
This command may be stopped at any time: the VMs go on, and the same command follows them again.
At the end the machines are deleted, unless --keep is given; what stays all the same is named, with
the commands that delete it. Whatever is tried again counts towards --tries, except for what a cloud
takes away and for waiting in its queue.
"""

import argparse
import concurrent.futures
import functools
import pathlib
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence

from ctl_jax import home, startup, streams
from ctl_jax.errors import UserError
from launch import arguments, gcloud, remote, tpus
from launch.gcloud import Place, Slice
from launch.supervision import Supervisor, Work, remove

_COMMAND = "launch.tpu"
_INTERRUPTED = 130


def main(argv: list[str]) -> int:
    """Runs what the command line says.

    Returns:
      The exit status: 0 where all workers ended well, else the first other status of one.
    """
    own, program = arguments.split(argv)
    options = _parser().parse_args(own)
    try:
        place = _place(options)
        names = [f"{options.name}-{index}" for index in range(options.workers)]
        slices = [Slice(place, name, options.dry_run) for name in names]
        if not options.dry_run:
            gcloud.check_there()
        stop = threading.Event()
        if options.delete:
            jobs = [functools.partial(_delete, machine, stop) for machine in slices]
            return _run_all(options, slices, jobs, stop)
        return _supervise(options, slices, program, stop)
    except UserError as error:
        arguments.fail(_COMMAND, error)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(_COMMAND, __doc__)
    add = parser.add_argument
    add("--name", required=True, help="machines are called NAME-0, NAME-1, ...")
    add("--project", required=True, help="Google Cloud project")
    add("--zone", required=True, help="zone, e.g. us-central2-b")
    add("--type", required=True, help="accelerator type of one worker, e.g. v4-8")
    add("--version", help="software of the VMs (what Google names for the type)")
    add("--workers", type=int, default=1, help="how many workers (%(default)s)")
    add("--group", action="store_true", help="a worker is a slice of several hosts")
    add("--spot", action="store_true", help="cheaper machines that may be taken away")
    add("--service_account", default="", help="whom the VMs act as; it must write the workdir")
    add("--source", default=".", help="the checkout to copy (%(default)s)")
    add("--install", help="what pip installs instead of it: git+https://..., or ctl-jax[gcs]==...")
    add("--setup", default="", help="shell command on each host after that, e.g. to copy data")
    add("--tries", type=int, default=3, help="failures of a worker that end it (%(default)s)")
    add("--poll_s", type=float, default=60, help="seconds between questions (%(default)s)")
    add("--keep", action="store_true", help="do not delete the machines at the end")
    add("--delete", action="store_true", help="delete the machines and stop")
    add("--dry_run", action="store_true", help="print the commands, run none")
    return parser


def _place(options: argparse.Namespace) -> Place:
    arguments.check_number("workers", options.workers)
    arguments.check_number("tries", options.tries)
    arguments.check_label("name", options.name, longest=f"-{options.workers - 1}")
    for flag in ("project", "zone"):
        arguments.check_given(flag, getattr(options, flag))
    if not 0 < options.poll_s < float("inf"):
        raise UserError(f"--poll_s={options.poll_s}: expected a positive number of seconds")
    software = tpus.check_type(options.type, group=options.group)
    return Place(
        options.project,
        options.zone,
        options.type,
        options.version or software,
        options.spot,
        options.service_account,
    )


def _supervise(
    options: argparse.Namespace, slices: list[Slice], program: list[str], stop: threading.Event
) -> int:
    config, workdir = arguments.check_program(program)
    if not arguments.is_in_bucket(workdir):
        raise UserError(f"--workdir={workdir}: expected gs://BUCKET/FOLDER, since VMs vanish")
    source = pathlib.Path(home.expand(options.source))
    code = remote.archive(source, config)
    # A dry run waits for nothing.
    poll_s = 0 if options.dry_run else options.poll_s
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / remote.ARCHIVE
        path.write_bytes(code)
        jobs = []
        for index, machine in enumerate(slices):
            work = _work(options, path, code, program, index)
            supervisor = Supervisor(machine, work, options.tries, poll_s, stop)
            jobs.append(functools.partial(_follow, supervisor, machine, options.keep, stop))
        return _run_all(options, slices, jobs, stop)


def _follow(supervisor: Supervisor, machine: Slice, keep: bool, stop: threading.Event) -> int:
    """Follows one worker to its end, then deletes its machine. Returns the exit status."""
    try:
        status = supervisor.run()
    except UserError as error:
        # Said now: the others may take days.
        return startup.fail(_COMMAND, error)
    # PREEMPTED: it was not the program that ended, but the following of it.
    if status == arguments.PREEMPTED or keep:
        return status
    not_deleted = _delete(machine, stop)
    return status or not_deleted


def _delete(machine: Slice, stop: threading.Event) -> int:
    return int(not remove(machine, stop))


def _work(
    options: argparse.Namespace, path: pathlib.Path, code: bytes, program: list[str], index: int
) -> Work:
    given = [*program, f"--worker={index}/{options.workers}"]
    if options.group:
        given.append("--group=auto")
    installed = remote.key(code, options.install or "", options.setup)
    started = remote.key(installed, *given)
    return Work(
        archive=path,
        key=started,
        setup=remote.setup(installed, options.install, options.setup),
        start=remote.start(started, given),
    )


def _run_all(
    options: argparse.Namespace,
    slices: Sequence[Slice],
    jobs: Sequence[Callable[[], int]],
    stop: threading.Event,
) -> int:
    """Runs all jobs, and names the machines that stay.

    Returns:
      The first exit status that is not 0, if there is one.
    """
    if options.dry_run:
        # One after the other, for its reader.
        return next(filter(None, [job() for job in jobs]), 0)
    # Each mostly waits.
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            statuses = [future.result() for future in futures]
        except KeyboardInterrupt:
            print("The machines go on: the same command follows them, and --delete ends them.")
            statuses = [_INTERRUPTED]
        finally:
            stop.set()
            # Their threads end first.
            concurrent.futures.wait(futures)
            if left := [machine for machine in slices if machine.there]:
                print("Still there, and paid for; these commands delete what you do not need:")
                for machine in left:
                    print(f"  {shlex.join(machine.deletion)}", flush=True)
    return next(filter(None, statuses), 0)


if __name__ == "__main__":
    # Whatever stops it, it says what goes on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    startup.prepare(_COMMAND, with_jax=False)
    sys.exit(streams.settle(main(sys.argv[1:]), printing=True))
