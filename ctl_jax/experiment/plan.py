"""Everything that is known of a run before its first step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from ctl_jax import data, home, models, pruning
from ctl_jax.errors import UserError
from ctl_jax.experiment.costs import Cost, cost_by_classes
from ctl_jax.experiment.methods import parse_method
from ctl_jax.experiment.networks import (
    Network,
    abstract_variables,
    make_module,
    make_network,
    trace_groups,
)
from ctl_jax.experiment.pretrain import Pretraining, plan_pretraining
from ctl_jax.experiment.tasks import TaskLoader, find_tasks
from ctl_jax.experiment.trials import TaskInfo, Trial, make_trials
from ctl_jax.finetune.step import Tree


class Plan(NamedTuple):
    """What a run will do.

    Attributes:
      tasks: of the stream, those there is data for.
      missing: the others, each with the reason.
      module: the network.
      groups: its channel groups.
      networks: for each method's name, what it finetunes, in shapes only.
      costs: for each method's name, the cost for a number of classes.
      weights: variables read from `config.weights`; None where none are given.
      pretraining: makes the variables where none are given; None where not needed.
      trials: every finetuning.
    """

    tasks: tuple[TaskInfo, ...]
    missing: tuple[tuple[data.TaskSpec, str], ...]
    module: nn.Module
    groups: pruning.Groups
    networks: Mapping[str, Network]
    costs: Mapping[str, Callable[[int], Cost]]
    weights: Tree | None
    pretraining: Pretraining | None
    trials: tuple[Trial, ...]

    @property
    def total_flops(self) -> int:
        """FLOPs of everything: the trials' training and evaluation, and pretraining."""
        trials = sum(trial.spent_flops + trial.validate_flops for trial in self.trials)
        return trials + (self.pretraining.flops if self.pretraining else 0)


def make_plan(
    config: Any, loader: TaskLoader, on_prepare: Callable[[str], None] | None = None
) -> Plan:
    """Looks at data and weights and lays out every trial; trains nothing.

    Args:
      config: the validated config.
      loader: of the stream's tasks.
      on_prepare: called with the name of an embedded source task that has to be made first.

    Returns:
      The plan.

    Raises:
      UserError: data or weights are missing or damaged, or a budget is below one step.
    """
    module = make_module(config)
    abstract = abstract_variables(config, module)
    found, missing = find_tasks(config)
    weights, weights_id, pretraining = None, "", None
    if config.weights:
        weights = _load_weights(config, module, abstract)
        weights_id = models.content_hash(weights)
    elif config.pretrain.task:
        pretraining = plan_pretraining(config, module, abstract, on_prepare)
        weights_id = pretraining.id
    groups = trace_groups(config, module, abstract)
    networks = {
        name: make_network(config, groups, parse_method(name), abstract) for name in config.methods
    }
    costs = _costs(config, module, networks)
    tasks = tuple(loader.info(spec) for spec in found)
    methods = [network.method for network in networks.values()]
    trials = make_trials(config, tasks, methods, costs, weights_id)
    return Plan(tasks, missing, module, groups, networks, costs, weights, pretraining, trials)


def _costs(
    config: Any, module: nn.Module, networks: Mapping[str, Network]
) -> dict[str, Callable[[int], Cost]]:
    """Each method's cost; methods of one architecture, such as dense and scratch, share a count."""
    counted: dict[Any, Callable[[int], Cost]] = {}
    costs = {}
    for name, network in networks.items():
        leaves, structure = jax.tree.flatten(network.variables)
        architecture = (network.recipe, structure, tuple(leaf.shape for leaf in leaves))
        if architecture not in counted:
            counted[architecture] = cost_by_classes(
                module,
                network.recipe,
                network.variables,
                batch_size=config.finetune.batch_size,
                image_size=config.data.image_size,
            )
        costs[name] = counted[architecture]
    return costs


def _load_weights(config: Any, module: nn.Module, expected: Tree) -> Tree:
    """The variables that `config.weights` names, of the widths that `config.model` says."""
    weights = models.load_weights(home.expand(config.weights), module, expected)
    for (path, leaf), wanted in zip(
        jax.tree_util.tree_leaves_with_path(weights), jax.tree.leaves(expected), strict=True
    ):
        if leaf.shape != wanted.shape:
            name = "/".join(key.key for key in path)
            raise UserError(
                f"config.weights={config.weights!r}: {name} has shape {leaf.shape}; expected "
                f"{wanted.shape} by config.model"
            )
    return weights
