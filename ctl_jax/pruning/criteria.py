"""What can be asked of a channel: one function a criterion, and the table of them.

Notation: a channel has several slices, one a parameter that holds it; `w` runs over the weights of
a slice. Each function measures every slice by itself; `score` takes the slices of a channel
together, applies the criterion's `finish`, if it has one, and normalises.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ctl_jax.pruning import slices
from ctl_jax.pruning.activations import activation, flops_of_activation
from ctl_jax.pruning.gradients import flops_of_hessian, flops_of_taylor, hessian, taylor
from ctl_jax.pruning.groups import Group, Member
from ctl_jax.pruning.measure import Parts, Request, by_member, by_slot, last_key
from ctl_jax.pruning.slices import Kernel, Vector

# The last key of a normalisation layer's scale, in Linen and NNX, Haiku, Equinox and PyTorch.
_SCALES = ("scale", "gamma", "weight")


@dataclasses.dataclass(frozen=True)
class Criterion:
    """How channels are scored by a criterion.

    Attributes:
      measure: from the request to the parts of each group's scores, float64 [channels] a slice.
      needs: what it looks at: "nothing" but the groups, "weights", or weights and data: "gradients"
        (of a loss) or "activations".
      by_role: whether it measures slices of parameters, of roles that can be chosen.
      finish: what becomes of the slices' aggregate, float64 [channels]; None: it is the score.
      flops: from the request and a batch, perhaps abstract, to what the batch costs; None where
        there is no data.
    """

    measure: Callable[[Request], Parts]
    needs: Literal["nothing", "weights", "gradients", "activations"] = "weights"
    by_role: bool = True
    finish: Callable[[Vector], Vector] | None = None
    flops: Callable[[Request, Any], int] | None = None


def _l1(request: Request) -> Parts:
    """sum |w|. Li et al. 2017, "Pruning Filters for Efficient ConvNets"."""
    return by_slot(request, slices.absolutes)


def _l2(request: Request) -> Parts:
    """sum w^2, of which `score` takes the root: the Euclidean norm.

    Li et al. 2017 compare it with l1; He et al. 2018, "Soft Filter Pruning", use it.
    """
    return by_slot(request, slices.squares)


def _linf(request: Request) -> Parts:
    """max |w|. With aggregate="max" it is the norm of all slices together."""
    return by_slot(request, slices.largest, largest=True)


def _fpgm(request: Request) -> Parts:
    """sum_k ||f_j - f_k||, over all filters k: what is near all others can be replaced by them.

    He et al. 2019, "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
    Acceleration", equation 4 with the Euclidean distance. The filters f are a channel's slices.
    """
    return by_member(request, slices.distances)


def _lamp(request: Request) -> Parts:
    """sum w^2, of which `score` takes the share in the channels that are no smaller.

    S_j = n_j / sum(n_k for n_k >= n_j), n_j the squared norm of a channel. Lee et al. 2021,
    "Layer-adaptive Sparsity for the Magnitude-based Pruning", equation 3, with channels in the
    place of weights. It orders a group as l2 does; what differs is how groups compare.
    """
    return by_slot(request, slices.squares)


def _bn_scale(request: Request) -> Parts:
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


def _random(request: Request) -> Parts:
    """Uniform in [0, 1), of the seed and the group's name alone; needs no arrays.

    The control that any criterion has to beat: Mittal et al. 2018, "Recovering from Random
    Pruning".
    """
    return {name: [_draw(group, request.seed)] for name, group in request.groups.items()}


def _draw(group: Group, seed: int) -> Vector:
    name = int.from_bytes(hashlib.sha256(group.name.encode()).digest()[:8])
    return np.random.default_rng([seed, name]).random(group.size)


def _root(total: Vector) -> Vector:
    return np.sqrt(total)


def _share_of_no_smaller(total: Vector) -> Vector:
    order = np.argsort(-total, kind="stable")  # of equal channels the first counts as greater
    result = np.empty_like(total)
    result[order] = relative(total[order], np.cumsum(total[order]))
    return result


def relative(values: Vector, to: Vector | np.float64) -> Vector:
    """`values / to`, and 0 where `to` is."""
    return np.divide(values, to, out=np.zeros_like(values), where=np.not_equal(to, 0))


CRITERIA: Mapping[str, Criterion] = {
    "l1": Criterion(_l1),
    "l2": Criterion(_l2, finish=_root),
    "linf": Criterion(_linf),
    "bn_scale": Criterion(_bn_scale, by_role=False),
    "fpgm": Criterion(_fpgm),
    "lamp": Criterion(_lamp, finish=_share_of_no_smaller),
    "random": Criterion(_random, needs="nothing", by_role=False),
    "taylor": Criterion(taylor, needs="gradients", flops=flops_of_taylor),
    "hessian": Criterion(hessian, needs="gradients", flops=flops_of_hessian),
    "activation": Criterion(
        activation, needs="activations", by_role=False, flops=flops_of_activation
    ),
}

# Those that need no data.
ZERO_SHOT: Sequence[str] = tuple(
    name for name, criterion in CRITERIA.items() if criterion.needs in ("nothing", "weights")
)
