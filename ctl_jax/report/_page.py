"""The HTML page: self-contained, so that it opens where there is no network."""

import base64
import functools
import importlib.resources
import itertools
import json
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
import plotly.offline

from ctl_jax import formatting
from ctl_jax.formatting import DASH, si
from ctl_jax.records import PURPOSES, MethodRecord, RunTask, TrialRecord
from ctl_jax.report import (
    _charts,
    _choices,
    _comparison_tables,
    _html_tables,
    _run_facts,
    aggregate,
    frontier,
    spending,
    stream,
)
from ctl_jax.report._budgets import labels, units
from ctl_jax.report._comparison_tables import (
    best_on_dev,
    caveats,
    handover_sentences,
    headline,
    losses,
)
from ctl_jax.report._html_tables import grid
from ctl_jax.report._table import Table
from ctl_jax.report._winners import facts, of_table
from ctl_jax.report.aggregate import DENSE, task_curves, values
from ctl_jax.report.comparisons import handovers
from ctl_jax.report.frontier import Leader
from ctl_jax.report.gallery import FIGURES, Results, learners

# Of more values of a setting there is no table of which won.
_MOST_VALUES = 12
# Figures that the page has as charts.
_DRAWN = (
    *("mean_over_tasks", "relative_to_dense", "average_ranks"),
    *("all_compute", "along_the_stream", "transfer"),
)


