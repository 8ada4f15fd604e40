"""The page stands alone, is well formed, escapes what it shows, and says what is wrong."""

import html.parser
import re

import pytest

from ctl_jax import report
from ctl_jax.errors import UserError
from ctl_jax.records import PaceRecord, to_json
from ctl_jax.report import figures
from ctl_jax.report._table import read
from ctl_jax.report.aggregate import means, values

GROUPINGS = ("metric", "domain", "year")
# Data, the charting library, and the page's own two.
SCRIPTS = 4
BEST = ("td", "best")
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(html.parser.HTMLParser):
    """Reads a page strictly: every element closed in its order, ids unique."""

    def __init__(self, source):
        super().__init__()
        self.stack, self.tags, self.ids, self.links, self.text = [], [], [], [], []
        self.charts = []
        # What is in bold: words of the text, and numbers of tables.
        self.bold, self.best = [], []
        self.feed(source)
        self.close()
        assert self.stack == []
        assert len(self.ids) == len(set(self.ids))
        self.text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value)
            if name == "data-chart":
                self.charts.append(value)
            if name in ("src", "href"):
                self.links.append(value)
        if tag not in VOID:
            self.stack.append("td.best" if (tag, dict(attrs).get("class")) == BEST else tag)

    def handle_endtag(self, tag):
        assert self.stack.pop().partition(".")[0] == tag

    def handle_data(self, data):
        if not self.stack or self.stack[-1] not in ("style", "script"):
            self.text.append(data)
        if self.stack[-1:] == ["b"]:
            self.bold.append(data)
        if self.stack[-1:] == ["td.best"]:
            self.best.append(data.strip())


@pytest.fixture
def page(tmp_path, monkeypatch):
    # What figures look like is for the tests of figures, and takes most of a report's time.
    monkeypatch.setattr(figures, "png", lambda drawing: b"a PNG")
    monkeypatch.setattr(figures, "pdf", lambda drawing: b"a PDF")

    def make(records):
        report.write(records, tmp_path)
        return Page((tmp_path / "report.html").read_text())

    return make


def test_a_finished_run(make_records, page):
    records = make_records()
    got = page(records)
    # Nothing comes from outside: pictures are in the page, links lead into it.
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in got.links)
    assert {link[1:] for link in got.links if link.startswith("#")} <= set(got.ids)
    assert "img" not in got.tags
    assert got.charts == ["mean", "mean", "compute", "along", *["task"] * 3, "ledger"]
    assert got.tags.count("script") == SCRIPTS
    assert not {"link", "iframe", "object"} & set(got.tags)
    assert not {"missing", "unfinished", "diverged"} & set(got.ids)
    run = records[0]
    found = means(
        values(report.results(records)),
        [task["name"] for task in run["tasks"]],
        run["methods"],
        run["budgets"],
    )
    for mean in found.values():
        for point in mean.points.values():
            assert f"{point.mean:.3f}" in got.text
        for gain in mean.relative.values():
            assert f"{100 * gain.mean:+.1f}%".replace("-", "\N{MINUS SIGN}") in got.text
            assert gain.mean >= 0 or "is below dense at" in got.text
    for words in (
        "resnet18",
        "pretrained in this run on source",
        "100 GFLOP",
        "jax 0.10.2",
        "0.03",
    ):
        assert words in got.text
    assert "group stem: in the residual stream, kept" in got.text
    assert "8 of 12" in got.text
    assert "chosen" in got.text


def test_the_best_method_is_in_the_headline(make_records, page):
    records = make_records()
    for record in records:
        if record["type"] == "trial":
            record["dev"] = record["dev_test"] = 0.75 if record["method"] == "filters@0.5" else 0.5
    got = page(records)
    said = (
        "At the smallest budget (100 GFLOP) filters@0.5 is best on dev, with 0.750 (0.750 to "
        "0.750) on dev_test: +0.250 (+0.250 to +0.250) or +50.0% (+50.0% to +50.0%) against dense."
    )
    assert said in got.text
    assert said in got.bold
    # A share of the compute that all resamples agree on has no interval.
    assert "it has the accuracy of dense there for at most 0.06 of the compute" in got.text


def test_dev_chooses_the_headline(make_records, page):
    records = make_records()
    for record in records:
        if record["type"] == "trial":
            record["dev"] = 0.75 if record["method"] == "filters@0.5" else 0.5
            record["dev_test"] = 0.75 if record["method"] == "scratch" else 0.5
    assert "At the smallest budget (100 GFLOP) filters@0.5 is best on dev, with 0.500" in (
        page(records).text
    )


