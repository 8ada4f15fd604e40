"""Synthetic records of a run: realistic numbers from a formula, the same every time."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ctl_jax import records
from ctl_jax.compute import Ledger
from ctl_jax.compute.budgets import Budget

RATIOS = {"dense": 1.0, "filters@0.5": 0.44, "filters@0.75": 0.25, "scratch": 1.0}
TASKS = ("digits", "glyphs", "textures")


def _unit(*key: object) -> float:
    """Returns a number in [0, 1) that the key decides."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _cut(method: str) -> dict[str, Any]:
    pruned = "@" in method
    return {
        "scope": "filters" if pruned else None,
        "ratio": float(method.split("@")[1]) if pruned else None,
        "criterion": "l2" if pruned else None,
    }


def _trial(task: str, method: str, budget: int, seed: int, rate: float) -> records.TrialRecord:
    step = int(4e9 * RATIOS[method])
    steps = budget // step
    reach = 1 - 2.718 ** -(steps / (90 if method == "scratch" else 40))
    best = 0.15 + (0.8 - 0.25 * (1 - RATIOS[method])) * reach
    noise = 0.04 * (_unit(task, method, budget, rate, seed) - 0.5)
    dev = min(max(best - 0.1 * abs(rate - 0.1) + noise, 0.0), 1.0)
    key = f"{task}-{method}-{budget}-{rate}-{seed}"
    return records.TrialRecord(
        id=hashlib.sha256(key.encode()).hexdigest()[:12],
        variant="embedded",
        task=task,
        title=f"Task of {task}",
        dataset=f"ctl_{task}",
        domain="ocr",
        year=2022,
        method=method,
        **_cut(method),
        budget=str(Budget(budget)),
        budget_flops=budget,
        learning_rate=rate,
        seed=seed,
        steps=steps,
        reported_step=steps,
        flops_per_step=step,
        spent_flops=steps * step,
        forward_flops=int(4e7 * RATIOS[method]),
        params=int(7e5 * RATIOS[method]),
        metric="accuracy",
        dev=round(dev, 4),
        dev_test=round(dev - 0.01 * _unit(key), 4),
        dev_top5=round((1 + dev) / 2, 4),
        dev_test_top5=round((1 + dev) / 2, 4),
        diverged=False,
        ledger=Ledger(
            train=steps * step,
            validate=int(1e9 * RATIOS[method]),
            prune=1000 if "@" in method else 0,
        ),
        wall_s=1.5 + steps / 100,
    )


def _task(name: str, index: int) -> records.RunTask:
    return records.RunTask(
        name=name,
        title=f"Task of {name}",
        dataset=f"ctl_{name}",
        domain="ocr",
        year=2022,
        kind="single_label",
        num_classes=10 + index,
        train_examples=1200,
        dev_examples=300,
        dev_test_examples=500,
    )


def _method(method: str) -> records.MethodRecord:
    pruned = "@" in method
    return records.MethodRecord(
        method=method,
        **_cut(method),
        params=int(7e5 * RATIOS[method]),
        forward_flops=int(4e7 * RATIOS[method]),
        flops_per_step=int(4e9 * RATIOS[method]),
        groups=12,
        cut_groups=8 if pruned else 0,
        notes=("group stem: in the residual stream, kept",) if pruned else (),
    )


def _records(
    tasks: Sequence[str] = TASKS,
    methods: Sequence[str] = tuple(RATIOS),
    budgets: Sequence[int] = (10**11, 4 * 10**11, 16 * 10**11),
    rates: Sequence[float] = (0.03, 0.1, 0.3),
    seeds: Sequence[int] = (0, 1),
) -> list[dict[str, Any]]:
    run = records.RunRecord(
        variant="embedded",
        tasks=tuple(_task(name, index) for index, name in enumerate(tasks)),
        missing=(),
        methods=tuple(methods),
        budgets=tuple(str(Budget(budget)) for budget in budgets),
        learning_rates=tuple(rates),
        seeds=tuple(seeds),
        config={"model": {"name": "resnet18"}, "weights": "pretrained"},
        versions={"jax": "0.10.2", "flax": "0.12.8"},
        device="cpu",
        model="resnet18 (2, 2, 2, 2)",
    )
    pretrain = records.PretrainRecord(
        id="ab12", flops=3 * 10**12, steps=700, metric=0.83, task="source", seed=0
    )
    curve = records.TrainRecord(
        trial="0", step=1, flops_per_step=4, flops=4, loss=2.3, learning_rate=0.1, wall_s=0.1
    )
    trials = itertools.starmap(_trial, itertools.product(tasks, methods, budgets, seeds, rates))
    made = [run, pretrain, *map(_method, methods), curve, *trials]
    # As another process reads them.
    return json.loads(json.dumps([records.to_json(record) for record in made]))


