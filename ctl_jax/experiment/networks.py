"""From the config to networks: the module, its channel groups, and each method's variables."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ctl_jax import finetune, models, pruning
from ctl_jax.errors import UserError, naming
from ctl_jax.experiment.config import Config
from ctl_jax.experiment.methods import Method
from ctl_jax.finetune import Augmentation, Phase, Recipe
from ctl_jax.finetune.step import Tree

# Keys of config.model that are no options of the network.
_NO_OPTIONS = ("name", "preprocess")


class Network(NamedTuple):
    """What a method finetunes.

    Attributes:
      method: how it came about.
      recipe: how it is trained.
      variables: its parameters and statistics; abstract while the run is only planned.
      keep: which channels stayed; None where nothing is cut.
    """

    method: Method
    recipe: Recipe
    variables: Tree
    keep: pruning.Keep | None


def make_module(config: Config) -> nn.Module:
    """The Linen module of `config.model`; its head's size follows from the variables.

    Raises:
      UserError: an option is set that the network does not have, or to a value that it cannot have.
    """
    name, known = config.model.name, models.options_of(config.model.name)
    # What is left at "", 0, () or False is the network's own affair.
    given = dataclasses.asdict(config.model)
    chosen = {key: value for key, value in given.items() if key not in _NO_OPTIONS and value}
    for key, value in chosen.items():
        if key not in known:
            raise UserError(
                f"config.model.{key}={value!r}: model {name!r} has no such option; expected it "
                f"unset, or one of its own: {', '.join(known)}"
            )
    with naming(f"config.model.name={name!r}"):
        return models.create(name, num_outputs=1, **chosen)


def abstract_variables(config: Config, module: nn.Module) -> Tree:
    """Shapes of the whole network's variables.

    Raises:
      UserError: images of this size, or an option's value, are not for this network.
    """
    size = config.data.image_size
    init = functools.partial(models.init, module, image_size=size)
    with naming(f"config.model.name={config.model.name!r}, config.data.image_size={size}"):
        return jax.eval_shape(init, jax.random.key(0))


def make_recipe(config: Config, method: Method) -> Recipe:
    """How a method's network is finetuned."""
    return Recipe(
        preprocess=config.model.preprocess,
        augmentation=Augmentation(
            crop_area=config.finetune.crop_area,
            crop_aspect=config.finetune.crop_aspect,
            flip=config.finetune.flip,
        ),
        momentum=config.finetune.momentum,
        weight_decay=config.finetune.weight_decay,
        phase=Phase() if method.train_backbone else Phase(("head/*",), "frozen"),
        compute_dtype=compute_dtype(config),
    )


def compute_dtype(config: Config) -> str:
    """What the run computes in: as the config says, or as it is the default on this machine."""
    return config.finetune.compute_dtype or finetune.default_dtype(jax.default_backend())


def round_to(config: Config) -> int:
    """What kept widths are multiples of: as the config says, or as it suits this machine's devices.

    Vectors of CPUs and matrix units of GPUs take 8 numbers at a time or more (on CPU a 3x3
    convolution of 45 or 47 channels runs at 0.6 times the FLOP/s of one of 48); a bfloat16 tile of
    a TPU has 16 rows.
    """
    return config.pruning.round_to or (16 if jax.default_backend() == "tpu" else 8)


def trace_groups(config: Config, module: nn.Module, variables: Tree) -> pruning.Groups:
    """Channel groups of the whole network, whose `variables` may be abstract."""
    image = jax.ShapeDtypeStruct(
        (1, config.data.image_size, config.data.image_size, 3), jnp.float32
    )
    apply_fn = functools.partial(models.apply, module, train=False)
    return pruning.trace(apply_fn, variables, image)


def make_network(
    config: Config, groups: pruning.Groups, method: Method, variables: Tree
) -> Network:
    """Prunes `variables` as `method` says.

    Args:
      config: the validated config.
      groups: from `trace_groups`.
      method: which channels go.
      variables: the whole network's. Abstract ones (`jax.ShapeDtypeStruct`) do for a plan: how
        many channels a uniform ratio keeps does not depend on their scores.

    Returns:
      The network.
    """
    keep = None
    if method.scope is not None and method.ratio is not None:
        abstract = any(
            isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(variables)
        )
        scores = (
            {name: np.zeros(group.size) for name, group in groups.items()}
            if abstract
            else pruning.score(groups, variables, criterion=config.pruning.criterion)
        )
        keep = pruning.select(
            groups,
            scores,
            ratio=method.ratio,
            scope=method.scope,
            round_to=round_to(config),
            check=True,
        )
        variables = pruning.prune(variables, groups, keep)
    return Network(method, make_recipe(config, method), variables, keep)