def test_a_headline_is_bold_only_where_its_interval_excludes_zero(make_records, page):
    """Better on the mean, and not on every task: nothing that may be shouted."""
    records = make_records()
    gains = {"digits": 0.3, "glyphs": -0.1, "textures": 0.05}
    for record in records:
        if record["type"] == "trial":
            gain = gains[record["task"]] if record["method"] == "filters@0.5" else 0
            gain -= 0.2 if record["method"] in ("filters@0.75", "scratch") else 0
            record["dev"] = record["dev_test"] = 0.5 + gain
    got = page(records)
    said = "At the smallest budget (100 GFLOP) filters@0.5 is best on dev"
    assert said in got.text
    assert not [words for words in got.bold if words.startswith("At the")]
    found = re.search(r"\+0\.083 \((\S)\S+ to (\S)\S+\) or ", got.text)
    assert found
    assert found.groups() == ("\N{MINUS SIGN}", "+")
    # Nor is a number of a table: dense cannot be told from the best.
    assert "+0.083" not in got.best


def test_what_is_below_dense_is_marked(make_records, page):
    records = make_records()
    levels = {"dense": 0.5, "filters@0.5": 0.75, "filters@0.75": 0.5, "scratch": 0.25}
    for record in records:
        if record["type"] == "trial":
            record["dev_test"] = levels[record["method"]]
    text = page(records).text
    # Scratch alone, at three budgets: in the mean, in the improvement, in the difference to dense,
    # in each of three tasks, in the mean weighted by examples; and as errors, in the mean and
    # weighted.
    mark = "\N{BLACK DOWN-POINTING TRIANGLE}"
    assert text.count(f" 0.250 {mark}") == 3 * 5
    assert text.count(f"\N{MINUS SIGN}0.250 {mark}") == 3
    assert text.count(f"0.750 {mark}") == 3 * 2
    assert text.count(f"\N{MINUS SIGN}50.0% {mark}") == 3
    # Top-5 accuracy has noise of its own.
    rest = text[: text.index("Top-5")] + text[text.index("What was run") :]
    assert len(re.findall(rf"\d%? {mark}", rest)) == 3 * 9
    assert (
        "scratch is below dense at 3 of 3 budgets, at worst \N{MINUS SIGN}50.0% (100 GFLOP)" in text
    )
    assert "filters@0.5 is below" not in text


def test_everything_shown_is_escaped(make_records, page):
    records = make_records()
    evil = "<script>alert('x')</script> & \"<b>\""
    run = records[0]
    run["tasks"][0]["title"] = run["tasks"][0]["dataset"] = evil
    run["model"] = run["device"] = run["config"]["weights"] = evil
    run["missing"] = [{"name": "m", "title": evil, "reason": evil}]
    for record in records:
        if record["type"] == "method":
            record["notes"] = [evil]
    got = page(records)
    assert got.tags.count("script") == SCRIPTS
    assert "b" in got.tags  # of the page itself
    assert got.text.count("<script>alert('x')</script>") >= 8


def test_missing_tasks_are_named_before_any_number(make_records, page):
    records = make_records()
    reason = "no folder stanford_cars under /data"
    records[0]["missing"] = [{"name": "cars", "title": "Stanford Cars", "reason": reason}]
    text = page(records).text
    assert "1 of 4 tasks are missing" in text
    assert text.index("Stanford Cars") < text.index(reason) < text.index("Result")


def test_examples_that_were_left_out_are_counted(make_records, page):
    records = make_records()
    assert "corrupt" not in page(records).ids
    records[0]["tasks"][1]["corrupt_examples"] = 3
    got = page(records)
    assert "corrupt" in got.ids
    assert "left out , as the config allows: Task of glyphs : 3" in got.text
    assert "cannot be read: glyphs 3" in report.summary(records)


def test_what_was_found_in_the_data_is_listed(make_records, page):
    records = make_records()
    assert "noted" not in page(records).ids
    records[0]["tasks"][1]["notes"] = ["the same files are in two splits: 1 of <2>"]
    records[0]["tasks"][1]["passed_over"] = {"thumbnails": 2, "hidden": 1}
    got = page(records)
    assert "noted" in got.ids
    passed_over = "files passed over: hidden 1, thumbnails 2"
    for line in ("the same files are in two splits: 1 of <2>", passed_over):
        assert f"Task of glyphs : {line}" in got.text
        assert f"Task of glyphs: {line}" in report.summary(records)
    records[0]["tasks"][1]["notes"] = 3
    with pytest.raises(UserError, match=r"tasks\[1\]: notes is 3, expected texts"):
        report.summary(records)


