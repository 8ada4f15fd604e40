"""The HTML page: self-contained, without scripts, readable where there is no network."""

import base64
import functools
import importlib.resources
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

from ctl_jax.report import costs, figures, groups, sections, text
from ctl_jax.report.curves import DENSE, Mean, task_curves, values
from ctl_jax.report.grids import grid, percent, relative_grid
from ctl_jax.report.records import Table
from ctl_jax.report.schema import PURPOSES


def render(
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[groups.Scores],
    images: Mapping[str, bytes],
) -> str:
    """Returns the page.

    Args:
        table: The run's records.
        rows: The rows of `results.csv`.
        found: The scores of all tasks, and of groups of them.
        images: Figures as PNG, by name.
    """
    encoded = {name: base64.b64encode(image).decode("ascii") for name, image in images.items()}
    return _template().render(_view(table, rows, found), images=encoded)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    source = importlib.resources.files("ctl_jax.report").joinpath("template.html")
    return environment.from_string(source.read_text(encoding="utf-8"))


def metric_name(table: Table) -> str:
    """Returns the name of the tasks' metric, "score" where they do not share one."""
    names = {groups.metric(task) for task in table.plan("tasks")}
    return names.pop() if len(names) == 1 else "score"


def chance(task: Mapping[str, Any]) -> float | None:
    """Returns the accuracy of a guess, 1 / number of classes, where that is known.

    The mean average precision of a guess depends on how frequent the labels are, which no record
    says.
    """
    if groups.metric(task) != "accuracy" or not task.get("num_classes"):
        return None
    return float(1 / task["num_classes"])


def task_figure(task: str) -> str:
    """Returns the name of a task's figure."""
    return f"task_{task}"


def task_counts(at_budget: Mapping[int, Mean]) -> str:
    """Returns over how many tasks the means are, a range where budgets differ."""
    counts = sorted({len(mean.tasks) for mean in at_budget.values() if mean.tasks})
    number = text.DASH.join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    return f"{number} task" if number == "1" else f"{number} tasks"


def _view(
    table: Table, rows: Sequence[Mapping[str, Any]], found: Sequence[groups.Scores]
) -> dict[str, Any]:
    """Returns everything the template shows, as text where it is a number."""
    run = table.run
    if run is None:
        return {"run": None}
    methods, budgets, at_budget = run["methods"], table.budgets, found[0].macro
    trials_left, rows_left = costs.unfinished(table)
    diverged = costs.diverged(table)
    return {
        "run": run,
        "metric": metric_name(table),
        "budgets": text.budgets(budgets),
        "rows": len(rows),
        "trials": len(table.trials),
        "corrupt": [task for task in run["tasks"] if task.get("corrupt_examples")],
        "noted": [(task, notes) for task in run["tasks"] if (notes := text.data_notes(task))],
        "trials_left": trials_left,
        "rows_left": rows_left,
        "diverged": [_trial(trial) for trial in diverged],
        "without_number": sum(row["dev_test"] is None for row in rows),
        "facts": _facts(table),
        "colours": {method: style.colour for method, style in figures.styles(methods).items()},
        "dense": DENSE in methods,
        "sentences": list(_sentences(methods, at_budget)),
        "mean_tasks": [len(at_budget[budget].tasks) for budget in budgets],
        "mean_grid": grid(methods, [at_budget[b].points for b in budgets], run["seeds"]),
        "relative_grid": relative_grid(methods, [at_budget[b] for b in budgets]),
        "groups": sections.views(found, methods, budgets, run["seeds"]),
        "methods": [_method(table, method) for method in methods],
        "tasks": [_task(table, rows, task) for task in run["tasks"]],
        "rates": _rates(table),
        "ledger": _ledger(table),
        "config": json.dumps(run["config"], indent=2, ensure_ascii=False, default=str),
    }


def _facts(table: Table) -> list[tuple[str, str]]:
    run = table.run
    assert run is not None
    total = len(run["tasks"]) + len(run["missing"])
    facts = [
        ("Stream", f"{_stream(run)}, {len(run['tasks'])} of {total} tasks"),
        ("Model", run["model"]),
        ("Weights", _weights(table)),
        ("Methods", ", ".join(run["methods"])),
        ("Budgets", ", ".join(text.budgets(table.budgets))),
        ("Learning rates", ", ".join(f"{rate:g}" for rate in run["learning_rates"])),
        ("Seeds", ", ".join(map(str, run["seeds"]))),
    ]
    for device, versions in table.machines:
        facts += [("Device", device), ("Versions", versions or "not recorded")]
    return facts


def _stream(run: Mapping[str, Any]) -> str:
    """The stream's name, and what the config says was done to it."""
    settings = run["config"].get("stream")
    changes = []
    if isinstance(settings, Mapping):
        changes = [
            f"{key} {settings[key]}"
            for key in ("ablation", "num_tasks", "shuffle", "stop_year")
            if settings.get(key)
        ]
        if settings.get("shuffle") or settings.get("num_tasks"):
            changes.append(f"seed {settings.get('seed')}")
    return ", ".join([run["variant"], *changes])


