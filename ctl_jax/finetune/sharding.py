"""Data parallelism: one mesh over the devices of one process, or of a group of processes.

A state is the same on every device, a batch is split among them, and `jax.jit` does the rest: the
statistics of BatchNorm are those of the whole batch, and gradients are summed over all of it.
"""

import datetime
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ctl_jax.errors import UserError
from ctl_jax.trees import Tree

# The one axis of the mesh.
AXIS = "data"
# Where jax's preemption service looks for a notice, with the time of it.
_NOTICE = "RECEIVED_PREEMPTION_NOTICE"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, "data".

    Args:
      devices: that train together; without them all devices of all processes of the group.

    Returns:
      The mesh; a process's devices lie side by side in it.
    """
    devices = jax.devices() if devices is None else devices
    return _mesh(tuple(sorted(devices, key=lambda device: (device.process_index, device.id))))


@functools.cache
def _mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    return Mesh(np.asarray(devices), (AXIS,))


def memory_bytes() -> int | None:
    """Memory of a device of this process, or of the machine; None where it cannot be known."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return limit


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Raises UserError where a batch can not be split evenly among the devices."""
    if batch_size % mesh.size:
        raise UserError(
            f"a batch of {batch_size} examples on {mesh.size} devices; expected a batch size that "
            f"is a multiple of {mesh.size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of what is split along an axis."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Arrays on every device of the mesh.

    Args:
      mesh: from `make_mesh`.
      tree: arrays of the host or of a device of this process, PRNG keys among them; the same in
        every process.

    Returns:
      Global arrays. One that is so already is returned as it is, and where a device has one its
      memory may be shared: who gives the result away to be overwritten gives that away, too.
    """
    return jax.tree.map(functools.partial(_replicate, mesh), tree)


def _replicate(mesh: Mesh, leaf: Any) -> jax.Array:
    sharding = replicated(mesh)
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    if _is_local(mesh):
        return jax.device_put(leaf, sharding)
    if _is_key(leaf):
        data = _replicate(mesh, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return _assemble(mesh, sharding, np.shape(leaf), [leaf] * len(mesh.local_devices))


def _assemble(
    mesh: Mesh, sharding: NamedSharding, shape: tuple[int, ...], parts: Sequence[Any]
) -> jax.Array:
    """An array over several processes, of this one's parts.

    `device_put` would compare the whole of it in all processes first, and the other functions of
    jax do not count as a transfer on purpose.
    """
    placed = [
        jax.device_put(part, device) for part, device in zip(parts, mesh.local_devices, strict=True)
    ]
    return jax.make_array_from_single_device_arrays(shape, sharding, placed)


def _is_local(mesh: Mesh) -> bool:
    return len(mesh.local_devices) == mesh.size


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def rows(mesh: Mesh, size: int) -> slice:
    """Which of the `size` rows of a batch the devices of this process hold."""
    devices, local = list(mesh.devices.flat), mesh.local_devices
    first, each = devices.index(local[0]), size // mesh.size
    return slice(first * each, (first + len(local)) * each)


def shard(mesh: Mesh, tree: Tree, axis: int = 0) -> Tree:
    """Arrays split along an axis among the devices.

    Args:
      mesh: from `make_mesh`.
      tree: arrays of the host. They have the rows of this process alone (see `rows`): in one
        process, all of them.
      axis: along which the rows are.

    Returns:
      Global arrays, which have the rows of all processes.
    """
    sharding = split(mesh, axis)

    def place(leaf: Any) -> jax.Array:
        if _is_local(mesh):
            return jax.device_put(leaf, sharding)
        parts = np.split(leaf, len(mesh.local_devices), axis)
        shape = list(parts[0].shape)
        shape[axis] *= mesh.size
        return _assemble(mesh, sharding, tuple(shape), parts)

    return jax.tree.map(place, tree)


@jax.jit
def _copied(tree: Tree) -> Tree:
    return jax.tree.map(jax.numpy.copy, tree)


def local_copy(tree: Tree) -> Tree:
    """Copies of replicated arrays on one device of this process; the others are not asked."""
    return _copied(jax.tree.map(lambda leaf: leaf.addressable_data(0), tree))


def agree_to_stop(requested: bool, step: int) -> bool:
    """Whether all processes of a group stop after this step.

    Who was told to stop tells the others; then all ask on until they have all made as many steps as
    the one that is furthest. It takes a second or two. A SIGTERM that no handler of Python
    takes is seen too, by jax itself.

    Args:
      requested: whether this process was told to stop.
      step: updates made; all processes of the group ask after the same ones.

    Returns:
      In one process, `requested`. In a group the answer is the same in all processes for the same
      step, and true once.
    """
    if jax.process_count() == 1:
        return requested
    if requested:
        _tell_the_others()
    return multihost_utils.reached_preemption_sync_point(step)


@functools.cache
def _tell_the_others() -> None:
    """Once a process, as jax's own handler of SIGTERM does, which one of Python replaces."""
    from jax._src import distributed  # There is no public way yet.

    client = distributed.global_state.client
    assert client is not None  # There are several processes.
    now = datetime.datetime.now(datetime.UTC).isoformat()
    client.key_value_set(_NOTICE, now, allow_overwrite=True)
