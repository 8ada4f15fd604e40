"""The files: which, where, and the same bytes for the same records."""

import random

import pytest
from PIL import Image

from ctl_jax import files, report
from ctl_jax.errors import UserError

TABLES = ("mean_over_tasks", "difference", "relative", "compute_ratio", "ledger")


def _bytes(paths):
    return {path.name: path.read_bytes() for path in paths}


def test_files_are_the_same_for_any_order_of_lines(make_records, tmp_path, bucket):
    records = make_records()
    paths = report.write(records, tmp_path / "a")
    names = [str(path.relative_to(tmp_path / "a")) for path in paths]
    tasks = [f"figures/task_{task}.png" for task in ("digits", "glyphs", "textures")]
    assert names == [
        "results.csv",
        "means.csv",
        "comparisons.csv",
        "curves.csv",
        "stream.csv",
        "transfer.csv",
        "final.csv",
        "missing.csv",
        "report.html",
        "figures/mean_over_tasks.png",
        "figures/relative_to_dense.png",
        "figures/all_compute.png",
        "figures/along_the_stream.png",
        *tasks,
        "figures/mean_over_tasks.pdf",
        "figures/relative_to_dense.pdf",
        "figures/all_compute.pdf",
        "figures/along_the_stream.pdf",
        *(f"tables/{name}.{ending}" for name in TABLES for ending in ("csv", "tex")),
    ]
    # Nothing but these files: no temporary one is left.
    written = {path for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert written == set(paths)
    random.Random(2).shuffle(records)
    assert _bytes(report.write(records, tmp_path / "b")) == _bytes(paths)
    assert _bytes(report.write(records, tmp_path / "a")) == _bytes(paths)
    assert _bytes(report.write(records, f"{bucket}/run")) == _bytes(paths)
    for path in (path for path in paths if path.suffix == ".png"):
        with Image.open(path) as image:
            image.verify()
            assert image.size == (1024, 704)


def test_names_of_folders_that_are_not_utf8(make_records, tmp_path):
    records = make_records(tasks=("digits",))
    records[0]["config"]["weights"] = "/caf\udce9/é"
    paths = {path.name: path for path in report.write(records, tmp_path / "caf\udce9")}
    assert "/caf\\udce9/é" in paths["report.html"].read_text("utf-8")


def test_no_records_give_a_header_and_a_page(tmp_path):
    paths = report.write([], tmp_path)
    names = ["results.csv", "means.csv", "comparisons.csv", "curves.csv", "stream.csv"]
    names += ["transfer.csv", "final.csv", "missing.csv", "report.html"]
    assert [path.name for path in paths] == names
    assert paths[0].read_text().splitlines()[0].startswith("variant,task,dataset,domain,method")
    assert all(len(path.read_text().splitlines()) == 1 for path in paths[:8])


def test_wrong_records_leave_the_old_report_alone(make_records, tmp_path):
    records = make_records(tasks=("digits",))
    before = _bytes(report.write(records, tmp_path))
    del records[-1]["dev"]
    with pytest.raises(UserError, match="no field 'dev'"):
        report.write(records, tmp_path)
    assert {name: next(tmp_path.rglob(name)).read_bytes() for name in before} == before


def test_what_another_report_left_goes(make_probed, make_records, tmp_path, bucket):
    """A figure of a task or method that the run is no more of would be taken for one of it."""
    whole, part = make_probed(), make_records(tasks=("digits",), methods=("dense",))
    for folder in (tmp_path / "run", files.path(f"{bucket}/run")):
        before = set(map(str, report.write(whole, folder)))
        own = [f"{folder}/figures/{name}" for name in ("mine.png", "task_digits.svg", "task.png")]
        own += [f"{folder}/tables/mine.csv", f"{folder}/tables/ledger.txt"]
        for path in own:
            files.write_text(path, "mine")
        after = set(map(str, report.write(part, folder)))
        # Of both kinds of figures, and of the tables that compare methods.
        gone = {path.rpartition("/")[2] for path in before - after}
        assert gone >= {"task_glyphs.png", "difference.tex"}
        assert {f"{folder}/{name}" for name in files.tree(folder)} == {*after, *own}
