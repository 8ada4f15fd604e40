"""Step three: which channels stay."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.pruning._allocation import ALLOCATIONS, Range, ladder, pools
from ctl_jax.pruning._checks import check_count, is_number, is_ratio
from ctl_jax.pruning._groups import Groups
from ctl_jax.pruning._keep import Keep
from ctl_jax.pruning._latency import Measure, measured_by, meet_latency
from ctl_jax.pruning._patterns import own_ratios, prunable
from ctl_jax.pruning._targets import Target, meet
from ctl_jax.pruning._verify import tried_widths
from ctl_jax.trees import Floats, Ints


def select(
    groups: Groups,
    scores: Mapping[str, Any],
    *,
    ratio: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    memory: float | None = None,
    latency: float | None = None,
    scope: str = "filters",
    allocation: str = "uniform",
    floor: float = 0.0,
    minimum: int = 1,
    round_to: int = 1,
    ratios: Mapping[str, float] | None = None,
    frozen: Sequence[str] = (),
    measure: Measure | None = None,
    cache: str | os.PathLike[str] | None = None,
    check: bool = False,
) -> Keep:
    """Drops channels of low score, a given share of them or as few as a target allows.

    One of `ratio`, `flops`, `params`, `memory` and `latency` says how much, `allocation` how the
    cut is shared out among the groups in scope, and within a group the highest scores stay (of
    equal ones the lowest index).

    Where Python may take the chosen widths for something else than those that `trace` tried (two
    that differed are equal now, say), the function is traced once more, and no cut is made at which
    that is not the same program.

    With `ratio` and the uniform allocation a group of `size` channels keeps the multiple of
    `round_to` nearest to `(1 - ratio) * size`, of two equally near the greater, but at least the
    least multiple allowed and at most `size`. (So a group whose size is no multiple stays whole
    where the next multiple is above its size.) A target is met from below: see `targets.meet`.

    Args:
      groups: from `trace`.
      scores: group name to one number a channel, from `score`.
      ratio: the share of channels to drop, in [0, 1): of each group, or, as the allocation has it,
        of all groups in scope or all of one structure. At 0 everything stays, whatever `round_to`.
      flops: FLOPs of one call of the traced function, at most. A float in (0, 1] is a share of the
        full network's, any other number absolute.
      params: numbers in the parameters, likewise.
      memory: bytes of the values of one call that are alive at a time, likewise.
      latency: seconds of one call on this device, at most; measured, see `latency.meet_latency`.
      scope: "filters", "channels" or "all"; see `Groups.in_scope`.
      allocation: "uniform", "global" or "isomorphic"; see `allocation`. The last two compare scores
        of different groups, for which `score` has normalisations.
      floor: share of the channels of each group that stays at least, in [0, 1].
      minimum: channels of each group that stay at least.
      round_to: widths are multiples of this, which suits the hardware; counted in positions on the
        axes that produce the channels. A group that has no smaller multiple stays whole.
      ratios: for groups whose names match a pattern (`fnmatch`, the first that does), their own
        share to drop; they are left out of the allocation, and a target takes them as they are.
      frozen: patterns; parameters whose paths match one keep their shape, so that all groups that
        lie on them stay whole. (`ratios` of 0 leave single groups whole.)
      measure: for `latency`: from the channels that stay to seconds, of a training step, say.
        None: the traced function is called.
      cache: for `latency`: a JSON file of measurements; see `latency.measured_by`.
      check: True traces the function at the chosen widths in any case. That takes most of the time
        of a selection, and shows also what depends on a width's being exactly 7.

    Returns:
      For every group the channels that stay; groups that are not in scope stay whole. `notes` says
      how close the target was met, which groups the ratio would have emptied, which `round_to`
      leaves whole, and which are not cut because the function depends on their widths
      (`groups.left`). If there is no other, a ratio drops nothing.

    Raises:
      UserError: an argument is not as described above; none or several say how much; the scope
        holds no group, or none that is not frozen; a pattern matches nothing; scores are missing,
        NaN, of another length or of an unknown group; the target is below what can be reached; or
        at the widths that stay the function is another one (it compares two of them, say).

    Example:
      >>> keep = select(groups, scores, flops=0.5, scope="channels", allocation="global", floor=0.1)
      >>> keep.notes
      ('flops 0.4998 of the full, asked 0.5',)
    """
    asked = {"ratio": ratio, "flops": flops, "params": params, "memory": memory, "latency": latency}
    kind, amount = _asked(asked, measure, cache)
    _check_limits(allocation, floor, minimum, round_to)
    notes = [f"{name!r} stays whole: {reason}" for name, reason in groups.left.items()]
    if kind == "ratio" and groups.left and not groups.in_scope(scope):
        full = {name: np.arange(group.size) for name, group in groups.items()}
        return Keep(full, groups.layout, notes)
    free = prunable(groups, scope, frozen)
    own = own_ratios(ratios or {}, free)
    ranking = _Ranking(groups, scores)
    ranges = {name: Range.of(groups[name], round_to, minimum, floor) for name in free}

    sizes = {name: group.size for name, group in groups.items()}
    for name, share in own.items():
        sizes[name] = ranges[name].width(1 - share)
        notes += _emptied(share, name, ranges[name])
    shared = {name: ranges[name] for name in free if name not in own}
    ranked = {name: ranking.descending(name) for name in shared} if allocation != "uniform" else {}
    steps = ladder(groups, np.array(list(sizes.values()), np.int64), shared, ranked, allocation)
    if kind == "ratio":
        widths = steps.widths(1 - amount)
        for names in pools(groups, list(shared), allocation):
            if allocation == "uniform":
                notes += _emptied(amount, names[0], shared[names[0]])
            else:
                notes += _unreached(amount, names, shared)
    elif kind == "latency":
        timed = measured_by(groups, measure, cache)
        widths, seconds, count = meet_latency(
            groups.costs, amount, steps, lambda widths: timed(ranking.keep(widths, ()))
        )
        notes.append(f"latency {seconds:.4g} s, asked {amount} ({count} networks measured)")
    else:
        target = Target.of(kind, amount, groups.costs)
        widths, cost = meet(groups.costs, target, steps)
        notes.append(target.note(cost))
    if kind != "ratio" or amount > 0:
        notes += _whole(groups, free, round_to, minimum, floor)
    if kind == "ratio" and amount > 0 and list(widths) == [g.size for g in groups.values()]:
        notes.append(f"ratio {amount} drops nothing: the full widths are the nearest allowed ones")
    keep = ranking.keep(widths, notes)
    sizes = {name: len(kept) for name, kept in keep.items()}
    if check or _are_unlike(groups, sizes):
        _check_function(groups, sizes)
    return keep


class _Ranking:
    """The channels of every group by score; each group is sorted once, when first asked for."""

    def __init__(self, groups: Groups, scores: Mapping[str, Any]) -> None:
        if odd := [name for name in scores if name not in groups]:
            raise UserError(f"scores has {odd[0]!r}, expected names of the {len(groups)} groups")
        self._groups = groups
        self._scores = {name: _numbers(name, group.size, scores) for name, group in groups.items()}
        self._orders: dict[str, Ints] = {}

    def _order(self, name: str) -> Ints:
        if name not in self._orders:
            self._orders[name] = np.argsort(-self._scores[name], kind="stable")
        return self._orders[name]

    def descending(self, name: str) -> Floats:
        """The scores of a group, the highest first."""
        return self._scores[name][self._order(name)]

    def keep(self, widths: Ints, notes: Sequence[str]) -> Keep:
        """The channels of highest score, as many as `widths` says."""
        kept = {}
        for (name, group), width in zip(self._groups.items(), widths.tolist(), strict=True):
            whole = width == group.size
            kept[name] = np.arange(width) if whole else np.sort(self._order(name)[:width])
        return Keep(kept, self._groups.layout, notes)


def _numbers(name: str, size: int, scores: Mapping[str, Any]) -> Floats:
    try:
        found = np.asarray(scores.get(name, ()), np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (size,) or np.isnan(found).any():
        raise UserError(f"scores[{name!r}] is {scores.get(name)!r}, expected {size} numbers")
    return found


def _asked(amounts: Mapping[str, Any], measure: Any, cache: Any) -> tuple[str, Any]:
    """The one way that says how much stays."""
    given = {kind: amount for kind, amount in amounts.items() if amount is not None}
    if len(given) != 1:
        raise UserError(
            f"{' and '.join(given) or 'no amount'} given, expected one of {', '.join(amounts)}"
        )
    ((kind, amount),) = given.items()
    if kind == "ratio" and not is_ratio(amount):
        raise UserError(f"ratio is {amount!r}, expected a number in [0, 1)")
    if kind == "latency" and (not is_number(amount) or not 0 < amount < math.inf):
        raise UserError(f"latency is {amount!r}, expected a positive number of seconds")
    for name, value in (("measure", measure), ("cache", cache)):
        if value is not None and kind != "latency":
            raise UserError(f"{name} is {value!r}, expected None unless latency is given")
    return kind, amount


def _check_limits(allocation: str, floor: Any, minimum: Any, round_to: Any) -> None:
    if allocation not in ALLOCATIONS:
        raise UserError(f"allocation is {allocation!r}, expected one of {', '.join(ALLOCATIONS)}")
    if not is_number(floor) or not 0 <= floor <= 1:
        raise UserError(f"floor is {floor!r}, expected a number in [0, 1]")
    check_count("minimum", minimum)
    check_count("round_to", round_to)


def _are_unlike(groups: Groups, widths: Mapping[str, int]) -> bool:
    """Whether Python may see in these widths what it did not see in those that `trace` tried.

    One is less, or has more factors of 2 than the full one; two that differed are equal, two that
    were equal differ; or one is equal to an axis that is no group's.
    """
    became: dict[int, int] = {}
    stayed: dict[tuple[int, int], int] = {}
    sizes = {name: group.size for name, group in groups.items()}
    for name, tried in tried_widths(sizes).items():
        size, width = sizes[name], widths[name]
        if width == size:
            became.setdefault(width, size)
        elif width < tried or (width & -width) > (size & -size) or width in groups.other_sizes:
            return True
        if became.setdefault(width, size) != size:
            return True
        if stayed.setdefault((size, tried), width) != width:
            return True
    return False


def _check_function(groups: Groups, widths: Mapping[str, int]) -> None:
    """That at these widths the function is the same."""
    if groups.apply_fn is not None and (change := groups.change_at(widths)):
        raise UserError(
            f"at the widths that stay the function is another one, expected the same ({change}): "
            "choose other widths, by another ratio, round_to, ratios or frozen"
        )


def _emptied(ratio: float, name: str, allowed: Range) -> list[str]:
    """A note where a group's share is less than one channel."""
    if allowed.nearest(1 - ratio) > 0 or allowed.least == allowed.size:
        return []
    return [f"ratio {ratio} would empty group {name!r}: it keeps {allowed.least} of {allowed.size}"]


def _unreached(ratio: float, names: Sequence[str], ranges: Mapping[str, Range]) -> list[str]:
    """A note where the least widths of groups that are ranked together are more than asked."""
    least, size = (sum(getattr(ranges[n], what) for n in names) for what in ("least", "size"))
    if least - (1 - ratio) * size <= max(ranges[name].step for name in names) / 2:
        return []
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [
        f"ratio {ratio} is not reached: the least widths of {names[0]!r}{others} are {least} of "
        f"{size} channels"
    ]


def _whole(
    groups: Groups, free: Sequence[str], round_to: int, minimum: int, floor: float
) -> list[str]:
    """Which groups stay whole because no smaller width is a multiple of `round_to`."""
    found = [
        f"{name!r} ({groups[name].size})"
        for name in free
        if round_to > 1
        and Range.of(groups[name], round_to, minimum, floor).least == groups[name].size
        and Range.of(groups[name], 1, minimum, floor).least < groups[name].size
    ]
    if not found:
        return []
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return [
        f"round_to {round_to} has no smaller multiple, so these stay whole: "
        f"{', '.join(found[:5])}{more}"
    ]
