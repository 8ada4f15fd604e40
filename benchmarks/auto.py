"""Runs `auto` on tasks that its prior was not learnt from, and sets it beside fixed methods.

  python benchmarks/auto.py run --curves=runs/meta/curves.jsonl --workdir=runs/auto \\
    --weights=resnet50.npz --images=scenes15+usps --dirs=tfds:DIR,folder:DIR --seeds=0,1,2
  python benchmarks/auto.py compare runs/auto runs/race runs/large > auto.md

`run` makes a run for each task, WORKDIR/TASK, whose prior is learnt from the curves of all others
(`benchmarks/meta.py collect` makes them). `compare` reads these, and runs of fixed methods on the
same tasks, such as those of `configs/race.py`: who is best of each task in hindsight is chosen on
the other seeds than the one that is compared, so that luck does not count.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import curves
import race
import rich.console

from ctl_jax import compilation, experiment, files, formatting, memory
from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment import steps
from ctl_jax.experiment.auto import expectation
from ctl_jax.experiment.kinds import look
from ctl_jax.report.statistics import mean_interval

AUTO = "auto"
BUDGETS = "5e10,1e11,2.5e11,5e11,1.5e12,5e12"
# Those that it must not be clearly worse than, on any task.
PLAIN = ("probe", "dense", "filters@0.5")

# Scores by task, budget and method: a number a seed, in order.
Scores = Mapping[tuple[str, str, str], Mapping[int, float]]


def main() -> None:
    """Parses the flags, runs or compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="auto on each task, by the prior of the others")
    runs.add_argument("--curves", nargs="+", required=True, help="files of benchmarks/meta.py")
    runs.add_argument("--workdir", required=True, help="a folder of runs")
    runs.add_argument("--weights", required=True, help="the network")
    runs.add_argument("--images", required=True, help="tasks, joined by +")
    runs.add_argument("--dirs", default="", help="where their data is, with commas between")
    runs.add_argument("--budgets", default=BUDGETS, help="FLOPs, with commas between")
    runs.add_argument("--seeds", default="0", help="with commas between")
    runs.add_argument("--methods", default=AUTO, help="auto, and perhaps others")
    runs.add_argument("--image_size", type=int, default=64, help="as config.data.image_size")
    compared = commands.add_parser("compare", help="a table of it beside fixed methods")
    compared.add_argument("workdir", help="of `run`")
    compared.add_argument("fixed", nargs="*", help="runs of fixed methods")
    given = parser.parse_args()
    try:
        (run if given.command == "run" else compare)(given)
    except UserError as error:
        raise SystemExit(f"auto: {error}") from None


def run(given: argparse.Namespace) -> None:
    """Makes a run for each task."""
    memory.keep_freed()
    compilation.enable_cache()
    tasks = curves.tasks(line for path in given.curves for line in curves.lines(files.path(path)))
    console = rich.console.Console(width=140)
    for name in given.images.split("+"):
        others = {
            f"{task.network}/{task.name}": (task.about, curves.seen(task))
            for task in tasks
            if task.name != name
        }
        prior = expectation.learn(others)
        known = steps.content_id(prior.to_json())
        look.prior, look.prior_id = lambda prior=prior: prior, lambda known=known: known
        experiment.run(_config(given, name), f"{given.workdir}/{name}", console)


def _config(given: argparse.Namespace, task: str) -> Any:
    config = experiment.default_config()
    config.stream.variant = task
    config.data.dirs = tuple(filter(None, given.dirs.split(",")))
    config.data.image_size = given.image_size
    config.data.max_eval_examples = 500
    config.weights = given.weights
    config.budgets.amounts = tuple(given.budgets.split(","))
    config.seeds = tuple(map(int, given.seeds.split(",")))
    config.methods = tuple(given.methods.split(","))
    # As in configs/race.py.
    config.finetune.crop_area = (0.5, 1.0)
    config.finetune.learning_rates = (0.003, 0.01, 0.03)
    return config


