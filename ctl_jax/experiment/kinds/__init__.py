"""The kinds of steps, one file each: what they cost, how they are computed, what they make.

A module here registers its kind with `steps.register`; it is found by being here.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
