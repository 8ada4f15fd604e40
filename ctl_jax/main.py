"""Accuracy per FLOP: prune a pretrained network, finetune it on many tasks, and report.

  python -m ctl_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
  python -m ctl_jax.main --config=configs/nevis.py:variant=SHORT --workdir=runs/nevis

Any value of a config can be given on the command line, e.g. --config.finetune.batch_size=64 or
--config.methods=dense,filters@0.5 (or a flag for each method); --helpfull lists them all. The same
command again goes on where the run was stopped, and does nothing twice.

Several processes may share a workdir (a folder, also on NFS, or gs://bucket/path), and with it the
work: the same command on each, best with --worker=0/4 to --worker=3/4, or --worker=auto where a
cluster numbers them. Processes with --group train each trial together. launch/README.md has more.

It ends with status 0 when all is done; 75 after SIGTERM and 130 after Ctrl-C, when the same command
goes on; 2 for a wrong input; 1 for a failure.
"""

import sys

from ctl_jax import interrupts, memory, startup

if __name__ == "__main__":
    # Before the imports below, which take seconds and start threads.
    interrupts.install()
    memory.keep_freed()
    memory.collect_rarely()
    startup.prepare("ctl_jax")

import os
from collections.abc import Sequence
from logging import LogRecord

import jax
import rich.console
from absl import logging

from ctl_jax import (
    arguments,
    cluster,
    compilation,
    experiment,
    failures,
    home,
    platforms,
    streams,
)
from ctl_jax.errors import UserError


def main(argv: Sequence[str]) -> int:
    """Runs what the command line says.

    Returns:
      The exit status. Bad input is one line on standard error, and status 2.
    """
    if text := arguments.help_text(argv, __doc__ or ""):
        print(text)
        return streams.settle(0, printing=True)
    # Libraries say at level INFO what a user of this program need not read.
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(_is_news)
    try:
        memory.collect_rarely()
        with interrupts.catching():
            given = arguments.parse(argv)
            short = experiment.short_names_of(given.config)
            with experiment.naming_as_typed(given.overrides, short):
                _run(given)
            return streams.settle(0, printing=given.plan)
    except UserError as error:
        return startup.fail("ctl_jax", error)
    except interrupts.Stopped as stopped:
        print(interrupts.farewell(stopped.signal), file=sys.stderr)
        return stopped.status
    except Exception as error:
        if (line := failures.explain(error)) is None:
            raise
        return startup.fail("ctl_jax", line, status=1)


def _run(given: arguments.Arguments) -> None:
    config = experiment.load_config(given.config, given.overrides)
    worker = cluster.worker_from(given.worker, os.environ, grouped=bool(given.group))
    streams.label(cluster.label(worker))
    platforms.check_flags()
    cluster.join_group(given.group, os.environ)
    if given.group:
        # JAX has put a handler of its own in place.
        interrupts.install()
    platforms.check_devices()
    streams.label(cluster.label(worker, jax.process_index(), jax.process_count()))
    for remark in (home.remark(), platforms.put_right()):
        if remark:
            print(f"ctl_jax: {remark}", file=sys.stderr)
    compilation.enable_cache()
    # A pipe or a file has no width; its tables should not be cut to a terminal's.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140)
    experiment.run(config, given.workdir, console, plan_only=given.plan, worker=worker)


def _is_news(record: LogRecord) -> bool:
    """Whether a line of a library's log says more than this program does.

    Orbax logs what goes wrong in its threads, traceback and all, and raises it as well.
    """
    return "/orbax/checkpoint/" not in record.pathname.replace(os.sep, "/")


if __name__ == "__main__":
    try:
        status = main(sys.argv)
    finally:
        interrupts.ignore()
    sys.exit(status)
