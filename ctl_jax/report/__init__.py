"""Records to tables, figures and one HTML page; knows nothing but the records.

rows = report.results(records)            # results.csv as a list
paths = report.write(records, workdir)    # results.csv, figures/*.png, report.html
print(report.summary(records))
"""

from ctl_jax.report.output import write
from ctl_jax.report.rows import results
from ctl_jax.report.terminal import summary
from ctl_jax.report.winners import Best, best

__all__ = ["Best", "best", "results", "summary", "write"]