def _pending(trial: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("id", "task", "method", "budget", "seed", "learning_rate")
    return records.to_json(records.PendingRecord(**{key: trial[key] for key in kept}))


def _of_before(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    old = [dict(line) for line in lines if line["type"] != "pending"]
    for line in old:
        if line["type"] == "run":
            line["budgets"] = [int(Budget.parse(text).amount) for text in line["budgets"]]
        line.pop("budget", None)
    return old


@pytest.fixture(scope="session")
def make_records() -> Callable[..., list[dict[str, Any]]]:
    """Returns the function that makes the records of a finished run, as JSON objects."""
    return _records


@pytest.fixture(scope="session")
def pending() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Returns the function that makes of a trial's record that of one which is not done yet."""
    return _pending


@pytest.fixture(scope="session")
def of_before() -> Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]:
    """Returns the function that makes records of them as they were before budgets had units."""
    return _of_before


def _probed(**axes: Any) -> list[dict[str, Any]]:
    """Records with a `probe` beside the other methods, which is better than they are at first."""
    lines = _records(**axes)
    (run,) = (line for line in lines if line["type"] == "run")
    run["methods"] = [*run["methods"], "probe"]
    dense = {"steps": 0, "flops_per_step": None, "learning_rate": None, "method": "probe"}
    rate, shared = run["learning_rates"][0], dict[str, Any]()
    for trial in [line for line in lines if line["type"] == "trial"]:
        if trial["method"] != run["methods"][0] or trial["learning_rate"] != rate:
            continue
        task, seed = trial["task"], trial["seed"]
        # The task has as many images as the second budget pays for.
        examples = min(trial["budget_flops"] // 10**9, 400)
        score = 0.8 + examples / 4000 + 0.01 * _unit(task, seed)
        ledger = {**dict.fromkeys(trial["ledger"], 0), "extract": examples * 10**9, "train": 7}
        ledger["validate"] = 10**9
        lines.append(
            trial
            | dense
            | {"id": f"probe-{trial['id']}", "solver": "ridge", "examples": examples}
            | {"dev": score, "dev_test": score, "ledger": ledger, "own_flops": 0}
            | {"spent_flops": examples * 10**9 + 7, "batch_size": None}
        )
        shared[f"train of {task} {seed}"] = 400 * 10**9
        shared[f"dev of {task}"] = 10**9
        shared[f"head of {task} {seed} {examples}"] = 7
    for name, flops in shared.items():
        what, _, of = name.partition(" of ")
        common = {"id": name, "task": of.split()[0], "flops": flops, "wall_s": 2.0}
        record: records.Record = (
            records.HeadRecord(
                **common,
                solver="ridge",
                head="taps",
                examples=1,
                features=8,
                **dict.fromkeys(("dev", "dev_test", "dev_top5", "dev_test_top5")),
                metric="accuracy",
                extract_flops=1,
            )
            if what == "head"
            else records.ExtractRecord(
                **common, split=what, start=0, stop=400, image_size=64, features=8
            )
        )
        lines.append(records.to_json(record))
    return json.loads(json.dumps(lines))


@pytest.fixture(scope="session")
def make_probed() -> Callable[..., list[dict[str, Any]]]:
    """Returns the function that makes a run's records in which `probe` is one of the methods."""
    return _probed


def _looks(task: str, seed: int, budget: int, accuracy: float) -> list[dict[str, Any]]:
    """Two looks, of which the second one is the last, and the heads after them."""
    option = {"solver": "kernel", "images": 400, "deviation": 0.4, "flops": budget // 2}
    logit = math.log(accuracy / (1 - accuracy))
    options = (
        records.HeadOption(method="dense@48px", accuracy=accuracy, logit=logit, **option),
        records.HeadOption(method="dense", accuracy=accuracy - 0.1, logit=logit - 0.5, **option),
    )
    seen = records.LookedAt(
        method="dense@48px",
        images=60,
        of=("dense@48px", "dense@48px"),
        fitted=(60, 30),
        scores=(0.5, 0.2),
        fit_flops=10**8,
    )
    answers = [
        records.HeadAnswer(method="dense@48px", solver=solver, images=1200)
        for solver in ("kernel", "ridge")
    ]
    common: dict[str, Any] = {
        "task": task,
        "budget_flops": budget,
        "seed": seed,
        "native_side": 64,
        "options": options,
        "trains": False,
        "wall_s": 1.0,
    }
    made: list[records.Record] = [
        records.LookRecord(
            **common,
            id=f"first {task} {seed} {budget}",
            looks=(),
            next_method="dense@48px",
            next_images=60,
            answers=(),
            tenfold_logit=0.0,
            tenfold_deviation=0.0,
            flops=0,
            spent_flops=0,
        ),
        records.LookRecord(
            **common,
            id=f"last {task} {seed} {budget}",
            looks=(seen,),
            next_method=None,
            next_images=0,
            answers=tuple(answers),
            tenfold_logit=0.3,
            tenfold_deviation=0.5,
            flops=10**8,
            spent_flops=budget // 10,
        ),
        *(
            records.HeadRecord(
                id=f"{solver} {task} {seed} {budget}",
                task=task,
                solver=solver,
                head="taps",
                examples=1200,
                features=8,
                **dict.fromkeys(("dev", "dev_test", "dev_top5", "dev_test_top5")),
                metric="accuracy",
                notes={"cross_entropy": entropy},
                flops=7,
                extract_flops=1,
                wall_s=1.0,
            )
            for solver, entropy in (("kernel", 0.727), ("ridge", 0.789))
        ),
    ]
    return [records.to_json(record) for record in made]


def _chosen(**axes: Any) -> list[dict[str, Any]]:
    """Records with `auto` beside the other methods; its trials took 80% of their budgets."""
    lines = _records(**axes)
    (run,) = (line for line in lines if line["type"] == "run")
    first, rate = run["methods"][0], run["learning_rates"][0]
    run["methods"] = [*run["methods"], "auto"]
    for trial in [line for line in lines if line["type"] == "trial"]:
        if trial["method"] != first or trial["learning_rate"] != rate:
            continue
        task, seed, budget = trial["task"], trial["seed"], trial["budget_flops"]
        name = "dense@48px+probe"
        heads = {
            f"{name}@kernel": f"kernel {task} {seed} {budget}",
            name: f"ridge {task} {seed} {budget}",
        }
        ledger = dict.fromkeys(trial["ledger"], 0)
        ledger |= {"extract": 7 * budget // 10, "search": budget // 10, "validate": 10**9}
        score = 0.8 + 0.01 * _unit(budget)
        lines.append(
            trial
            | {"id": f"auto-{trial['id']}", "method": "auto", "solver": "kernel", "steps": 0}
            | {"examples": 1200, "image_size": 48, "flops_per_step": None, "batch_size": None}
            | {"learning_rate": None, "dev": score, "dev_test": score, "ledger": ledger}
            | {"spent_flops": 8 * budget // 10, "own_flops": 0}
            | {"notes": {"chosen": f"{name}@kernel", "heads": heads}}
        )
        lines += _looks(task, seed, budget, 0.7)
    return json.loads(json.dumps(lines))


@pytest.fixture(scope="session")
def make_chosen() -> Callable[..., list[dict[str, Any]]]:
    """Returns the function that makes a run's records in which `auto` is one of the methods."""
    return _chosen


def _evaluated(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records, with those of the best models' evaluations on two tasks and the log of one."""
    found = [dict(line) for line in lines]
    for task in ("digits", "glyphs"):
        trials = [records.from_json(r) for r in found if r["type"] == "trial" and r["task"] == task]
        best = records.winner(trials)
        test = records.EvaluateRecord(
            id=f"{task} test",
            trial=best.id,
            task=task,
            split="test",
            examples=500,
            metric="accuracy",
            score=0.9,
            low=0.87,
            high=0.92,
            correct=450,
            top5=None,
            widths={"stem": (64,), "stage1": (32, 256), "stage2": (32, 256), "head": (7,)},
            params=600_000,
            whole_params=800_000,
            forward_flops=20_000_000,
            whole_forward_flops=80_000_000,
            latency_s=0.0021,
            whole_latency_s=0.0042,
            device="cpu",
            flops=10**10,
            wall_s=2.0,
        )
        found.append(records.to_json(test))
    for step in (20, 10):
        at = {"trial": best.id, "step": step, "flops": 10**9 * step}
        train = records.TrainRecord(
            **at, flops_per_step=10**9, loss=2 / step, learning_rate=0.1, wall_s=1.0
        )
        dev = records.DevRecord(**at, dev=step / 40, dev_top5=None)
        found += map(records.to_json, (train, dev))
    return found


@pytest.fixture(scope="session")
def evaluated() -> Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]:
    """Returns the function that adds evaluations of the best models on digits and glyphs."""
    return _evaluated


def _learnt(lines: Sequence[Mapping[str, Any]], method: str) -> list[dict[str, Any]]:
    names = [task["name"] for task in lines[0]["tasks"]]
    found = [dict(line) for line in lines]
    for trial in found:
        if trial["type"] == "trial" and trial["method"] == method and trial["task"] != names[0]:
            before = names[: names.index(trial["task"])]
            scores = {"": 0.2, **{name: 0.1 + 0.3 * number for number, name in enumerate(before)}}
            start = max(scores, key=lambda source: scores[source])
            trial |= {"candidates": scores, "start_task": start or None}
            trial["choice_flops"] = 10**9 * len(scores)
    return found


@pytest.fixture(scope="session")
def learnt() -> Callable[[Sequence[Mapping[str, Any]], str], list[dict[str, Any]]]:
    """Returns the function that lets each task of a method choose among the tasks before it."""
    return _learnt
