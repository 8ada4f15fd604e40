"""Which channels stay: everything there is to say about a pruned architecture."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ctl_jax.errors import UserError

VERSION = 1

Indices = npt.NDArray[np.int64]


class Keep(Mapping[str, Indices]):
    """For every group of a trace, the sorted indices of the channels that stay.

    Groups that are not cut are listed too, with all their indices: `len(keep[name])` is the width
    of any group.

    Attributes:
      sizes: the full number of channels of each group. Says which group structure this is for.
      notes: what the selection could not do as asked, one sentence each.
    """

    def __init__(
        self,
        indices: Mapping[str, Sequence[int] | Indices],
        sizes: Mapping[str, int],
        notes: Sequence[str] = (),
    ) -> None:
        """Checks and stores the indices.

        Args:
          indices: for each group, which channels stay, ascending.
          sizes: for each group, how many there are.
          notes: sentences for the user.

        Raises:
          UserError: the two name different groups, or indices are not ascending, none or outside
            0 ... size - 1.
        """
        if indices.keys() != sizes.keys():
            odd = sorted(indices.keys() ^ sizes.keys())[0]
            raise UserError(f"keep: group {odd!r} has indices or a size, expected both")
        self._indices = {name: _checked(name, indices[name], sizes[name]) for name in sizes}
        self.sizes: Mapping[str, int] = dict(sizes)
        self.notes = tuple(notes)

    def __getitem__(self, name: str) -> Indices:
        return self._indices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __eq__(self, other: object) -> bool:
        """Equal if the same channels of the same groups stay, whatever the notes."""
        if not isinstance(other, Keep):
            return NotImplemented
        return self.sizes == other.sizes and all(
            np.array_equal(kept, other[name]) for name, kept in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        widths = ", ".join(f"{name}: {len(kept)}/{self.sizes[name]}" for name, kept in self.items())
        return f"Keep({widths})"

    def to_json(self) -> str:
        """This as JSON, with a version and the sizes of the groups; `from_json` reads it."""
        groups = {
            name: {"size": self.sizes[name], "keep": kept.tolist()} for name, kept in self.items()
        }
        return json.dumps({"version": VERSION, "groups": groups, "notes": self.notes})

    @classmethod
    def from_json(cls, text: str) -> "Keep":
        """Reads what `to_json` wrote.

        Args:
          text: the JSON.

        Returns:
          The keep, equal to the one that was written.

        Raises:
          UserError: the text is not that of a keep, or of another version.
        """
        try:
            content = json.loads(text)
            version, groups, notes = content["version"], content["groups"], content["notes"]
            indices = {name: group["keep"] for name, group in groups.items()}
            sizes = {name: group["size"] for name, group in groups.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"keep: the text starts {text[:40]!r}, expected Keep.to_json's"
            ) from error
        if version != VERSION:
            raise UserError(f"keep: version is {version!r}, expected {VERSION}")
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise UserError(f"keep: notes is {notes!r}, expected a list of strings")
        return cls(indices, sizes, notes)


def _checked(name: str, indices: Any, size: Any) -> Indices:
    found = np.asarray(indices)
    if (
        not isinstance(size, int)
        or found.ndim != 1
        or not found.size
        or found.dtype.kind not in "iu"
        or (np.diff(found) <= 0).any()
        or found[0] < 0
        or found[-1] >= size
    ):
        raise UserError(
            f"keep[{name!r}] is {indices!r} of {size!r} channels, expected ascending indices of "
            "channels that it has, at least one"
        )
    kept = found.astype(np.int64)
    kept.flags.writeable = False
    return kept
