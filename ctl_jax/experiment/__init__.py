"""Methods, trials and their search: what to run, in what order, and what is done already."""

from ctl_jax.experiment.best import best_models
from ctl_jax.experiment.config import (
    Config,
    check_key,
    config_arguments,
    default_config,
    following,
    is_switch,
    load_config,
    naming_as_typed,
    short_names_of,
    validate,
)
from ctl_jax.experiment.methods import Method, parse_method
from ctl_jax.experiment.runner import run

__all__ = [
    "Config",
    "Method",
    "best_models",
    "check_key",
    "config_arguments",
    "default_config",
    "following",
    "is_switch",
    "load_config",
    "naming_as_typed",
    "parse_method",
    "run",
    "short_names_of",
    "validate",
]
