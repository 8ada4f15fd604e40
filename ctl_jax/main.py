"""Accuracy per FLOP: prune a pretrained network, finetune it on many tasks, and report.

  python -m ctl_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
  python -m ctl_jax.main --config=configs/nevis.py:variant=SHORT --workdir=runs/nevis

Any value of a config can be given on the command line, e.g. --config.finetune.batch_size=64 or
--config.methods=dense,filters@0.5; ctl_jax/experiment/config.py lists them all. The same
command again goes on where the run was stopped, and does nothing twice.
"""

import itertools
import pathlib
import sys
from typing import NoReturn

import rich.console
from absl import app, flags, logging
from ml_collections import config_flags

from ctl_jax import experiment
from ctl_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A config file, and its arguments after a colon: FILE.py[:name=value,...]."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: results, and what is done.")
_PLAN = flags.DEFINE_bool("plan", False, "Print the plan (tasks, trials, FLOPs) and stop.")

# What a shell gives a process that was ended by Ctrl-C.
_INTERRUPTED = 130


def main(argv: list[str]) -> None:
    """Runs what the flags say; bad input ends the program with one line and status 2."""
    # Libraries say at level INFO what a user of this program need not read.
    logging.set_verbosity(logging.WARNING)
    # A pipe or a file has no width; its tables should not be cut to a terminal's.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140)
    try:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; expected flags only, see --help")
        if _CONFIG.value is None:
            raise UserError("--config: expected a config file, e.g. configs/quickstart.py")
        if not _WORKDIR.value:
            raise UserError("--workdir: expected the run's folder, e.g. runs/quickstart")
        workdir = pathlib.Path(_WORKDIR.value)
        experiment.run(_CONFIG.value, workdir, console, plan_only=_PLAN.value)
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("Interrupted. Nothing done is lost: the same command goes on.", file=sys.stderr)
        sys.exit(_INTERRUPTED)


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
