"""Criteria that look at weights alone, or at nothing."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from ctl_jax.pruning._groups import Group, Member
from ctl_jax.pruning.criteria import criterion, slices
from ctl_jax.pruning.criteria.request import Parts, Request, by_member, by_slot, last_key
from ctl_jax.pruning.criteria.slices import Kernel, Vector, relative

# The last key of a normalisation layer's scale, in Linen and NNX, Haiku, Equinox and PyTorch.
_SCALES = ("scale", "gamma", "weight")


def _share_of_no_smaller(total: Vector) -> Vector:
    order = np.argsort(-total, kind="stable")  # of equal channels the first counts as greater
    result = np.empty_like(total)
    result[order] = relative(total[order], np.cumsum(total[order]))
    return result


@criterion("l1")
def l1(request: Request) -> Parts:
    """sum |w|. Li et al. 2017, "Pruning Filters for Efficient ConvNets"."""
    return by_slot(request, slices.absolutes)


@criterion("l2", finish=np.sqrt)
def l2(request: Request) -> Parts:
    """sum w^2, of which `score` takes the root: the Euclidean norm.

    Li et al. 2017 compare it with l1; He et al. 2018, "Soft Filter Pruning", use it.
    """
    return by_slot(request, slices.squares)


@criterion("linf")
def linf(request: Request) -> Parts:
    """max |w|. With aggregate="max" it is the norm of all slices together."""
    return by_slot(request, slices.largest, largest=True)


@criterion("fpgm")
def fpgm(request: Request) -> Parts:
    """sum_k ||f_j - f_k||, over all filters k: what is near all others can be replaced by them.

    He et al. 2019, "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
    Acceleration", equation 4 with the Euclidean distance. The filters f are a channel's slices.
    """
    return by_member(request, slices.distances)


@criterion("lamp", finish=_share_of_no_smaller)
def lamp(request: Request) -> Parts:
    """sum w^2, of which `score` takes the share in the channels that are no smaller.

    S_j = n_j / sum(n_k for n_k >= n_j), n_j the squared norm of a channel. Lee et al. 2021,
    "Layer-adaptive Sparsity for the Magnitude-based Pruning", equation 3, with channels in the
    place of weights. It orders a group as l2 does; what differs is how groups compare.
    """
    return by_slot(request, slices.squares)


@criterion("bn_scale", by_role=False)
def bn_scale(request: Request) -> Parts:
    """|gamma| of the normalisation layers that scale the channel, of any kind.

    Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming". A
    parameter is such a scale if it holds channels elementwise and its last key is "scale", "gamma"
    or (of a vector) "weight". Where nothing normalises a group, such as the narrow layer of a
    squeeze-and-excitation, its scale is in its kernels: the l2 norm relative to the group's mean,
    which is 1 on average as a fresh gamma is.
    """
    shapes = request.groups.shapes

    def along(measure: Callable[[Kernel, int], Vector], members: Sequence[Member]) -> list[Vector]:
        found = [request.along(measure, m.path, m.axis) for m in members]
        return [slices.by_channel(x, m) for x, m in zip(found, members, strict=True)]

    parts: Parts = {}
    for name, group in request.groups.items():
        scales = [m for m in group.members if _is_scale(m, shapes[m.path])]
        parts[name] = along(slices.absolutes, scales)
        if not scales:
            norms = np.sqrt(np.sum(along(slices.squares, request.members(group)), axis=0))
            parts[name] = [relative(norms, norms.mean())]
    return parts


def _is_scale(member: Member, shape: Sequence[int]) -> bool:
    key = last_key(member.path)
    vector = all(n == 1 for i, n in enumerate(shape) if i != member.axis)
    return member.role == "elementwise" and key in _SCALES and (vector or key != "weight")


@criterion("random", needs="nothing", by_role=False)
def random(request: Request) -> Parts:
    """Uniform in [0, 1), of the seed and the group's name alone; needs no arrays.

    The control that any criterion has to beat: Mittal et al. 2018, "Recovering from Random
    Pruning".
    """
    return {name: [_draw(group, request.seed)] for name, group in request.groups.items()}


def _draw(group: Group, seed: int) -> Vector:
    name = int.from_bytes(hashlib.sha256(group.name.encode()).digest()[:8])
    return np.random.default_rng([seed, name]).random(group.size)
