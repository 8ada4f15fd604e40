"""Stages: each parameter is in one group; groups are in the order of the forward pass."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, finetune, models, pruning
from ctl_jax.errors import UserError
from ctl_jax.finetune import NONE, Hyper, Phase, Recipe
from ctl_jax.finetune.phases import partition
from ctl_jax.trees import leaf_paths

from .networks import SIZE, abstract, build

STAGES = {"unet": 4}


@functools.cache
def first_reads(module):
    """Where in the program the first and the last array of each entry are read first."""
    variables = abstract(module)
    images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
    program = jax.make_jaxpr(functools.partial(models.apply, module))(variables, images).jaxpr
    places = {}
    for index, equation in enumerate(program.eqns):
        for var in equation.invars:
            if not isinstance(var, jax.extend.core.Literal):
                places.setdefault(var, index)
    found = {}
    for (path, _), var in zip(leaf_paths(variables), program.invars, strict=False):
        kind, name, *_ = path.split("/")
        if kind == "params":
            found.setdefault(name, []).append(places[var])
    return {name: (min(read), max(read)) for name, read in found.items()}


def trained_from(index, variables):
    """A phase that freezes the first groups."""
    names = [name for group in list(models.stages(variables).values())[index:] for name in group]
    paths = [path for path, _ in leaf_paths(variables["params"])]
    return Phase(train=tuple(name if name in paths else f"{name}/*" for name in names))


@pytest.mark.parametrize("name", models.NAMES)
def test_stages(name):
    module, variables = build(name)
    groups = models.stages(variables)
    numbered = [f"stage{i + 1}" for i in range(STAGES.get(name, 2))]
    assert list(groups) == [*(() if name.startswith("vgg") else ("stem",)), *numbered, "head"]
    members = [each for group in groups.values() for each in group]
    assert sorted(members) == sorted(variables["params"])
    reads = first_reads(module)
    spans = [[reads[each] for each in group] for group in groups.values()]
    for before, after in itertools.pairwise(spans):
        assert max(last for _, last in before) < min(first for first, _ in after)


@functools.cache
def step_flops(module):
    """With none of the groups frozen, with the first one, with the first two, ..."""
    variables, costs = abstract(module), []
    for index in range(len(models.stages(variables))):
        recipe = Recipe("nevis", NONE, phase=trained_from(index, variables))
        state = jax.eval_shape(functools.partial(finetune.init_state, recipe, seed=0), variables)
        images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.uint8)
        labels = jax.ShapeDtypeStruct((2,), jnp.int32)
        step = functools.partial(finetune.train_step, module, recipe)
        costs.append(compute.flops(step, state, images, labels, Hyper(0.1, 1, 0, 3)))
    return costs


@pytest.mark.parametrize("name", models.CLASSIFIERS)
def test_freezing_up_to_a_stage(name):
    """No parameter below it gets a gradient, and each stage more makes a step cheaper."""
    module, variables = build(name)
    groups = models.stages(variables)
    for index in range(len(groups)):
        phase = trained_from(index, variables)
        trained, frozen = partition(phase, variables["params"])
        below = {each for title in list(groups)[:index] for each in groups[title]}
        assert {path.split("/")[0] for path, _ in leaf_paths(frozen)} == below
        assert not below & {path.split("/")[0] for path, _ in leaf_paths(trained)}
    costs = step_flops(module)
    assert len(costs) == len(groups)
    assert costs == sorted(set(costs), reverse=True)


def test_of_pruned_and_scanned():
    module, variables = build("resnet18")
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    groups = pruning.trace(functools.partial(models.apply, module), variables, images)
    scores = {name: np.zeros(group.size) for name, group in groups.items()}
    keep = pruning.select(groups, scores, ratio=0.5, scope="channels")
    pruned = pruning.prune(variables, groups, keep)
    assert models.stages(pruned) == models.stages(variables)
    assert models.stages(build("vit_s16", scan=True)[1])["stage1"] == ("blocks",)


def test_of_another_network():
    with pytest.raises(UserError, match="parameter 'trunk' belongs to no stage; expected one of"):
        models.stages({"params": {"head": {}, "trunk": {}}})
