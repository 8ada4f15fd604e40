"""What the launchers share: their command lines, and those of the program that they start."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from ctl_jax import startup
from ctl_jax.errors import UserError

# How `ctl_jax.main` ends when it was told to stop and can go on (sysexits' EX_TEMPFAIL) ...
PREEMPTED = os.EX_TEMPFAIL
# ... and when its input is wrong, so that another try would end the same way.
BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, and which keeps its description's lines."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m {command}",
            description=description,
            usage="%(prog)s [flags] -- --config=FILE --workdir=FOLDER [flags of ctl_jax.main]",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        fail(self.prog.removeprefix("python -m "), message)


def fail(command: str, message: object) -> NoReturn:
    """Ends the program with one line and status 2."""
    sys.exit(startup.fail(command, message))


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The launcher's own arguments and, after the first "--", the program's."""
    argv = list(argv)
    if "--" not in argv:
        return argv, []
    middle = argv.index("--")
    return argv[:middle], argv[middle + 1 :]


def check_program(program: Sequence[str]) -> str:
    """Checks the arguments of `ctl_jax.main`.

    Returns:
      The run's folder.

    Raises:
      UserError: `--config` or `--workdir` is lacking, or a flag is there that the launcher sets.
    """
    given = {}
    for argument in program:
        if not argument.startswith("--"):
            raise UserError(f"{argument!r} after '--': expected flags as --name=value")
        name, _, value = argument.removeprefix("--").partition("=")
        given[name] = value
    for name in ("worker", "group"):
        if name in given:
            raise UserError(f"--{name}={given[name]}: expected none, the launcher numbers workers")
    for name, example in (("config", "configs/nevis.py"), ("workdir", "gs://bucket/runs/nevis")):
        if not given.get(name):
            raise UserError(f"expected --{name} after '--', e.g. -- --{name}={example}")
    return given["workdir"]


def check_name(name: str, most: int = 40) -> str:
    """Checks a name of machines and jobs, from which longer names are made.

    Raises:
      UserError: it is not one by the rules of Google Cloud and Kubernetes (RFC 1123).
    """
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > most:
        raise UserError(
            f"--name={name}: expected at most {most} small letters, digits and '-', a letter first"
        )
    return name


def check_positive(flag: str, value: int) -> int:
    """Checks a number of things.

    Raises:
      UserError: there are none of them.
    """
    if value < 1:
        raise UserError(f"--{flag}={value}: expected a positive number")
    return value
