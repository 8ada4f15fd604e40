"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """Bad input: one line that names the thing, its value and what was expected.

    `ctl_jax.main` prints the line and exits with status 2; anything else keeps its traceback.
    """


@contextlib.contextmanager
def naming(subject: str) -> Iterator[None]:
    """Puts in front of a `UserError` what it is about, which those who raise it cannot know.

    Example:
      >>> with naming("config.model.name='vit_s16'"):
      ...     raise UserError("no such option")
      Traceback (most recent call last):
      ctl_jax.errors.UserError: config.model.name='vit_s16': no such option
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{subject}: {error}") from None
