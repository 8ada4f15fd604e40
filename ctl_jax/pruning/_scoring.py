"""Step two: how much each channel matters."""

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.pruning._groups import Groups
from ctl_jax.pruning.criteria import CRITERIA, Criterion
from ctl_jax.pruning.criteria.request import Request
from ctl_jax.pruning.criteria.slices import Vector, relative
from ctl_jax.trees import leaf_paths

# From the parts of a group's scores, float64 [parts, channels], to one number a channel.
AGGREGATES: Mapping[str, Callable[[Vector], Vector]] = {
    "sum": lambda parts: parts.sum(axis=0),
    "mean": lambda parts: parts.mean(axis=0),
    "max": lambda parts: parts.max(axis=0),
    "first": lambda parts: parts[0],
}
NORMALISATIONS = ("none", "mean", "max", "layer")
ROLES = ("out", "in", "elementwise")


def score(
    groups: Groups,
    variables: Any,
    criterion: str = "l2",
    *,
    aggregate: str = "sum",
    normalise: str = "none",
    roles: Sequence[str] | None = None,
    seed: int = 0,
    probes: int = 16,
    loss: Callable[[Any, Any], Any] | None = None,
    apply_fn: Callable[..., Any] | None = None,
    batches: Iterable[Any] | None = None,
) -> dict[str, Vector]:
    """Scores every channel of every group.

    A channel is held by several parameters: a residual stream is produced by several kernels, read
    by others, scaled by BatchNorms. Each of these slices is measured by itself; `aggregate` takes
    them together. As it is, l1 and l2 are the norm of all weights that produce the channel, as of
    one long filter; with `roles=("out", "in", "elementwise")` they are the group norm of Fang et
    al. 2023, "DepGraph: Towards Any Structural Pruning".

    | criterion | a slice with weights w | source |
    |---|---|---|
    | l1 | sum abs(w) | Li et al. 2017 |
    | l2 | sum w^2; the root of the aggregate | Li et al. 2017, He et al. 2018 |
    | linf | max abs(w) | |
    | bn_scale | abs(gamma) of its normalisation layers | Liu et al. 2017 (Network Slimming) |
    | fpgm | sum of distances to the other filters | He et al. 2019 (geometric median) |
    | lamp | sum w^2; its share in the channels no smaller | Lee et al. 2021 |
    | random | uniform in [0, 1), by seed and name of the group | Mittal et al. 2018 |
    | taylor | mean of sum (w dL/dw)^2 | Molchanov et al. 2019 |
    | hessian | mean of sum 1/2 w^2 d2L/dw2 | LeCun et al. 1990, Hutchinson 1990 |
    | activation | mean abs(a) where a product reads it | Molchanov et al. 2017 |

    The formulas stand with the functions in `pruning/criteria/`. `ZERO_SHOT`
    names the criteria that need no data.

    Args:
      groups: from `trace`.
      variables: the tree that was traced, with arrays ("random": abstract ones will do).
      criterion: one of the above.
      aggregate: of a channel's slices (of its readings, for "activation"): "sum", "mean", "max", or
        "first": that of the parameter which names the group.
      normalise: what makes groups comparable: "none"; "mean" or "max": the scores of a group are
        divided by theirs; "layer": each slice's importance is divided by its mean over the
        channels, before slices are aggregated. Means and maxima are of absolute values.
      roles: which slices count, by the role of the parameter: "out", "in", "elementwise" (without
        statistics). None: those that produce the channel, ("out",). Not for bn_scale, random and
        activation, which say themselves what they look at.
      seed: of "random", and of the signs that "hessian" draws; below 2**32.
      probes: for "hessian": how many vectors of signs a batch. Each costs two gradients.
      loss: for "taylor" and "hessian": `loss(variables, batch)`, a scalar, the mean over a batch.
      apply_fn: for "activation": the function that was traced. None: the one that `groups` holds.
      batches: for criteria with data. For a loss a batch is what the loss takes; for "activation"
        the inputs of the function: its only one, or a tuple of several. Batches should be of one
        size: each other size compiles again.

    Returns:
      Group name to scores, NumPy float64 [size]; higher matters more. Weights are looked at on the
      host, in place; what needs data runs where the data is.

    Raises:
      UserError: an argument is not as described above, or one that the criterion needs is missing
        or is not for it; a parameter is missing, has another shape than when traced, or holds a
        value that is not finite; the loss is no finite scalar, or there is no batch.

    Example:
      >>> scores = score(groups, variables, "l1", normalise="mean")
      >>> scores = score(groups, variables, "taylor", loss=loss, batches=[(images, labels)])
    """
    kind = _choice("criterion", criterion, CRITERIA)
    how = _choice("aggregate", aggregate, AGGREGATES)
    _choice("normalise", normalise, dict.fromkeys(NORMALISATIONS))
    _integer("seed", seed, 0)
    _integer("probes", probes, 1)
    if kind.needs == "activations" and apply_fn is None:
        apply_fn = groups.apply_fn
    _check_data(criterion, kind, loss, apply_fn, batches)
    request = Request(
        criterion=criterion,
        groups=groups,
        variables=variables,
        leaves=_leaves(groups, variables, kind),
        roles=_roles(criterion, kind, roles),
        seed=int(seed),
        probes=int(probes),
        loss=loss,
        apply_fn=apply_fn,
        batches=batches,
    )
    scores = {}
    for name, parts in kind.measure(request).items():
        stacked = np.stack(parts)
        if normalise == "layer":
            stacked = relative(stacked, np.abs(stacked).mean(axis=1, keepdims=True))
        found = how(stacked)
        if kind.finish:
            found = kind.finish(found)
        if normalise in ("mean", "max"):
            found = relative(found, getattr(np.abs(found), normalise)())
        scores[name] = found
    return scores