def test_unfinished_trials_are_counted(make_records, pending, page):
    records = make_records()
    got = page([*records[:-1], pending(records[-1])])
    assert "1 of 216 trials are not done yet" in got.text
    assert "1 of 72 rows" in got.text
    assert "1 of 2 seeds" in got.text


def test_diverged_trials_are_counted_and_listed(make_records, page):
    records = make_records()
    for record in records:
        if record["type"] == "trial" and (record["task"], record["method"]) == (
            "digits",
            "scratch",
        ):
            record.update(diverged=True, dev=None, dev_test=None)
    got = page(records)
    assert "18 of 216 trials diverged" in got.text
    assert "6 of 72 rows" in got.text
    assert "2 of 3" in got.text  # tasks in the mean
    for record in records:
        if record["type"] == "trial" and record["diverged"]:
            assert record["id"] in got.text


def test_without_dense_the_comparison_is_left_out_with_a_sentence(make_records, page):
    got = page(make_records(methods=("filters@0.5", "scratch")))
    assert "no method dense" in got.text
    assert got.charts == ["mean", "compute", "along", *["task"] * 3, "ledger"]
    assert "relative to dense" not in got.text.split("What was run")[0]


def test_one_seed_is_said_to_have_no_spread(make_records, page):
    got = page(make_records(seeds=(0,)))
    assert "One seed: how much another seed would change is not known." in got.text
    assert "\N{PLUS-MINUS SIGN}" not in got.text


def test_nothing_done_yet(make_records, pending, page):
    run, *lines = make_records()
    got = page([run, *(pending(line) for line in lines if line["type"] == "trial")])
    assert "216 of 216 trials are not done yet" in got.text
    assert "There is no mean over tasks yet" in got.text
    assert got.text.count("No result yet.") == 3
    assert "not reached yet" in got.text
    assert not {"img", "script"} & set(got.tags)


def test_a_run_with_nothing_planned(make_records, page):
    run = make_records()[0]
    run.update(
        tasks=[], methods=[], budgets=[], learning_rates=[], seeds=[], config={}, versions={}
    )
    assert "not recorded" in page([run]).text


def test_no_records(page):
    assert "nothing to report" in page([]).text


def test_tasks_without_known_classes_have_no_chance(make_records, page):
    records = make_records()
    assert re.search(r"Chance", page(records).text)
    for task in records[0]["tasks"]:
        for key in ("num_classes", "train_examples", "year", "kind"):
            del task[key]
    assert "0.091" not in page(records).text


def test_groups_of_tasks_are_on_the_page(make_records, page):
    records = make_records()
    digits, glyphs, textures = records[0]["tasks"]
    digits.update(domain="ocr", year=2004)
    glyphs.update(domain="ocr", year=2010)
    textures.update(domain="texture", year=2010, kind="multi_label")
    for record in records:
        if record["type"] == "trial" and record["task"] == "textures":
            record.update(metric="mAP", dev_test_top5=None, dev_test=0.125)
    records[0]["missing"] = [{"name": "cars", "title": "Cars", "reason": "no folder"}]
    text = page(records).text
    parts = {by: text.index(f"By {by} Mean score over the tasks of each {by}") for by in GROUPINGS}
    assert list(parts) == sorted(parts, key=parts.__getitem__)
    by_metric = text[parts["metric"] : parts["domain"]]
    by_domain, by_year = text[parts["domain"] : parts["year"]], text[parts["year"] :]
    assert "accuracy (2 tasks)" in by_metric
    assert by_metric.split("mAP (1 task)")[1].count("0.125") == 3 * 4
    assert by_domain.split("texture (1 task)")[1].count("0.125") == 3 * 4
    ocr = by_domain.split("ocr (2 tasks)")[1].split("texture (1 task)")[0]
    # An interval of two tasks, and none of one.
    assert len(re.findall(r"0\.\d{3} to 0\.\d{3}", ocr)) == 3 * 4
    assert " to " not in by_domain.split("texture (1 task)")[1]
    assert by_year.index("2004 (1 task)") < by_year.index("2010 (2 tasks)")
    assert "Top-5 accuracy, macro mean (2 tasks)" in text
    assert "mAP (dev_test)" in text
    # A guess's mAP is not known.
    chances = text[text.index("Chance Train") :]
    assert re.search(r"Task of textures ctl_textures 12 \N{EN DASH} 1,200", chances)


def test_the_stream_says_what_was_done_to_it(make_records, page):
    records = make_records()
    records[0]["config"]["stream"] = {
        "variant": "embedded",
        "stop_year": 2020,
        "ablation": "random",
        "num_tasks": 3,
        "shuffle": "",
        "seed": 7,
    }
    expected = "embedded, ablation random, num_tasks 3, stop_year 2020, seed 7, 3 of 3 tasks"
    assert expected in page(records).text


