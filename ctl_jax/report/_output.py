"""The files of a report."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ctl_jax import files
from ctl_jax.report import _comparison_tables, aggregate, stream
from ctl_jax.report._results import rows, to_csv
from ctl_jax.report._table import read
from ctl_jax.report.aggregate import values
from ctl_jax.report.comparisons import baseline_of, compare


def write(
    lines: Iterable[Mapping[str, Any]],
    workdir: str | os.PathLike[str],
    baseline: str | None = None,
) -> list[files.Path]:
    """Writes tables, `report.html`, and what a paper takes: `figures/` and `tables/`.

    `results.csv` has a line a result, `means.csv` one a group of tasks (all, by metric, domain and
    year), method and budget, `comparisons.csv` one a method and budget against the baseline,
    `curves.csv` one a method over all budgets, `stream.csv` one a task along the stream, with all
    FLOPs so far, `transfer.csv` one a network that a task could start from, `final.csv` one a
    network on test, where that was asked for, `missing.csv` one a task of the stream that there was
    no data for. Figures are PNG, those of the whole run also PDF; `tables/` has the page's main
    tables as CSV and LaTeX. The same records, in any order, give the same bytes. Each file appears
    whole or not at all. Figures and tables that an earlier report left, of other tasks or methods
    perhaps, are removed.

    Args:
      lines: objects of `records.jsonl`, in any order.
      workdir: folder of the run, local or `gs://bucket/path`; made where it does not exist.
      baseline: the method that others are compared with; None is dense, or the first of a run
        without it.

    Returns:
      The paths of the files, in the order above.

    Raises:
      UserError: the records are incomplete or contradict each other, or the run has no method of
        the baseline's name.
    """
    # A plan draws nothing, and packages that draw are a seventh of the time that a command takes to
    # start.
    from ctl_jax.report import _page, _paper_tables, gallery

    table = read(lines)
    result_rows = rows(table)
    found = values(result_rows)
    scores = aggregate.scores(table, found, values(result_rows, "dev_test_top5"))
    base = baseline_of(table.methods, baseline)
    compared = compare(found, table.task_names, table.methods, table.budgets, base)
    passed = stream.along(table)
    results = gallery.Results(table, result_rows, found, scores, compared, passed)
    images = gallery.draw_all(results)
    view = _page.view(results, images.png)

    folder = files.path(workdir)
    contents = {
        "results.csv": to_csv(result_rows).encode(),
        "means.csv": aggregate.means_csv(scores, table).encode(),
        "comparisons.csv": _comparison_tables.at_csv(compared, table.budgets).encode(),
        "curves.csv": _comparison_tables.curves_csv(compared).encode(),
        "stream.csv": stream.stream_csv(passed).encode(),
        "transfer.csv": stream.transfer_csv(passed).encode(),
        "final.csv": stream.final_csv(table.finals).encode(),
        "missing.csv": aggregate.missing_csv(table.missing).encode(),
        # The config may name folders that are not UTF-8.
        "report.html": _page.render(view, images.png).encode(errors="backslashreplace"),
        **{f"figures/{name}.png": image for name, image in images.png.items()},
        **{f"figures/{name}.pdf": image for name, image in images.pdf.items()},
        **{f"tables/{name}": text.encode() for name, text in _paper_tables.write_all(view).items()},
    }
    files.at_once(lambda name: files.write_bytes(folder / name, contents[name]), contents)
    _remove_old(folder, contents, {"figures": gallery.is_name, "tables": _paper_tables.is_name})
    return [folder / name for name in contents]


def _remove_old(
    folder: files.Path,
    contents: Collection[str],
    names: Mapping[str, Callable[[str, str], bool]],
) -> None:
    """Removes what an earlier report left, by its names; other files beside it stay."""
    for inside, is_ours in names.items():
        for name in files.names(folder / inside):
            stem, _, suffix = name.rpartition(".")
            if f"{inside}/{name}" not in contents and is_ours(stem, suffix):
                files.remove(folder / inside / name)
