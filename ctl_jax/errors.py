"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""


class UserError(ValueError):
    """Bad input: one line that names the thing, its value and what was expected.

    `ctl_jax.main` prints the line and exits with status 2; anything else keeps its traceback.
    """
