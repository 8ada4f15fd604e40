"""Axes that the program makes of others: which of rows and columns may be cut.

A reshape may split an axis of channels into rows and columns (attention's heads, the groups of a
GroupNorm or of a shuffle) and merge such axes again. Cutting a row, or a column, cuts all of its
channels. Only one of the two can be allowed, for otherwise a channel would be cut in two ways; and
which one is right depends on how the program came to its numbers, which a jaxpr does not say:

    x.reshape(b, n, -1, width)    the number of rows follows: heads can be cut
    x.reshape(b, n, groups, -1)   the number of columns follows: each group can lose as many

So it is decided here by what else is known, once the whole program is. If the columns are frozen
(attention contracts them) the rows are cut, and the other way round; and what was joined to
channels that are cut in one way is cut in that way. Else it is the rows if they are some
parameter's axis, or joined to one, and the columns if not. `verify` then checks what was
decided for reshapes that split, by tracing the pruned program.
"""

from collections.abc import Sequence

import numpy as np

from ctl_jax.pruning._interpreter import Grid
from ctl_jax.pruning._union_find import Labels, UnionFind, elements

ROWS, COLUMNS = "rows", "columns"

# What the other axis is frozen for.
REASONS = {
    ROWS: "its channels are cut in whole rows (heads, groups) of which this axis is a part",
    COLUMNS: "the number of parts into which the program splits its channels stays",
}


def resolve(channels: UnionFind, grids: Sequence[Grid], parameters: int) -> None:
    """Decides for every grid, and joins and freezes its axes accordingly.

    Args:
      channels: after the interpreter.
      grids: in the order of the program.
      parameters: how many of the elements, the first, are of parameters.
    """
    pending = list(grids)
    while pending:
        roots = channels.find(np.arange(channels.size))
        dead = np.zeros(channels.size, bool)
        for _, ids in channels.frozen():
            dead[roots[ids]] = True
        # What is forced goes first: it may force others, or be what others are joined to.
        decided = [(grid, side) for grid in pending if (side := _forced(grid, roots, dead))]
        if not decided:
            real = np.zeros(channels.size, bool)
            real[roots[:parameters]] = True
            decided = [_choice(related, roots, real) for related in _unrelated(pending, roots)]
        for grid, side in decided:
            pending.remove(grid)
            _apply(channels, grid, side)


def _forced(grid: Grid, roots: Labels, dead: np.ndarray) -> str | None:
    if dead[roots[elements(grid.columns)]].all():
        return ROWS
    if dead[roots[elements(grid.rows)]].all():
        return COLUMNS
    if grid.whole is not None:
        whole = np.where(grid.whole >= 0, roots[grid.whole], -1)
        by_row, by_column = (whole == whole[:, :1]).all(), (whole == whole[:1]).all()
        if by_row != by_column:  # it has been joined to what is cut in this way
            return ROWS if by_row else COLUMNS
    return None


def _unrelated(pending: Sequence[Grid], roots: Labels) -> list[list[Grid]]:
    """The grids in sets of which none shares a channel with another: to decide one at a time."""
    touched = []
    for grid in pending:
        whole = () if grid.whole is None else (grid.whole.ravel(),)
        touched.append(roots[elements(grid.rows, grid.columns, *whole)])
    related = UnionFind(len(roots))
    for ids in touched:
        related.join(ids[:-1], ids[1:])
    sets: dict[int, list[Grid]] = {}
    for grid, ids in zip(pending, touched, strict=True):
        sets.setdefault(int(related.find(ids[:1])[0]), []).append(grid)
    return list(sets.values())


def _choice(grids: Sequence[Grid], roots: Labels, real: np.ndarray) -> tuple[Grid, str]:
    """Which of these grids, none of them forced, is decided first, and how."""
    for grid in grids:
        if _is_anchored(grid, roots, real):
            return grid, COLUMNS if grid.flip else ROWS
    return grids[0], ROWS if grids[0].flip else COLUMNS


def _is_anchored(grid: Grid, roots: Labels, real: np.ndarray) -> bool:
    """Whether the rows are a parameter's axis, or joined to one."""
    return grid.whole is None or bool(real[roots[elements(grid.rows)]].any())


def _apply(channels: UnionFind, grid: Grid, side: str) -> None:
    if grid.whole is not None:
        rows, columns = grid.whole.shape
        cut = np.repeat(grid.rows, columns) if side == ROWS else np.tile(grid.columns, rows)
        channels.join(grid.whole.ravel(), cut)
    channels.freeze(grid.columns if side == ROWS else grid.rows, REASONS[side])


def spread_to_sources(first: Labels, grids: Sequence[Grid]) -> None:
    """Carries numbers from elements of reshaped axes over to those that they were made of.

    Args:
      first: int [elements], changed in place: each element gets the least number of those made of
        it.
      grids: in the order of the program.
    """
    for grid in reversed(grids):
        if grid.whole is None:
            continue
        if grid.split:
            found = np.minimum(first[grid.rows][:, None], first[grid.columns][None])
            np.minimum.at(first, grid.whole[grid.whole >= 0], found[grid.whole >= 0])
        else:
            for axis, found in (
                (grid.rows, first[grid.whole].min(1)),
                (grid.columns, first[grid.whole].min(0)),
            ):
                np.minimum.at(first, axis[axis >= 0], found[axis >= 0])
