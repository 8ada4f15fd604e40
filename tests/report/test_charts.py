"""The charts' numbers are those of the tables, and their ledger adds up to the records'."""

import pytest

from ctl_jax.report import _charts, aggregate, comparisons, gallery, spending, stream
from ctl_jax.report._results import rows
from ctl_jax.report._table import read


@pytest.fixture
def drawn():
    """Returns the function that gives records as results, and as what the charts draw."""

    def make(records):
        table = read(records)
        found = aggregate.values(rows(table))
        of_run = (table.task_names, table.methods, table.budgets)
        fields = {
            "table": table,
            "rows": rows(table),
            "values": found,
            "scores": aggregate.scores(table, found, {}),
            "compared": comparisons.compare(found, *of_run, table.methods[0]),
            "passed": stream.along(table),
        }
        results = gallery.Results(**fields)
        return results, _charts.data(results)

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
            interval = results.scores[0].intervals[list(results.table.budgets)[j]][method]
            assert (low, high) == pytest.approx(interval[1:], abs=1e-5)
    digits = results.values["digits"]
    first = next(iter(results.table.budgets))
    dense, pruned = (aggregate.point(digits[m][first]).mean for m in ("dense", "filters@0.5"))
    assert data["tasks"][0]["points"][1][0][0] == pytest.approx(pruned, abs=1e-5)
    assert data["tasks"][0]["relative"][1][0][0] == pytest.approx(pruned / dense - 1, abs=1e-5)
    assert data["tasks"][0]["relative"][0] == [None] * 3
    assert data["tasks"][0]["chance"] == 0.1


def test_groups_of_two_tasks_have_intervals(make_records, drawn):
    records = make_records()
    records[0]["tasks"][0]["domain"] = "satellite"
    _, data = drawn(records)
    lengths = {
        group["name"]: {len(point) for points in group["points"] for point in points}
        for group in data["groups"]
    }
    # The number, its spread and its seeds; then both ends.
    assert lengths == {"all": {5}, "accuracy": {5}, "ocr": {5}, "satellite": {3}, "2022": {5}}


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


def test_ranks_of_enough_tasks(make_records, drawn):
    tasks = [f"t{number}" for number in range(10)]
    results, data = drawn(make_records(tasks=tasks, rates=(0.1,)))
    assert len(data["ranks"]) == 3
    for shown, found in zip(data["ranks"], results.compared.ranks.values(), strict=True):
        assert shown["ranks"] == pytest.approx(list(found.ranks.values()), abs=1e-5)
        assert sum(shown["ranks"]) == pytest.approx(1 + 2 + 3 + 4)
        assert shown["apart"] == pytest.approx(found.critical_difference, abs=1e-5)
    assert drawn(make_records())[1]["ranks"] == []


def test_the_stream(make_records, learnt, drawn):
    records = learnt(make_records(), "filters@0.5")
    results, data = drawn(records)
    table = results.table
    points = stream.learners(results.passed, 3)
    assert [(table.methods[each["method"]], each["flops"]) for each in data["compute"]] == [
        (point.method, round(point.total_flops)) for point in points
    ]
    # After the last task the running mean is the point of the largest budget, of the first seed.
    assert data["along"]["label"] == "1.6 TFLOP"
    ends = {
        each.method: [each.total_flops, pytest.approx(each.mean_error, abs=1e-5)]
        for each in results.passed
        if (each.budget, each.seed, each.number) == (list(table.budgets)[-1], 0, 3)
    }
    assert [of_method[-1] for of_method in data["along"]["passed"]] == list(ends.values())
    (shown,) = data["transfer"]
    assert table.methods[shown["method"]] == "filters@0.5"
    assert shown["sources"] == ["its own start", "digits", "glyphs"]
    assert shown["scores"] == [[None] * 3, [0.2, 0.1, None], [0.2, 0.1, 0.4]]
    assert shown["starts"] == [0, 0, 2]
    # One task is no stream.
    _, data = drawn(make_records(tasks=("digits",)))
    assert (data["compute"], data["along"], data["transfer"]) == ([], None, [])


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
