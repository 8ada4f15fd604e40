"""Imports within the project: private modules stay in their package, and rooms point one way."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("ctl_jax", "benchmarks", "configs", "docs", "launch")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# Each room, and the rooms that it may not know of.
ABOVE = {
    "compute": {
        "pruning",
        "models",
        "data",
        "heads",
        "finetune",
        "experiment",
        "report",
        "records",
    },
    "pruning": {"models", "data", "heads", "finetune", "experiment", "report", "records"},
    "models": {"heads", "finetune", "experiment", "report", "records"},
    "data": {"pruning", "models", "heads", "finetune", "experiment", "report", "records"},
    "heads": {"models", "data", "finetune", "experiment", "report", "records"},
    "finetune": {"experiment", "report", "records"},
    "records": {"pruning", "models", "data", "heads", "finetune", "experiment", "report"},
    "report": {"pruning", "models", "data", "heads", "finetune", "experiment"},
}


def imported(path: pathlib.Path) -> Iterator[str]:
    """The dotted names of the project that a file imports: modules, and what is taken from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ctl_jax"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ctl_jax"))


def private(name: str) -> str:
    """The package that a private part of a dotted name belongs to; "" where there is none."""
    parts = name.split(".")
    hidden = [i for i, part in enumerate(parts) if part.startswith("_") and part != "__main__"]
    return ".".join(parts[: hidden[0]]) if hidden else ""


def test_there_are_files():
    assert len(FILES) > 200


@pytest.mark.parametrize("folder", FOLDERS)
def test_private_modules_stay_within_their_package(folder):
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        if path.is_relative_to(ROOT / folder)
        for name in imported(path)
        if (owner := private(name)) and not path.is_relative_to(ROOT / owner.replace(".", "/"))
    ]
    assert not wrong


@pytest.mark.parametrize("room", ABOVE)
def test_rooms_point_one_way(room):
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        if path.is_relative_to(ROOT / "ctl_jax" / room)
        for name in imported(path)
        if {*name.split(".")[1:2]} & ABOVE[room]
    ]
    assert not wrong
