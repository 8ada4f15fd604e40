"""The figures of a report: each is one entry of `FIGURES`, and one a task.

The page shows every figure that there are numbers for, and figures/NAME.png holds it; those of the
whole run are in figures/NAME.pdf too, for papers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure as Drawing

from ctl_jax import formatting
from ctl_jax.errors import UserError
from ctl_jax.records import DevRecord, RunTask, TrainRecord
from ctl_jax.report import _choices, aggregate, drawings, figures, stream
from ctl_jax.report._budgets import labels
from ctl_jax.report._table import Table
from ctl_jax.report._winners import Best, of_table
from ctl_jax.report.aggregate import Mean, Point, Values, task_curves
from ctl_jax.report.comparisons import Comparisons, Ranks


class Results(NamedTuple):
    """What there is to draw.

    Attributes:
      table: the run's records.
      rows: the rows of `results.csv`.
      values: `dev_test` of the rows, from `aggregate.values`.
      scores: of all tasks, and of groups of them, from `aggregate.scores`.
      compared: methods against a baseline.
      passed: tasks along the stream, from `stream.along`.
    """

    table: Table
    rows: Sequence[Mapping[str, Any]]
    values: Values
    scores: Sequence[aggregate.Scores]
    compared: Comparisons
    passed: Sequence[stream.Passed]


# None where there are no numbers for it.
Draw = Callable[[Results], Drawing | None]


class Figure(NamedTuple):
    """A figure of the whole run.

    Attributes:
      name: of its file, without the folder and ".png".
      alt: what it shows, for those who cannot see it; "{metric}" stands for the tasks' metric.
      draw: makes it, by `figures.canvas` and `figures.finished`.
    """

    name: str
    alt: str
    draw: Draw


# In the order of the page.
FIGURES: list[Figure] = []


def figure(alt: str) -> Callable[[Draw], Draw]:
    """Makes a figure of a function, named after it: a decorator.

    Args:
      alt: what it shows; see `Figure`.

    Example:
      >>> @figure("Search FLOPs by method")
      ... def search(results: Results) -> Drawing | None: ...
    """

    def add(draw: Draw) -> Draw:
        if draw.__name__ in (there.name for there in FIGURES):
            raise UserError(
                f"figure {draw.__name__!r}: there is one of this name, expected a new name"
            )
        FIGURES.append(Figure(draw.__name__, alt, draw))
        return draw

    return add


class Pictures(NamedTuple):
    """Figures as bytes, by name.

    Attributes:
      png: all of them.
      pdf: those of the whole run.
    """

    png: dict[str, bytes]
    pdf: dict[str, bytes]


def draw_all(results: Results) -> Pictures:
    """The figures that there are numbers for."""
    table = results.table
    whole = {each.name: each.draw(results) for each in FIGURES}
    drawn = whole | {task_figure(task.name): _of_task(results, task) for task in table.tasks}
    drawn |= {
        training_figure(each.task.name): _of_training(results, each) for each in of_table(table)
    }
    drawn |= {choice_figure(e.task.name): _of_choice(e) for e in _choices.of_table(table)}
    return Pictures(
        {name: figures.png(drawing) for name, drawing in drawn.items() if drawing is not None},
        {name: figures.pdf(drawing) for name, drawing in whole.items() if drawing is not None},
    )


def is_name(stem: str, suffix: str) -> bool:
    """Whether a file of this name may be one of these figures."""
    if stem in (each.name for each in FIGURES):
        return suffix in ("png", "pdf")
    of_tasks = (task_figure, training_figure, choice_figure)
    return suffix == "png" and stem.startswith(tuple(name("") for name in of_tasks))


@figure(
    "Mean {metric} over tasks against training budget, one line a method; the numbers are in the "
    "table"
)
def mean_over_tasks(results: Results) -> Drawing | None:
    table, at_budget = results.table, results.scores[0].macro
    curves = _curves(table.methods, {b: mean.points for b, mean in at_budget.items()})
    if not curves:
        return None
    title = f"Mean over {_task_counts(at_budget)}"
    metric = aggregate.metric_name(table.tasks)
    return drawings.accuracy(title, metric, curves, table.methods, table.budgets)


@figure("Improvement over dense in percent against training budget; the numbers are in the table")
def relative_to_dense(results: Results) -> Drawing | None:
    table, at_budget = results.table, results.scores[0].macro
    curves = _curves(table.methods, {b: mean.relative for b, mean in at_budget.items()})
    if not curves:
        return None
    title = f"Relative improvement over dense, {_task_counts(at_budget)}"
    metric = aggregate.metric_name(table.tasks)
    return drawings.relative(title, metric, curves, table.methods, table.budgets)


def ranks(results: Results) -> dict[str, Ranks]:
    """Average ranks by the budgets where it is known how far apart they must be."""
    found = results.compared.ranks.items()
    return {budget: each for budget, each in found if each.critical_difference is not None}


@figure("Average rank of each method at each training budget; the numbers are in comparisons.csv")
def average_ranks(results: Results) -> Drawing | None:
    shown = ranks(results)
    if not shown:
        return None
    counts = sorted({each.tasks for each in shown.values()})
    title = f"Average rank over {_range(counts)} tasks"
    return drawings.ranks(title, shown, results.table.methods)


def learners(results: Results) -> list[stream.Learner]:
    """Methods after the whole stream, where it has several tasks."""
    count = len(results.table.tasks)
    return stream.learners(results.passed, count) if count > 1 else []


@figure(
    "Mean error over all tasks against FLOPs of all trials, a point a method and budget, and those "
    "that none beats; the numbers are in the table"
)
def all_compute(results: Results) -> Drawing | None:
    table, points = results.table, learners(results)
    if not points:
        return None
    curves: dict[str, list[tuple[float, float]]] = {}
    for each in points:
        curves.setdefault(each.method, []).append((each.total_flops, each.error))
    front = sorted((each.total_flops, each.error) for each in points if each.on_front)
    title = f"Error over {len(table.tasks)} tasks against all that was spent"
    return drawings.compute_curves(title, curves, table.methods, "mean error (dev_test)", front)


def running(results: Results) -> tuple[str, dict[str, list[stream.Passed]]]:
    """The largest budget, and by method the tasks passed at it with the first seed, of several."""
    table = results.table
    if len(table.tasks) < 2:
        return "", {}
    return stream.running(results.passed, table.seeds[0], list(table.budgets))


@figure("Running mean of the error along the stream against FLOPs of all trials so far")
def along_the_stream(results: Results) -> Drawing | None:
    table = results.table
    budget, passed = running(results)
    if not passed:
        return None
    curves = {
        method: [(float(each.total_flops), each.mean_error) for each in of_method]
        for method, of_method in passed.items()
    }
    title = f"Along the stream, {labels([budget])[0]} a trial"
    label = "mean error of the tasks so far (dev_test)"
    return drawings.compute_curves(title, curves, table.methods, label)


@figure(
    "Which earlier network each task started from, and how good the features of each are for it"
)
def transfer(results: Results) -> Drawing | None:
    found = stream.matrices(results.passed, list(results.table.budgets))
    if not found:
        return None
    shown = found[0]
    scores = [[math.nan if each is None else each for each in row] for row in shown.scores]
    chosen = [(row, column) for row, column in enumerate(shown.starts) if column is not None]
    names = [source or "its own start" for source in shown.sources]
    title = f"What tasks could start from: {shown.method}, {labels([shown.budget])[0]}"
    return drawings.matrix(title, scores, shown.tasks, names, chosen)


def task_figure(task: str) -> str:
    """The name of a task's figure."""
    return f"task_{task}"


