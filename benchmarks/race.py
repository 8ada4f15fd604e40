"""Tables of a race: means over tasks by method and budget, who is best where, what it cost.

  python benchmarks/race.py runs/race runs/large --groups near=caltech101,pacs far=usps > race.md

The runs are finished ones of `configs/race.py`, say: their results are put together, so that one
run may have the small budgets of all methods and another the large ones of few. Runs of other
weights are told apart by a label, `resnet56=runs/resnet56`, which their methods get. A mean is over
the tasks that all methods of its budget have, with the 95% interval of the bootstrap over tasks (a
task's number is the mean over its seeds; of fewer than about six tasks it is too narrow). Bold is
the best of a budget.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ctl_jax import formatting, report
from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.report import frontier
from ctl_jax.report.aggregate import values
from ctl_jax.report.statistics import mean_interval

Row = Mapping[str, Any]


def main() -> None:
    """Reads runs and prints their race as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "workdirs", nargs="+", metavar="[LABEL=]FOLDER", help="runs, perhaps with a label"
    )
    parser.add_argument(
        "--groups", nargs="*", default=[], metavar="NAME=TASK,TASK", help="tables of some tasks"
    )
    given = parser.parse_args()
    try:
        rows = report.results(report.read_runs(given.workdirs))
        print(render(rows, groups_of(rows, given.groups)))
    except UserError as error:
        raise SystemExit(f"race: {error}") from None


def groups_of(rows: Sequence[Row], given: Sequence[str]) -> dict[str, list[str]]:
    """Tasks by the group's name: all of them, then those that were asked for.

    Raises:
      UserError: a group is not NAME=TASK,TASK, or has a task that there is not.
    """
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    groups = {"all tasks": tasks}
    for each in given:
        name, equals, members = each.partition("=")
        for task in members.split(","):
            if not equals or task not in tasks:
                raise UserError(
                    f"--groups {each}: task {task!r}; expected NAME=TASK,TASK with tasks among "
                    f"{', '.join(tasks)}"
                )
        groups[name] = members.split(",")
    return groups


def render(rows: Sequence[Row], groups: Mapping[str, Sequence[str]]) -> str:
    """The tables of each group, as markdown."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    budgets = sorted({row["budget"] for row in rows}, key=Budget.parse)
    lines = []
    for name, tasks in groups.items():
        of_group = [row for row in rows if row["task"] in tasks]
        leaders = frontier.frontier(values(of_group), tasks, methods, budgets)
        lines += [f"## {name}: {', '.join(tasks)}", "", *_means(of_group, tasks, methods, leaders)]
        lines += ["", *_frontier(leaders)]
        told = frontier.crossover(frontier.versus(of_group, tasks, methods, budgets))
        lines += ["", told, ""] if told else [""]
    return "\n".join([*lines, "## Cost with the search", "", *_costs(rows, methods, budgets)])


def _means(
    rows: Sequence[Row],
    tasks: Sequence[str],
    methods: Sequence[str],
    leaders: Mapping[str, frontier.Leader],
) -> list[str]:
    found = values(rows)
    columns = {b: frontier.at_budget(found, tasks, methods, b) for b in leaders}
    grid = []
    for method in methods:
        cells = []
        for budget, by_method in columns.items():
            shown = formatting.DASH
            if method in by_method:
                shown = mean_interval(by_method[method]).shown
                shown = f"**{shown}**" if method == leaders[budget].method else shown
            cells.append(shown)
        grid.append([f"`{method}`", *cells])
    counts = ["tasks", *(str(leader.tasks) for leader in leaders.values())]
    return _table(["method", *_labels(leaders)], [*grid, counts])


def _frontier(leaders: Mapping[str, frontier.Leader]) -> list[str]:
    grid = [
        [label, f"`{best.method}`", best.score.shown, _named(best.others)]
        for label, best in zip(_labels(leaders), leaders.values(), strict=True)
    ]
    return _table(["budget", "best", "mean (95% interval)", "cannot be told from it"], grid)


def _named(methods: Sequence[str] | None) -> str:
    return "not known" if methods is None else ", ".join(f"`{method}`" for method in methods)


def _costs(rows: Sequence[Row], methods: Sequence[str], budgets: Sequence[str]) -> list[str]:
    """Mean FLOPs of a result: of the trial that is reported, and with those that lost."""
    grid = []
    for method in methods:
        cells = []
        for budget in budgets:
            of = [row for row in rows if (row["method"], row["budget"]) == (method, budget)]
            spent = [row["spent_flops"] for row in of]
            searched = [row["search_flops"] for row in of]
            cells.append(
                " + ".join(formatting.flops(statistics.fmean(each)) for each in (spent, searched))
                if of
                else formatting.DASH
            )
        grid.append([f"`{method}`", *cells])
    return _table(["method", *_labels(budgets)], grid)


def _labels(budgets: Mapping[str, Any] | Sequence[str]) -> list[str]:
    return formatting.budgets(map(Budget.parse, budgets))


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]


if __name__ == "__main__":
    main()
