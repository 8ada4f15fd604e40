"""The page in a browser: charts, toggles, tables, keyboard, phone, dark, print; chromium only."""

import shutil

import pytest

from ctl_jax import report
from ctl_jax.report import gallery, statistics

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")

METHODS = ["dense", "filters@0.5", "filters@0.75", "scratch"]
CHARTS = "() => [...document.querySelectorAll('.plot')].map((plot) => plot.dataset.chart)"
# Names of the traces of every chart that is drawn now.
TRACES = """() => [...document.querySelectorAll('.plot')].filter((plot) => plot.data)
    .map((plot) => [plot.dataset.chart, plot.data.map((trace) => trace.name)])"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def _write(records, folder):
    """A report with two domains, a task that is missing, trials that diverged, and ranks."""
    records[0]["missing"] = [{"name": "cars", "title": "Cars", "reason": "no folder"}]
    records[0]["tasks"][0]["domain"] = "satellite"
    for record in records:
        if record["type"] == "trial" and record["task"] == "digits":
            record["domain"] = "satellite"
            if record["learning_rate"] == 0.3:
                record.update(diverged=True, dev=None, dev_test=None)
    with pytest.MonkeyPatch.context() as patch:
        # The page has none of them, and they take their time.
        patch.setattr(gallery, "draw_all", lambda results: gallery.Pictures({}, {}))
        # Else ranks would need ten tasks.
        patch.setattr(statistics, "TESTED_TASKS", 2)
        report.write(records, folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def report_file(make_records, learnt, tmp_path_factory):
    records = learnt(make_records(), "filters@0.5")
    return _write(records, tmp_path_factory.mktemp("report"))


@pytest.fixture
def open_page(browser, report_file):
    """Opens the page, offline; whatever the browser complains of fails the test."""
    contexts, complaints = [], []

    def opened(file=report_file, width=1200, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_offline(True)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on(
            "request",
            lambda request: request.url.startswith("file:") or complaints.append(request.url),
        )
        tab.goto(file.as_uri())
        tab.locator(".plot").first.scroll_into_view_if_needed()
        tab.wait_for_selector(".plot .main-svg")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _draw_all(tab):
    """Scrolls past every chart, since one is drawn when it comes near."""
    for plot in tab.query_selector_all(".plot:visible"):
        plot.scroll_into_view_if_needed()
        tab.wait_for_function("(plot) => !stale.has(plot)", arg=plot)


def _column(tab, table, number):
    return tab.locator(f"{table} tbody tr > *:nth-child({number})").all_inner_texts()


def test_toggles_act_on_every_chart(open_page):
    tab = open_page()
    _draw_all(tab)
    charts = [chart for chart, _ in tab.evaluate(TRACES)]
    # Two domains, which have a chart each.
    stream = ["compute", "along", "transfer"]
    expected = ["mean", "mean", "ranks", "group", "group", *stream, *["task"] * 3, "ledger"]
    assert charts == expected
    tab.locator("input[name=method][value='3']").uncheck()
    _draw_all(tab)
    for chart, names in tab.evaluate(TRACES):
        if chart not in ("ledger", "transfer"):
            assert set(names) <= {*METHODS[:3], "front"}
            assert len(names) >= 2
    rows = tab.evaluate("() => document.querySelector('[data-chart=ledger]').data[0].y")
    assert rows == ["pretraining, shared by the methods", *METHODS[2::-1]]
    tab.click("#none")
    _draw_all(tab)
    assert all(not names for chart, names in tab.evaluate(TRACES) if chart != "ledger")
    assert tab.get_by_text("no method that compares features is chosen").count() == 1
    tab.click("#all")
    _draw_all(tab)
    shown = [
        (chart, names)
        for chart, names in tab.evaluate(TRACES)
        if chart not in ("ledger", "transfer")
    ]
    assert shown[:2] == [("mean", METHODS), ("mean", METHODS[1:])]
    assert shown[5] == ("compute", ["front", *METHODS])
    assert all(names == METHODS for chart, names in shown[2:] if chart != "compute")


def _bars(layout):
    """What is joined at the first budget."""
    return [(bar["x0"], bar["x1"]) for bar in layout["shapes"] if bar["y0"] < 0.5]


def test_ranks_stay_and_the_front_is_of_what_is_shown(open_page):
    tab = open_page()
    _draw_all(tab)
    drawn = """(kind) => { const {data, layout} = document.querySelector(`[data-chart=${kind}]`);
        return [Object.fromEntries(data.map((t) => [t.name, [t.x, t.y]])), layout]; }"""
    before, layout = tab.evaluate(drawn, "ranks")
    every, _ = tab.evaluate(drawn, "compute")
    assert max(x for xs, _ in before.values() for x in xs) == 4
    # Three tasks tell ranks apart that differ by 2.71: the first and the last of four methods.
    assert _bars(layout) == [(1, 3), (2, 4)]
    tab.locator("input[name=method][value='2']").uncheck()
    _draw_all(tab)
    after, layout = tab.evaluate(drawn, "ranks")
    assert after == {name: points for name, points in before.items() if name != METHODS[2]}
    assert _bars(layout) == [(2, 4)]
    fewer, _ = tab.evaluate(drawn, "compute")
    for found in (every, fewer):
        points = [p for name, xy in found.items() if name != "front" for p in zip(*xy, strict=True)]
        best = [
            (x, y)
            for x, y in points
            if not any(a <= x and b >= y for a, b in points if (a, b) != (x, y))
        ]
        assert list(zip(*found["front"], strict=True)) == sorted(best)
    assert fewer["front"] != every["front"]
    score = fewer["dense"][1]
    tab.select_option("[name=view]", "error")
    _draw_all(tab)
    assert tab.evaluate(drawn, "compute")[0]["dense"][1] == pytest.approx([1 - y for y in score])
    along, layout = tab.evaluate(drawn, "along")
    assert [len(xs) for xs, _ in along.values()] == [3, 3, 3]
    assert layout["yaxis"]["title"]["text"].startswith("mean error")


def test_views_axes_and_domains(open_page):
    tab = open_page()
    first = (
        "() => { const {data, layout} = document.querySelector('.plot'); return [data, layout]; }"
    )
    data, layout = tab.evaluate(first)
    score = data[0]["y"]
    assert layout["xaxis"]["type"] == "log"
    tab.select_option("[name=view]", "error")
    tab.select_option("[name=axis]", "linear")
    data, layout = tab.evaluate(first)
    assert data[0]["y"] == pytest.approx([1 - y for y in score])
    assert layout["xaxis"]["type"] == "linear"
    tab.select_option("[name=view]", "relative")
    data, _ = tab.evaluate(first)
    assert [trace["name"] for trace in data] == METHODS[1:]
    tab.select_option("[name=view]", "score")
    tab.select_option("[name=group]", label="domain satellite (1)")
    data, _ = tab.evaluate(first)
    assert data[0]["y"] != score
    assert tab.locator("section.task[data-index]:visible h3").all_text_contents() == [
        "Task of digits (satellite, single_label, 2022)"
    ]
    assert set(_column(tab, "#results", 1)) == {"Task of digits"}


def test_the_ledger_in_flops_and_in_seconds(open_page):
    tab = open_page()
    _draw_all(tab)
    ledger = "() => document.querySelector('[data-chart=ledger]').data.map((t) => [t.name, t.x])"
    flops = dict(tab.evaluate(ledger))
    assert set(flops) == {"train", "validate", "search", "prune", "pretrain"}
    tab.select_option("#unit", "seconds")
    assert set(dict(tab.evaluate(ledger))) == {"chosen trials", "search"}


def test_tables_sort_and_filter_by_keyboard(open_page):
    tab = open_page()
    head = tab.locator("#results thead th", has_text="Score")
    head.locator("button").focus()
    tab.keyboard.press("Enter")
    scores = _column(tab, "#results", 6)
    assert scores == sorted(scores)
    assert head.get_attribute("aria-sort") == "ascending"
    tab.keyboard.press("Space")
    assert _column(tab, "#results", 6) == scores[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    assert (
        tab.locator("#results [aria-sort=ascending], #results [aria-sort=descending]").count() == 1
    )
    tab.locator(".filter input[aria-label*='Results']").fill("scratch glyphs")
    assert set(_column(tab, "#results", 4)) == {"scratch"}
    assert "3 of 3 rows" in tab.locator(".filter output").all_inner_texts()
    # By size, not by letters: 1.6 TFLOP is the largest.
    tab.locator("#results thead th", has_text="Budget").locator("button").click()
    assert _column(tab, "#results", 5) == ["100 GFLOP", "400 GFLOP", "1.6 TFLOP"]
    # The sum stays below.
    ledger = tab.locator("table", has=tab.get_by_text("Wall time of trials"))
    ledger.locator("button", has_text="Sum").click()
    assert ledger.locator("tr").last.inner_text().startswith("total")


def test_the_arrow_keys_say_the_points_of_a_chart(open_page):
    tab = open_page()
    tab.locator(".plot").first.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#said").inner_text().startswith("dense , 100 GFLOP")
    tab.keyboard.press("ArrowDown")
    assert tab.locator("#said").inner_text().startswith("filters@0.5 , 100 GFLOP")
    assert tab.locator(".plot .hoverlayer .hovertext").first.is_visible()
    # Of the front there is nothing to say; of a matrix each cell.
    for chart, keys, words in (
        ("compute", ["ArrowRight"], "dense , 100 GFLOP"),
        (
            "transfer",
            ["ArrowDown", "ArrowDown", *["ArrowRight"] * 3],
            "textures from glyphs 0.400, st",
        ),
    ):
        tab.locator(f"[data-chart={chart}]").scroll_into_view_if_needed()
        tab.wait_for_selector(f"[data-chart={chart}] .main-svg")
        tab.locator(f"[data-chart={chart}]").focus()
        for key in keys:
            tab.keyboard.press(key)
        assert " ".join(tab.locator("#said").inner_text().split()).startswith(words)


def test_axe_finds_nothing_serious_in_light_and_dark(
    open_page, make_chosen, evaluated, learnt, tmp_path
):
    # Of every kind of thing one is enough: axe looks at each.
    axes = {"methods": METHODS[:2], "budgets": (10**11, 4 * 10**11), "seeds": (0,)}
    records = learnt(evaluated(make_chosen(tasks=("digits", "glyphs"), **axes)), METHODS[1])
    tab = open_page(_write(records, tmp_path), color_scheme="dark")
    kinds = {"mean", "group", "task", "training", "choice", "ledger"}
    assert {*tab.evaluate(CHARTS)} == {*kinds, "ranks", "compute", "along", "transfer"}
    tab.evaluate(
        "() => document.querySelectorAll('details').forEach((each) => { each.open = true; })"
    )
    back = "() => getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(back)
    for only in ({}, {"runOnly": ["color-contrast"]}):
        _draw_all(tab)
        # All that it finds right would take most of the time.
        options = {"resultTypes": ["violations"], **only}
        found = axe.Axe().run(tab, options=options).response["violations"]
        assert [
            (each["id"], [node["html"] for node in each["nodes"]][:3])
            for each in found
            if each["impact"] in ("serious", "critical")
        ] == []
        tab.click("#theme")
        assert tab.evaluate(back) != dark or only


def test_a_phone_scrolls_in_one_direction(open_page):
    tab = open_page(width=390)
    _draw_all(tab)
    width = tab.evaluate("() => document.documentElement.scrollWidth")
    assert width == 390
    # Wide tables scroll in themselves, also by keyboard.
    assert tab.locator(".scroll[tabindex='0']").count() > 0


def test_print_has_every_chart_in_light(open_page):
    tab = open_page(color_scheme="dark")
    tab.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    state = """() => [...document.querySelectorAll('.plot')]
        .map((plot) => [plot.layout?.width, plot.layout?.font.color])"""
    assert {tuple(each) for each in tab.evaluate(state)} == {(325, "#000"), (660, "#000")}
    # A page of A4 between its margins: nothing is cut off at its right.
    tab.emulate_media(media="print", color_scheme="dark")
    tab.set_viewport_size({"width": 688, "height": 900})
    assert tab.evaluate("() => document.documentElement.scrollWidth") == 688
    assert tab.evaluate("() => getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    tab.emulate_media(media="screen", color_scheme="dark")
    tab.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(state)[0] != [325, "#000"]
