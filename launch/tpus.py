"""Kinds of TPUs: names, software of their VMs, and which slices there are.

Sources:
  software    https://cloud.google.com/tpu/docs/runtimes
  VM types    https://cloud.google.com/tpu/docs/supported-tpu-configurations
  topologies  https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus#availability
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping

from ctl_jax.errors import UserError

# Of each topology (chips in each direction), how many chips one of its hosts may have.
_Slices = Mapping[str, tuple[int, ...]]


def _flat(topologies: str) -> _Slices:
    """Two-dimensional slices, whose hosts have four chips."""
    return dict.fromkeys(topologies.split(), (4,))


def _cubes(most: int) -> _Slices:
    """Three-dimensional slices of at most `most` chips, whose hosts have four.

    Up to 4x4x4 each side is 2 or 4, above a multiple of 4; sides do not decrease.
    """
    small = itertools.combinations_with_replacement((2, 4), 3)
    sides = range(4, most // 16 + 1, 4)
    large = (
        (a, b, c)
        for a in sides
        for b in range(a, most // (4 * a) + 1, 4)
        for c in range(b, most // (a * b) + 1, 4)
    )
    return {"x".join(map(str, each)): (4,) for each in [(2, 2, 1), *small, *large]}


_FLAT = {"1x1": (1,), "2x4": (4, 8), **_flat("2x2 4x4 4x8 8x8 8x16 16x16")}


@dataclasses.dataclass(frozen=True)
class _Kind:
    """One generation.

    Attributes:
      software: runtime version of its VMs.
      cores: how much one chip counts in the names of VM types.
      slices: by the names that GKE has for them; "" where it has none.
    """

    software: str
    cores: int
    slices: Mapping[str, _Slices]


# By what VM types begin with.
_KINDS = {
    "v2": _Kind("tpu-ubuntu2204-base", 2, {"": _flat("2x2 4x4 8x8 8x16 16x16")}),
    "v3": _Kind(
        "tpu-ubuntu2204-base",
        2,
        {
            "tpu-v3-device": _flat("2x2"),
            "tpu-v3-slice": _flat("4x4 4x8 8x8 8x16 16x16 16x32 32x32"),
        },
    ),
    "v4": _Kind(
        "tpu-ubuntu2204-base",
        2,
        {"tpu-v4-podslice": _cubes(4096), "tpu-v4-lite-device": _flat("2x2")},
    ),
    "v5litepod": _Kind(
        "v2-alpha-tpuv5-lite",
        1,
        {
            "tpu-v5-lite-podslice": _FLAT,
            "tpu-v5-lite-device": {"1x1": (1,), "2x2": (4,), "2x4": (8,)},
        },
    ),
    "v5p": _Kind("v2-alpha-tpuv5", 2, {"tpu-v5p-slice": _cubes(6144)}),
    "v6e": _Kind("v2-alpha-tpuv6e", 1, {"tpu-v6e-slice": _FLAT}),
    "tpu7x": _Kind(
        "v2-alpha-tpu7-ubuntu2404", 2, {"tpu7x": {"1x1x1": (1,), **_cubes(16 * 16 * 36)}}
    ),
}


def check_type(name: str, *, group: bool) -> str:
    """Checks an accelerator type of TPU VMs, e.g. v4-8.

    Args:
      name: the type.
      group: whether it may have several hosts.

    Returns:
      The runtime version for it.

    Raises:
      UserError: there is no such type, or it has several hosts and may not.
    """
    match = re.fullmatch(r"(\w+)-([1-9]\d*)", name)
    if match is None:
        raise UserError(f"--type={name}: expected an accelerator type such as v4-8")
    if (kind := _KINDS.get(match[1])) is None:
        raise UserError(f"--type={name}: expected one of {'-N, '.join(_KINDS)}-N, e.g. v4-8")
    # Chips of a slice, and of a host where it has but one.
    hosts = {
        _chips(topology): max(counts)
        for slices in kind.slices.values()
        for topology, counts in slices.items()
    }
    size = int(match[2])
    sizes = sorted(chips * kind.cores for chips in hosts)
    if size not in sizes:
        near = [str(each) for each in sizes if size / 8 <= each <= size * 8] or map(str, sizes[:5])
        raise UserError(
            f"--type={name}: no slice has this size; expected {match[1]}-N with N {', '.join(near)}"
        )
    chips = size // kind.cores
    if chips > hosts[chips] and not group:
        single = kind.cores * max(chips for chips, most in hosts.items() if chips <= most)
        raise UserError(
            f"--type={name}: this slice has several hosts, which must train together; "
            f"expected --group, or one host such as {match[1]}-{single}"
        )
    return kind.software


def chips_of_host(accelerator: str, topology: str, hosts: int) -> int:
    """How many chips each pod has, one pod a host.

    Args:
      accelerator: GKE's name, e.g. tpu-v5-lite-podslice.
      topology: e.g. 4x4.
      hosts: pods of the slice.

    Raises:
      UserError: there is no such slice with so many hosts.
    """
    given = f"--tpu={accelerator}:{topology}"
    known = {name: each for kind in _KINDS.values() for name, each in kind.slices.items() if name}
    if (slices := known.get(accelerator)) is None:
        raise UserError(f"{given}: expected one of the types {', '.join(sorted(known))}")
    if (counts := slices.get(topology)) is None:
        few = sorted(slices, key=lambda name: (_chips(name), name))[:10]
        raise UserError(
            f"{given}: {accelerator} has no such topology; expected one such as {', '.join(few)}"
        )
    chips = _chips(topology)
    for count in counts:
        if hosts * count == chips:
            return count
    fitting = " or ".join(f"--hosts={chips // count}" for count in counts)
    raise UserError(
        f"--hosts={hosts}: expected hosts of {' or '.join(map(str, counts))} chips, so {fitting}, "
        f"for {given}"
    )


def _chips(topology: str) -> int:
    return math.prod(map(int, topology.split("x")))
