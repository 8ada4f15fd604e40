"""Which channels stay: everything there is to say about a pruned architecture."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctl_jax.errors import UserError
from ctl_jax.pruning import composition
from ctl_jax.pruning.structure import Lying, Structure

if TYPE_CHECKING:
    from ctl_jax.pruning.groups import Groups

VERSION = 2

Indices = npt.NDArray[np.int64]


class Keep(Mapping[str, Indices]):
    """For every group of a trace, the sorted indices of the channels that stay.

    Groups that are not cut are listed too, with all their indices: `len(keep[name])` is the width
    of any group.

    Attributes:
      structure: which groups of which tree this is for, `groups.structure`. Two traces of one
        network have the same. Where another network holds the same channels (another head, say),
        `Keep(keep, its_groups.structure)` says so.
      notes: what the selection could not do as asked, one sentence each.
    """

    def __init__(
        self,
        indices: Mapping[str, Sequence[int] | Indices],
        structure: Structure,
        notes: Sequence[str] = (),
    ) -> None:
        """Checks and stores the indices.

        Args:
          indices: for each group, which channels stay, ascending.
          structure: of the groups.
          notes: sentences for the user.

        Raises:
          UserError: the two name different groups, or indices are not ascending, none or outside
            0 ... size - 1.
        """
        sizes = structure.sizes
        if indices.keys() != sizes.keys():
            odd = next(name for name in {**sizes, **indices} if (name in sizes) ^ (name in indices))
            held = "no indices" if odd in sizes else "indices, but the structure has no such group"
            raise UserError(f"keep: group {odd!r} has {held}, expected indices for each group")
        self._indices = {name: _checked(name, indices[name], sizes[name]) for name in sizes}
        self.structure = structure
        self.notes = tuple(notes)

    @property
    def sizes(self) -> Mapping[str, int]:
        """The full number of channels of each group."""
        return self.structure.sizes

    @functools.cached_property
    def positions(self) -> dict[str, dict[int, Indices]]:
        """What stays of each axis that loses some: path -> axis -> positions, ascending."""
        dropped = {
            name: _dropped(kept, self.sizes[name])
            for name, kept in self.items()
            if len(kept) < self.sizes[name]
        }
        stays: dict[Lying, Indices | None] = {}
        found: dict[str, dict[int, Indices]] = {}
        for path, axes in self.structure.axes.items():
            for axis, lying in axes.items():
                if lying not in stays:
                    stays[lying] = self._stays(lying, dropped)
                if (left := stays[lying]) is not None:
                    found.setdefault(path, {})[axis] = left
        return found

    def _stays(self, lying: Lying, dropped: Mapping[str, Indices]) -> Indices | None:
        """The positions of an axis that stay, None if all do."""
        cut = [(name, table) for name, table in lying.groups if name in dropped]
        if not cut:
            return None
        if lying.whole is not None:
            return self[lying.whole]
        mask = np.ones(lying.size, bool)
        for name, table in cut:
            mask[table[dropped[name]]] = False
        return np.flatnonzero(mask)

    def check(self, groups: "Groups") -> None:
        """Raises if this is not for these groups.

        Raises:
          UserError: they have another structure; names the first difference.
        """
        if difference := self.structure.difference(groups.structure):
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
        indices = composition.composed(
            self.structure, self._indices, self.positions, later.structure, later._indices
        )
        return Keep(indices, self.structure, [*self.notes, *later.notes])

    def __getitem__(self, name: str) -> Indices:
        return self._indices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __eq__(self, other: object) -> bool:
        """Equal if the same channels of the same structure stay, whatever the notes."""
        if not isinstance(other, Keep):
            return NotImplemented
        return self.structure == other.structure and all(
            np.array_equal(kept, other[name]) for name, kept in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        widths = ", ".join(f"{name}: {len(kept)}/{self.sizes[name]}" for name, kept in self.items())
        return f"Keep({widths})"

    def to_json(self) -> str:
        """This as JSON, with a version, the structure and its fingerprint; `from_json` reads it."""
        data = self.structure.to_data()
        for name, kept in self.items():
            data["groups"][name]["keep"] = kept.tolist()
        head = {"version": VERSION, "fingerprint": self.structure.fingerprint, "notes": self.notes}
        return json.dumps(head | data)

    @classmethod
    def from_json(cls, text: str) -> "Keep":
        """Reads what `to_json` wrote.

        Args:
          text: the JSON.

        Returns:
          The keep, equal to the one that was written.

        Raises:
          UserError: the text is not that of a keep, of another version, or its structure is not the
            one that was written.
        """
        try:
            content = json.loads(text)
            version, notes = content["version"], content["notes"]
            if version == VERSION:
                structure = Structure.from_data(content)
                indices = {name: group["keep"] for name, group in content["groups"].items()}
                fingerprint = content["fingerprint"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(
                f"keep: the text starts {text[:40]!r}, expected Keep.to_json's"
            ) from error
        if version != VERSION:
            raise UserError(f"keep: version is {version!r}, expected {VERSION}")
        if fingerprint != structure.fingerprint:
            raise UserError(
                f"keep: fingerprint is {fingerprint!r}, expected {structure.fingerprint!r} of the "
                "groups and shapes beside it"
            )
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise UserError(f"keep: notes is {notes!r}, expected a list of strings")
        return cls(indices, structure, notes)


def _dropped(kept: Indices, size: int) -> Indices:
    mask = np.ones(size, bool)
    mask[kept] = False
    return np.flatnonzero(mask)


def _checked(name: str, indices: Any, size: int) -> Indices:
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
