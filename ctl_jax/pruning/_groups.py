"""Channel groups: what a trace finds, and why the other axes are not to be cut."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ctl_jax.errors import UserError
from ctl_jax.pruning._cost_model import Costs
from ctl_jax.pruning._layout import Layout

Role = Literal["out", "in", "elementwise"]

# From the narrowest to the widest; see `Groups.in_scope`.
SCOPES = ("filters", "channels", "all")


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """An axis of a parameter that holds the channels of a group.

    Attributes:
      path: the parameter, its keys joined by "/".
      axis: which of its axes.
      role: "out": a kernel's axis that produces the channels; "in": a kernel's axis that reads
        them; "elementwise": neither, such as a bias, a scale or a statistic.
      positions: int64 [size, k], the k positions on the axis that belong to each channel. Mostly
        k = 1 and the positions 0 ... size - 1; k is height x width where a flattened feature map
        is read, and the positions start later where a concatenation is read.
    """

    path: str
    axis: int
    role: Role
    positions: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Channels of several arrays that must be cut together, because the program couples them.

    Attributes:
      name: path of the parameter that produces these channels first in the program.
      size: number of channels.
      members: all parameter axes that hold them, in the order of the tree.
      residual: why the group is not inside a block, or None where it is (see `grouping`).
      normalised: the reduction over its channels that the program makes (LayerNorm, GroupNorm, a
        softmax), or None. A pruned network normalises over the channels that stay.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    residual: str | None
    normalised: str | None = None


# The primitives that read channels.
PRODUCTS = ("conv_general_dilated", "dot_general")


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """An operand of a product that holds the channels of a group.

    Attributes:
      equation: its number in the program, see `ctl_jax.jaxprs`.
      operand: which operand of it holds the activations.
      axis: which of its axes.
      group: name of the group.
      channels: int64 [n], the channel at each position of the axis; -1 where it is not the group's.
    """

    equation: int
    operand: int
    axis: int
    group: str
    channels: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Groups(Mapping[str, Group]):
    """The prunable channel groups of a traced function, by name, in the order of the program.

    Attributes:
      shapes: the shape of every parameter, by path.
      frozen: for every parameter, the reason why an axis, or some positions on it, can not be
        cut: path -> {axis: reason}. Axes that are in groups with all their positions are absent.
      readings: where products read the channels of groups, in the order of the program.
      left: what would be groups, if the function did the same at other widths: name -> why it does
        not.
      apply_fn, variables, inputs: what was traced; its arrays as `jax.ShapeDtypeStruct`.
    """

    _groups: Mapping[str, Group]
    shapes: Mapping[str, tuple[int, ...]]
    frozen: Mapping[str, Mapping[int, str]]
    readings: tuple[Reading, ...] = ()
    _costs: Callable[[], Costs] | None = None
    _change: Callable[[tuple[tuple[str, int], ...]], str | None] | None = None
    left: Mapping[str, str] = dataclasses.field(default_factory=dict)
    apply_fn: Callable[..., Any] | None = None
    variables: Any = None
    inputs: tuple[Any, ...] = ()

    def __getitem__(self, name: str) -> Group:
        return self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    @functools.cached_property
    def costs(self) -> Costs:
        """FLOPs, parameters and peak memory in closed form, for any widths of the groups."""
        assert self._costs is not None, "these groups are not from trace"
        return self._costs()

    @functools.cached_property
    def layout(self) -> Layout:
        """What a `Keep` of these groups is for: names, sizes, positions and shapes alone."""
        members = {
            name: {(member.path, member.axis): member.positions for member in group.members}
            for name, group in self.items()
        }
        return Layout({n: group.size for n, group in self.items()}, members, self.shapes)

    @functools.cached_property
    def other_sizes(self) -> frozenset[int]:
        """Sizes of parameters' axes that no group is on."""
        inside = {(m.path, m.axis) for group in self.values() for m in group.members}
        return frozenset(
            size
            for path, shape in self.shapes.items()
            for axis, size in enumerate(shape)
            if (path, axis) not in inside
        )

    def change_at(self, widths: Mapping[str, int]) -> str | None:
        """How the traced function is another one at some widths, by more than them.

        Traces it once more, which takes most of the time of `trace`; what was found is kept.

        Args:
          widths: channels of each group: `{name: len(kept) for name, kept in keep.items()}`.

        Returns:
          What changes, or why the function does not run; None if the pruned network computes what
          `in_scope` promises.
        """
        assert self._change is not None, "these groups are not from trace"
        sizes = {name: group.size for name, group in self.items()}
        return None if sizes == widths else self._change(tuple(widths.items()))

    def in_scope(self, scope: str) -> tuple[str, ...]:
        """Names of the groups that may be cut in a scope.

        Args:
          scope: "filters": the groups inside a block; the residual stream and the final
            representation keep their size. "channels": these too. "all": also groups over whose
            channels the program normalises. In the first two, the pruned network is the full one
            with channels cut off from their readers; in the last it normalises over fewer.

        Raises:
          UserError: there is no such scope.
        """
        if scope not in SCOPES:
            raise UserError(f"scope is {scope!r}, expected one of {', '.join(SCOPES)}")
        return tuple(
            name
            for name, group in self.items()
            if scope == "all"
            or (group.normalised is None and (scope == "channels" or group.residual is None))
        )

    def explain(self, path: str | None = None) -> str:
        """Says of each axis of a parameter which group it is in, with whom, or what froze it.

        Args:
          path: the parameter, such as "params/conv1/kernel"; None: all of them.

        Returns:
          A text, one line an axis.

        Raises:
          UserError: there is no such parameter.
        """
        if path is None:
            return "\n".join(self.explain(known) for known in self.shapes)
        if path not in self.shapes:
            raise UserError(
                f"path is {path!r}, expected a parameter of the traced variables, such as "
                f"{next(iter(self.shapes))!r}"
            )
        shape = self.shapes[path]
        lines = [f"{path} {list(shape)}"]
        for axis, size in enumerate(shape):
            found = [
                _explain_member(group, member)
                for group in self.values()
                for member in group.members
                if (member.path, member.axis) == (path, axis)
            ]
            if reason := self.frozen[path].get(axis):
                found.append(f"not cut: {reason}")
            lines += [f"  axis {axis} ({size}): {text}" for text in found]
        return "\n".join(lines)

    def summary(self) -> str:
        """A short table: one line a group, then how many axes each reason froze."""
        width = max([5, *map(len, self)])
        lines = [
            f"{'group':<{width}}  {'size':>5}  {'out':>4} {'in':>4} {'elem':>4}  kept whole by"
        ]
        for group in self.values():
            count = Counter(member.role for member in group.members)
            scope = f"filters ({group.residual})" if group.residual else "-"
            if group.normalised:
                scope = f"filters, channels ({group.normalised} over them)"
            lines.append(
                f"{group.name:<{width}}  {group.size:>5}  {count['out']:>4} {count['in']:>4} "
                f"{count['elementwise']:>4}  {scope}"
            )
        reasons = Counter(reason for axes in self.frozen.values() for reason in axes.values())
        lines += [f"{count} axes not cut: {reason}" for reason, count in reasons.most_common()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def _explain_member(group: Group, member: Member) -> str:
    others = ", ".join(
        f"{other.path}[{other.axis}] {other.role}" for other in group.members if other is not member
    )
    whole = f", whole in scope filters: {group.residual}" if group.residual else ""
    if group.normalised:
        whole = f", cut in scope all only: {group.normalised} over its channels"
    return (
        f"{member.role} of group {group.name!r} ({group.size} channels{whole}) "
        f"with {others or 'no other axis'}"
    )
