"""Tables, figures and one HTML page of a run, made from its records alone.

    rows = report.results(records)            # results.csv as a list
    paths = report.write(records, workdir)    # results.csv, report.html, figures/, tables/ ...
    print(report.summary(records))
    records = report.read_runs(["a=runs/a", "b=runs/b"])   # several runs as one
    frames = report.load("runs/quickstart")   # pandas DataFrames: results, trials, ledger, steps

`records` are the objects of `records.jsonl`, in any order.
"""

from ctl_jax.report._loading import Frames, load
from ctl_jax.report._merging import read_runs
from ctl_jax.report._output import write
from ctl_jax.report._results import results
from ctl_jax.report._terminal import summary
from ctl_jax.report._winners import Best, best, widths

__all__ = ["Best", "Frames", "best", "load", "read_runs", "results", "summary", "widths", "write"]
