"""Short names that a config file declares for keys: `SHORT = {"images": "stream.variant"}`.

With it `--config.images=/data/flowers` says for that file what `--config.stream.variant=...` says,
in its help and in what is wrong, too.
"""

import ast
import contextlib
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ctl_jax import home
from ctl_jax.errors import UserError
from ctl_jax.experiment.config.sections import KEYS

_NAME = "SHORT"
_EXPECTED = f'expected {_NAME} = {{"NAME": "SECTION.KEY", ...}}'


def short_names(path: str) -> dict[str, str]:
    """The keys that a config file has short names for, by these; the file is read, and not run.

    Args:
      path: of the file, without arguments behind a colon.

    Returns:
      Keys such as "stream.variant" by name; none where there is no such file, or it is no Python:
      `load_config` says so.

    Raises:
      UserError: a short name of no key, or one that is a key's or a section's own.
    """
    try:
        module = ast.parse(pathlib.Path(home.expand(path)).read_bytes())
    # Whatever makes a text no Python.
    except (OSError, SyntaxError, ValueError, MemoryError, RecursionError):
        return {}
    given = [node for node in map(_assigned, module.body) if node is not None]
    if not given:
        return {}
    names = _literal(path, given[-1])
    sections = {key.partition(".")[0] for key in KEYS}
    for name, key in names.items():
        where = f"{path}: {_NAME}[{name!r}]"
        if key not in KEYS:
            raise UserError(f"{where}={key!r}: expected one of the config's keys")
        if name in sections or not name.isidentifier():
            raise UserError(f"{where}: expected a name of letters that the config does not have")
    return names


def _assigned(node: ast.stmt) -> ast.expr | None:
    """What a statement says the short names are."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    else:
        return None
    is_it = any(isinstance(target, ast.Name) and target.id == _NAME for target in targets)
    return node.value if is_it else None


def _literal(path: str, node: ast.expr) -> dict[str, str]:
    where = f"{path}, line {node.lineno}"
    try:
        found: Any = ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        raise UserError(f"{where}: {_NAME} is computed; {_EXPECTED}, in plain texts") from None
    if not isinstance(found, dict) or not all(
        isinstance(text, str) for pair in found.items() for text in pair
    ):
        raise UserError(f"{where}: {_NAME}={found!r}; {_EXPECTED}")
    return found


@contextlib.contextmanager
def naming_as_typed(given: Iterable[str], short: Mapping[str, str]) -> Iterator[None]:
    """Lets a `UserError` name the keys as the user typed them.

    Args:
      given: names of the keys that were given, short or not.
      short: from `short_names`.

    Example:
      >>> with naming_as_typed(["budget"], {"budget": "budgets.amounts"}):
      ...     raise UserError("config.budgets.amounts='1 flop': expected more")
      Traceback (most recent call last):
      ctl_jax.errors.UserError: config.budget='1 flop': expected more
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        for name in given:
            if key := short.get(name):
                text = re.sub(rf"\bconfig\.{re.escape(key)}(?!\w|\.\w)", f"config.{name}", text)
        raise UserError(text) from None
