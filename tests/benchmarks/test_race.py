"""The tables of a race are of the runs' results, put together."""

import importlib.util
import pathlib
import re
import sys

import pytest

from ctl_jax.errors import UserError
from ctl_jax.report.statistics import mean_interval

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "race.py"
SPEC = importlib.util.spec_from_file_location("race", PATH)
race = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(race)


def _rows(method, budget, scores, **fields):
    return [
        {"task": task, "method": method, "budget": budget, "seed": 0, "trial": method + budget}
        | {"dev": score, "dev_test": score, "learning_rate": None if method == "probe" else 0.1}
        | {"spent_flops": 10**11, "search_flops": 2 * 10**11}
        | fields
        for task, score in zip("abc", scores, strict=True)
    ]


ONE, TWO = "100000000000 flops", "400000000000 flops"
ROWS = [
    *_rows("probe", ONE, (0.5, 0.6, 0.8)),
    *_rows("dense", ONE, (0.2, 0.3, 0.4)),
    *_rows("dense", TWO, (0.7, 0.8, 0.9)),
]


def test_tables_have_each_method_at_each_budget():
    groups = race.groups_of(ROWS, ["near=a,b"])
    text = race.render(ROWS, groups)
    best = mean_interval([0.5, 0.6, 0.8]).shown
    assert f"| `probe` | **{best}** | \N{EN DASH} |" in text
    assert "| tasks | 3 | 3 |" in text
    assert f"| 100 GFLOP | `probe` | {best} |  |" in text
    assert "## near: a, b" in text
    assert "| `probe` | **0.550 (0.500 to 0.600)** |" in text
    assert "| `dense` | 100 GFLOP + 200 GFLOP | 100 GFLOP + 200 GFLOP |" in text
    assert len(re.findall("Training is nowhere clearly ahead", text)) == 2


@pytest.mark.parametrize("given", ["near", "near=", "near=a,d"])
def test_a_group_of_tasks_that_there_are_not(given):
    with pytest.raises(UserError, match="expected NAME=TASK,TASK with tasks among a, b, c"):
        race.groups_of(ROWS, [given])


def test_a_folder_that_is_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["race.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"race: .*: no records\.jsonl; expected the --workdir"):
        race.main()
