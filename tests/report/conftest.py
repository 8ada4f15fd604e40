"""Synthetic records of a run: realistic numbers from a formula, the same every time."""

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

RATIOS = {"dense": 1.0, "filters@0.5": 0.44, "filters@0.75": 0.25, "scratch": 1.0}
TASKS = ("digits", "glyphs", "textures")


def _unit(*key: object) -> float:
    """Returns a number in [0, 1) that the key decides."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _trial(task: str, method: str, budget: int, rate: float, seed: int) -> dict[str, Any]:
    step = int(4e9 * RATIOS[method])
    steps = budget // step
    reach = 1 - 2.718 ** -(steps / (90 if method == "scratch" else 40))
    best = 0.15 + (0.8 - 0.25 * (1 - RATIOS[method])) * reach
    noise = 0.04 * (_unit(task, method, budget, rate, seed) - 0.5)
    dev = min(max(best - 0.1 * abs(rate - 0.1) + noise, 0.0), 1.0)
    key = f"{task}-{method}-{budget}-{rate}-{seed}"
    pruned = "@" in method
    return {
        "type": "trial",
        "id": hashlib.sha256(key.encode()).hexdigest()[:12],
        "variant": "embedded",
        "task": task,
        "title": f"Task of {task}",
        "dataset": f"ctl_{task}",
        "domain": "ocr",
        "year": 2022,
        "method": method,
        "scope": "filters" if pruned else None,
        "ratio": float(method.split("@")[1]) if pruned else None,
        "criterion": "l2" if pruned else None,
        "budget_flops": budget,
        "learning_rate": rate,
        "seed": seed,
        "steps": steps,
        "flops_per_step": step,
        "spent_flops": steps * step,
        "forward_flops": int(4e7 * RATIOS[method]),
        "params": int(7e5 * RATIOS[method]),
        "metric": "accuracy",
        "dev": round(dev, 4),
        "dev_test": round(dev - 0.01 * _unit(key), 4),
        "dev_top5": round((1 + dev) / 2, 4),
        "dev_test_top5": round((1 + dev) / 2, 4),
        "diverged": False,
        "ledger": {
            "train": steps * step,
            "validate": int(1e9 * RATIOS[method]),
            "search": 0,
            "prune": 1000 if pruned else 0,
            "pretrain": 0,
        },
        "wall_s": 1.5 + steps / 100,
    }


def _records(
    tasks: tuple[str, ...] = TASKS,
    methods: tuple[str, ...] = tuple(RATIOS),
    budgets: tuple[int, ...] = (10**11, 4 * 10**11, 16 * 10**11),
    rates: tuple[float, ...] = (0.03, 0.1, 0.3),
    seeds: tuple[int, ...] = (0, 1),
) -> list[dict[str, Any]]:
    run = {
        "type": "run",
        "variant": "embedded",
        "tasks": [
            {
                "name": task,
                "title": f"Task of {task}",
                "dataset": f"ctl_{task}",
                "domain": "ocr",
                "year": 2022,
                "kind": "single_label",
                "num_classes": 10 + index,
                "train_examples": 1200,
                "dev_examples": 300,
                "dev_test_examples": 500,
            }
            for index, task in enumerate(tasks)
        ],
        "missing": [],
        "methods": list(methods),
        "budgets": list(budgets),
        "learning_rates": list(rates),
        "seeds": list(seeds),
        "config": {"model": {"name": "resnet18"}, "weights": "pretrained"},
        "versions": {"jax": "0.10.2", "flax": "0.12.8"},
        "device": "cpu",
        "model": "resnet18 (2, 2, 2, 2)",
    }
    pretrain = {
        "type": "pretrain",
        "flops": 3 * 10**12,
        "steps": 700,
        "metric": 0.83,
        "task": "source",
        "seed": 0,
    }
    method_records = [
        {
            "type": "method",
            "method": method,
            "scope": "filters" if "@" in method else None,
            "ratio": float(method.split("@")[1]) if "@" in method else None,
            "criterion": "l2" if "@" in method else None,
            "params": int(7e5 * RATIOS[method]),
            "forward_flops": int(4e7 * RATIOS[method]),
            "flops_per_step": int(4e9 * RATIOS[method]),
            "groups": 12,
            "cut_groups": 8 if "@" in method else 0,
            "notes": ["group stem: in the residual stream, kept"] if "@" in method else [],
        }
        for method in methods
    ]
    trials = [
        _trial(task, method, budget, rate, seed)
        for task in tasks
        for method in methods
        for budget in budgets
        for rate in rates
        for seed in seeds
    ]
    curve = {
        "type": "train",
        "trial": "0",
        "step": 1,
        "flops_per_step": 4,
        "flops": 4,
        "loss": 2.3,
        "learning_rate": 0.1,
        "wall_s": 0.1,
    }
    return copy.deepcopy([run, pretrain, *method_records, curve, *trials])


@pytest.fixture(scope="session")
def make_records() -> Callable[..., list[dict[str, Any]]]:
    """Returns the function that makes the records of a finished run."""
    return _records
