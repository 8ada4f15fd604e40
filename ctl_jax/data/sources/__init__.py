"""The sources of data sets, one module each; whatever module is in this folder is registered."""

import importlib
import pkgutil

from ctl_jax.data.source import registered

__all__ = ["load_modules", "registered"]


def load_modules() -> None:
    """Imports every module of this folder, each of which registers its source."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


load_modules()
