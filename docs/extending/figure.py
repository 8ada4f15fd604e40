"""A figure of the report: where the FLOPs of each method went.

python docs/extending/figure.py runs/quickstart
"""

import json
import pathlib
import sys

from matplotlib.figure import Figure

from ctl_jax import report
from ctl_jax.report import figures, spending
from ctl_jax.report.gallery import Results, figure


@figure("FLOPs of each method's trials by purpose, as stacked bars; the numbers are in the ledger")
def flops_by_purpose(results: Results) -> Figure | None:
    ledger = spending.ledger(results.table)
    if not results.rows:
        return None
    with figures.canvas("Where the FLOPs went") as (drawing, axes):
        below = dict.fromkeys(ledger, 0)
        for purpose in ("train", "validate", "search"):
            heights = [spent[purpose] for spent in ledger.values()]
            axes.bar(list(ledger), heights, bottom=list(below.values()), label=purpose)
            below = {method: below[method] + ledger[method][purpose] for method in ledger}
        axes.set_ylabel("FLOP")
        return figures.finished(drawing, axes)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    with open(folder / "records.jsonl", encoding="utf-8") as file:
        report.write(map(json.loads, file), folder)