def compare(given: argparse.Namespace) -> None:
    """Prints the table."""
    folder = files.path(given.workdir)
    runs = [f"{folder}/{name}" for name in sorted(files.names(folder))]
    rows = [row for each in [*runs, *given.fixed] for row in race.read(each)]
    print("\n".join(render(scores_of(rows))))


def scores_of(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """The scores on dev_test of some rows of results; of equal rows the last."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in rows:
        if row["dev_test"] is not None:
            key = (row["task"], row["budget"], row["method"])
            found.setdefault(key, {})[row["seed"]] = row["dev_test"]
    return found


def render(scores: Scores) -> list[str]:
    """A table as markdown, a row for each budget: means over the tasks that `auto` was run on."""
    budgets = sorted({budget for _, budget, _ in scores}, key=lambda b: Budget.parse(b).amount)
    tasks = sorted({task for task, _, method in scores if method == AUTO})
    head = ("auto", "best single method", "its mean", "best of each task", "ratio to that")
    apart = [f"least above {method}" for method in PLAIN]
    lines = [f"| budget | tasks | {' | '.join([*head, *apart])} |", "|---" * 10 + "|"]
    for budget in budgets:
        there = [task for task in tasks if (task, budget, AUTO) in scores]
        if there:
            shown = formatting.budgets([Budget.parse(budget)])[0]
            lines.append(f"| {shown} | {len(there)} | {' | '.join(_row(scores, budget, there))} |")
    return lines


def _row(scores: Scores, budget: str, tasks: Sequence[str]) -> Iterator[str]:
    fixed = fixed_methods(scores, budget, tasks)
    auto = {task: statistics.fmean(scores[task, budget, AUTO].values()) for task in tasks}
    yield f"{statistics.fmean(auto.values()):.3f}"
    if fixed:
        means = {
            method: statistics.fmean(
                statistics.fmean(scores[task, budget, method].values()) for task in tasks
            )
            for method in fixed
        }
        best = max(means, key=lambda method: means[method])
        yield f"`{best}`"
        yield f"{means[best]:.3f}"
        hindsight = {task: best_of_task(scores, budget, task) for task in tasks}
        yield f"{statistics.fmean(hindsight.values()):.3f}"
        ratios = [auto[task] / hindsight[task] for task in tasks]
        yield mean_interval(ratios).shown
    else:
        yield from ["", "", "", ""]
    for method in PLAIN:
        there = [task for task in tasks if (task, budget, method) in scores]
        apart = {
            task: auto[task] - statistics.fmean(scores[task, budget, method].values())
            for task in there
        }
        least = min(apart, key=lambda task: apart[task], default="")
        yield f"{apart[least]:+.3f} ({least})" if least else ""


def fixed_methods(scores: Scores, budget: str, tasks: Sequence[str]) -> list[str]:
    """The methods besides `auto` that have a score on all of some tasks."""
    methods = sorted({method for _, there, method in scores if there == budget} - {AUTO})
    return [m for m in methods if all((task, budget, m) in scores for task in tasks)]


def best_of_task(scores: Scores, budget: str, task: str) -> float:
    """The mean over seeds of the method that is best on the others; of one seed, on itself."""
    methods = {
        method: by_seed
        for (name, there, method), by_seed in scores.items()
        if (name, there) == (task, budget) and method != AUTO
    }
    most = max(len(by_seed) for by_seed in methods.values())
    methods = {method: of for method, of in methods.items() if len(of) == most}
    seeds = sorted(next(iter(methods.values())))
    found = []
    for seed in seeds:
        others = [each for each in seeds if each != seed] or seeds
        best = max(
            sorted(methods), key=lambda m: statistics.fmean(methods[m][each] for each in others)
        )
        found.append(methods[best][seed])
    return statistics.fmean(found)


if __name__ == "__main__":
    main()
