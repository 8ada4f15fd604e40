"""A snapshot of what is done of a run, by the names in its folders."""

import re
from collections.abc import Callable, Mapping, Sequence

from ctl_jax import files, records
from ctl_jax.experiment import array_files
from ctl_jax.experiment.steps import Step

# Beside the models of trials that are, or may turn out to be, the best.
PROVISIONAL = ".provisional"
_ID = re.compile(r"[0-9a-f]{16}")
_MARKER = re.compile(rf"\.([0-9a-f]{{16}}){re.escape(PROVISIONAL)}")


class Finished:
    """What was done at some moment; see `steps.Finished` and `steps.Done`.

    Attributes:
      records: ids of the steps whose records are there and whole.
      products: ids of the steps whose models or arrays are there.
      provisional: ids of those whose models may go; see `Store.settle_models`.
      leases: names of the files of leases.
      scratches: ids of the steps that have a scratch folder.
      half_written: what killed workers may have left in the folders of steps, models and arrays.
    """

    def __init__(
        self,
        workdir: files.Path,
        result: Callable[[str], records.Record],
        done: frozenset[str],
        listed: Mapping[str, Sequence[str]],
    ):
        """From what was read.

        Args:
          workdir: of the run.
          result: gives the last record of a step.
          done: ids of the steps whose records are there and whole.
          listed: names of what is in the folders "steps", "models", "arrays", "leases", "scratch".
        """
        self._result = result
        self.records = done
        self.products = frozenset(products(listed))
        markers = map(_MARKER.fullmatch, listed["models"])
        self.provisional = frozenset(match[1] for match in markers if match)
        self.leases = listed["leases"]
        self.scratches = frozenset(listed["scratch"])
        self.half_written = [
            workdir / inside / name
            for inside in ("steps", "models", "arrays")
            for name in filter(files.is_temporary, listed[inside])
        ]

    def __contains__(self, step: object) -> bool:
        return isinstance(step, Step) and step.id in self.records

    def record(self, step: Step) -> records.Record:
        """The last record of a finished step.

        Raises:
          UserError: its file was damaged, or removed, since it was looked at.
        """
        return self._result(step.id)


def is_id(name: str) -> bool:
    """Whether a name is a step's id; files of other names are ignored."""
    return _ID.fullmatch(name) is not None


def products(listed: Mapping[str, Sequence[str]]) -> set[str]:
    """Ids of the steps that have a product, by the names in "models" and "arrays"."""
    kept = {name.removesuffix(array_files.SUFFIX) for name in listed["arrays"]}
    return set(filter(is_id, kept.union(listed["models"])))
