"""Keeps: which channels stay, a pruned architecture as data; and two cuts in a row as one."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.pruning._layout import AxisLayout, Layout, Slot, key
from ctl_jax.trees import Ints

if TYPE_CHECKING:
    from ctl_jax.pruning._groups import Groups

VERSION = 2


class Keep(Mapping[str, Ints]):
    """For every group of a trace, the sorted indices of the channels that stay.

    Groups that are not cut are listed too, with all their indices: `len(keep[name])` is the width
    of any group.

    Attributes:
      layout: which groups of which tree this is for, `groups.layout`. Two traces of one
        network have the same. Where another network holds the same channels (another head, say),
        `Keep(keep, its_groups.layout)` says so.
      notes: what the selection could not do as asked, one sentence each.
    """

    def __init__(
        self,
        indices: Mapping[str, Sequence[int] | Ints],
        layout: Layout,
        notes: Sequence[str] = (),
    ) -> None:
        """Checks and stores the indices.

        Args:
          indices: for each group, which channels stay, ascending.
          layout: of the groups.
          notes: sentences for the user.

        Raises:
          UserError: the two name different groups, or indices are not ascending, none or outside
            0 ... size - 1.
        """
        sizes = layout.sizes
        if indices.keys() != sizes.keys():
            odd = next(name for name in {**sizes, **indices} if (name in sizes) ^ (name in indices))
            held = "no indices" if odd in sizes else "indices, but the layout has no such group"
            raise UserError(f"keep: group {odd!r} has {held}, expected indices for each group")
        self._indices = {name: _checked(name, indices[name], sizes[name]) for name in sizes}
        self.layout = layout
        self.notes = tuple(notes)

    @property
    def sizes(self) -> Mapping[str, int]:
        """The full number of channels of each group."""
        return self.layout.sizes

    @functools.cached_property
    def positions(self) -> dict[str, dict[int, Ints]]:
        """What stays of each axis that loses some: path -> axis -> positions, ascending."""
        dropped = {
            name: _dropped(kept, self.sizes[name])
            for name, kept in self.items()
            if len(kept) < self.sizes[name]
        }
        stays: dict[AxisLayout, Ints | None] = {}
        found: dict[str, dict[int, Ints]] = {}
        for path, axes in self.layout.axes.items():
            for axis, axis_layout in axes.items():
                if axis_layout not in stays:
                    stays[axis_layout] = self._stays(axis_layout, dropped)
                if (left := stays[axis_layout]) is not None:
                    found.setdefault(path, {})[axis] = left
        return found

    def _stays(self, axis_layout: AxisLayout, dropped: Mapping[str, Ints]) -> Ints | None:
        """The positions of an axis that stay, None if all do."""
        cut = [(name, table) for name, table in axis_layout.groups if name in dropped]
        if not cut:
            return None
        if axis_layout.whole is not None:
            return self[axis_layout.whole]
        mask = np.ones(axis_layout.size, bool)
        for name, table in cut:
            mask[table[dropped[name]]] = False
        return np.flatnonzero(mask)

    def check(self, groups: "Groups") -> None:
        """Raises if this is not for these groups.

        Raises:
          UserError: they have another layout; names the first difference.
        """
        if difference := self.layout.difference(groups.layout):
            raise UserError(f"keep {difference} as in the groups that it is used with")

    def compose(self, later: "Keep") -> "Keep":
        """This cut, and then another of the pruned network, as one cut of the full network.

        `prune(prune(tree, groups, keep), groups2, later)` is then
        `prune(tree, groups, keep.compose(later))`. The second trace need not have the same groups:
        one that has a single channel left has vanished from it.

        Args:
          later: a keep for the groups of the network that this keep makes.

        Returns:
          A keep for the groups that this is for, with the notes of both.

        Raises:
          UserError: `later` is for another network than this keep makes, or drops what is not a
            whole channel of the groups that this is for.

        Example:
          >>> small = prune(variables, groups, keep)
          >>> groups2 = trace(apply_fn, small, images)
          >>> keep2 = select(groups2, score(groups2, small), ratio=0.5)
          >>> smaller = prune(variables, groups, keep.compose(keep2))
        """
        indices = composed(self.layout, self._indices, self.positions, later.layout, later._indices)
        return Keep(indices, self.layout, [*self.notes, *later.notes])

    def __getitem__(self, name: str) -> Ints:
        return self._indices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __eq__(self, other: object) -> bool:
        """Equal if the same channels of the same layout stay, whatever the notes."""
        if not isinstance(other, Keep):
            return NotImplemented
        return self.layout == other.layout and all(
            np.array_equal(kept, other[name]) for name, kept in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        widths = ", ".join(f"{name}: {len(kept)}/{self.sizes[name]}" for name, kept in self.items())
        return f"Keep({widths})"

    def to_json(self) -> str:
        """This as JSON, with a version, the layout and its fingerprint; `from_json` reads it."""
        data = self.layout.to_data()
        for name, kept in self.items():
            data["groups"][name]["keep"] = kept.tolist()
        head = {"version": VERSION, "fingerprint": self.layout.fingerprint, "notes": self.notes}
        return json.dumps(head | data)

    @classmethod
    def from_json(cls, text: str) -> "Keep":
        """Reads what `to_json` wrote.

        Args:
          text: the JSON.

        Returns:
          The keep, equal to the one that was written.

        Raises:
          UserError: the text is not that of a keep, of another version, or its layout is not the
            one that was written.
        """
        try:
            content = json.loads(text)
            version, notes = content["version"], content["notes"]
            if version == VERSION:
                layout = Layout.from_data(content)
                indices = {name: group["keep"] for name, group in content["groups"].items()}
                fingerprint = content["fingerprint"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(
                f"keep: the text starts {text[:40]!r}, expected Keep.to_json's"
            ) from error
        if version != VERSION:
            raise UserError(f"keep: version is {version!r}, expected {VERSION}")
        if fingerprint != layout.fingerprint:
            raise UserError(
                f"keep: fingerprint is {fingerprint!r}, expected {layout.fingerprint!r} of the "
                "groups and shapes beside it"
            )
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise UserError(f"keep: notes is {notes!r}, expected a list of strings")
        return cls(indices, layout, notes)


def _dropped(kept: Ints, size: int) -> Ints:
    mask = np.ones(size, bool)
    mask[kept] = False
    return np.flatnonzero(mask)


def _checked(name: str, indices: Any, size: int) -> Ints:
    try:
        found = np.asarray(indices)
    except ValueError:  # lists of different lengths
        found = np.empty(0)
    if (
        found.ndim != 1
        or not found.size
        or found.dtype.kind not in "iu"
        or found[0] < 0
        or found[-1] >= size
        or not (found[1:] > found[:-1]).all()
    ):
        raise UserError(
            f"keep[{name!r}] is {indices!r} of {size!r} channels, expected ascending indices of "
            "channels that it has, at least one"
        )
    kept = found.astype(np.int64)
    kept.flags.writeable = False
    return kept


def composed(
    layout: Layout,
    indices: Mapping[str, Ints],
    stays: Mapping[str, Mapping[int, Ints]],
    later: Layout,
    later_indices: Mapping[str, Ints],
) -> dict[str, Ints]:
    """The channels of `layout` that stay after both cuts; see `Keep.compose`.

    The groups of the two layouts are matched by where they are, not by their names: a group of
    one channel left is no group of the second trace, which moves the names of others.

    Args:
      layout: the full network's.
      indices: group name -> the channels that the first cut keeps, ascending.
      stays: path -> axis -> the positions that the first cut keeps; axes that it cuts alone.
      later: layout of the network that the first cut makes.
      later_indices: the same for the second cut, by the second layout's groups.

    Returns:
      Group name -> channels, as in `indices`.

    Raises:
      UserError: as `Keep.compose`.
    """
    _check_shapes(layout, stays, later)
    mask = {name: np.zeros(size, bool) for name, size in layout.sizes.items()}
    for name, kept in indices.items():
        mask[name][kept] = True
    owners = _Owners(layout)
    for name, size in later.sizes.items():
        dropped = np.delete(np.arange(size), later_indices[name])
        if not dropped.size:
            continue
        lies = {
            (path, axis): _before(positions[dropped], stays.get(path, {}).get(axis))
            for (path, axis), positions in later.members[name].items()
        }
        for group, channels in owners.whole_channels(name, dropped, lies).items():
            mask[group][channels] = False
    return {name: np.flatnonzero(left) for name, left in mask.items()}


def _check_shapes(layout: Layout, stays: Mapping[str, Mapping[int, Ints]], later: Layout) -> None:
    cut = {
        path: tuple(len(stays.get(path, {}).get(i, range(n))) for i, n in enumerate(shape))
        for path, shape in layout.shapes.items()
    }
    # Of the groups nothing is expected yet, of the shapes everything.
    made = Layout(later.sizes, later.members, cut)
    if difference := later.difference(made):
        raise UserError(f"later {difference} as this keep makes it")


def _before(positions: Ints, stays: Ints | None) -> Ints:
    """Positions on a pruned axis in the numbering of the full one."""
    return positions if stays is None else stays[positions]


class _Owners:
    """Which channel is at each position of an axis of the full network."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._names = list(layout.sizes)
        self._axes: dict[Slot, Ints] = {}
        self._width = max(layout.sizes.values(), default=0)
        self._on: dict[Slot, list[int]] = {}
        for number, name in enumerate(self._names):
            for slot in layout.members[name]:
                self._on.setdefault(slot, []).append(number)

    def whole_channels(
        self, name: str, dropped: Ints, lies: Mapping[Slot, Ints]
    ) -> dict[str, Ints]:
        """The channels, by group, that are on just these positions: what may be dropped for them.

        Args:
          name: group of the second cut.
          dropped: int64 [n], its channels that are dropped.
          lies: where they are in the full network, [n, k] an axis.

        Raises:
          UserError: one of them is not a whole channel of the full network.
        """
        found: Ints | None = None
        count = np.zeros(len(dropped), np.int64)
        for slot, positions in lies.items():
            at = self._axis(slot)[positions]
            found = at[:, :1] if found is None else found
            wrong = ((at != found) | (at < 0)).any(axis=1)
            if wrong.any():
                raise self._not_whole(name, int(dropped[np.argmax(wrong)]), slot)
            count += positions.shape[1]
        assert found is not None
        channels: dict[str, Ints] = {}
        groups, numbers = np.divmod(found[:, 0], self._width)
        for group in np.unique(groups):
            of = groups == group
            members = self._layout.members[self._names[group]]
            partly = of & (count != sum(p.shape[1] for p in members.values()))
            if partly.any():
                missing = next((slot for slot in members if slot not in lies), next(iter(lies)))
                raise self._not_whole(name, int(dropped[np.argmax(partly)]), missing)
            channels[self._names[group]] = numbers[of]
        return channels

    def _axis(self, slot: Slot) -> Ints:
        """int64 [n]: group * width + channel at each position, -1 where there is none."""
        if slot not in self._axes:
            path, axis = slot
            held = np.full(self._layout.shapes[path][axis], -1)
            for group in self._on.get(slot, ()):
                positions = self._layout.members[self._names[group]][slot]
                held[positions] = group * self._width + np.arange(len(positions))[:, None]
            self._axes[slot] = held
        return self._axes[slot]

    @staticmethod
    def _not_whole(name: str, channel: int, slot: Slot) -> UserError:
        return UserError(
            f"later drops channel {channel} of group {name!r}, which is not one channel of the "
            f"network before this keep (see {key(slot)}), expected whole channels"
        )
