"""What a run is made of: every key, its default, and what values make sense.

A config file's `get_config` starts from `default_config()`, changes what it needs, and returns it.
The result is checked once, before any work, and never changes afterwards.
"""

import contextlib
import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

from ctl_jax.errors import UserError
from ctl_jax.experiment.methods import parse_method
from ctl_jax.experiment.rules import RULES
from ctl_jax.experiment.trials import budgets
from ctl_jax.values import read_list, read_scalar


def default_config() -> ml_collections.ConfigDict:
    """Every key there is, at its default. Locked: setting another key is an error."""
    config = ml_collections.ConfigDict(
        {
            "stream": {
                # "embedded", a Nevis'22 variant (FULL, SHORT, TINY, ...), or tasks joined by "+".
                "variant": "embedded",
                # Tasks of this year and later are left out: Nevis'22 holds 2020 and 2021 back.
                "stop_year": 2020,
                # Of a variant: "remove_first_30", "remove_last_30", "no_imagenet", or "random":
                # `num_tasks` of its tasks. Held-out tasks stay, as far as `stop_year` lets them.
                "ablation": "",
                "num_tasks": 0,
                # "within_year" or "order": the tasks of each year among themselves, or all.
                "shuffle": "",
                # Of the random tasks and of the shuffle.
                "seed": 0,
                # "error" stops a run that lacks a task's data before any work; "skip" goes on
                # without it, and the report says so.
                "missing": "error",
            },
            "data": {
                # Where data sets are looked for, each in this order: sets that were imported
                # ("": in the user's data folder), folders that TFDS prepared, what dm_nevis wrote
                # (and $NEVIS_DATA_DIR), folders with NAME/SPLIT/CLASS/ or NAME.zip.
                "imported_dir": "",
                "tfds_dirs": (),
                "nevis_dirs": (),
                "folder_dirs": (),
                # Examples of a split that may be left out because they cannot be read.
                "max_corrupt": 0,
                # Side of the square images, in pixels.
                "image_size": 32,
                # At most so many examples of dev and of dev_test are evaluated; 0: all of them.
                "max_eval_examples": 0,
            },
            "model": {
                "name": "resnet50",
                # Blocks a stage; () means the standard ones of `name`.
                "stages": (),
                # Those below are set for the networks that have them (`models.options_of`); an
                # empty text or a zero means the standard one of `name`.
                # "v1": stride on a bottleneck's first 1x1 (Keras); "v1.5": on its 3x3 (torch).
                "version": "",
                # "imagenet": 7x7 stride 2 and max-pooling; "cifar": 3x3.
                "stem": "",
                "width": 0,
                "conv_bias": False,
                # BatchNorm's.
                "epsilon": 0.0,
                # What the weights expect of an image; see models.PREPROCESS.
                "preprocess": "nevis",
            },
            # Pretrained weights: a file or folder. Empty if `pretrain.task` makes them.
            "weights": "",
            "pretrain": {
                # A source task to pretrain on, e.g. "embedded_source"; empty: `weights` are given.
                "task": "",
                "steps": 1000,
                "batch_size": 64,
                "learning_rate": 0.1,
                "warmup_fraction": 0.1,
                "weight_decay": 1e-4,
                "crop_area": (0.25, 1.0),
                "flip": True,
                "seed": 0,
            },
            # dense, filters@RATIO, channels@RATIO, scratch, linear_probe.
            "methods": ("dense", "filters@0.5"),
            "pruning": {
                "criterion": "l2",
                # Kept widths are rounded to a multiple of this; 0: of 8, on TPU of 16.
                "round_to": 0,
            },
            # Training compute of a trial: `num` budgets, log-spaced from the least to the most.
            "budgets": {"min_flops": 1e10, "max_flops": 1e11, "num": 3},
            "finetune": {
                "batch_size": 32,
                # Each is tried; the one that is best on dev is reported.
                "learning_rates": (0.01, 0.03, 0.1),
                "momentum": 0.9,
                "weight_decay": 1e-4,
                "warmup_fraction": 0.1,
                "crop_area": (0.08, 1.0),
                "crop_aspect": (3 / 4, 4 / 3),
                "flip": True,
                # Steps between two training records.
                "log_every": 10,
                # Steps between two evaluations on dev while it trains, a multiple of `log_every`;
                # 0: only at the end.
                "evaluate_every": 0,
                # The weights that a trial reports: its "last", or those that were "best" on dev.
                "report": "last",
                # Of convolutions, products and activations, here and in pretraining: "float32" or
                # "bfloat16"; "": bfloat16 on GPU and TPU. Weights, statistics and the loss are
                # float32.
                "compute_dtype": "",
            },
            "checkpoint": {
                # Seconds between two checkpoints of a trial; 0: only when the run is told to stop.
                "every_s": 60.0,
            },
            "seeds": (0,),
        }
    )
    return config.lock()


