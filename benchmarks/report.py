"""The report of a large stream: bytes of its page, seconds to make it and until it is painted.

    python benchmarks/report.py --workdir=/tmp/report

By default as large as the FULL stream of Nevis'22 may become: 106 tasks, 12 methods, 6 budgets, 3
seeds. The paint is timed where there is chromium and playwright.
"""

import argparse
import itertools
import json
import pathlib
import random
import shutil
import time
from typing import Any

from ctl_jax import records, report
from ctl_jax.compute import Ledger
from ctl_jax.compute.budgets import Budget

DOMAINS = ("objects", "ocr", "satellite", "textures", "medical", "faces", "scenes")


def synthetic(tasks: int, methods: int, budgets: int, seeds: int, rates: int) -> list[Any]:
    """Lines of records.jsonl of a finished run: methods that rise with the budget, with noise."""
    draw = random.Random(0)
    ratios = {"dense": 1.0} | {
        f"filters@{i / methods:.2f}": 1 - i / methods for i in range(1, methods)
    }
    amounts = [10 ** (11 + 2 * i / max(budgets - 1, 1)) for i in range(budgets)]
    budget_names = [str(Budget(int(amount))) for amount in amounts]
    made: list[records.Record] = [
        records.RunRecord(
            variant="FULL",
            tasks=tuple(_task(i) for i in range(tasks)),
            missing=(),
            methods=tuple(ratios),
            budgets=tuple(budget_names),
            learning_rates=tuple(0.01 * 3**i for i in range(rates)),
            seeds=tuple(range(seeds)),
            config={"weights": "synthetic"},
            versions={"jax": "0"},
            device="cpu",
            model="resnet50",
        )
    ]
    run = made[0]
    assert isinstance(run, records.RunRecord)
    made += [_method(name, ratio) for name, ratio in ratios.items()]
    hardness = [draw.uniform(0.2, 0.9) for _ in range(tasks)]
    axes = (enumerate(run.tasks), ratios.items(), enumerate(amounts), run.seeds, run.learning_rates)
    for (i, task), (method, ratio), (j, amount), seed, rate in itertools.product(*axes):
        reach = 1 - 2.718 ** -(amount / 4e11 / ratio)
        dev = min(max(hardness[i] * reach * (0.8 + 0.2 * ratio) + draw.gauss(0, 0.02), 0.0), 1.0)
        spent = int(0.98 * amount)
        made.append(
            records.TrialRecord(
                id=f"{len(made):012x}",
                variant="FULL",
                task=task.name,
                title=task.title,
                dataset=task.dataset,
                domain=task.domain,
                year=task.year,
                method=method,
                **_cut(method),
                budget=budget_names[j],
                budget_flops=int(amount),
                learning_rate=rate,
                seed=seed,
                steps=100,
                reported_step=100,
                flops_per_step=spent // 100,
                spent_flops=spent,
                forward_flops=int(5e8 * ratio),
                params=int(8e6 * ratio),
                metric="accuracy",
                dev=dev,
                dev_test=min(max(dev + draw.gauss(0, 0.01), 0.0), 1.0),
                dev_top5=None,
                dev_test_top5=None,
                diverged=False,
                ledger=Ledger(train=spent, validate=10**9, prune=1000 if ratio < 1 else 0),
                wall_s=amount / 1e11,
            )
        )
    return json.loads(json.dumps([records.to_json(record) for record in made]))


def _cut(method: str) -> dict[str, Any]:
    scope, _, ratio = method.partition("@")
    cut = {"scope": scope, "ratio": float(ratio), "criterion": "l2"} if ratio else {}
    return {"scope": None, "ratio": None, "criterion": None} | cut


def _task(index: int) -> records.RunTask:
    return records.RunTask(
        name=f"task{index}",
        title=f"Task {index}",
        dataset=f"set{index}",
        domain=DOMAINS[index % len(DOMAINS)],
        year=2000 + index % 22,
        kind="single_label",
        num_classes=10,
        train_examples=5000,
        dev_examples=500,
        dev_test_examples=1000,
    )


def _method(name: str, ratio: float) -> records.MethodRecord:
    return records.MethodRecord(
        method=name,
        **_cut(name),
        params=int(8e6 * ratio),
        forward_flops=int(5e8 * ratio),
        flops_per_step=int(4e10 * ratio),
        groups=50,
        cut_groups=32 if ratio < 1 else 0,
        notes=(),
    )


def painted(page: pathlib.Path) -> dict[str, float]:
    """Seconds until a browser paints first, and until the charts in sight are drawn."""
    from playwright import sync_api

    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page()
        tab.goto(page.as_uri())
        tab.locator(".plot").first.scroll_into_view_if_needed()
        tab.wait_for_selector(".plot .main-svg")
        found = tab.evaluate(
            "() => [performance.getEntriesByName('first-contentful-paint')[0].startTime,"
            " performance.now()]"
        )
        browser.close()
    return {"first paint": found[0] / 1000, "first charts": found[1] / 1000}


def main() -> None:
    """Prints the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    sizes = {"tasks": 106, "methods": 12, "budgets": 6, "seeds": 3, "rates": 1}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    args = vars(parser.parse_args())
    workdir = args.pop("workdir")
    lines = synthetic(**args)
    start, cpu = time.perf_counter(), time.process_time()
    report.write(lines, workdir)
    taken, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"made in {taken:.1f} s ({cpu:.1f} s of CPU) of {len(lines):,} records")
    page = workdir / "report.html"
    print(f"report.html: {page.stat().st_size / 1e6:.2f} MB")
    if shutil.which("chromium"):
        for what, seconds in painted(page).items():
            print(f"{what}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
