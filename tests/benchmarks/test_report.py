"""The benchmark of reports makes records that a report can be made of."""

import importlib.util
import pathlib
import sys

from ctl_jax.report import figures

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "report.py"
SPEC = importlib.util.spec_from_file_location("report_benchmark", PATH)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


def test_a_small_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "png", lambda drawing: b"a PNG")
    monkeypatch.setattr(figures, "pdf", lambda drawing: b"a PDF")
    monkeypatch.setattr(benchmark.shutil, "which", lambda program: None)
    sizes = ["--tasks=2", "--methods=3", "--budgets=2", "--seeds=2"]
    monkeypatch.setattr(sys, "argv", ["report.py", f"--workdir={tmp_path}", *sizes])
    benchmark.main()
    # A run, three networks, and a trial of each.
    assert f"of {1 + 3 + 2 * 3 * 2 * 2} records" in capsys.readouterr().out
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + 2 * 3 * 2 * 2