def validate(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Checks every key, type and value.

    Args:
      config: what a config file gave, with the command line's overrides.

    Returns:
      A frozen copy with plain types.

    Raises:
      UserError: names the key, its value and what was expected.
    """
    expected, given = dict(flatten(default_config())), dict(flatten(config))
    for key in given:
        check_key(key)
    for key, default in expected.items():
        if key not in given:
            raise UserError(f"config.{key}: missing; start the config from default_config()")
        given[key] = _typed(key, given[key], default)
    for key, (holds, wanted) in RULES.items():
        if not holds(given[key]):
            raise UserError(f"config.{key}={_shown(given[key])}: expected {wanted}")
    # Equal methods written differently are one.
    names = [parse_method(name).name for name in given["methods"]]
    given["methods"] = tuple(dict.fromkeys(names))
    _check_together(given)
    checked = ml_collections.FrozenConfigDict(_nest(given))
    budgets(checked)  # Raises where two of them are one.
    return checked


def check_key(key: str) -> None:
    """Raises a `UserError` where there is no such key, e.g. "finetune.batch_sizes"."""
    known = dict(flatten(default_config()))
    if key in known:
        return
    if inside := [name for name in known if name.startswith(f"{key}.")]:
        raise UserError(
            f"config.{key}: a section; expected one of its keys, e.g. config.{inside[0]}"
        )
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean config.{close[0]}?" if close else "see ctl_jax/experiment/config.py"
    raise UserError(f"config.{key}: unknown key; {hint}")


def read_value(key: str, texts: Sequence[str]) -> Any:
    """Reads what a command line gives for a key: `--config.KEY=TEXT`, perhaps repeatedly.

    Args:
      key: e.g. "seeds".
      texts: in order. Of a key of one value the last counts; a list has the values of all.

    Returns:
      A value of the key's type. Whether it makes sense is for `validate` to say.

    Raises:
      UserError: no such key, or a text that is no value of its type.
    """
    check_key(key)
    default = dict(flatten(default_config()))[key]
    if isinstance(default, tuple):
        lists = [read_list(f"--config.{key}", text, _ELEMENTS[key]) for text in texts]
        return tuple(value for values in lists for value in values)
    return read_scalar(f"--config.{key}", texts[-1], type(default))


def is_switch(key: str) -> bool:
    """Whether a key is true or false, so that a command line may give it without a value."""
    return isinstance(dict(flatten(default_config())).get(key), bool)


def config_arguments(text: str, **defaults: str) -> ml_collections.ConfigDict:
    """Reads a config file's own arguments, `FILE.py:name=value,name=value`.

    Args:
      text: what stands behind the colon; may be empty.
      **defaults: the arguments there are, and their values where not given.

    Returns:
      The values, as attributes.

    Raises:
      UserError: an argument of another name, or without a value.

    Example:
      >>> config_arguments("variant=SHORT", variant="FULL").variant
      'SHORT'
    """
    values = dict(defaults)
    for argument in filter(None, text.split(",")):
        name, _, value = argument.partition("=")
        if name not in defaults or not value:
            known = ", ".join(f"{name}=..." for name in defaults)
            raise UserError(f"--config=FILE:{text}: {argument!r}: expected {known}")
        values[name] = value
    return ml_collections.ConfigDict(values)


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("section.key", value) for each value of a nested config or dict."""
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return nested


# What a message shows of a value.
_SHOWN = 200

# Element types of the tuples, whose defaults may be empty.
_ELEMENTS: dict[str, type] = {
    "data.tfds_dirs": str,
    "data.nevis_dirs": str,
    "data.folder_dirs": str,
    "model.stages": int,
    "pretrain.crop_area": float,
    "methods": str,
    "finetune.learning_rates": float,
    "finetune.crop_area": float,
    "finetune.crop_aspect": float,
    "seeds": int,
}


def _typed(key: str, value: Any, default: Any) -> Any:
    if not isinstance(default, tuple):
        return _scalar(key, value, type(default))
    if isinstance(value, str):
        return read_list(f"config.{key}", value, _ELEMENTS[key])
    values = list(value) if isinstance(value, tuple | list) else [value]
    elements = [_scalar(f"{key}[{i}]", v, _ELEMENTS[key]) for i, v in enumerate(values)]
    if key == "methods":
        # No name holds a comma; the name of a folder may.
        elements = [name for joined in elements for name in joined.split(",")]
    return tuple(elements)


def _scalar(key: str, value: Any, wanted: type) -> Any:
    # An int is a fine float; a bool is no int, although Python says so.
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
        return math.inf
    if type(value) is not wanted:
        found = type(value).__name__
        raise UserError(f"config.{key}={_shown(value)}: expected {wanted.__name__}, found {found}")
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"config.{key}={_shown(value)}: expected a text without a null character")
    return value