def test_the_ledger_is_on_the_page(make_records, page):
    records = make_records()
    total = sum(r["flops"] for r in records if r["type"] == "pretrain")
    total += sum(sum(r["ledger"].values()) for r in records if r["type"] == "trial")
    text = page(records).text
    ledger = text[text.index("Ledger") : text.index("How to read this", text.index("Ledger"))]
    assert "pretraining, shared" in ledger
    assert f"{total / 1e12:.3g} T" in ledger.split("total")[1]
    assert "measuring" not in ledger
    assert read(records).pretrain is not None


def test_budgets_in_epochs(make_records, page):
    """The same run, whose budgets are epochs: of each task as many FLOPs as its epoch costs."""
    records = make_records()
    epochs = {text: f"{4**i} epochs" for i, text in enumerate(records[0]["budgets"], start=1)}
    records[0]["budgets"] = list(epochs.values())
    for record in records:
        if record["type"] == "trial":
            record["budget"] = epochs[record["budget"]]
            record["budget_flops"] *= 2 if record["task"] == "digits" else 1
    got = page(records)
    assert "At the smallest budget (4 epochs)" in got.text
    assert "Budgets in epochs. What an epoch of dense training" in got.text
    assert got.text.count("Method 4 epochs 16 epochs 64 epochs") == 3 + 3 + 3
    # Steps in the mean over tasks of an epoch's FLOPs: 4/3 of what they were.
    assert f"{int(10**11 * 4 / 3 // 4e9)} \N{EN DASH}" in got.text


def test_measuring_the_device_is_on_the_ledger(make_records, page):
    records = make_records()
    fields = {"device": "cpu", "flops_per_second": 1e12, "flops": 7 * 10**15, "wall_s": 120.0}
    paces = [to_json(PaceRecord(id=id, **fields)) for id in ("a", "b")]
    again = paces[0] | {"wall_s": 120.0, "flops_per_second": 2e12}
    text = page([*records, *paces, again]).text
    line = text[text.index("measuring this device") : text.index("How to read this", 4000)]
    assert "0 0 14 P 0 0 14 P 4.0 min total" in line


def test_probes_beside_finetuned_networks(make_probed, page):
    text = page(make_probed()).text
    assert re.search(r"The best method at each budget .* 100 GFLOP probe 0\.8\d\d \(0\.", text)
    assert re.search(r"Training steps against heads .* 400 GFLOP \S+ probe -?0\.\d\d\d \(", text)
    assert "probe is fitted on all images from 400 GFLOP on" in text
    assert "Charged to trials as if each were alone" in text
    # It makes no step, and its images cost what no other method has.
    row = re.search(r"Groups cut .*? (probe .*?) Ratio: FLOPs", text)[1]
    assert row.startswith("probe 700 k 40 MFLOP 1.00 \N{EN DASH} \N{EN DASH} \N{EN DASH}")
    ledger = text[text.index("Every FLOP that was spent") :]
    head = ("train", "extract", "validate", "search", "prune", "pretrain")
    assert f"Method {' '.join(head)} Sum" in ledger


def test_how_auto_chose_is_shown(make_chosen, page, tmp_path):
    got = page(make_chosen())
    assert "auto" in got.ids
    for words in (
        "How auto chose",
        "what counts is the measured score",
        "Of the 2 networks that it could afford it expected most of dense@48px (0.700)",
        "Networks that auto could afford (2)",
        "Network Head Images FLOPs Expected accuracy (80% interval) Looked at Chosen",
        "and what auto looked at or fitted and did not take.",
        "What auto looks at and does not take is of its budget, too",
    ):
        assert words in got.text
    assert re.search(
        r"dense@48px kernel 400 \d+ GFLOP 0\.700 \(0\.58 to 0\.80\) yes yes dense kernel", got.text
    )
    # A figure a task beside those that there are without it.
    assert len(list(tmp_path.glob("figures/auto_*.png"))) == 3
    assert got.charts.count("choice") == 3


def test_a_head_of_another_solver_than_expected_is_named(make_chosen, page):
    records = make_chosen(tasks=("digits",), budgets=(10**11,), seeds=(0,))
    (trial,) = (r for r in records if r["type"] == "trial" and r["method"] == "auto")
    trial.update(solver="ridge")
    trial["notes"]["chosen"] = "dense@48px+probe"
    assert "(0.58 to 0.80) yes ridge dense kernel" in page(records).text


def test_without_auto_nothing_is_said_of_it(make_records, page):
    got = page(make_records())
    assert "auto" not in got.ids
    assert "auto looked at" not in got.text
