"""Building the network of a config: its module, shapes, channel groups, and a model of it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict

from ctl_jax import finetune, home, models, pruning
from ctl_jax.data.images import INTERPOLATION
from ctl_jax.errors import UserError, naming
from ctl_jax.experiment import config as sections
from ctl_jax.experiment.best import weights_path
from ctl_jax.experiment.methods import parse_method
from ctl_jax.models.matching import shapes_of
from ctl_jax.trees import Tree
from ctl_jax.values import read_option

# Keys of config.model that are no options of the network.
_NO_OPTIONS = ("name", "preprocess")
# What is trained where neither the config nor weights say.
_DEFAULT_NAME, _DEFAULT_PREPROCESS = "resnet50", "nevis"


@dataclasses.dataclass(frozen=True)
class Network:
    """The network of a run.

    Attributes:
      name: of its architecture, as for `models.create`.
      options: for `models.create`, plain values.
      preprocess: what it expects of an image, as a text.
      module: the Linen module; its head's size follows from the variables.
      described: what steps depend on, as plain values.
      given: the variables that `config.weights` names, with a zero head of one output; None where
        none are given.
      origin: what is known of where they come from, see `models.Model.notes`.
    """

    name: str
    options: Mapping[str, Any]
    preprocess: str
    module: nn.Module
    described: Mapping[str, Any]
    given: Tree | None = None
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def find(config: sections.Config) -> Network:
    """The network that a config names, or that its weights are of.

    Raises:
      UserError: an option that the network does not have, a value that it cannot have, or weights
        that cannot be read or are of another network.
    """
    model = config.model
    if not config.weights:
        name, preprocess = model.name or _DEFAULT_NAME, model.preprocess or _DEFAULT_PREPROCESS
        chosen = options(model, name)
        return Network(
            name, chosen, preprocess, make_module(name, chosen), _described(model, name, preprocess)
        )
    loaded = _loaded(config)
    preprocess = model.preprocess or str(loaded.preprocess)
    chosen = models.without_classifier(loaded.options)
    described: dict[str, Any] = {"name": loaded.architecture, "options": chosen}
    if model.name:
        described = _described(model, model.name, preprocess)
    module = make_module(loaded.architecture, chosen)
    network = Network(
        loaded.architecture,
        chosen,
        preprocess,
        module,
        {**described, "preprocess": preprocess},
        _headless(module, loaded.variables, config.data.image_size),
        loaded.notes,
    )
    random = [name for name in config.methods if not parse_method(name).pretrained]
    if model.name:
        _check_widths(config, network, "config.model")
    elif random:
        _check_widths(config, network, f"{network.name!r}, which {random[0]!r} trains whole")
    return network


def _headless(module: nn.Module, variables: Tree, image_size: int) -> Tree:
    """With a zero head of one output, on the last representation whatever the old one reads."""
    if models.reads_last(module, variables, image_size):
        return models.with_head(variables, 1)
    return models.new_head(module, variables, 1, image_size)


def _loaded(config: sections.Config) -> models.Model:
    model, path = config.model, weights_path(home.expand(config.weights))
    if not model.name:
        for key in options_set(model):
            raise UserError(
                f"config.model.{key}={getattr(model, key)!r}: expected it unset where "
                f"config.weights={config.weights!r} say what they are of, or a config.model.name"
            )
        return models.load_pretrained(path, image_size=config.data.image_size)
    chosen = options(model, model.name)
    make_module(model.name, chosen)
    return models.load_pretrained(
        path, name=model.name, options=chosen, image_size=config.data.image_size
    )


def options(model: sections.Model, name: str) -> dict[str, Any]:
    """The options of a network that the config sets.

    Raises:
      UserError: one that the network does not have.
    """
    known = models.options_of(name)
    chosen = {key: getattr(model, key) for key in options_set(model) if key != "options"}
    for key, value in chosen.items():
        if key not in known:
            raise UserError(
                f"config.model.{key}={value!r}: model {name!r} has no such option; expected "
                f"it unset, or one of its own: {', '.join(known)}"
            )
    return chosen | dict(map(read_option, model.options))


def options_set(model: sections.Model) -> list[str]:
    """The keys of config.model that set an option: not those left at "", 0, () or False."""
    keys = dataclasses.asdict(model)
    return [key for key, value in keys.items() if key not in _NO_OPTIONS and value]


def make_module(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The Linen module; its head's size follows from the variables.

    Raises:
      UserError: an option that the network does not have, or a value that it cannot have.
    """
    with naming(f"config.model.name={name!r}"):
        return models.create(name, num_outputs=1, **options)


