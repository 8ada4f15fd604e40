"""The ledger of a trial: its FLOPs by purpose."""

import dataclasses

from ctl_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ledger:
    """FLOPs by purpose; ledgers add up.

    Attributes:
      train: training steps, and fitting a head in closed form.
      extract: features of training images that a head is fitted on.
      validate: evaluations on the way.
      search: trials that lost the search.
      prune: deciding what to cut, and putting right what is left by images of the task.
      pretrain: making the weights that a trial starts from, where this project made them.

    Example:
      >>> Ledger().add("train", 3) + Ledger(validate=2)
      Ledger(train=3, extract=0, validate=2, search=0, prune=0, pretrain=0)
    """

    train: int = 0
    extract: int = 0
    validate: int = 0
    search: int = 0
    prune: int = 0
    pretrain: int = 0

    def __post_init__(self) -> None:
        for purpose, flops in self.as_dict().items():
            if not isinstance(flops, int) or isinstance(flops, bool) or flops < 0:
                raise UserError(f"ledger: {purpose} is {flops!r}; expected an int of at least 0")

    def add(self, purpose: str, flops: int) -> "Ledger":
        """The ledger after `flops` more were spent.

        Args:
          purpose: a field of the ledger.
          flops: how many; never negative.

        Raises:
          UserError: an unknown purpose, or `flops` is no int of at least 0.
        """
        spent = self.as_dict()
        if purpose not in spent:
            raise UserError(f"unknown purpose {purpose!r}; expected one of {', '.join(spent)}")
        if not isinstance(flops, int) or isinstance(flops, bool) or flops < 0:
            raise UserError(f"flops for {purpose} is {flops!r}; expected an int of at least 0")
        return dataclasses.replace(self, **{purpose: spent[purpose] + flops})

    def __add__(self, other: "Ledger") -> "Ledger":
        mine, theirs = self.as_dict(), other.as_dict()
        return Ledger(**{purpose: mine[purpose] + theirs[purpose] for purpose in mine})

    @property
    def total(self) -> int:
        """All that was spent."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, int]:
        """FLOPs by purpose, in the order of the fields; `Ledger(**d)` reads it back."""
        # All fields are numbers: no copies of them are needed, as `dataclasses.asdict` makes.
        return dict(vars(self))
