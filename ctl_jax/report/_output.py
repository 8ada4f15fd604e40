"""The files of a report."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ctl_jax import files
from ctl_jax.report import aggregate
from ctl_jax.report._results import rows, to_csv
from ctl_jax.report._table import read
from ctl_jax.report.aggregate import values


def write(lines: Iterable[Mapping[str, Any]], workdir: str | os.PathLike[str]) -> list[files.Path]:
    """Writes `results.csv`, `means.csv`, `missing.csv`, `report.html` and `figures/*.png`.

    `results.csv` has a line a result, `means.csv` one a group of tasks (all, by metric, domain and
    year), method and budget, `missing.csv` one a task of the stream that there was no data for. The
    same records, in any order, give the same bytes. Each file appears whole or not at all.

    Args:
      lines: objects of `records.jsonl`, in any order.
      workdir: folder of the run, local or `gs://bucket/path`; made where it does not exist.

    Returns:
      The paths of the files, in the order above.

    Raises:
      UserError: the records are incomplete or contradict each other.
    """
    # A plan draws nothing, and packages that draw are a seventh of the time that a command takes to
    # start.
    from ctl_jax.report import _page, gallery

    table = read(lines)
    result_rows = rows(table)
    found = values(result_rows)
    scores = aggregate.scores(table, found, values(result_rows, "dev_test_top5"))
    results = gallery.Results(table, result_rows, found, scores)
    images = gallery.draw_all(results)

    folder = files.path(workdir)
    contents = {
        "results.csv": to_csv(result_rows).encode(),
        "means.csv": aggregate.means_csv(scores, table).encode(),
        "missing.csv": aggregate.missing_csv(table.missing).encode(),
        # The config may name folders that are not UTF-8.
        "report.html": _page.render(results, images).encode(errors="backslashreplace"),
        **{f"figures/{name}.png": image for name, image in images.items()},
    }
    files.at_once(lambda name: files.write_bytes(folder / name, contents[name]), contents)
    return [folder / name for name in contents]
