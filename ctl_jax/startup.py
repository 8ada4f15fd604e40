"""The begin and the end of this project's commands, before and after everything else."""

import sys

from ctl_jax import home, platforms, streams
from ctl_jax.errors import UserError

BAD_INPUT = 2


def prepare(command: str, *, with_jax: bool = True) -> None:
    """Makes streams, home and JAX fit for the command; ends the program where they cannot be.

    Args:
      command: its name, with which its complaints begin.
      with_jax: whether it needs JAX.
    """
    streams.install()
    try:
        home.prepare()
        if with_jax:
            platforms.import_jax()
    except UserError as error:
        sys.exit(fail(command, error))


def fail(command: str, message: object, status: int = BAD_INPUT) -> int:
    """Prints one line on standard error, whatever the message holds, and returns `status`."""
    line = "".join(
        each if each.isprintable() else each.encode("unicode_escape", "backslashreplace").decode()
        for each in str(message)
    )
    print(f"{command}: {line}", file=sys.stderr)
    return status
