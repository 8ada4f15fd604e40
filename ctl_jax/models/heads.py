"""Heads: from a network's representation to logits, whatever form they have.

A head is a flat dict, `variables["params"]["head"]`, on raw numbers of the representation [B, D]:

- {"kernel": [D, K], "bias": [K]} is linear. D is what the network's own last layer reads, or more:
  that and the network's taps (see `taps`). Which of the two follows from the kernel's rows.
- With "hidden" the kernel reads hidden units instead: {"kernel": [D, H], "bias": [H]} are those of
  an MLP, relu(x @ kernel + bias); {"landmarks": [H, D], "scale": [D]} are radial basis functions,
  exp(-sum(((x - landmark) * scale)**2)).

Only "kernel" and "bias" at the top have an axis of outputs: the last.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ctl_jax.errors import UserError
from ctl_jax.trees import Variables

Head = Mapping[str, Any]

HIDDEN = "hidden"
# Of variables: the second network of an ensemble.
ENSEMBLE = "ensemble"


def apply_head(head: Head, representation: jax.Array) -> jax.Array:
    """Logits [B, K] of a representation [B, D].

    Args:
      head: of any form.
      representation: as many columns as the head reads, see `inputs`.
    """
    x = representation
    if hidden := head.get(HIDDEN):
        x = _radial(hidden, x) if "landmarks" in hidden else jax.nn.relu(_affine(hidden, x))
    return _affine(head, x)


def _affine(layer: Head, x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"][None]


def _radial(hidden: Head, x: jax.Array) -> jax.Array:
    landmarks = hidden["landmarks"] * hidden["scale"][None]
    # Differences are what matters: far from zero the squares below would cancel.
    centre = jnp.mean(landmarks, axis=0, keepdims=True)
    x, landmarks = x * hidden["scale"][None] - centre, landmarks - centre
    squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(landmarks**2, axis=1)[None]
    return jnp.exp(-jnp.maximum(squares - 2 * (x @ landmarks.T), 0))


def inputs(head: Head) -> int:
    """Columns of the representation that a head of this module's forms reads."""
    hidden = head.get(HIDDEN)
    if not hidden:
        return int(head["kernel"].shape[0])
    return int(hidden["landmarks"].shape[1] if "landmarks" in hidden else hidden["kernel"].shape[0])


def with_head(variables: Variables, num_outputs: int) -> dict[str, Any]:
    """The same variables with a new task head, whose kernel and bias are zero.

    Args:
      variables: {"params": ..., "batch_stats": ...}, perhaps pruned: the inputs of the new head
        are those of the old, and hidden units stay.
      num_outputs: outputs of the new head; `apply` needs no new module for it.

    Returns:
      New variables; every array but the head's is the same object.

    Raises:
      UserError: `num_outputs` is not positive.
    """
    return _changed(
        variables,
        num_outputs,
        lambda leaf: jnp.zeros((*leaf.shape[:-1], num_outputs), leaf.dtype),
    )


def resize_head(variables: Variables, num_outputs: int) -> dict[str, Any]:
    """The same variables with as many outputs: those that are too many are cut, new ones are zero.

    Args:
      variables: {"params": ..., "batch_stats": ...}.
      num_outputs: of the result.

    Raises:
      UserError: `num_outputs` is not positive.
    """

    def resized(leaf: jax.Array) -> jax.Array:
        if leaf.shape[-1] == num_outputs:
            return leaf
        around = [(0, 0)] * (leaf.ndim - 1) + [(0, max(0, num_outputs - leaf.shape[-1]))]
        return jnp.pad(leaf, around)[..., :num_outputs]

    return _changed(variables, num_outputs, resized)


def _changed(variables: Variables, num_outputs: int, change: Any) -> dict[str, Any]:
    """With another axis of outputs, of both networks of an ensemble."""
    check_positive("num_outputs", num_outputs)
    params = dict(variables["params"])
    head = params["head"]
    params["head"] = {k: leaf if k == HIDDEN else change(leaf) for k, leaf in head.items()}
    if ENSEMBLE in params:
        second = _changed({"params": params[ENSEMBLE]}, num_outputs, change)
        params[ENSEMBLE] = second["params"]
    return {**variables, "params": params}


def set_head(variables: Variables, head: Head) -> dict[str, Any]:
    """The same variables with a head of any form.

    Args:
      variables: {"params": ..., "batch_stats": ...}.
      head: arrays as the module says.
    """
    return {**variables, "params": {**variables["params"], "head": jax.tree.map(jnp.asarray, head)}}


def check_positive(name: str, value: int) -> None:
    """Raises UserError where a value is no positive int."""
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name} is {value!r}; expected a positive int")
