"""Accuracy per FLOP: prune a pretrained network, finetune it on many tasks, and report.

  python -m ctl_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
  python -m ctl_jax.main --config=configs/nevis.py:variant=SHORT --workdir=runs/nevis

Any value of a config can be given on the command line, e.g. --config.finetune.batch_size=64 or
--config.methods=dense,filters@0.5; ctl_jax/experiment/config.py lists them all. The same
command again goes on where the run was stopped, and does nothing twice.

Several processes may share a workdir (a folder, also on NFS, or gs://bucket/path), and with it the
work: the same command on each, best with --worker=0/4 to --worker=3/4, or --worker=auto where a
cluster numbers them. Processes with --group train each trial together. launch/README.md has more.

It ends with status 0 when all is done; 75 after SIGTERM and 130 after Ctrl-C, when the same command
goes on; 2 for a wrong input; 1 for a failure.
"""

import sys

from ctl_jax import interrupts, memory

if __name__ == "__main__":
    # Before the imports below, which take seconds and start threads.
    interrupts.install()
    memory.keep_freed()

import itertools
import os
import pathlib
from logging import LogRecord
from typing import NoReturn

import rich.console
from absl import app, flags, logging
from ml_collections import config_flags

from ctl_jax import cluster, compilation, experiment, failures
from ctl_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A config file, and its arguments after a colon: FILE.py[:name=value,...]."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: results, and what is done.")
_PLAN = flags.DEFINE_bool("plan", False, "Print the plan (tasks, trials, FLOPs) and stop.")
_WORKER = flags.DEFINE_string(
    "worker", "", "Which of the workers that share the workdir: i/n, i from 0, or auto."
)
_GROUP = flags.DEFINE_string(
    "group", "", "Which of the processes that train each trial together: HOST:PORT,i/n or auto."
)


def main(argv: list[str]) -> None:
    """Runs what the flags say; bad input ends the program with one line and status 2."""
    # Libraries say at level INFO what a user of this program need not read.
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(_is_news)
    # A pipe or a file has no width; its tables should not be cut to a terminal's.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140)
    try:
        with interrupts.catching():
            _run(argv, console)
    except UserError as error:
        _fail(error)
    except interrupts.Stopped as stopped:
        print(interrupts.farewell(stopped.signal), file=sys.stderr)
        sys.exit(stopped.status)
    except Exception as error:
        if (line := failures.explain(error)) is None:
            raise
        print(f"ctl_jax: {line}", file=sys.stderr)
        sys.exit(1)
    finally:
        interrupts.ignore()


def _run(argv: list[str], console: rich.console.Console) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; expected flags only, see --help")
    if _CONFIG.value is None:
        raise UserError("--config: expected a config file, e.g. configs/quickstart.py")
    if not _WORKDIR.value:
        raise UserError("--workdir: expected the run's folder, e.g. runs/quickstart")
    worker = cluster.worker_from(_WORKER.value, os.environ, grouped=bool(_GROUP.value))
    cluster.join_group(_GROUP.value, os.environ)
    if _GROUP.value:
        # JAX has put a handler of its own in place.
        interrupts.install()
    compilation.enable_cache()
    experiment.run(_CONFIG.value, _WORKDIR.value, console, plan_only=_PLAN.value, worker=worker)


def _is_news(record: LogRecord) -> bool:
    """Whether a line of a library's log says more than this program does.

    Orbax logs what goes wrong in its threads, traceback and all, and raises it as well.
    """
    return "/orbax/checkpoint/" not in record.pathname.replace(os.sep, "/")


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; absl's own parser shows a traceback for a wrong config key."""
    try:
        for name, value in _assignments(argv):
            if name == "config" and not pathlib.Path(path := value.split(":")[0]).is_file():
                raise UserError(f"--config={value}: expected a config file; there is no {path!r}")
            if name.startswith("config."):
                experiment.check_key(name.removeprefix("config."))
        return flags.FLAGS(argv)
    except (UserError, flags.Error) as error:
        _fail(error)


def _assignments(argv: list[str]) -> list[tuple[str, str]]:
    """(name, value) of each `--name=value` and `--name value`."""
    found = []
    for argument, following in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
        if argument == "--":
            break
        if argument.startswith("-"):
            name, given, value = argument.lstrip("-").partition("=")
            found.append((name, value if given else following))
    return found


def _fail(error: Exception) -> NoReturn:
    # A config file's own complaint arrives as the last line of a traceback in one of absl's.
    *_, message = str(error).rpartition("ctl_jax.errors.UserError: ")
    print(f"ctl_jax: {message.strip()}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
