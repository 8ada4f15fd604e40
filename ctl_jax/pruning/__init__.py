"""Structured pruning of any JAX function, read off its jaxpr. Needs only jax.

Four pure steps, each usable alone:

    groups = pruning.trace(apply_fn, variables, images)   # which channels go together
    scores = pruning.score(groups, variables, criterion="l2")   # how much each matters
    keep = pruning.select(groups, scores, flops=0.5, scope="filters", round_to=8)   # which stay
    small = pruning.prune(variables, groups, keep)   # any tree of the same structure

In the scopes "filters" and "channels" the pruned network computes what the full one computes once
the dropped channels are cut off from every kernel that reads them. `print(groups)` and
`groups.explain(path)` say what is cut together, what is not cut, and why. `groups.costs` tells
FLOPs, parameters and peak memory at any widths. `correct` makes up for a part of what is cut, from
a few inputs. `register_rule` teaches the tracer a primitive.

README.md beside this file has examples for Linen, NNX, Haiku, Equinox and plain functions.
"""

from ctl_jax.pruning._allocation import ALLOCATIONS
from ctl_jax.pruning._correction import Correction, correct, correction_flops
from ctl_jax.pruning._cost_model import Costs
from ctl_jax.pruning._cutting import prune
from ctl_jax.pruning._groups import SCOPES, Group, Groups, Member, Reading
from ctl_jax.pruning._interpreter import AbstractArray, Interpreter, derived, register_rule
from ctl_jax.pruning._keep import Keep
from ctl_jax.pruning._layout import Layout
from ctl_jax.pruning._scoring import score, score_flops
from ctl_jax.pruning._selection import select
from ctl_jax.pruning._tracing import trace
from ctl_jax.pruning.criteria import CRITERIA, ZERO_SHOT, criterion

__all__ = [
    "ALLOCATIONS",
    "CRITERIA",
    "SCOPES",
    "ZERO_SHOT",
    "AbstractArray",
    "Correction",
    "Costs",
    "Group",
    "Groups",
    "Interpreter",
    "Keep",
    "Layout",
    "Member",
    "Reading",
    "correct",
    "correction_flops",
    "criterion",
    "derived",
    "prune",
    "register_rule",
    "score",
    "score_flops",
    "select",
    "trace",
]
