"""The cost of a pruned network: closed forms in the widths of its groups.

The sizes of a program's axes are affine in the groups' widths, and what an equation computes or an
array holds is a product of such sizes. So the costs of any choice of widths are sums of products,
known after one trace; no search for a target has to trace again.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ctl_jax.errors import UserError
from ctl_jax.trees import Floats, Ints

KINDS = ("flops", "params", "memory")


@dataclasses.dataclass(frozen=True, eq=False)
class Terms:
    """A sum of products of axis sizes: sum_i coefficients[i] * prod_j sizes[axes[i, j]].

    Attributes:
      coefficients: [n], none of them negative.
      axes: int [n, m], indices into the axis sizes; short products are padded with 0, the axis of
        size 1.
    """

    coefficients: npt.NDArray[Any]
    axes: npt.NDArray[np.integer[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Costs:
    """FLOPs, parameters and peak memory of a traced function, for any widths of its groups.

    The sizes of the program's axes are `fixed + per_width @ widths`. All counts are exact up to
    2**53, where float64 ends.

    Attributes:
      names: the groups, in the order of `Groups`.
      sizes: int64 [groups], their full widths.
      fixed: [axes], the part of each axis that is in no group; `fixed[0]` is 1.
      per_width: [axes, groups], positions on each axis for one channel of each group; the row of
        axis 0 is 0.
      flop_terms: FLOPs of convolutions and matrix products, 2 per multiply-add, as
        `ctl_jax.compute.flops` counts them.
      param_terms: numbers in the parameters.
      memory_terms: bytes of each value of the program.
      birth: int [values], when each value begins to exist.
      death: int [values], when it is needed last, at the earliest at its birth.

    Example:
      >>> groups.costs.flops(keep) / groups.costs.flops()
      0.4993...
    """

    names: tuple[str, ...]
    sizes: Ints
    fixed: npt.NDArray[Any]
    per_width: npt.NDArray[Any]
    flop_terms: Terms
    param_terms: Terms
    memory_terms: Terms
    birth: Ints
    death: Ints

    def flops(self, widths: Any = None) -> int:
        """FLOPs of one call of the function.

        Args:
          widths: how many channels of each group stay: a `Keep`, a mapping of names to numbers, or
            int [groups] in the order of `names`. None: the full network.

        Raises:
          UserError: `widths` is of other groups, or a width is not in 1 ... size.
        """
        return self._one("flops", widths)

    def params(self, widths: Any = None) -> int:
        """Numbers in the parameters (and statistics) that were traced; arguments as `flops`."""
        return self._one("params", widths)

    def memory(self, widths: Any = None) -> int:
        """Bytes of the values alive at one time, at most; arguments as `flops`.

        A value is alive from the equation that makes it to the last that reads it. What a compiler
        fuses away, or keeps for padding and workspace, is not known here.
        """
        return self._one("memory", widths)

    def evaluate(self, kind: str, widths: npt.NDArray[Any]) -> Floats:
        """The costs of many widths at once, unchecked; for searches.

        Args:
          kind: one of `KINDS`.
          widths: [..., groups].

        Returns:
          float64 [...].
        """
        values = self._products[kind].values(self._sizes.at(widths))
        if kind != "memory":
            return values.sum(-1)
        births, deaths, born, gone = self._lives
        alive = values[..., births].cumsum(-1)[..., born]
        dead = values[..., deaths].cumsum(-1)
        dead = np.concatenate([np.zeros((*dead.shape[:-1], 1)), dead], axis=-1)[..., gone]
        return (alive - dead).max(-1, initial=0.0)

    def _one(self, kind: str, widths: Any) -> int:
        return round(float(self.evaluate(kind, self.vector(widths))))

    def vector(self, widths: Any = None) -> Ints:
        """`widths`, in any of the forms that `flops` takes, as int64 [groups].

        Raises:
          UserError: as for `flops`.
        """
        if widths is None:
            return self.sizes
        if isinstance(widths, Mapping):
            if odd := sorted(widths.keys() ^ set(self.names)):
                raise UserError(
                    f"widths: group {odd[0]!r} is in {'widths' if odd[0] in widths else 'costs'} "
                    "only, expected the groups of these costs"
                )
            # A `Keep` maps to the indices that stay.
            widths = [w if np.ndim(w) == 0 else len(w) for w in map(widths.__getitem__, self.names)]
        vector = np.asarray(widths)
        if not vector.size and not self.names:
            return self.sizes
        if vector.shape != (len(self.names),) or vector.dtype.kind not in "iu":
            raise UserError(f"widths is {widths!r}, expected {len(self.names)} integers")
        if ((vector < 1) | (vector > self.sizes)).any():
            at = int(np.argmax((vector < 1) | (vector > self.sizes)))
            raise UserError(
                f"widths: group {self.names[at]!r} has {vector[at]} channels, expected 1 to "
                f"{self.sizes[at]}"
            )
        return vector

    @functools.cached_property
    def _sizes(self) -> "_Sizes":
        return _Sizes.of(self.fixed, self.per_width)

    @functools.cached_property
    def _products(self) -> dict[str, "_Products"]:
        terms = {"flops": self.flop_terms, "params": self.param_terms, "memory": self.memory_terms}
        return {
            kind: _Products.of(self._sizes, terms[kind], merge=kind != "memory") for kind in KINDS
        }

    @functools.cached_property
    def _lives(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Orders of birth and death; at each time of a birth, how many were born and are gone."""
        births, deaths = np.argsort(self.birth, kind="stable"), np.argsort(self.death)
        times = np.unique(self.birth)
        born = np.searchsorted(self.birth[births], times, side="right") - 1
        return births, deaths, born, np.searchsorted(self.death[deaths], times, side="left")


