"""Learns what `auto` expects of recipes before it looks at a task, and tests its curves.

  python benchmarks/meta.py collect --workdir=runs/meta --weights=resnet50.npz \\
    --images=scenes15+usps+digits --dirs=tfds:DIR,folder:DIR
  python benchmarks/meta.py learn runs/meta/curves.jsonl --write

`collect` computes features of some images of each task by every network that `auto` chooses from,
as a run of this project in WORKDIR, and fits heads on growing numbers of them: learning curves, a
line of WORKDIR/curves.jsonl for each head. Images of dev and dev_test are test images here. What is
there already is not done again.

`learn` makes the prior that comes with the package of such curves (--write), and prints how good
`auto` would have been on each task had the prior been learnt from the others alone.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import curves
import numpy as np
import rich.console

from ctl_jax import compilation, experiment, files, finetune, heads, memory, models
from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment import strategies, stretches, tunings
from ctl_jax.experiment.auto import expectation, policy
from ctl_jax.experiment.auto.candidates import Candidate
from ctl_jax.experiment.kinds import extract, head, look
from ctl_jax.experiment.methods import parse_method
from ctl_jax.experiment.plan import Plan, make_plan
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.tasks import TaskInfo, TaskLoader
from ctl_jax.experiment.workspace import Workspace

PRIOR = pathlib.Path(expectation.__file__).with_name("prior.json")
CURVES = "curves.jsonl"
STRATEGY = "features"
# Numbers of training images of a curve, before all of them.
IMAGES = (20, 45, 100, 220, 480, 1050)
# The fewest images for a head of radial basis functions.
KERNEL_LEAST = 100
# Pays for the correction of a cut by as many images as there may be.
BUDGET = Budget.parse("2.5e12")
SEED = 0
TEST = ("dev", "dev_test")
# TFLOP of the cross-validation; accuracies that differ by less count as equal.
BUDGETS = (0.05, 0.1, 0.25, 0.5, 1.5, 5)
TIE = 0.005


class Case(NamedTuple):
    """A candidate on a task.

    Attributes:
      task: which.
      candidate: with what is spent before the first image.
      steps: of its features, by split.
    """

    task: TaskInfo
    candidate: Candidate
    steps: Mapping[str, Sequence[Step]]


def main() -> None:
    """Parses the flags, collects or learns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_collect(commands.add_parser("collect", help="learning curves of heads"))
    _add_learn(commands.add_parser("learn", help="the prior of learning curves"))
    given = parser.parse_args()
    try:
        (collect if given.command == "collect" else learn)(given)
    except UserError as error:
        raise SystemExit(f"meta: {error}") from None


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--images", required=True, help="tasks, joined by +")
    parser.add_argument("--dirs", default="", help="where their data is, with commas between")
    parser.add_argument("--weights", required=True, help="the network")
    parser.add_argument("--image_size", type=int, default=64, help="as config.data.image_size")
    parser.add_argument("--most_eval", type=int, default=500, help="images of dev, of dev_test")
    parser.add_argument("--most_images", type=int, default=1500, help="training images of a task")
    parser.add_argument(
        "--most_flops", type=float, default=1e12, help="of a network's features of these"
    )
    parser.add_argument("--methods", default="", help="networks, not all; with commas between")


