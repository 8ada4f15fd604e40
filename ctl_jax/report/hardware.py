"""What a run's steps were computed on."""

from collections import Counter

from ctl_jax.records import Computed, Hardware
from ctl_jax.report.table import Table


def counts(table: Table) -> dict[Hardware, int]:
    """Returns how many steps were computed on what, most first; without those of before."""
    steps: list[Computed] = [
        *table.trials,
        *table.prepared,
        *table.paces,
        *table.evaluations.values(),
        *filter(None, [table.pretrain]),
    ]
    found = Counter(step.computed_on for step in steps if step.computed_on is not None)
    return dict(sorted(found.items(), key=lambda item: (-item[1], str(item[0]))))


def listed(table: Table) -> str:
    """Returns the same in words: "12 steps on EPYC 7B13, 2 cores"; "" where nothing is known."""
    return "; ".join(
        f"{count} step{'' if count == 1 else 's'} on {what}"
        for what, count in counts(table).items()
    )


def warning(table: Table) -> str:
    """Returns a sentence where the steps were computed on several kinds of hardware, else ""."""
    if len(counts(table)) < 2:
        return ""
    return (
        "Steps were computed on different hardware, where sums are rounded differently: a run on "
        f"one kind may come to other numbers. {listed(table)}."
    )