def score_flops(
    groups: Groups,
    variables: Any,
    criterion: str,
    batch: Any,
    *,
    probes: int = 16,
    loss: Callable[[Any, Any], Any] | None = None,
    apply_fn: Callable[..., Any] | None = None,
) -> int:
    """FLOPs of `score` on one batch, with the roles that it takes by default.

    Args:
      groups: from `trace`.
      variables: the tree that was traced, perhaps abstract.
      criterion: as for `score`; one that needs no data costs nothing.
      batch: one of its batches, perhaps abstract.
      probes: as for `score`.
      loss: as for `score`.
      apply_fn: as for `score`.

    Raises:
      UserError: the criterion is unknown, or an argument is missing.
    """
    kind = _choice("criterion", criterion, CRITERIA)
    if kind.flops is None:
        return 0
    if kind.needs == "activations" and apply_fn is None:
        apply_fn = groups.apply_fn
    _check_data(criterion, kind, loss, apply_fn, [batch])
    request = Request(
        criterion=criterion,
        groups=groups,
        variables=variables,
        leaves=dict(leaf_paths(variables)),
        roles=_roles(criterion, kind, None),
        seed=0,
        probes=probes,
        loss=loss,
        apply_fn=apply_fn,
        batches=[batch],
    )
    return kind.flops(request, batch)


def _choice(name: str, value: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{name} is {value!r}, expected one of {', '.join(known)}")
    return known[value]


def _integer(name: str, value: Any, least: int) -> None:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not least <= value < 2**32:
        raise UserError(f"{name} is {value!r}, expected an integer of {least} to 2**32 - 1")


def _roles(criterion: str, kind: Criterion, roles: Sequence[str] | None) -> tuple[str, ...]:
    if roles is None:
        return ("out",)
    if not kind.by_role:
        raise UserError(f"roles is {roles!r}, expected none with criterion {criterion!r}")
    listed = isinstance(roles, Sequence) and not isinstance(roles, str)
    if not listed or not roles or any(role not in ROLES for role in roles):
        raise UserError(f"roles is {roles!r}, expected a tuple of some of {', '.join(ROLES)}")
    return tuple(roles)


def _check_data(criterion: str, kind: Criterion, loss: Any, apply_fn: Any, batches: Any) -> None:
    """Each criterion gets the data that it needs, and none that it would not look at."""
    needs = {
        "loss": (loss, kind.needs == "gradients", "loss(variables, batch)"),
        "apply_fn": (apply_fn, kind.needs == "activations", "the function that was traced"),
        "batches": (batches, kind.needs in ("gradients", "activations"), "an iterable of batches"),
    }
    for name, (value, needed, what) in needs.items():
        if needed and value is None:
            raise UserError(f"{name} is None, expected {what} for criterion {criterion!r}")
        if value is not None and not needed:
            raise UserError(
                f"{name} is given, expected none: criterion {criterion!r} would not look at it"
            )
        if needed and name != "batches" and not callable(value):
            raise UserError(f"{name} is {value!r}, expected {what}")


def _leaves(groups: Groups, variables: Any, kind: Criterion) -> dict[str, Any]:
    """The leaves of the tree by path, if it is one as was traced."""
    leaves = dict(leaf_paths(variables))
    for path, shape in groups.shapes.items():
        if path not in leaves:
            raise UserError(f"variables has no {path!r}, expected the tree that was traced")
        found = tuple(np.shape(leaves[path]))
        if found != shape:
            raise UserError(f"{path} has shape {found}, expected {shape} as traced")
    if kind.needs in ("gradients", "activations"):
        for path, leaf in leaves.items():
            if isinstance(leaf, jax.ShapeDtypeStruct):
                raise UserError(f"{path} is {leaf}, without values; expected an array")
    return leaves