def _add_learn(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("curves", nargs="+", help="files that collect wrote")
    parser.add_argument("--write", action="store_true", help=f"writes {PRIOR.name}")
    parser.add_argument(
        "--leave_network", action="store_true", help="leaves out the network, too, not only tasks"
    )


def collect(given: argparse.Namespace) -> None:
    """Computes features, and fits heads on them."""
    memory.keep_freed()
    compilation.enable_cache()
    config = experiment.default_config()
    config.stream.variant = given.images
    config.data.dirs = tuple(filter(None, given.dirs.split(",")))
    config.data.image_size = given.image_size
    config.data.max_eval_examples = given.most_eval
    config.weights = given.weights
    config.budgets.amounts = (str(BUDGET),)
    config.methods = ("probe",)
    config.seeds = (SEED,)
    config.keep_models = "none"
    config.strategy = STRATEGY

    @strategies.strategy(STRATEGY)
    def features(plan: Any) -> Any:
        found = cases(plan, given)
        wanted = [step.kept() for case in found for of in case.steps.values() for step in of]
        return lambda finished: wanted

    experiment.run(config, given.workdir, rich.console.Console(width=140))
    checked = experiment.validate(config)
    store = Store(given.workdir, checked.to_dict())
    workspace = Workspace(checked, TaskLoader(checked.data), store)
    fit_all(make_plan(workspace), given, files.path(given.workdir) / CURVES)


def cases(plan: Plan, given: argparse.Namespace) -> Iterator[Case]:
    """All tasks of a run with all candidates, and features of as many images as are allowed."""
    methods = given.methods.split(",") if given.methods else [c.method for c in plan.candidates()]
    for task, candidate in itertools.product(plan.tasks, plan.candidates()):
        if candidate.method not in methods:
            continue
        method = parse_method(candidate.method)
        method = dataclasses.replace(method, tuning=tunings.parse(method.name, "probe@ridge"))
        point = strategies.Point(task, method, BUDGET, SEED, None, None, 0.0)
        wish = plan.wish(point, int(BUDGET.amount))
        fixed = stretches.spent(plan.workspace.charge(wish.start, wish.task["name"], done=False))
        counts = {split: task.examples[split] for split in TEST}
        counts["train"] = _most(task, candidate, given)
        steps = {split: list(head.shards(wish, split, n).values()) for split, n in counts.items()}
        yield Case(task, candidate._replace(fixed_flops=fixed), steps)


def _most(task: TaskInfo, candidate: Candidate, given: argparse.Namespace) -> int:
    """How many training images of a task a candidate gets."""
    affordable = int(given.most_flops / candidate.image_flops)
    return min(given.most_images, affordable, task.examples["train"])


def fit_all(plan: Plan, given: argparse.Namespace, path: files.Path) -> None:
    """Fits the heads that there are no lines for yet, and writes these."""
    workspace = plan.workspace
    known: set[Any] = set()
    if path.exists():
        # Without a line that a killed process left half-written.
        text = path.read_text(encoding="utf-8")
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        known = {_key(line) for line in curves.lines(path)}
    whole = workspace.forward(None, 0, given.image_size)
    for case in cases(plan, given):
        info, spec, candidate = case.task, case.task.spec, case.candidate
        # So that its images are there.
        workspace.loader.load(spec)
        about = {
            "network": pathlib.Path(given.weights).stem,
            "network_flops": whole,
            "task": spec.name,
            "native_side": workspace.loader.native_side(spec),
            "classes": info.num_classes,
            "multi_label": spec.kind == "multi_label",
            "method": candidate.method,
            "recipe": candidate.recipe._asdict(),
            "image_flops": candidate.image_flops,
            "features": candidate.features,
            "fixed_flops": candidate.fixed_flops,
        }
        left = [
            line
            for solver, images in _heads(case, given)
            if _key(line := {**about, "solver": solver, "images": images}) not in known
        ]
        if left:
            train = _read(workspace, case.steps["train"])
            test = _read(workspace, [step for split in TEST for step in case.steps[split]])
            with path.open("a", encoding="utf-8") as file:
                for line in left:
                    scores = fit(line, head.first(train, line["images"]), test)
                    file.write(json.dumps({**line, **scores}) + "\n")
            print(f"{spec.name}: {candidate.method}, {len(left)} heads", flush=True)


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("network", "task", "method", "solver", "images"))


