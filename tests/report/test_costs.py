"""No FLOP is lost between the trials and the ledger."""

from ctl_jax import report
from ctl_jax.report import costs
from ctl_jax.report.table import read


def _spent(records, *purposes):
    return sum(r["ledger"][p] for r in records if r["type"] == "trial" for p in purposes)


def test_ledger_holds_every_flop_once(make_records):
    records = make_records()
    ledger = costs.ledger(read(records))
    assert list(ledger) == records[0]["methods"]
    everything = _spent(records, "train", "extract", "validate", "search", "prune", "pretrain")
    assert sum(sum(by.values()) for by in ledger.values()) == everything
    rows = report.results(records)
    assert sum(by["search"] for by in ledger.values()) == sum(r["search_flops"] for r in rows)
    assert sum(by["train"] for by in ledger.values()) == sum(r["spent_flops"] for r in rows)
    assert sum(by["prune"] for by in ledger.values()) == _spent(records, "prune") > 0


def test_unfinished_searches_are_search(make_records, pending):
    records = make_records()
    whole = costs.ledger(read(records))
    last = records[-1]
    table = read([*records[:-1], pending(last)])
    left = costs.ledger(table)
    method = last["method"]
    lost = sum(last["ledger"][purpose] for purpose in ("train", "extract", "validate"))
    assert (
        sum(whole[method].values()) - sum(left[method].values()) == lost + last["ledger"]["prune"]
    )
    assert left[method]["train"] < whole[method]["train"]
    assert costs.unfinished(table) == (1, 1)
    assert costs.unfinished(read(records)) == (0, 0)
    # What was said before the trial was done does not matter.
    assert costs.unfinished(read([*records, pending(last)])) == (0, 0)


def test_learning_rates_are_counted_where_they_won(make_records):
    records = make_records()
    counts = costs.learning_rates(read(records))
    for method, won in counts.items():
        rows = [r for r in report.results(records) if r["method"] == method]
        assert won == {rate: sum(r["learning_rate"] == rate for r in rows) for rate in won}
        assert sum(won.values()) == 3 * 3 * 2


def test_wall_clock_is_summed_by_method(make_records):
    records = make_records()
    seconds = costs.wall_seconds(read(records))
    total = sum(r["wall_s"] for r in records if r["type"] == "trial")
    assert abs(sum(seconds.values()) - total) < 1e-6 * total


def test_what_trials_share_is_charged_to_each_and_computed_once(make_probed):
    records = make_probed(methods=("dense",))
    found = costs.sharing(read(records))
    trials = [r for r in records if r["type"] == "trial"]
    shared = [r for r in records if r["type"] in ("extract", "head")]
    own = [r for r in trials if r["method"] == "dense"]
    assert found.charged == sum(sum(trial["ledger"].values()) for trial in trials)
    assert found.computed == _spent(own, *own[0]["ledger"]) + sum(r["flops"] for r in shared)
    # Of the images of the second and the third budget, which are the same.
    assert found.charged > found.computed
    assert (found.steps, found.wall_s) == (len(shared), 2.0 * len(shared))
    by_task = [costs.sharing(read(records), task) for task in ("digits", "glyphs", "textures")]
    assert sum(each.computed for each in by_task) == found.computed
    assert "Charged to trials as if each were alone" in costs.shared(read(records))


def test_nothing_is_shared_by_trainings(make_records):
    table = read(make_records())
    found = costs.sharing(table)
    assert found.charged == found.computed == sum(map(_total, table.trials))
    assert costs.shared(table) == ""
    assert costs.saturated(table) == {}


def _total(trial):
    return trial.ledger.total


def test_methods_without_rates_are_no_part_of_the_search_over_rates(make_probed):
    table = read(make_probed(methods=("dense",)))
    assert list(costs.learning_rates(table)) == ["dense"]
    assert costs.batch_sizes(table) == {}


def test_a_budget_beyond_all_images_changes_nothing(make_probed):
    table = read(make_probed(methods=("dense",)))
    assert costs.saturated(table) == {"probe": list(table.budgets)[1]}


def test_looks_are_steps_and_their_fits_are_computed(make_chosen):
    records = make_chosen(tasks=("digits",), seeds=(0,), methods=("dense",))
    found = costs.sharing(read(records))
    looks = [r for r in records if r["type"] == "look"]
    heads = [r for r in records if r["type"] == "head"]
    assert found.steps == len(looks) + len(heads)
    own = [r for r in records if r["type"] == "trial" and r["method"] == "dense"]
    assert found.computed == _spent(own, *own[0]["ledger"]) + sum(r["flops"] for r in looks + heads)


def test_what_auto_looked_at_is_search(make_chosen):
    records = make_chosen(seeds=(0,))
    ledger = costs.ledger(read(records))
    own = [r for r in records if r["type"] == "trial" and r["method"] == "auto"]
    assert ledger["auto"]["search"] == _spent(own, "search") > 0
    assert ledger["auto"]["extract"] == _spent(own, "extract")


def test_another_network_on_as_many_images_is_a_change(make_chosen):
    records = make_chosen(tasks=("digits",), methods=("dense",))
    trials = [r for r in records if r["type"] == "trial" and r["method"] == "auto"]
    budgets = list(read(records).budgets)
    assert costs.saturated(read(records)) == {"auto": budgets[0]}
    for trial in trials:
        if trial["budget"] == budgets[0]:
            trial["notes"]["chosen"] = "dense@32px+probe"
    assert costs.saturated(read(records)) == {"auto": budgets[1]}
