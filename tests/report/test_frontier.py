"""Who is best where, and how sure that is."""

import itertools
import re
import statistics

import pytest

from ctl_jax import report
from ctl_jax.report import frontier
from ctl_jax.report._table import read
from ctl_jax.report.aggregate import values
from ctl_jax.report.statistics import Interval, mean_interval


def _rows(**by_method):
    """Rows of one budget: dev_test by method and task; fitted ones are those in capitals."""
    return [
        {"task": str(task), "method": method, "budget": budget, "seed": seed, "dev_test": score}
        | {"dev": score, "learning_rate": None if method.isupper() else 0.1}
        for method, by_budget in by_method.items()
        for budget, scores in by_budget.items()
        for task, score in enumerate(scores)
        for seed in (0, 1)
    ]


def _frontier(rows, **by_method):
    tasks = sorted({row["task"] for row in rows})
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    return frontier.frontier(values(rows), tasks, list(by_method), budgets)


def test_the_best_is_named_with_those_that_cannot_be_told_from_it():
    one = [0.7, 0.8, 0.6, 0.9, 0.75]
    given = {
        "best": {"1 flop": one},
        "near": {"1 flop": [x + d for x, d in zip(one, (0.1, -0.1, 0.1, -0.11, 0), strict=True)]},
        "worse": {"1 flop": [x - d for x, d in zip(one, (0.1, 0.2, 0.1, 0.12, 0.1), strict=True)]},
        "absent": {"2 flops": one[:3]},
    }
    found = _frontier(_rows(**given), **given)
    assert (found["1 flop"].method, found["1 flop"].others) == ("best", ("near",))
    assert found["1 flop"].tasks == 5
    assert found["1 flop"].score == mean_interval(one)
    # A method that was not run at a budget keeps no other from being best there.
    assert (found["2 flops"].method, found["2 flops"].tasks) == ("absent", 3)


def test_of_one_task_nobody_knows():
    found = _frontier(_rows(a={"1 flop": [0.5]}, b={"1 flop": [0.2]}), a=0, b=0)
    assert found == {
        "1 flop": frontier.Leader("a", {"a": Interval(0.5), "b": Interval(0.2)}, 1, None)
    }


def _crossover(rows):
    tasks = sorted({row["task"] for row in rows})
    methods = list(dict.fromkeys(row["method"] for row in rows))
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    return frontier.crossover(frontier.versus(rows, tasks, methods, budgets))


ONE = [0.7, 0.8, 0.6, 0.9, 0.75]
MORE, LESS, MIXED = ([x + d for x, d in zip(ONE, by, strict=True)] for by in (
    (0.01, 0.02, 0.03, 0.02, 0.01), (-0.1, -0.2, -0.1, -0.3, -0.1), (0.1, -0.1, 0.1, -0.1, 0.01)
))  # fmt: skip


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ((LESS, MIXED, MORE), "overtakes fitted heads: from 3 FLOP on .*behind up to 1 FLOP"),
        ((MORE, MORE, MORE), r"from 1 FLOP on it is ahead \(t minus P at 1 FLOP: \+0\.018, 95% "),
        ((LESS, MORE, MIXED), r"nowhere clearly ahead .* up to 3 FLOP .*\+0\.002.*behind up to 1"),
        (
            (LESS[:1], MORE[:1], MORE[:1]),
            r"from 2 FLOP on .*of one task, .* no interval\); it is b",
        ),
    ],
)
def test_where_training_overtakes(train, expected):
    budgets = ("1 flop", "2 flops", "3 flops")
    rows = _rows(
        P=dict.fromkeys(budgets, ONE[: len(train[0])]), t=dict(zip(budgets, train, strict=True))
    )
    sentence = _crossover(rows)
    assert sentence.endswith(".")
    assert re.search(expected, sentence), sentence


def test_dev_chooses_who_is_compared():
    rows = _rows(P={"1 flop": ONE}, Q={"1 flop": LESS}, t={"1 flop": MORE})
    rows = [row | {"dev": 1.0} if row["method"] == "Q" else row for row in rows]
    found = frontier.versus(rows, list("01234"), list("PQt"), ["1 flop"])
    assert found["1 flop"].fitted == "Q"
    assert found["1 flop"].difference.estimate == pytest.approx(
        statistics.fmean(a - b for a, b in zip(MORE, LESS, strict=True))
    )


def test_nothing_to_compare():
    rows = _rows(t={"1 flop": ONE})
    assert _crossover(rows) == ""
    assert _frontier([], t={}) == {}


def test_a_run_with_probes(make_probed):
    lines = make_probed(methods=("dense", "filters@0.5"))
    table, rows = read(lines), report.results(lines)
    found = frontier.frontier(values(rows), table.task_names, table.methods, table.budgets)
    assert next(iter(found.values())).method == "probe"
    for method, budget in itertools.product(table.methods, table.budgets):
        mean = statistics.fmean(
            r["dev_test"] for r in rows if (r["method"], r["budget"]) == (method, budget)
        )
        assert mean <= found[budget].score.estimate + 1e-9
