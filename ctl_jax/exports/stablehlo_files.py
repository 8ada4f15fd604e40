"""For programs that run StableHLO: the network with its weights, by `jax.export`."""

import contextlib
from collections.abc import Iterator

import jax
import jax.export
import jax.numpy as jnp

from ctl_jax.exports._graph import BATCH
from ctl_jax.models.functional import apply
from ctl_jax.models.model import Model

# The kinds of device that it runs on.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def files(model: Model) -> dict[str, bytes]:
    """The file of the export, by name: what `jax.export.deserialize` reads.

    Any network can be exported, with any number of images and for any device.
    """

    def logits(images: jax.Array) -> jax.Array:
        return apply(model.module, model.variables, model.preprocess(images))

    (batch,) = jax.export.symbolic_shape(BATCH)
    images = jax.ShapeDtypeStruct((batch, model.image_size, model.image_size, 3), jnp.uint8)
    with _without_locations():
        exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)
        return {"model.stablehlo": bytes(exported.serialize())}


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """A context in which no calling code is written down, so that the bytes do not depend on it."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
