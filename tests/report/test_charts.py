"""The charts' numbers are those of the tables, and their ledger adds up to the records'."""

import pytest

from ctl_jax.report import _charts, aggregate, frontier, gallery, spending
from ctl_jax.report._results import rows
from ctl_jax.report._table import read


@pytest.fixture
def drawn():
    """Returns the function that gives records as results, and as what the charts draw."""

    def make(records):
        table = read(records)
        found = aggregate.values(rows(table))
        fields = {
            "table": table,
            "rows": rows(table),
            "values": found,
            "scores": aggregate.scores(table, found, {}),
        }
        # Others stand for what no chart draws.
        others = dict.fromkeys(set(gallery.Results._fields) - set(fields))
        results = gallery.Results(**fields, **others)
        of_run = (table.task_names, table.methods, table.budgets)
        leaders = frontier.frontier(found, *of_run)
        return results, _charts.data(results, leaders)

    return make


def test_points_are_the_means(make_records, drawn):
    results, data = drawn(make_records())
    whole = results.scores[0].macro
    for j, mean in enumerate(whole.values()):
        for i, method in enumerate(results.table.methods):
            point = mean.points[method]
            score, std, seeds, low, high = data["groups"][0]["points"][i][j]
            assert score == pytest.approx(point.mean, abs=1e-5)
            assert std == pytest.approx(point.std, abs=1e-5)
            assert seeds == 2
            assert low <= score <= high
    digits = results.values["digits"]
    first = next(iter(results.table.budgets))
    dense, pruned = (aggregate.point(digits[m][first]).mean for m in ("dense", "filters@0.5"))
    assert data["tasks"][0]["points"][1][0][0] == pytest.approx(pruned, abs=1e-5)
    assert data["tasks"][0]["relative"][1][0][0] == pytest.approx(pruned / dense - 1, abs=1e-5)
    assert data["tasks"][0]["relative"][0] == [None] * 3
    assert data["tasks"][0]["chance"] == 0.1


def test_what_is_not_there_has_no_point(make_records, drawn):
    records = [
        r for r in make_records() if (r.get("task"), r.get("method")) != ("digits", "scratch")
    ]
    _, data = drawn(records)
    assert data["tasks"][0]["points"][3] == [None] * 3
    assert data["tasks"][0]["relative"][1][0] is not None
    _, data = drawn(make_records(methods=("filters@0.5", "scratch")))
    assert data["groups"][0]["relative"] == [[None] * 3] * 2


def test_the_ledger_adds_up(make_probed, drawn):
    records = make_probed()
    results, data = drawn(records)
    spent = sum(r["flops"] for r in records if r["type"] == "pretrain")
    spent += sum(sum(r["ledger"].values()) for r in records if r["type"] == "trial")
    lines = data["ledger"]["lines"]
    assert sum(sum(line["flops"].values()) for line in lines) == spent
    trials_s = sum(r["wall_s"] for r in records if r["type"] == "trial")
    total_s = trials_s + spending.sharing(results.table).wall_s
    assert sum(sum(line["seconds"].values()) for line in lines) == pytest.approx(total_s, abs=0.1)
    for unit in ("flops", "seconds"):
        names = [each["name"] for each in data["ledger"]["purposes"][unit]]
        assert {name for line in lines for name in line[unit]} <= set(names)


def test_trainings_and_choices(make_chosen, evaluated, drawn):
    records = evaluated(make_chosen(tasks=("digits", "glyphs"), seeds=(0,)))
    _, data = drawn(records)
    assert data["training"][0] is None
    assert data["training"][1]["losses"] == [[10**10, 0.2], [2 * 10**10, 0.1]]
    (chosen,) = (each for each in data["choices"][0]["options"] if each["is_chosen"])
    assert chosen["name"] == "dense@48px"
    assert chosen["low"] < chosen["score"] == 0.7 < chosen["high"]


def test_methods_look_different_on_light_and_on_dark():
    names = ["dense", *(f"filters@0.{i}" for i in range(1, 20))]
    methods = _charts.methods(names)
    for ground in ("light", "dark"):
        assert len({(m[ground], m["dash"], m["symbol"]) for m in methods}) == len(names)
