"""Curves become a prior, and what `auto` would have done on them, cross-validated over tasks."""

import argparse
import importlib
import json
import math
import pathlib
from types import ModuleType

import numpy as np
import pytest

from ctl_jax import heads
from ctl_jax.errors import UserError
from ctl_jax.experiment.auto import expectation
from ctl_jax.experiment.auto.expectation import Recipe

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


def _load(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(_FOLDER)
        return importlib.import_module(name)


meta, curves = map(_load, ("meta", "curves"))

# By name: what a network is, FLOPs of an image; each is a quarter of the next one.
METHODS = {
    "dense@32px": (Recipe(0.5, 1.0), 32_000_000),
    "dense": (Recipe(1.0, 1.0), 128_000_000),
    "dense@128px": (Recipe(2.0, 1.0), 512_000_000),
}
IMAGES = (20, 45, 100, 220, 480, 1000)


def _lines(tasks, network="net"):
    """Tasks of ten classes: of large images larger ones are better, of small ones smaller ones."""
    found = []
    for number in range(tasks):
        native = (16, 256)[number % 2]
        for method, (recipe, flops) in METHODS.items():
            for solver in ("ridge", "kernel"):
                for images in IMAGES:
                    level = 0.5 * math.log2(images / 100) + 0.1 * number
                    level += 0.6 * math.log2(recipe.size) * (1 if native > 64 else -1)
                    line = {
                        "network": network,
                        "network_flops": 128_000_000,
                        "task": f"task{number}",
                        "native_side": native,
                        "classes": 10,
                        "multi_label": False,
                        "method": method,
                        "recipe": recipe._asdict(),
                        "image_flops": flops,
                        "features": 100,
                        "fixed_flops": 0,
                        "solver": solver,
                        "images": images,
                        "entropy": 0.4 * level,
                        "accuracy": 1 / (1 + math.exp(-level)),
                        "test_images": 1000,
                    }
                    if solver == "ridge" or images >= 100:
                        found.append(line)
    return found


def test_curves_are_straight_over_the_logarithm_of_images():
    curve = curves.Curve([10, 100, 1000], [0.0, 1.0, 1.5], [1.0, 2.0, 2.0])
    assert curve.at(100) == pytest.approx((1.0, 2.0))
    assert curve.at(10**2.5) == pytest.approx((1.25, 2.0), abs=0.01)
    assert curve.at(1) == pytest.approx((-1.0, 0.0))
    assert curve.at(5000) == pytest.approx((1.5, 2.0))


def test_lines_of_curves_become_tasks():
    lines = _lines(2)
    # A head that was fitted again.
    found = curves.tasks([*lines, {**lines[0], "entropy": 9.0}])
    assert [(task.name, task.about.classes, task.examples) for task in found] == [
        ("task0", 10, 1000),
        ("task1", 10, 1000),
    ]
    assert found[0].about.native == 0.25
    assert found[0].curves[METHODS["dense@32px"][0]].entropies[0] == 9.0
    seen = curves.seen(found[0])
    entropies = [each for each in seen if each.score == expectation.ENTROPY]
    # With twenty images a head of ten classes is looked at, with fewer none is.
    assert len(entropies) == len(seen) - len(entropies)
    few = [{**line, "classes": 30} for line in lines]
    assert min(s.images for s in curves.seen(curves.tasks(few)[0]) if s.score) == 100


def test_outcomes_are_those_that_a_budget_pays_for():
    (task,) = curves.tasks(_lines(1))
    found = curves.outcomes(task, 64 * 10**7)
    # One image of the largest would not do.
    assert {recipe.size for recipe in found} == {0.5, 1.0}
    rich = curves.outcomes(task, 10**13)
    # The best of them is of the smallest images; all images are used.
    assert max(rich, key=rich.__getitem__).size == 0.5
    assert rich[METHODS["dense"][0]] == pytest.approx(
        1 / (1 + math.exp(-0.5 * math.log2(10))), abs=0.01
    )
    assert curves.single([found, rich], found).size == 0.5


def test_corrections_of_cuts_are_a_tenth_of_the_budget_at_most():
    cut = [{**line, "fixed_flops": 256 * 10**9} for line in _lines(1)]
    (task,) = curves.tasks(cut)
    for budget, images in [(10**13, 256), (10**12, 64), (10**9, 16)]:
        (fixed,) = {c.fixed_flops for c in curves.setting(task, budget).candidates.values()}
        assert fixed == images * 10**9


@pytest.mark.parametrize("leave_network", [False, True])
def test_learning_finds_what_is_best_for_tasks_that_were_left_out(
    tmp_path, monkeypatch, capsys, leave_network
):
    monkeypatch.setattr(meta, "PRIOR", tmp_path / "prior.json")
    monkeypatch.setattr(meta, "BUDGETS", (0.25, 1.5))
    files = []
    for network in ("net", "other"):
        path = tmp_path / f"{network}.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in _lines(8, network)))
        files.append(str(path))
    given = argparse.Namespace(curves=files, write=True, leave_network=leave_network)
    meta.learn(given)
    prior = expectation.read(meta.PRIOR.read_text())
    assert set(prior.tasks) == {f"{n}/task{t}" for n in ("net", "other") for t in range(8)}
    small, large = Recipe(0.5, 1.0), Recipe(2.0, 1.0)
    for native, sign in ((0.25, -1), (4.0, 1)):
        apart = prior.compare(large, 200, small, 200, expectation.About(10, native))
        assert apart.logit == pytest.approx(sign * 1.2, abs=0.3)
    told = capsys.readouterr().out
    assert "## net: 8 tasks" in told
    assert "## other: 8 tasks" in told
    ratios = [line for line in told.splitlines() if line.startswith("| ratio of auto")]
    assert len(ratios) == 2
    for line in ratios:
        assert min(map(float, line.split("|")[2:-1])) > 0.98


def test_too_few_curves_are_told(tmp_path):
    path = tmp_path / "curves.jsonl"
    given = argparse.Namespace(curves=[str(path)], write=False, leave_network=False)
    with pytest.raises(UserError, match="no such file"):
        meta.learn(given)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in _lines(2)))
    with pytest.raises(UserError, match="three tasks or more"):
        meta.learn(given)
    path.write_text("no JSON")
    with pytest.raises(UserError, match="expected lines of JSON"):
        meta.learn(given)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_head_is_scored_on_images_that_are_left_out_and_on_others(multi_label):
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    rows = rng.standard_normal((90, 8)).astype(np.float16)
    rows[:, :3] += 3 * np.eye(3)[labels]
    truth = np.eye(3, dtype=np.uint8)[labels] if multi_label else labels.astype(np.int32)
    shards = [heads.Shard(rows[at], truth[at]) for at in (slice(60), slice(60, 90))]
    line = {"solver": "ridge", "classes": 3, "multi_label": multi_label}
    scores = meta.fit(line, shards[:1], shards[1:])
    assert scores["accuracy"] > 0.9
    assert scores["entropy"] > 0.5
    assert scores["test_images"] == 30
