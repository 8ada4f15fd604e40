"""Tables for a paper hold the page's numbers, as CSV and as LaTeX."""

import csv
import io
import re
import shutil
import subprocess

import pytest

from ctl_jax import report
from ctl_jax.report import _paper_tables, gallery
from ctl_jax.report._paper_tables import Sheet
from ctl_jax.report._table import read
from ctl_jax.report.aggregate import means, values


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Returns the function that gives the files of records in `tables`, as text by name."""
    monkeypatch.setattr(gallery, "draw_all", lambda results: gallery.Pictures({}, {}))

    def make(records):
        report.write(records, tmp_path)
        return {path.name: path.read_text() for path in (tmp_path / "tables").iterdir()}

    return make


def test_numbers_are_those_of_the_means(make_records, tables):
    records = make_records()
    found = tables(records)
    table = read(records)
    expected = means(
        values(report.results(records)), table.task_names, table.methods, table.budgets
    )
    lines = list(csv.DictReader(io.StringIO(found["mean_over_tasks.csv"])))
    assert [line["Method"] for line in lines] == list(table.methods)
    latex = found["mean_over_tasks.tex"]
    for label, mean in zip(("100 GFLOP", "400 GFLOP", "1.6 TFLOP"), expected.values(), strict=True):
        for line in lines:
            shown = f"{mean.points[line['Method']].mean:.3f}"
            assert line[label] == shown
            assert " to " in line[f"{label}, 95% interval"]
            assert shown in latex
    # A row a method between the rules, of as many cells as there are columns.
    body = latex.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert [line.count(" & ") for line in body] == [3] * 4
    assert all(line.endswith(r" \\") for line in body)
    gains = list(csv.DictReader(io.StringIO(found["relative.csv"])))
    for line in gains:
        first = next(iter(expected.values())).relative[line["Method"]].mean
        assert line["100 GFLOP"] == f"{100 * first:+.1f}%"
    assert found["ledger.csv"].splitlines()[-1].startswith("total,")


def test_what_was_not_compared_has_no_table(make_records, tables):
    assert set(tables(make_records(methods=("dense",)))) == {
        f"{name}.{ending}" for name in ("mean_over_tasks", "ledger") for ending in ("csv", "tex")
    }


def test_latex_is_escaped():
    evil = r"a_b & 50% $x$ #1 {c} \d ~ ^ <"
    sheet = Sheet("evil", ["Method", "1"], [[(evil, ""), ("\N{MINUS SIGN}1.0", "± 2")]])
    (line,) = _paper_tables.to_latex(sheet).split("\\midrule\n")[1].splitlines()[:1]
    assert line.startswith(r"a\_b \& 50\% \$x\$ \#1 \{c\} \textbackslash{}d \textasciitilde{}")
    assert line.endswith(r"$-$1.0 {\scriptsize $\pm$ 2} \\")
    # Nothing that LaTeX would take for its own is left, but the cell's end.
    assert len(re.findall(r"(?<!\\)&", line)) == 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_latex_takes_every_table(make_records, tables, tmp_path):
    names = {
        "filters@0.5": "filters@0.5:lsq@2stages+probe",
        "filters@0.75": "100%_of<it>|&$x$#{c}\\d~^",
        "scratch": "dynamic@domain:all@0.5+head_bn (réseau)",
    }
    records = make_records(tasks=[f"t{number}" for number in range(10)], rates=(0.1,))
    for record in records:
        if "methods" in record:
            record["methods"] = [names.get(name, name) for name in record["methods"]]
        record |= {"method": names.get(record["method"])} if record.get("method") in names else {}
    inputs = [rf"\input{{tables/{name}}}" for name in tables(records) if name.endswith(".tex")]
    assert len(inputs) == 5
    start = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    (tmp_path / "all.tex").write_text("\n\n".join([*start, *inputs, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, errors="replace", check=False)
    if "`booktabs.sty' not found" in done.stdout:
        pytest.skip("no booktabs here")
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")


def test_the_best_is_bold_and_the_highest_underlined():
    sheet = Sheet(
        "", ["Method", "1"], [[("a", ""), (".5", "")]] * 3, [["", m] for m in ("best", "top", "")]
    )
    lines = _paper_tables.to_latex(sheet).splitlines()[5:8]
    assert lines == [r"a & \textbf{.5} \\", r"a & \underline{.5} \\", r"a & .5 \\"]
