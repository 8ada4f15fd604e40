"""Steps compiled: one program for all trials of an architecture, several updates a call."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from ctl_jax import models
from ctl_jax.finetune import feature_maps, sharding
from ctl_jax.finetune.step import Hyper, Metrics, Recipe, TrainState, train_step


@dataclasses.dataclass(frozen=True)
class Step:
    """Up to a chunk of updates, compiled; from `make_step`.

    Called with a state, images uint8 [chunk, batch, height, width, 3] or maps, labels
    [chunk, batch] or [chunk, batch, outputs], `Hyper`, and how many of the batches count, it
    returns the next state and `Metrics` of [chunk] numbers each. The state given is overwritten.

    Attributes:
      mesh: of the devices that make an update together.
      chunk: the most updates a call, as far as memory for their images allows.
      program: the compiled function, one program an architecture.
      lower: makes the maps that it takes, compiled; None where it takes images.
    """

    mesh: Mesh
    chunk: int
    program: Callable[
        [TrainState, jax.Array, jax.Array, Hyper, jax.typing.ArrayLike], tuple[TrainState, Metrics]
    ]
    lower: feature_maps.Lower | None = None

    def __call__(
        self,
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        hyper: Hyper,
        count: jax.typing.ArrayLike,
    ) -> tuple[TrainState, Metrics]:
        """See the class."""
        return self.program(state, images, labels, hyper, count)


def train_steps(
    module: nn.Module,
    recipe: Recipe,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    hyper: Hyper,
    count: jax.typing.ArrayLike,
) -> tuple[TrainState, Metrics]:
    """`train_step` on the first `count` of some batches, in a loop on the device.

    Its length is a value: `lax.scan` wants a constant, so that the end of a budget would need a
    program of its own, or masked steps that cost as much as real ones.

    Args:
      module: as for `train_step`.
      recipe: as for `train_step`.
      state: as for `train_step`.
      images: [chunk, batch, ...], as for `train_step`.
      labels: of [chunk, batch, ...].
      hyper: as for `train_step`.
      count: updates, 1 to chunk. One batch is one update, with no loop around it: XLA:CPU runs
        convolutions in a loop on one thread.

    Returns:
      The next state, and metrics of [chunk] numbers; NaN after the first `count`.
    """
    step = functools.partial(train_step, module, recipe)
    chunk = images.shape[0]
    if chunk == 1:
        state, metrics = step(state, jnp.squeeze(images, 0), jnp.squeeze(labels, 0), hyper)
        return state, jax.tree.map(lambda value: value[None], metrics)

    def body(index: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = carry
        state, now = step(state, images[index], labels[index], hyper)
        return state, jax.tree.map(lambda all_, one: all_.at[index].set(one), metrics, now)

    unset = jnp.full((chunk,), jnp.nan, jnp.float32)
    return jax.lax.fori_loop(0, count, body, (state, Metrics(unset, unset)))


def make_step(
    module: nn.Module, recipe: Recipe, mesh: Mesh | None = None, chunk: int | None = None
) -> Step:
    """Compiles `train_steps`. Reuse the result: it keeps one program an architecture.

    Args:
      module: the network.
      recipe: constants of the program.
      mesh: the devices that share each batch; without it, all of all processes of the group.
      chunk: the most updates a call; without it, `default_chunk` of the mesh's kind of device.

    Returns:
      The step.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    backend = mesh.devices.flat[0].platform
    program = jax.jit(
        models.tuned(backend)(functools.partial(train_steps, module, recipe)),
        donate_argnums=0,
        out_shardings=sharding.replicated(mesh),
        compiler_options=models.compiler_options(backend),
    )
    if chunk is None:
        chunk = default_chunk(backend)
    lower = feature_maps.lower(module, recipe, mesh) if recipe.entrance else None
    return Step(mesh, chunk, program, lower)


def default_chunk(backend: str) -> int:
    """Updates a call of the device: 1 on "cpu", where a loop is several times slower, else 10."""
    return 1 if backend == "cpu" else 10
