"""From the config to the network: its module, its shapes, its channel groups, and it as a model."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ctl_jax import finetune, home, models, pruning
from ctl_jax.errors import UserError, naming
from ctl_jax.experiment import config as sections
from ctl_jax.finetune.step import Tree

# Keys of config.model that are no options of the network.
_NO_OPTIONS = ("name", "preprocess")


def options(model: sections.Model) -> dict[str, Any]:
    """The network's options that are set.

    Raises:
      UserError: one that the network does not have.
    """
    known = models.options_of(model.name)
    # What is left at "", 0, () or False is as the network has it.
    chosen = {k: v for k, v in dataclasses.asdict(model).items() if k not in _NO_OPTIONS and v}
    for key, value in chosen.items():
        if key not in known:
            raise UserError(
                f"config.model.{key}={value!r}: model {model.name!r} has no such option; expected "
                f"it unset, or one of its own: {', '.join(known)}"
            )
    return chosen


def make_module(model: sections.Model) -> nn.Module:
    """The Linen module; its head's size follows from the variables.

    Raises:
      UserError: an option is set that the network does not have, or to a value that it cannot have.
    """
    with naming(f"config.model.name={model.name!r}"):
        return models.create(model.name, num_outputs=1, **options(model))


def abstract_variables(module: nn.Module, model: sections.Model, image_size: int) -> Tree:
    """Shapes of the whole network's variables.

    Raises:
      UserError: images of this size, or an option's value, are not for this network.
    """
    init = functools.partial(models.init, module, image_size=image_size)
    with naming(f"config.model.name={model.name!r}, config.data.image_size={image_size}"):
        return jax.eval_shape(init, jax.random.key(0))


def load_weights(file: str, module: nn.Module, expected: Tree) -> Tree:
    """The variables that `config.weights` names, of the widths that `config.model` says.

    Raises:
      UserError: the file cannot be read, or is of another network.
    """
    weights = models.load_weights(home.expand(file), module, expected)
    for (path, leaf), wanted in zip(
        jax.tree_util.tree_leaves_with_path(weights), jax.tree.leaves(expected), strict=True
    ):
        if leaf.shape != wanted.shape:
            name = "/".join(key.key for key in path)
            raise UserError(
                f"config.weights={file!r}: {name} has shape {leaf.shape}; expected {wanted.shape} "
                f"by config.model"
            )
    return weights


def compute_dtype(settings: sections.Finetune) -> str:
    """What the run computes in: as the config says, or as it is the default on this machine."""
    return settings.compute_dtype or finetune.default_dtype(jax.default_backend())


def round_to(settings: sections.Pruning) -> int:
    """What kept widths are multiples of: as the config says, or as it suits this machine's devices.

    Vectors of CPUs and matrix units of GPUs take 8 numbers at a time or more (on CPU a 3x3
    convolution of 45 or 47 channels runs at 0.6 times the FLOP/s of one of 48); a bfloat16 tile of
    a TPU has 16 rows.
    """
    return settings.round_to or (16 if jax.default_backend() == "tpu" else 8)


def trace_groups(module: nn.Module, variables: Tree, image_size: int) -> pruning.Groups:
    """Channel groups of the whole network, whose `variables` may be abstract."""
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    apply_fn = functools.partial(models.apply, module, train=False)
    return pruning.trace(apply_fn, variables, image)


def as_model(
    model: sections.Model,
    variables: Tree,
    image_size: int,
    compute_dtype: str,
    *,
    num_outputs: int | None = None,
    notes: Mapping[str, Any],
) -> models.Model:
    """A trained network, for its folder.

    Args:
      model: which network it is.
      variables: its own, perhaps pruned.
      image_size: that it was trained at.
      compute_dtype: that it was trained in.
      num_outputs: of its head, the first ones; without it all.
      notes: see `models.Model`.
    """
    head = {name: leaf[..., :num_outputs] for name, leaf in variables["params"]["head"].items()}
    variables = {**variables, "params": {**variables["params"], "head": head}}
    return models.Model(
        model.name,
        options(model),
        variables,
        model.preprocess,
        image_size,
        compute_dtype=compute_dtype,
        notes=notes,
    )