def _shown(value: Any) -> str:
    """A value as Python writes it, or what of it fits into a message."""
    try:
        text = repr(value)
    # Of an integer of more digits than Python writes, or of an object of the config file's own.
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_together(given: dict[str, Any]) -> None:
    """Rules over more than one key."""
    is_random = given["stream.ablation"] == "random"
    if is_random != (given["stream.num_tasks"] > 0):
        raise UserError(
            f"config.stream.num_tasks={given['stream.num_tasks']!r}: expected "
            f"{'at least 1' if is_random else '0'} where config.stream.ablation="
            f"{given['stream.ablation']!r}"
        )
    _check_crops(given)
    if given["budgets.max_flops"] < given["budgets.min_flops"]:
        raise UserError(
            f"config.budgets.max_flops={given['budgets.max_flops']!r}: expected at least "
            f"config.budgets.min_flops={given['budgets.min_flops']!r}"
        )
    if given["budgets.num"] > 1 and given["budgets.max_flops"] == given["budgets.min_flops"]:
        raise UserError(
            f"config.budgets.num={given['budgets.num']!r}: expected 1 where the least budget is "
            f"the most"
        )
    if given["finetune.evaluate_every"] % given["finetune.log_every"]:
        raise UserError(
            f"config.finetune.evaluate_every={given['finetune.evaluate_every']!r}: expected a "
            f"multiple of config.finetune.log_every={given['finetune.log_every']!r}"
        )
    if given["finetune.report"] == "best" and not given["finetune.evaluate_every"]:
        raise UserError(
            "config.finetune.report='best': expected 'last' where config.finetune.evaluate_every=0 "
            "evaluates only the last weights"
        )
    if given["weights"] and given["pretrain.task"]:
        raise UserError(
            f"config.weights={given['weights']!r}: expected '' where config.pretrain.task="
            f"{given['pretrain.task']!r} makes the weights"
        )
    needing = [name for name in given["methods"] if parse_method(name).pretrained]
    if needing and not given["weights"] and not given["pretrain.task"]:
        raise UserError(
            f"config.weights='': expected a file or folder (or a config.pretrain.task), since "
            f"{needing[0]!r} starts from pretrained weights"
        )


def _check_crops(given: dict[str, Any]) -> None:
    """Sees whether the narrowest crop has a pixel: less of an image is no image."""
    size, areas, aspects = (
        given[key] for key in ("data.image_size", "finetune.crop_area", "finetune.crop_aspect")
    )
    pixels = size * math.sqrt(areas[0] * min(aspects[0], 1 / aspects[1]))
    if pixels < 1:
        raise UserError(
            f"config.finetune.crop_aspect={aspects!r}: the narrowest crop would have {pixels:.2g} "
            f"pixels; expected at least 1 of an image of config.data.image_size={size} with "
            f"config.finetune.crop_area={areas!r}"
        )
    pixels = size * math.sqrt(given["pretrain.crop_area"][0])
    if pixels < 1:
        raise UserError(
            f"config.pretrain.crop_area={given['pretrain.crop_area']!r}: the smallest crop would "
            f"have {pixels:.2g} pixels; expected at least 1 of config.data.image_size={size}"
        )
