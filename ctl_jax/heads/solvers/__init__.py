"""Ways to fit a head, one file of this folder each: it holds `SOLVER`, a `Solver`."""

import importlib
import pkgutil

from ctl_jax.heads.solver import Solver


def find() -> dict[str, Solver]:
    """All that there are, by their files' names."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").SOLVER for name in names}
