"""The one exception that means "the input is wrong", as opposed to "the program is wrong"; and what
an exception came from.
"""

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


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and then what it came from."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__