def render(view: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The page.

    Args:
      view: what it shows, from `view`.
      images: figures as PNG, by name.
    """
    shown = [name for name, _ in view.get("figures", ())]
    encoded = {name: base64.b64encode(images[name]).decode("ascii") for name in shown}
    return _template().render(
        view,
        images=encoded,
        css=_file("page.css"),
        scripts=[_file("charts.js"), _file("page.js")],
        plotly=markupsafe.Markup(plotly.offline.get_plotlyjs()),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: str(_file(name))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("template.html")


@functools.cache
def _file(name: str) -> markupsafe.Markup:
    source = importlib.resources.files("ctl_jax.report").joinpath(name)
    return markupsafe.Markup(source.read_text(encoding="utf-8"))


def view(results: Results, images: Collection[str]) -> dict[str, Any]:
    """Everything that the page shows, as text where it is a number.

    Args:
      results: a run's.
      images: names of the figures that there are.
    """
    table, rows = results.table, results.rows
    run = table.run
    if run is None:
        return {"run": None}
    methods, budgets, macro = table.methods, table.budgets, results.scores[0].macro
    metric = aggregate.metric_name(table.tasks)
    compared = frontier.versus(rows, table.task_names, methods, budgets)
    told = frontier.crossover(compared)
    leaders = frontier.frontier(results.values, table.task_names, methods, budgets)
    said = [
        *headline(macro, best_on_dev(table, rows), leaders, results.compared),
        *((sentence, False) for sentence in losses(methods, macro, results.compared)),
    ]
    trials_left, rows_left = spending.unfinished(table)
    diverged = spending.diverged(table)
    found_in = [(task, formatting.data_notes(task.notes, task.passed_over)) for task in table.tasks]
    return {
        "run": run,
        "metric": metric,
        "budgets": labels(budgets),
        "units": units(budgets),
        "rows": len(rows),
        "trials": len(table.trials),
        "corrupt": [task for task in table.tasks if task.corrupt_examples],
        "noted": [(task, notes) for task, notes in found_in if notes],
        "hardware": spending.hardware_warning(table),
        "trials_left": trials_left,
        "rows_left": rows_left,
        "diverged": [_trial(trial) for trial in diverged],
        "without_number": sum(row["dev_test"] is None for row in rows),
        "facts": _run_facts.of_table(run, table),
        "drawn": {each["name"]: each for each in _charts.methods(methods)},
        "charts": _charts.data(results) if results.values else None,
        "has_means": any(mean.points for mean in macro.values()),
        "dense": DENSE in methods,
        "figures": [
            (f.name, f.alt.format(metric=metric))
            for f in FIGURES
            if f.name in images and f.name not in _DRAWN
        ],
        "sentences": [*said, *([(told, False)] if told else [])],
        "caveats": caveats(results.compared, len(table.tasks), len(table.seeds)),
        "leaders": _leaders(leaders),
        "handovers": handover_sentences(
            handovers(
                results.values, table.task_names, [b.method for b in leaders.values()], budgets
            )
        ),
        "versus": _versus(compared),
        "mean_tasks": [len(macro[budget].tasks) for budget in budgets],
        "mean_grid": grid(
            methods,
            [macro[b].points for b in budgets],
            table.seeds,
            intervals=[results.scores[0].intervals[b] for b in budgets],
            leaders=[leaders.get(b) for b in budgets],
        ),
        "learners": [_learner(each) for each in learners(results)],
        "starts": _starts(results),
        "compared": _comparison_tables.view(results.compared, methods, budgets),
        "groups": _html_tables.group_views(results.scores, methods, budgets, table.seeds),
        "best": [(each.task.title, facts(each, run.model)) for each in of_table(table)],
        "choices": [_choice(choice) for choice in _choices.of_table(table)],
        "caveat": _choices.CAVEAT,
        "methods": [_method(table, method) for method in methods],
        "tasks": [_task(table, rows, task) for task in table.tasks],
        "won": [_won(name, counts) for name, counts in _settings(table)],
        "ledger": _ledger(table),
        "shared": spending.shared(table),
        "saturated": [(name, _label(budget)) for name, budget in spending.saturated(table).items()],
        "config": json.dumps(run.config, indent=2, ensure_ascii=False, default=str),
    }


def _leaders(leaders: Mapping[str, Leader]) -> list[tuple[str, ...]]:
    """The best method at each budget: budget, method, mean, tasks, what is no worse."""
    return [
        (
            _label(budget),
            best.method,
            best.score.shown,
            str(best.tasks),
            DASH if not best.others else ", ".join(best.others),
        )
        for budget, best in leaders.items()
    ]


def _versus(compared: Mapping[str, frontier.Versus]) -> list[tuple[str, ...]]:
    """The best method that makes steps against the best that makes none, by budget."""
    return [
        (_label(budget), each.trained, each.fitted, each.difference.shown, str(each.tasks))
        for budget, each in compared.items()
    ]


def _choice(choice: _choices.Choice) -> dict[str, Any]:
    """What the template shows of what `auto` did on a task."""
    body = []
    for option in choice.last.options:
        low, high = _choices.expected(option)
        is_chosen = option.method == choice.network
        solver = choice.trial.solver or "training"
        body.append(
            (
                option.method,
                option.solver,
                f"{option.images:,}",
                formatting.flops(option.flops),
                f"{formatting.metric(option.accuracy)} ({low:.2f} to {high:.2f})",
                "yes" if choice.is_seen(option) else "",
                (solver if solver != option.solver else "yes") if is_chosen else "",
            )
        )
    return {
        "title": choice.task.title,
        "paragraph": _choices.paragraph(choice),
        "metric": choice.metric,
        "body": body,
    }


def _learner(each: stream.Learner) -> tuple[str, ...]:
    """What the template shows of a method at a budget after the whole stream."""
    shown = formatting.flops(each.total_flops), formatting.metric(each.error)
    front = "yes" if each.on_front else ""
    return each.method, _label(each.budget), *shown, str(each.seeds), front


def _starts(results: Results) -> dict[str, Any]:
    """What the template shows of what tasks started from."""
    found = stream.starts(results.passed, list(results.table.budgets))
    # Not all methods have passed all tasks yet.
    columns = itertools.zip_longest(*found.values(), fillvalue=DASH) if found else ()
    body = [(task.title, cells) for task, cells in zip(results.table.tasks, columns, strict=False)]
    return {"methods": list(found), "body": body}


def _label(budget: str) -> str:
    return labels([budget])[0]


def _method(table: Table, method: str) -> dict[str, Any]:
    record = table.networks.get(method) or _of_trials(table, method)
    if record is None:
        return {"method": method, "record": None}
    dense = table.networks.get(DENSE)
    ratio = record.forward_flops / dense.forward_flops if dense else None
    known = [flops for flops in table.budgets.values() if flops is not None]
    step = record.flops_per_step
    steps = [si(flops // step) for flops in known] if step else []
    return {
        "method": method,
        "record": record,
        "params": si(record.params),
        "forward": formatting.flops(record.forward_flops),
        "step": formatting.flops(step) if step else DASH,
        "ratio": DASH if ratio is None else f"{ratio:.2f}",
        "steps": f" {DASH} ".join(dict.fromkeys([*steps[:1], *steps[-1:]])) or DASH,
        "groups": f"{record.cut_groups} of {record.groups}" if record.groups else DASH,
    }


def _of_trials(table: Table, method: str) -> MethodRecord | None:
    """What the trials of a method tell of its networks, which differ between tasks."""
    trials = [trial for trial in table.trials if trial.method == method]
    if not trials:
        return None
    steps = [trial.flops_per_step for trial in trials if trial.flops_per_step]
    return MethodRecord(
        method=method,
        scope=trials[0].scope,
        ratio=trials[0].ratio,
        criterion=trials[0].criterion,
        params=round(statistics.fmean(trial.params for trial in trials)),
        forward_flops=round(statistics.fmean(trial.forward_flops for trial in trials)),
        flops_per_step=round(statistics.fmean(steps)) if steps else None,
        groups=0,
        cut_groups=0,
        notes=("its networks differ between tasks: numbers are means over trials",),
    )


def _task(table: Table, rows: Sequence[Mapping[str, Any]], task: RunTask) -> dict[str, Any]:
    curves = task_curves(values(r for r in rows if r["task"] == task.name), task.name)
    columns = [
        {method: curve[budget] for method, curve in curves.items() if budget in curve}
        for budget in table.budgets
    ]
    examples = (task.train_examples, task.dev_examples, task.dev_test_examples)
    return {
        "name": task.name,
        "title": task.title,
        "dataset": task.dataset,
        "facts": [str(fact) for fact in (task.domain, task.kind, task.year) if fact],
        "classes": task.num_classes or DASH,
        "chance": formatting.metric(aggregate.chance(task)),
        "examples": [DASH if number is None else f"{number:,}" for number in examples],
        "metric": aggregate.metric(task),
        "grid": grid(table.methods, columns, table.seeds),
        "any": bool(curves),
    }


def _trial(trial: TrialRecord) -> list[str]:
    return [
        trial.task,
        trial.method,
        _label(trial.budget),
        DASH if trial.learning_rate is None else f"{trial.learning_rate:g}",
        str(trial.seed),
        trial.id,
    ]


def _settings(table: Table) -> Iterator[tuple[str, Mapping[str, Mapping[Any, int]]]]:
    """What the search was over, each with how many searches each value won, by method."""
    tried: list[tuple[str, Mapping[str, Mapping[Any, int]], int]] = [
        ("Learning rate", spending.learning_rates(table), 1),
        ("Batch size", spending.batch_sizes(table), 2),
        ("Label smoothing", spending.label_smoothings(table), 2),
    ]
    for name, won, least in tried:
        # Of values that were drawn there are too many.
        if won and least <= len(next(iter(won.values()))) <= _MOST_VALUES:
            yield name, won


def _won(name: str, counts: Mapping[str, Mapping[Any, int]]) -> dict[str, Any]:
    values = next(iter(counts.values()))
    return {
        "name": name,
        "head": [f"{value:g}" for value in values],
        "body": [(method, list(won.values())) for method, won in counts.items()],
    }


def _ledger(table: Table) -> dict[str, Any]:
    """The ledger's lines; the last one is the total."""
    lines = spending.lines(table)
    total = spending.Line(
        "total",
        {purpose: sum(line.flops[purpose] for line in lines) for purpose in PURPOSES},
        {"all": sum(sum(line.seconds.values()) for line in lines)},
    )
    return {
        "head": PURPOSES,
        "body": [
            {
                "name": line.name,
                "numbers": [si(line.flops[purpose]) for purpose in PURPOSES],
                "sum": si(sum(line.flops.values())),
                "seconds": sum(line.seconds.values()),
                "wall": formatting.duration(sum(line.seconds.values())) if line.seconds else DASH,
            }
            for line in [*lines, total]
        ],
    }
