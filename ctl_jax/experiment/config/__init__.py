"""The config of a run: its keys, config files, and what is checked of them."""

from ctl_jax.experiment.config.checking import (
    budgets,
    check_key,
    default_config,
    flatten,
    is_switch,
    read_value,
    validate,
)
from ctl_jax.experiment.config.files import (
    config_arguments,
    following,
    load_config,
    short_names_of,
)
from ctl_jax.experiment.config.sections import (
    KEYS,
    Budgets,
    Checkpoint,
    Config,
    Data,
    Finetune,
    Learner,
    Model,
    Pretrain,
    Pruning,
    Stream,
)
from ctl_jax.experiment.config.short import naming_as_typed

__all__ = [
    "KEYS",
    "Budgets",
    "Checkpoint",
    "Config",
    "Data",
    "Finetune",
    "Learner",
    "Model",
    "Pretrain",
    "Pruning",
    "Stream",
    "budgets",
    "check_key",
    "config_arguments",
    "default_config",
    "flatten",
    "following",
    "is_switch",
    "load_config",
    "naming_as_typed",
    "read_value",
    "short_names_of",
    "validate",
]
