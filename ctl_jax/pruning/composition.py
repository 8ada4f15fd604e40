"""Two cuts, one after the other, as one."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ctl_jax.errors import UserError
from ctl_jax.pruning.structure import Positions, Slot, Structure, key

Indices = npt.NDArray[np.int64]


def composed(
    structure: Structure,
    indices: Mapping[str, Indices],
    stays: Mapping[str, Mapping[int, Indices]],
    later: Structure,
    later_indices: Mapping[str, Indices],
) -> dict[str, Indices]:
    """The channels of `structure` that stay after both cuts; see `Keep.compose`.

    The groups of the two structures are matched by where they lie, not by their names: a group of
    one channel left is none of the second trace, which moves the names of others.

    Args:
      structure: the full network's.
      indices: group name -> the channels that the first cut keeps, ascending.
      stays: path -> axis -> the positions that the first cut keeps; axes that it cuts alone.
      later: structure of the network that the first cut makes.
      later_indices: the same for the second cut, by the second structure's groups.

    Returns:
      Group name -> channels, as in `indices`.

    Raises:
      UserError: as `Keep.compose`.
    """
    _check_shapes(structure, stays, later)
    mask = {name: np.zeros(size, bool) for name, size in structure.sizes.items()}
    for name, kept in indices.items():
        mask[name][kept] = True
    owners = _Owners(structure)
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


def _check_shapes(
    structure: Structure, stays: Mapping[str, Mapping[int, Indices]], later: Structure
) -> None:
    cut = {
        path: tuple(len(stays.get(path, {}).get(i, range(n))) for i, n in enumerate(shape))
        for path, shape in structure.shapes.items()
    }
    # Of the groups nothing is expected yet, of the shapes everything.
    made = Structure(later.sizes, later.members, cut)
    if difference := later.difference(made):
        raise UserError(f"later {difference} as this keep makes it")


def _before(positions: Positions, stays: Indices | None) -> Positions:
    """Positions on a pruned axis in the numbering of the full one."""
    return positions if stays is None else stays[positions]


class _Owners:
    """Which channel lies at each position of an axis of the full network."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._names = list(structure.sizes)
        self._axes: dict[Slot, Positions] = {}
        self._width = max(structure.sizes.values(), default=0)
        self._on: dict[Slot, list[int]] = {}
        for number, name in enumerate(self._names):
            for slot in structure.members[name]:
                self._on.setdefault(slot, []).append(number)

    def whole_channels(
        self, name: str, dropped: Indices, lies: Mapping[Slot, Positions]
    ) -> dict[str, Indices]:
        """The channels, by group, that lie on just these positions: what may be dropped for them.

        Args:
          name: group of the second cut.
          dropped: int64 [n], its channels that are dropped.
          lies: where they lie in the full network, [n, k] an axis.

        Raises:
          UserError: one of them is not a whole channel of the full network.
        """
        found: Positions | None = None
        count = np.zeros(len(dropped), np.int64)
        for slot, positions in lies.items():
            at = self._axis(slot)[positions]
            found = at[:, :1] if found is None else found
            wrong = ((at != found) | (at < 0)).any(axis=1)
            if wrong.any():
                raise self._not_whole(name, int(dropped[np.argmax(wrong)]), slot)
            count += positions.shape[1]
        assert found is not None
        channels: dict[str, Indices] = {}
        groups, numbers = np.divmod(found[:, 0], self._width)
        for group in np.unique(groups):
            of = groups == group
            members = self._structure.members[self._names[group]]
            partly = of & (count != sum(p.shape[1] for p in members.values()))
            if partly.any():
                missing = next((slot for slot in members if slot not in lies), next(iter(lies)))
                raise self._not_whole(name, int(dropped[np.argmax(partly)]), missing)
            channels[self._names[group]] = numbers[of]
        return channels

    def _axis(self, slot: Slot) -> Positions:
        """int64 [n]: group * width + channel at each position, -1 where there is none."""
        if slot not in self._axes:
            path, axis = slot
            held = np.full(self._structure.shapes[path][axis], -1)
            for group in self._on.get(slot, ()):
                positions = self._structure.members[self._names[group]][slot]
                held[positions] = group * self._width + np.arange(len(positions))[:, None]
            self._axes[slot] = held
        return self._axes[slot]

    @staticmethod
    def _not_whole(name: str, channel: int, slot: Slot) -> UserError:
        return UserError(
            f"later drops channel {channel} of group {name!r}, which is not one channel of the "
            f"network before this keep (see {key(slot)}), expected whole channels"
        )
