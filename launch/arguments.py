"""What the launchers share: their command lines, and those of the program that they start."""

import argparse
import os
import pathlib
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


def check_program(program: Sequence[str]) -> tuple[str, str]:
    """Checks the arguments of `ctl_jax.main`.

    Returns:
      The config file, with arguments of its own if it has any, and the run's folder.

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
    return given["config"], given["workdir"]


def check_config(config: str, source: pathlib.Path) -> pathlib.PurePosixPath:
    """Checks the program's config file, whose arguments may follow it after a colon.

    Returns:
      The file, relative to the checkout.

    Raises:
      UserError: it is not a file of the checkout `source`.
    """
    path = pathlib.PurePosixPath(config.split(":")[0])
    if path.is_absolute() or ".." in path.parts or not (source / path).is_file():
        raise UserError(f"--config={config}: expected a config file inside {str(source)!r}")
    return path


def is_in_bucket(workdir: str) -> bool:
    """Whether a folder is in Google's object store.

    Raises:
      UserError: it would be, but names no bucket.
    """
    if not workdir.startswith("gs://"):
        return False
    # https://cloud.google.com/storage/docs/buckets#naming
    if not re.fullmatch(r"gs://[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9](/.*)?", workdir, re.DOTALL):
        raise UserError(f"--workdir={workdir}: expected gs://BUCKET/FOLDER")
    return True


def check_label(flag: str, text: str, longest: str = "", *, letter_first: bool = True) -> str:
    """Checks a name that becomes a part of addresses.

    Args:
      flag: what gives it.
      text: the name.
      longest: what is put behind it at most, for names that are made from it.
      letter_first: by RFC 1035, else by RFC 1123; both have 63 letters at most.

    Raises:
      UserError: it, or a name made from it, is not valid.
    """
    most = 63 - len(longest)
    first = "[a-z]" if letter_first else "[a-z0-9]"
    if not re.fullmatch(rf"{first}([-a-z0-9]*[a-z0-9])?", text) or len(text) > most:
        which = "a letter first" if letter_first else "none of '-' at the ends"
        raise UserError(
            f"--{flag}={text}: expected at most {most} small letters, digits and '-', {which}"
        )
    return text


def check_subdomain(flag: str, text: str) -> str:
    """Checks a name of Kubernetes that may have dots (a subdomain by RFC 1123).

    Raises:
      UserError: it is not valid.
    """
    label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    if not re.fullmatch(rf"{label}([.]{label})*", text) or len(text) > 253:
        raise UserError(
            f"--{flag}={text}: expected at most 253 small letters, digits, '-' and '.', a letter "
            "or digit at each end"
        )
    return text


def check_given(flag: str, text: str) -> str:
    """Checks a text that must not be empty.

    Raises:
      UserError: it is, or is of blanks.
    """
    if not text.strip():
        raise UserError(f"--{flag}={text}: expected a name")
    return text


def check_number(flag: str, value: int, least: int = 1, most: int = 2**31 - 1) -> int:
    """Checks a number of things.

    Raises:
      UserError: there are too few of them, or too many.
    """
    if value < least:
        what = "a positive number" if least == 1 else f"{least} or more"
        raise UserError(f"--{flag}={value}: expected {what}")
    if value > most:
        raise UserError(f"--{flag}={value}: expected {most} at most")
    return value