def _weights(table: Table) -> str:
    done = table.pretrain
    if done is not None:
        score = "" if done["metric"] is None else f", reaching {text.metric(done['metric'])}"
        cost = f"{done['steps']} steps, {text.flops(done['flops'])}"
        return f"pretrained in this run on {done['task']} ({cost}{score})"
    assert table.run is not None
    return ", ".join(_find(table.run["config"], "weights")) or "not recorded"


def _find(config: Mapping[str, Any], key: str) -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _find(value, key)
        elif name == key and value:
            yield str(value)


def _sentences(methods: Sequence[str], at_budget: Mapping[int, Mean]) -> Iterator[str]:
    """Yields the headline: who wins where compute is scarce and plentiful, and who loses."""
    known = {budget: mean for budget, mean in at_budget.items() if mean.points}
    for budget in dict.fromkeys([min(known), max(known)] if known else []):
        mean = known[budget]
        best = max(methods, key=lambda method: mean.points[method].mean)
        where = {min(at_budget): "smallest", max(at_budget): "largest"}.get(budget)
        place = f"the {where} budget" if where and len(at_budget) > 1 else "the budget"
        gain = mean.relative.get(best)
        change = "" if gain is None else f", {percent(gain.mean)} relative to dense"
        yield (
            f"At {place} ({text.flops(budget)}) {best} is best: "
            f"{text.metric(mean.points[best].mean)}{change}."
        )
    for method in methods:
        lost = {
            budget: mean.relative[method].mean
            for budget, mean in known.items()
            if method in mean.relative and mean.relative[method].mean < 0
        }
        if lost:
            worst = min(lost, key=lost.__getitem__)
            yield (
                f"{method} is below dense at {len(lost)} of {len(known)} budgets, "
                f"at worst {percent(lost[worst])} ({text.flops(worst)})."
            )


def _method(table: Table, method: str) -> dict[str, Any]:
    record = table.methods.get(method)
    if record is None:
        return {"method": method, "record": None}
    dense = table.methods.get(DENSE)
    ratio = record["forward_flops"] / dense["forward_flops"] if dense else None
    steps = [text.si(budget // record["flops_per_step"]) for budget in table.budgets]
    return {
        "method": method,
        "record": record,
        "params": text.si(record["params"]),
        "forward": text.flops(record["forward_flops"]),
        "step": text.flops(record["flops_per_step"]),
        "ratio": text.DASH if ratio is None else f"{ratio:.2f}",
        "steps": f" {text.DASH} ".join(dict.fromkeys([*steps[:1], *steps[-1:]])),
        "groups": f"{record['cut_groups']} of {record['groups']}",
    }


def _task(
    table: Table, rows: Sequence[Mapping[str, Any]], task: Mapping[str, Any]
) -> dict[str, Any]:
    curves = task_curves(values(r for r in rows if r["task"] == task["name"]), task["name"])
    columns = [
        {method: curve[budget] for method, curve in curves.items() if budget in curve}
        for budget in table.budgets
    ]
    guess = chance(task)
    examples = [task.get(f"{split}_examples") for split in ("train", "dev", "dev_test")]
    return {
        **{key: task[key] for key in ("name", "title", "dataset")},
        "facts": [str(task[key]) for key in ("domain", "kind", "year") if task.get(key)],
        "classes": task.get("num_classes") or text.DASH,
        "chance": text.metric(guess),
        "examples": [text.DASH if number is None else f"{number:,}" for number in examples],
        "metric": groups.metric(task),
        "figure": task_figure(task["name"]),
        "grid": grid(table.plan("methods"), columns, table.plan("seeds")),
        "any": bool(curves),
    }


def _trial(trial: Mapping[str, Any]) -> list[str]:
    return [
        trial["task"],
        trial["method"],
        text.flops(trial["budget_flops"]),
        f"{trial['learning_rate']:g}",
        str(trial["seed"]),
        trial["id"],
    ]


def _rates(table: Table) -> dict[str, Any]:
    counts = costs.learning_rates(table)
    rates = sorted(table.plan("learning_rates"))
    return {
        "head": [f"{rate:g}" for rate in rates],
        "body": [(method, [won[rate] for rate in rates]) for method, won in counts.items()],
    }


def _ledger(table: Table) -> dict[str, Any]:
    """Returns the ledger's lines; the last one is the total."""
    spent, seconds = costs.ledger(table), costs.wall_seconds(table)
    shared = table.pretrain["flops"] if table.pretrain else 0
    lines = [(method, spent[method], text.duration(seconds[method])) for method in spent]
    if table.pretrain:
        once = {**dict.fromkeys(PURPOSES, 0), "pretrain": shared}
        lines.append(("pretraining, shared by the methods", once, text.DASH))
    totals = {purpose: sum(by[purpose] for _, by, _ in lines) for purpose in PURPOSES}
    lines.append(("total", totals, text.duration(sum(seconds.values()))))
    return {
        "head": PURPOSES,
        "body": [
            (name, [text.si(by[purpose]) for purpose in PURPOSES], text.si(sum(by.values())), wall)
            for name, by, wall in lines
        ],
    }