@dataclasses.dataclass(frozen=True, eq=False)
class _Sizes:
    """The distinct sizes that axes may have; most depend on few groups.

    Attributes:
      number: int [axes], which of the sizes an axis has; 0, which is always 1, if it is constant.
      constant: float64 [axes], the size of the constant axes, 1 for the others.
      fixed: float64 [sizes], without the first.
      group, part: of all sizes one after the other, the groups that each depends on, and how many
        positions a channel of these has.
      start: int [sizes], where in `group` and `part` each size begins.
    """

    number: Ints
    constant: Floats
    fixed: Floats
    group: Ints
    part: Floats
    start: Ints

    @classmethod
    def of(cls, fixed: npt.NDArray[Any], per_width: npt.NDArray[Any]) -> "_Sizes":
        varies = per_width.any(axis=1)
        number = np.zeros(len(fixed), np.int64)
        found: dict[bytes, int] = {}
        axes = []
        for axis in np.flatnonzero(varies):
            key = fixed[axis].tobytes() + per_width[axis].tobytes()
            if key not in found:
                found[key] = len(found) + 1
                axes.append(axis)
            number[axis] = found[key]
        rows = per_width[axes].astype(np.float64)
        size, group = np.nonzero(rows)
        return cls(
            number=number,
            constant=np.where(varies, 1.0, fixed),
            fixed=fixed[axes].astype(np.float64),
            group=group,
            part=rows[size, group],
            start=np.searchsorted(size, np.arange(len(rows))),
        )

    def at(self, widths: npt.NDArray[Any]) -> Floats:
        """float64 [..., 1 + sizes] for widths [..., groups]."""
        sizes = np.ones((*widths.shape[:-1], 1 + len(self.fixed)))
        if len(self.fixed):
            # Not a matrix product: these are small and sparse, and BLAS would start threads.
            parts = widths[..., self.group] * self.part
            sizes[..., 1:] = np.add.reduceat(parts, self.start, axis=-1) + self.fixed
        return sizes


@dataclasses.dataclass(frozen=True, eq=False)
class _Products:
    """Terms, with the constant axes multiplied out.

    Attributes:
      coefficients: float64 [n].
      factors: for each place in the products int [n], which of the `_Sizes` stands there.
    """

    coefficients: Floats
    factors: tuple[Ints, ...]

    @classmethod
    def of(cls, sizes: _Sizes, terms: Terms, *, merge: bool) -> "_Products":
        coefficients = terms.coefficients * sizes.constant[terms.axes].prod(axis=1)
        factors = np.sort(sizes.number[terms.axes], axis=1)[:, ::-1]
        if merge and len(factors):  # equal products are added up now
            factors, which = np.unique(factors, axis=0, return_inverse=True)
            coefficients = np.bincount(which.reshape(-1), coefficients, len(factors))
        used = factors.any(axis=0)
        return cls(
            coefficients.astype(np.float64),
            tuple(np.ascontiguousarray(column) for column in factors[:, used].T),
        )

    def values(self, sizes: Floats) -> Floats:
        """float64 [..., n] for sizes [..., 1 + sizes]."""
        values = np.broadcast_to(self.coefficients, (*sizes.shape[:-1], len(self.coefficients)))
        for factor in self.factors:
            values = values * sizes[..., factor]
        return values
