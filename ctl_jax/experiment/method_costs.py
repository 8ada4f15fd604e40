"""FLOPs of a method's training step and forward pass, for any number of classes."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from ctl_jax import compute, finetune, models
from ctl_jax.errors import naming
from ctl_jax.finetune import Hyper, Recipe, feature_maps
from ctl_jax.trees import Tree

# A prime, larger than any width: where it is seen, the head is.
_OUTPUTS = 1_000_003


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one architecture on one task.

    Attributes:
      step: FLOPs of a training step: forward, backward, optimiser.
      forward: FLOPs of one image's forward pass.
      params: number of parameters (BatchNorm's statistics not counted).
      map: FLOPs of what an image enters the steps with, computed once; see `finetune.maps`.
    """

    step: int
    forward: int
    params: int
    map: int = 0


@dataclasses.dataclass(frozen=True)
class MethodCost:
    """What a method's network costs.

    Attributes:
      step: FLOPs of a training step of its last phase, on images of which nothing was computed
        before; None where it makes none.
      forward: FLOPs of one image's forward pass.
      params: number of parameters (BatchNorm's statistics not counted).
    """

    step: int | None
    forward: int
    params: int


def cost_by_classes(
    module: nn.Module,
    recipe: Recipe,
    variables: Tree,
    *,
    batch_size: int,
    image_size: int,
    forward: tuple[int, int] | None = None,
) -> Callable[[int], Cost]:
    """Counts an architecture's cost for any number of classes.

    Only the head depends on the number of classes, and each of its costs is proportional to it: one
    trace tells all others, whose products with as many outputs as nothing else has are the head's.

    Args:
      module: the network.
      recipe: how it is trained.
      variables: parameters and statistics, arrays or abstract.
      batch_size: images a step.
      image_size: side of the images in pixels.
      forward: from `forward_flops`, where it was counted already: recipes share it.

    Returns:
      A function from a number of classes (0: without the head) to the cost.

    Raises:
      UserError: the network cannot be trained on such batches.
    """

    headed = jax.eval_shape(functools.partial(models.with_head, num_outputs=_OUTPUTS), variables)
    state = jax.eval_shape(functools.partial(finetune.init_state, recipe, seed=0), headed)
    shape, once_an_image = (image_size, image_size, 3), 0
    images = jax.ShapeDtypeStruct((batch_size, *shape), jnp.uint8)
    if recipe.entrance:
        enter = functools.partial(feature_maps.enter, module, recipe)
        image = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
        once_an_image = compute.flops(enter, headed, image)
        images = jax.eval_shape(enter, headed, images)
    with naming(f"a batch_size of {batch_size} at an image_size of {image_size}"):
        step = compute.flops_along(
            functools.partial(finetune.train_step, module, recipe),
            _OUTPUTS,
            state,
            images,
            jax.ShapeDtypeStruct((batch_size,), jnp.int32),
            Hyper(0.1, 1, 0, _OUTPUTS),
        )
        once = forward or forward_flops(module, variables, image_size)
    params = params_along(variables)

    def cost(num_classes: int) -> Cost:
        along = (fixed + num_classes * each for fixed, each in (step, once, params))
        return dataclasses.replace(Cost(*along), map=once_an_image)

    return cost


def params_along(variables: Tree) -> tuple[int, int]:
    """Numbers of parameters: without outputs of the head, and of each output."""
    one, two = (
        models.count_params(
            jax.eval_shape(functools.partial(models.with_head, num_outputs=n), variables)
        )
        for n in (1, 2)
    )
    return 2 * one - two, two - one


def forward_flops(module: nn.Module, variables: Tree, image_size: int) -> tuple[int, int]:
    """FLOPs of one image's forward pass: those of the network, and of the head for each class."""
    headed = jax.eval_shape(functools.partial(models.with_head, num_outputs=_OUTPUTS), variables)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return compute.flops_along(functools.partial(models.apply, module), _OUTPUTS, headed, image)
