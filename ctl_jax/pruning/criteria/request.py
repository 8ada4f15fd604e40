"""The request that every criterion is given, and the form of its answer."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.pruning._groups import Group, Groups, Member
from ctl_jax.pruning.criteria import slices
from ctl_jax.pruning.criteria.slices import Kernel, Vector

# The importance of the channels of each group, float64 [channels] for each of its slices.
Parts = dict[str, list[Vector]]

# The last key of what a BatchNorm counts and does not learn, in Linen and NNX, and PyTorch; Haiku
# has it in modules of this ending.
_STATISTICS = ("mean", "var", "running_mean", "running_var")
_MOVING_AVERAGE = "_ema"


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """What `score` was asked for, checked.

    Attributes:
      criterion: its name.
      groups: from `trace`.
      variables: the tree that was traced, and
      leaves: its leaves by path, of the shapes that were traced.
      roles: of the slices that count.
      seed: for what is drawn at random, and
      probes: how many vectors are drawn a batch.
      loss: `loss(variables, batch)`, where the criterion differentiates one.
      apply_fn: `apply_fn(variables, *inputs)`, where it looks at activations.
      batches: the data, if it needs some.
    """

    criterion: str
    groups: Groups
    variables: Any
    leaves: Mapping[str, Any]
    roles: Sequence[str]
    seed: int
    probes: int
    loss: Callable[..., Any] | None
    apply_fn: Callable[..., Any] | None
    batches: Any

    def members(self, group: Group) -> list[Member]:
        """The members whose slices count; the one that names the group, if it does, comes first.

        Statistics (the running mean and variance of a BatchNorm) are no weights and never count.

        Raises:
          UserError: the group has none.
        """
        found = [m for m in group.members if m.role in self.roles and not _is_statistic(m)]
        if not found:
            raise UserError(
                f"group {group.name!r} has no weights of role {' or '.join(self.roles)}, expected "
                f"roles among those of its members: {', '.join(sorted(_roles(group)))}"
            )
        return sorted(found, key=lambda member: member.path != group.name.partition("#")[0])

    def kernel(self, path: str) -> Kernel:
        """The values of a parameter, on the host."""
        return slices.kernel_of(path, self.leaves)

    def along(self, measure: Callable[[Kernel, int], Vector], path: str, axis: int) -> Vector:
        """`measure` of a parameter's slices along an axis.

        Raises:
          UserError: the parameter holds a value that is not finite.
        """
        return self.finite(measure(self.kernel(path), axis), path)

    def finite(self, vector: Vector, path: str) -> Vector:
        """`vector`, computed from this parameter, if the parameter is finite."""
        if not np.isfinite(vector).all():
            wrong = int((~np.isfinite(self.kernel(path))).sum())
            if wrong:
                raise UserError(
                    f"{path} has {wrong} values that are NaN or infinite, expected none"
                )
        return vector

    def data(self) -> Iterator[Any]:
        """The batches.

        Raises:
          UserError: there are none, or no iterable of batches was given.
        """
        if isinstance(self.batches, Mapping | str) or not _is_iterable(self.batches):
            kind = type(self.batches).__name__
            raise UserError(f"batches is of type {kind}, expected an iterable of batches")
        empty = True
        for batch in self.batches:
            empty = False
            yield batch
        if empty:
            raise UserError("batches holds no batch, expected at least one")


def by_slot(
    request: Request, measure: Callable[[Kernel, int], Vector], *, largest: bool = False
) -> Parts:
    """Parts from what `measure` says of each position on a parameter's axis."""
    # An axis that reads a concatenation holds the channels of many groups.
    along = functools.cache(functools.partial(request.along, measure))
    return {
        name: [
            slices.by_channel(along(m.path, m.axis), m, largest=largest)
            for m in request.members(group)
        ]
        for name, group in request.groups.items()
    }


def by_member(request: Request, measure: Callable[[Kernel, Member], Vector]) -> Parts:
    """Parts from what `measure` says of each channel of a member."""
    return {
        name: [
            request.finite(measure(request.kernel(m.path), m), m.path)
            for m in request.members(group)
        ]
        for name, group in request.groups.items()
    }


def _is_iterable(value: object) -> bool:
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def last_key(path: str) -> str:
    """The name of a parameter in its layer; in NNX it is a node that holds a value."""
    return path.removesuffix("/value").rpartition("/")[2]


def _is_statistic(member: Member) -> bool:
    module = member.path.rpartition("/")[0]
    counted = last_key(member.path) in _STATISTICS or module.endswith(_MOVING_AVERAGE)
    return member.role == "elementwise" and counted


def _roles(group: Group) -> set[str]:
    return {member.role for member in group.members if not _is_statistic(member)}