def _described(model: sections.Model, name: str, preprocess: str) -> dict[str, Any]:
    described = {**dataclasses.asdict(model), "name": name, "preprocess": preprocess}
    if not model.options:
        del described["options"]
    return described


def abstract_variables(network: Network, image_size: int) -> Tree:
    """Shapes of the whole network's variables.

    Raises:
      UserError: images of this size, or an option's value, are not for this network.
    """
    init = functools.partial(models.init, network.module, image_size=image_size)
    with naming(f"config.model.name={network.name!r}, config.data.image_size={image_size}"):
        return jax.eval_shape(init, jax.random.key(0))


def _check_widths(config: sections.Config, network: Network, by: str) -> None:
    """Raises a `UserError` where the weights are of other widths than those `by` which says."""
    # Reading the weights has traced it.
    expected = shapes_of(network.module, config.data.image_size)
    for path, leaf in sorted(flatten_dict(network.given, sep="/").items()):
        if leaf.shape != expected[path]:
            raise UserError(
                f"config.weights={config.weights!r}: {path} has shape {leaf.shape}; expected "
                f"{expected[path]} by {by}"
            )


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


def trace_groups(
    module: nn.Module, variables: Tree, image_size: int, batch_size: int = 2
) -> pruning.Groups:
    """Channel groups of the whole network, whose `variables` may be abstract.

    They do not depend on the batch size. Where products read them does: of one image a network may
    be another program than of more.
    """
    image = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.float32)
    apply_fn = functools.partial(models.apply, module, train=False)
    return pruning.trace(apply_fn, variables, image)


def stages(network: Network, variables: Tree) -> dict[str, tuple[str, ...]]:
    """As `models.stages`; all of a user's own network before the head is one stage."""
    if not models.is_own(network.name):
        return models.stages(variables)
    names = tuple(name for name in variables["params"] if name != "head")
    return {"stem": (), "stage1": names, "head": ("head",)}


def as_model(
    network: Network,
    variables: Tree,
    image_size: int,
    compute_dtype: str,
    *,
    classes: Sequence[str] = (),
    num_outputs: int | None = None,
    keep: str = "",
    multi_label: bool = False,
    notes: Mapping[str, Any],
) -> models.Model:
    """A trained network, for its folder.

    It expects images that were resized as those that it was trained on.

    Args:
      network: which it is.
      variables: its own, perhaps pruned.
      image_size: that it was trained at.
      compute_dtype: that it was trained in.
      classes: names of the outputs, where they are known.
      num_outputs: of its head, the first ones; without it all.
      keep: which channels it has of the whole network, see `models.Model`.
      multi_label: see `models.Model`.
      notes: see `models.Model`; with what is known of the weights that it began with.
    """
    preprocess = models.Preprocess.parse(network.preprocess)
    if num_outputs is not None:
        variables = models.resize_head(variables, num_outputs)
    return models.Model(
        network.name,
        network.options,
        variables,
        dataclasses.replace(preprocess, interpolation=INTERPOLATION),
        image_size,
        tuple(classes),
        compute_dtype=compute_dtype,
        notes={**network.origin, **notes},
        keep=keep,
        multi_label=multi_label,
    )
