"""The page's tables for a paper: each as CSV, and as LaTeX with the rules of booktabs."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ctl_jax.report._html_tables import Row

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{EN DASH}": "--",
}


# Of all that there may be.
_NAMES = ("mean_over_tasks", "difference", "relative", "compute_ratio", "ledger")


class Sheet(NamedTuple):
    """A table.

    Attributes:
      caption: what it shows.
      head: names of the columns; the first one names the rows.
      rows: texts; of a cell of several numbers the second one is behind the first.
      marks: "best", "top" or "" of each cell; no rows where nothing is marked.
      second: what a cell's second number is.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[tuple[str, str]]]
    marks: Sequence[Sequence[str]] = ()
    second: str = ""


def write_all(view: Mapping[str, Any]) -> dict[str, str]:
    """The text of each file, by name.

    Args:
      view: what the page shows.
    """
    contents = {}
    for name, sheet in _sheets(view):
        contents[f"{name}.csv"] = to_csv(sheet)
        contents[f"{name}.tex"] = to_latex(sheet)
    return contents


def is_name(stem: str, suffix: str) -> bool:
    """Whether a file of this name may be one of these."""
    return stem in _NAMES and suffix in ("csv", "tex")


def _sheets(view: Mapping[str, Any]) -> Iterator[tuple[str, Sheet]]:
    if not view["run"]:
        return
    metric, compared = view["metric"], view["compared"]
    if view["has_means"]:
        caption = f"Mean {metric} over tasks (dev_test), with 95% intervals"
        yield "mean_over_tasks", _grid(caption, view["budgets"], view["mean_grid"])
    if compared:
        caption = f"Difference in {metric} to {compared['baseline']}, with 95% intervals"
        yield "difference", _grid(caption, view["budgets"], compared["difference"])
        caption = f"Improvement over {compared['baseline']} in percent, with 95% intervals"
        yield "relative", _grid(caption, view["budgets"], compared["relative"])
        caption = f"Compute for the accuracy of {compared['baseline']}, as a share of the budget"
        if compared["curves"]:
            yield "compute_ratio", _grid(caption, view["budgets"], compared["saving"])
    ledger = view["ledger"]
    yield (
        "ledger",
        Sheet(
            "What was spent, in FLOP",
            ["Method", *ledger["head"], "Sum", "Wall time of trials"],
            [
                [(text, "") for text in (line["name"], *line["numbers"], line["sum"], line["wall"])]
                for line in ledger["body"]
            ],
        ),
    )


def _grid(caption: str, budgets: Sequence[str], rows: Sequence[Row]) -> Sheet:
    def behind(cell: Mapping[str, Any]) -> str:
        return cell["interval"] or cell["spread"]

    return Sheet(
        caption,
        ["Method", *budgets],
        [[(row["method"], ""), *((c["value"], behind(c)) for c in row["cells"])] for row in rows],
        [
            ["", *("best" if c["best"] else "top" if c["top"] else "" for c in row["cells"])]
            for row in rows
        ],
        "95% interval" if any(c["interval"] for r in rows for c in r["cells"]) else "spread",
    )


def to_csv(sheet: Sheet) -> str:
    """A table as CSV; the second number of a cell has a column of its own."""
    second = [any(cells[i][1] for cells in sheet.rows) for i in range(len(sheet.head))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ((name, f"{name}, {sheet.second}") for name in sheet.head)
    writer.writerow(_flat(names, second))
    writer.writerows(_flat(cells, second) for cells in sheet.rows)
    return text.getvalue().replace("\N{MINUS SIGN}", "-")


def _flat(cells: Any, second: Sequence[bool]) -> list[str]:
    found: list[str] = []
    for (first, behind), is_two in zip(cells, second, strict=True):
        found += [first, behind] if is_two else [first]
    return found


def to_latex(sheet: Sheet) -> str:
    """A table as a LaTeX tabular, which needs the package booktabs."""
    marks = sheet.marks or [[""] * len(sheet.head)] * len(sheet.rows)
    body = [
        " & ".join(_cell(*cell, mark) for cell, mark in zip(cells, of_row, strict=True))
        for cells, of_row in zip(sheet.rows, marks, strict=True)
    ]
    lines = [
        f"% {sheet.caption}. Needs \\usepackage{{booktabs}}.",
        f"\\begin{{tabular}}{{l{'r' * (len(sheet.head) - 1)}}}",
        r"\toprule",
        " & ".join(map(escape, sheet.head)) + r" \\",
        r"\midrule",
        *(f"{line} \\\\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cell(first: str, behind: str, mark: str) -> str:
    shown = escape(first)
    if mark:
        shown = f"\\{'textbf' if mark == 'best' else 'underline'}{{{shown}}}"
    return f"{shown} {{\\scriptsize {escape(behind)}}}" if behind else shown


def escape(text: str) -> str:
    """A text as LaTeX shows it."""
    return re.sub(".", lambda found: _LATEX.get(found[0], found[0]), text)
