"""A column of results.csv: the share of a row's FLOPs that went into the search.

python docs/extending/column.py runs/quickstart
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from ctl_jax import report
from ctl_jax.records import TrialRecord, derived


@derived("share of the row's FLOPs that the trials that lost took", after="search_flops")
def search_share(best: TrialRecord, lost: Sequence[TrialRecord]) -> float:
    searched = sum(trial.ledger.total for trial in lost)
    return searched / (searched + best.ledger.total)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    with open(folder / "records.jsonl", encoding="utf-8") as file:
        report.write(map(json.loads, file), folder)
