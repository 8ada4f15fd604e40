"""No FLOP is lost between the trials and the ledger; what steps were computed on."""

from ctl_jax import report
from ctl_jax.records import Hardware
from ctl_jax.report import spending
from ctl_jax.report._table import read


def _spent(records, *purposes):
    return sum(r["ledger"][p] for r in records if r["type"] == "trial" for p in purposes)


def test_ledger_holds_every_flop_once(make_records):
    records = make_records()
    ledger = spending.ledger(read(records))
    assert list(ledger) == records[0]["methods"]
    everything = _spent(records, "train", "extract", "validate", "search", "prune", "pretrain")
    assert sum(sum(by.values()) for by in ledger.values()) == everything
    rows = report.results(records)
    assert sum(by["search"] for by in ledger.values()) == sum(r["search_flops"] for r in rows)
    assert sum(by["train"] for by in ledger.values()) == sum(r["spent_flops"] for r in rows)
    assert sum(by["prune"] for by in ledger.values()) == _spent(records, "prune") > 0


def test_unfinished_searches_are_search(make_records, pending):
    records = make_records()
    whole = spending.ledger(read(records))
    last = records[-1]
    table = read([*records[:-1], pending(last)])
    left = spending.ledger(table)
    method = last["method"]
    lost = sum(last["ledger"][purpose] for purpose in ("train", "extract", "validate"))
    assert (
        sum(whole[method].values()) - sum(left[method].values()) == lost + last["ledger"]["prune"]
    )
    assert left[method]["train"] < whole[method]["train"]
    assert spending.unfinished(table) == (1, 1)
    assert spending.unfinished(read(records)) == (0, 0)
    # What was said before the trial was done does not matter.
    assert spending.unfinished(read([*records, pending(last)])) == (0, 0)


def test_learning_rates_are_counted_where_they_won(make_records):
    records = make_records()
    counts = spending.learning_rates(read(records))
    for method, won in counts.items():
        rows = [r for r in report.results(records) if r["method"] == method]
        assert won == {rate: sum(r["learning_rate"] == rate for r in rows) for rate in won}
        assert sum(won.values()) == 3 * 3 * 2


def test_wall_clock_is_summed_by_method(make_records):
    records = make_records()
    seconds = spending.wall_seconds(read(records))
    total = sum(r["wall_s"] for r in records if r["type"] == "trial")
    assert abs(sum(sum(parts.values()) for parts in seconds.values()) - total) < 1e-6 * total
    # Of three learning rates two lose, in runs that are finished.
    for parts in seconds.values():
        assert parts["search"] > parts["chosen trials"] > 0


def test_what_trials_share_is_charged_to_each_and_computed_once(make_probed):
    records = make_probed(methods=("dense",))
    found = spending.sharing(read(records))
    trials = [r for r in records if r["type"] == "trial"]
    shared = [r for r in records if r["type"] in ("extract", "head")]
    own = [r for r in trials if r["method"] == "dense"]
    assert found.charged == sum(sum(trial["ledger"].values()) for trial in trials)
    assert found.computed == _spent(own, *own[0]["ledger"]) + sum(r["flops"] for r in shared)
    # Of the images of the second and the third budget, which are the same.
    assert found.charged > found.computed
    assert (found.steps, found.wall_s) == (len(shared), 2.0 * len(shared))
    by_task = [spending.sharing(read(records), task) for task in ("digits", "glyphs", "textures")]
    assert sum(each.computed for each in by_task) == found.computed
    assert "Charged to trials as if each were alone" in spending.shared(read(records))


def test_nothing_is_shared_by_trainings(make_records):
    table = read(make_records())
    found = spending.sharing(table)
    assert found.charged == found.computed == sum(map(_total, table.trials))
    assert spending.shared(table) == ""
    assert spending.saturated(table) == {}


def _total(trial):
    return trial.ledger.total


def test_methods_without_rates_are_no_part_of_the_search_over_rates(make_probed):
    table = read(make_probed(methods=("dense",)))
    assert list(spending.learning_rates(table)) == ["dense"]
    assert spending.batch_sizes(table) == {}


def test_a_budget_beyond_all_images_changes_nothing(make_probed):
    table = read(make_probed(methods=("dense",)))
    assert spending.saturated(table) == {"probe": list(table.budgets)[1]}


def test_looks_are_steps_and_their_fits_are_computed(make_chosen):
    records = make_chosen(tasks=("digits",), seeds=(0,), methods=("dense",))
    found = spending.sharing(read(records))
    looks = [r for r in records if r["type"] == "look"]
    heads = [r for r in records if r["type"] == "head"]
    assert found.steps == len(looks) + len(heads)
    own = [r for r in records if r["type"] == "trial" and r["method"] == "dense"]
    assert found.computed == _spent(own, *own[0]["ledger"]) + sum(r["flops"] for r in looks + heads)


def test_what_auto_looked_at_is_search(make_chosen):
    records = make_chosen(seeds=(0,))
    ledger = spending.ledger(read(records))
    own = [r for r in records if r["type"] == "trial" and r["method"] == "auto"]
    assert ledger["auto"]["search"] == _spent(own, "search") > 0
    assert ledger["auto"]["extract"] == _spent(own, "extract")


def test_another_network_on_as_many_images_is_a_change(make_chosen):
    records = make_chosen(tasks=("digits",), methods=("dense",))
    trials = [r for r in records if r["type"] == "trial" and r["method"] == "auto"]
    budgets = list(read(records).budgets)
    assert spending.saturated(read(records)) == {"auto": budgets[0]}
    for trial in trials:
        if trial["budget"] == budgets[0]:
            trial["notes"]["chosen"] = "dense@32px+probe"
    assert spending.saturated(read(records)) == {"auto": budgets[1]}


ONE, TWO = (
    {"device": "cpu", "devices": 1, "processor": "EPYC 7B13", "cores": cores} for cores in (1, 2)
)


def on(lines, *kinds):
    """The records, their trials computed on the kinds of hardware in turn."""
    number = 0
    for line in lines:
        if line["type"] == "trial":
            number += 1
            line = {**line, "computed_on": kinds[number % len(kinds)]}
        yield line


def test_one_kind_is_no_news(make_records):
    table = read(on(make_records(), TWO))
    assert spending.hardware(table) == {Hardware(**TWO): len(table.trials)}
    assert spending.hardware_in_words(table) == f"{len(table.trials)} steps on EPYC 7B13, 2 cores"
    assert spending.hardware_warning(table) == ""


def test_records_of_before_are_no_kind(make_records):
    table = read(on(make_records(), TWO, None))
    assert list(spending.hardware(table)) == [Hardware(**TWO)]
    assert spending.hardware_warning(table) == ""


def test_workers_that_differ_are_told_of(make_records):
    lines = list(on(make_records(), TWO, ONE, TWO))
    found = spending.hardware_warning(read(lines))
    assert found.endswith("144 steps on EPYC 7B13, 2 cores; 72 steps on EPYC 7B13, 1 core.")
    assert found in report.summary(lines).replace("\n", " ")
    assert "Steps were computed on different hardware" not in report.summary(make_records())
