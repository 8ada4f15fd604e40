"""Hardware that steps are computed on: sums, and so numbers, are rounded as it does it."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """What decides how a program's sums are rounded, besides the program.

    Attributes:
        device: Kind of the devices, as JAX names it.
        devices: How many computed together.
        processor: Name of the machine's processor; empty where the system does not tell.
        cores: How many of its cores the process could use: XLA and LAPACK split sums among them.
    """

    device: str
    devices: int
    processor: str
    cores: int

    def __str__(self) -> str:
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        several = f"{self.devices} x " if self.devices > 1 else ""
        device = "" if self.device == "cpu" and not several else f"{several}{self.device}, "
        return f"{device}{self.processor or 'an unknown processor'}, {cores}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computed:
    """A record of what a step came to.

    Attributes:
        computed_on: On what; where a training was taken up on another machine, on the last one.
            None where an earlier version did not record it.
    """

    computed_on: Hardware | None = None
