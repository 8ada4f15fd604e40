"""The begin and the end of this project's commands, before and after everything else."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from ctl_jax import home, interrupts, platforms, streams
from ctl_jax.errors import UserError

BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Raises a `UserError`."""
        raise UserError(f"{message}; see {self.prog} --help")


def prepare(command: str, *, with_jax: bool = True) -> None:
    """Makes streams, environment and JAX fit for the command, or ends the program.

    Args:
      command: its name, with which its complaints begin.
      with_jax: whether it needs JAX.
    """
    _use_utf8()
    streams.install()
    # Figures go to files alone, and Matplotlib is not imported with one that it does not know.
    os.environ["MPLBACKEND"] = "agg"
    try:
        home.prepare()
        if with_jax:
            platforms.import_jax()
    except UserError as error:
        sys.exit(fail(command, error))


def _use_utf8() -> None:
    """Starts the program again where Python takes the names of files for something else.

    In the C locale of a bare container it is ASCII if PYTHONUTF8=0, and any other name would be
    unreadable for libraries; with an old locale such as Latin-1 labels would depend on it.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    # What is printed stays in the terminal's own encoding.
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def fail(command: str, message: object, status: int = BAD_INPUT) -> int:
    """Prints one line on standard error, whatever the message holds, and returns `status`."""
    line = "".join(
        each if each.isprintable() else each.encode("unicode_escape", "backslashreplace").decode()
        for each in str(message)
    )
    print(f"{command}: {line}", file=sys.stderr)
    return status


def guarded(command: str, run: Callable[[], int]) -> int:
    """Runs a command that leaves nothing half done; what is wrong is one line.

    Returns:
      Its exit status: what it returns; 2 for bad input, 130 after Ctrl-C, 1 for an error that is
      the machine's.
    """
    try:
        return run()
    except UserError as error:
        return fail(command, error)
    except KeyboardInterrupt:
        return fail(command, "interrupted", interrupts.INTERRUPTED)
    except Exception as error:
        from ctl_jax import failures  # which imports JAX

        if (line := failures.explain(error)) is None:
            raise
        return fail(command, line, status=1)