def _heads(case: Case, given: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Solvers and numbers of images of the heads that are fitted."""
    there = _most(case.task, case.candidate, given)
    for solver, images in itertools.product(policy.SOLVERS.values(), sorted({*IMAGES, there})):
        least = KERNEL_LEAST if solver == policy.SOLVERS[True] else 2
        if least <= images <= there:
            yield solver, images


def _read(workspace: Workspace, steps: Sequence[Step]) -> list[heads.Shard]:
    found = [workspace.local_arrays(step) for step in steps]
    return [heads.Shard(each[extract.FEATURES], each[extract.LABELS]) for each in found]


def fit(
    line: Mapping[str, Any], train: Sequence[heads.Shard], test: Sequence[heads.Shard]
) -> dict[str, Any]:
    """What a head on some images comes to, which is fitted as `auto` does it.

    Args:
      line: which one, as in a file of curves.
      train: of the images.
      test: other images.
    """
    classes, multi_label = line["classes"], line["multi_label"]
    fitted = heads.fit(line["solver"], train, classes, multi_label=multi_label, seed=SEED)
    labels = np.concatenate([shard.labels for shard in train])
    crossed = float(fitted.notes["cross_entropy"])
    logits = [
        np.asarray(models.apply_head(fitted.head, shard.features.astype(np.float32)))
        for shard in test
    ]
    truth = np.concatenate([shard.labels for shard in test])
    scores = finetune.score(np.concatenate(logits), truth, num_classes=classes)
    return {
        "entropy": expectation.entropy(look.label_entropy(labels, classes), crossed),
        "accuracy": scores.value,
        "test_images": len(truth),
    }


def learn(given: argparse.Namespace) -> None:
    """Learns the prior, and prints what its choices come to on tasks that it was not learnt from.

    Raises:
      UserError: a file is not one of curves, or there are too few tasks.
    """
    tasks = curves.tasks(line for path in given.curves for line in curves.lines(files.path(path)))
    if len({task.name for task in tasks}) < 3:
        raise UserError(f"{' '.join(given.curves)}: expected curves of three tasks or more")
    scores = {f"{task.network}/{task.name}": (task.about, curves.seen(task)) for task in tasks}
    if given.write:
        text = json.dumps(expectation.learn(scores).to_json())
        PRIOR.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {PRIOR}: {len(scores)} tasks, {len(text):,} bytes\n")
    priors = _left_out(tasks, scores, given.leave_network)
    found = {each: curves.crossvalidate(tasks, each, priors) for each in BUDGETS}
    for network in dict.fromkeys(task.network for task in tasks):
        print("\n".join(_table(network, found)), end="\n\n")


def _left_out(
    tasks: Sequence[curves.Task], scores: Mapping[str, Any], leave_network: bool
) -> dict[tuple[str, str], expectation.Prior]:
    """For each task the prior of the others; whatever network a task of its name was seen by."""
    found: dict[tuple[str, ...], expectation.Prior] = {}
    priors = {}
    for task in tasks:
        key = (task.name, task.network if leave_network else "")
        if key not in found:
            others = {
                name: score
                for name, score in scores.items()
                if name.rpartition("/")[2] != task.name
                and not (leave_network and name.rpartition("/")[0] == task.network)
            }
            found[key] = expectation.learn(others)
        priors[task.network, task.name] = found[key]
    return priors


def _table(network: str, found: Mapping[float, Sequence[curves.Result]]) -> list[str]:
    """Means over a network's tasks, as markdown, a column for each budget."""
    columns = [[each for each in of if each.network == network] for of in found.values()]

    def row(name: str, cell: Callable[[Sequence[curves.Result]], str]) -> str:
        return f"| {' | '.join([name, *map(cell, columns)])} |"

    def mean(value: Callable[[curves.Result], float]) -> Callable[[Sequence[curves.Result]], str]:
        return lambda column: f"{statistics.fmean(map(value, column)):.3f}"

    def against(column: Sequence[curves.Result]) -> str:
        apart = [each.auto - each.single for each in column]
        return f"{sum(x > TIE for x in apart)}/{sum(x < -TIE for x in apart)}"

    return [
        f"## {network}: {len(columns[0])} tasks",
        "",
        f"| TFLOP | {' | '.join(f'{budget:g}' for budget in found)} |",
        f"| {' | '.join(['---'] * (len(found) + 1))} |",
        row("best of each task in hindsight (too high by luck)", mean(lambda x: x.hindsight)),
        row("best single recipe in hindsight", mean(lambda x: x.best_single)),
        row("best single recipe of the other tasks", mean(lambda x: x.single)),
        row("auto", mean(lambda x: x.auto)),
        row("random search of four recipes", mean(lambda x: x.random)),
        row("ratio of the single one to hindsight", mean(lambda x: x.single / x.hindsight)),
        row("ratio of auto to hindsight", mean(lambda x: x.auto / x.hindsight)),
        row("the least such", lambda column: f"{min(x.auto / x.hindsight for x in column):.3f}"),
        row("tasks where auto is better/worse than the single one", against),
        row("looks", mean(lambda x: x.looks)),
    ]


if __name__ == "__main__":
    main()
