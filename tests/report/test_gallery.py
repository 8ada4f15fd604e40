"""Figures of a run: one entry each, shown and written where there are numbers."""

import json
import pathlib
import runpy
import sys

import pytest

from ctl_jax import report
from ctl_jax.errors import UserError
from ctl_jax.report import figures, gallery

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "extending" / "figure.py"


@pytest.fixture
def added():
    """The figures, put back afterwards."""
    before = list(gallery.FIGURES)
    yield gallery.FIGURES
    gallery.FIGURES[:] = before


def test_a_function_is_a_figure(added, make_records, tmp_path):
    @gallery.figure("All of it by {metric}")
    def everything(results):
        with figures.canvas("Everything") as (drawing, axes):
            return figures.finished(drawing, axes) if results.rows else None

    paths = report.write(make_records(tasks=("digits",)), tmp_path)
    for ending, start in {"png": b"\x89PNG", "pdf": b"%PDF"}.items():
        path = tmp_path / "figures" / f"everything.{ending}"
        assert path.read_bytes().startswith(start)
        assert path in paths
    assert 'alt="All of it by accuracy"' in (tmp_path / "report.html").read_text()
    # Where there are no numbers it is not there.
    report.write(make_records(tasks=("digits",))[:1], tmp_path / "empty")
    assert not list(tmp_path.glob("empty/figures/*"))


def test_two_figures_of_one_name(added):
    def relative_to_dense(results):
        return None

    with pytest.raises(UserError, match="figure 'relative_to_dense': there is one of this name"):
        gallery.figure("again")(relative_to_dense)


def test_the_example_adds_a_figure_to_a_finished_run(added, make_records, tmp_path, monkeypatch):
    lines = map(json.dumps, make_records(tasks=("digits",), seeds=(0,)))
    (tmp_path / "records.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    drawn = (tmp_path / "figures" / "flops_by_purpose.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert "stacked bars" in (tmp_path / "report.html").read_text()


def test_what_auto_chose_from_is_drawn_a_task(make_chosen, tmp_path):
    records = make_chosen(tasks=("digits",), seeds=(0,))
    report.write(records, tmp_path)
    drawn = (tmp_path / "figures" / "auto_digits.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    # Where nothing could be afforded there is nothing to draw.
    for record in records:
        if record["type"] == "look":
            record["options"] = []
    report.write(records, tmp_path / "none")
    assert not (tmp_path / "none" / "figures" / "auto_digits.png").exists()