def _of_task(results: Results, task: RunTask) -> Drawing | None:
    table = results.table
    curves = task_curves(results.values, task.name)
    if not curves:
        return None
    return drawings.accuracy(
        task.title,
        aggregate.metric(task),
        curves,
        table.methods,
        table.budgets,
        aggregate.chance(task),
    )


def training_figure(task: str) -> str:
    """The name of the figure of how a task's best model was trained."""
    return f"training_{task}"


class Training(NamedTuple):
    """How a model was trained, by FLOPs.

    Attributes:
      losses: on training batches.
      scores: on dev; may be empty.
    """

    losses: dict[int, float]
    scores: dict[int, float]


def training(results: Results, best: Best) -> Training | None:
    """How a task's best model was trained; None where no loss was recorded."""
    log = results.table.logs.get(best.trial.id, ())
    losses = {r.flops: r.loss for r in log if isinstance(r, TrainRecord) and r.loss is not None}
    scores = {r.flops: r.dev for r in log if isinstance(r, DevRecord) and r.dev is not None}
    if not losses:
        return None
    if best.trial.dev is not None and best.trial.reported_step == best.trial.steps:
        scores[best.trial.spent_flops] = best.trial.dev
    return Training(losses, scores)


def _of_training(results: Results, best: Best) -> Drawing | None:
    found = training(results, best)
    if found is None:
        return None
    title = f"Training of the best model: {best.task.title}"
    return drawings.training(title, found.losses, found.scores, best.test.metric)


def choice_figure(task: str) -> str:
    """The name of the figure of what `auto` chose from."""
    return f"auto_{task}"


def expectations(choice: _choices.Choice) -> list[drawings.Expectation]:
    """What `auto` expected of each network that it could afford."""
    return [
        drawings.Expectation(
            option.flops / option.images,
            option.accuracy,
            *_choices.expected(option),
            is_seen=choice.is_seen(option),
            is_chosen=option.method == choice.network,
        )
        for option in choice.last.options
    ]


def _of_choice(choice: _choices.Choice) -> Drawing | None:
    points = expectations(choice)
    if not points:
        return None
    title = f"What auto chose from: {choice.task.title}, {labels([choice.trial.budget])[0]}"
    return drawings.expectations(title, choice.metric, points, choice.trial.dev)


def _curves(
    methods: Sequence[str], at_budget: Mapping[str, Mapping[str, Point]]
) -> dict[str, dict[str, Point]]:
    """Points by method, then budget; a method without points is left out."""
    curves = {
        method: {budget: points[method] for budget, points in at_budget.items() if method in points}
        for method in methods
    }
    return {method: curve for method, curve in curves.items() if curve}


def _task_counts(at_budget: Mapping[str, Mean]) -> str:
    """Over how many tasks the means are, a range where budgets differ."""
    number = _range(sorted({len(mean.tasks) for mean in at_budget.values() if mean.tasks}))
    return f"{number} task" if number == "1" else f"{number} tasks"


def _range(counts: Sequence[int]) -> str:
    return formatting.DASH.join(map(str, dict.fromkeys([counts[0], counts[-1]])))
