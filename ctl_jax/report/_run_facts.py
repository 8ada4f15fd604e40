"""What a run was of: stream, network, weights, methods, budgets, machines."""

from collections.abc import Iterator, Mapping
from typing import Any

from ctl_jax import formatting
from ctl_jax.records import PretrainRecord, RunRecord
from ctl_jax.report import spending
from ctl_jax.report._budgets import labels
from ctl_jax.report._table import Table


def of_table(run: RunRecord, table: Table) -> list[tuple[str, str]]:
    """What was run, on what and where, as names and texts."""
    total = len(run.tasks) + len(run.missing)
    facts = [
        ("Stream", f"{_stream(run)}, {len(run.tasks)} of {total} tasks"),
        ("Model", run.model),
        ("Weights", _weights(run, table.pretrain)),
        ("Methods", ", ".join(run.methods)),
        ("Budgets", ", ".join(labels(table.budgets))),
        ("Learning rates", ", ".join(f"{rate:g}" for rate in run.learning_rates) or "searched"),
        ("Seeds", ", ".join(map(str, run.seeds))),
    ]
    for device, versions in table.machines:
        facts += [("Device", device), ("Versions", versions or "not recorded")]
    return [*facts, ("Computed on", spending.hardware_in_words(table) or "not recorded")]


def _stream(run: RunRecord) -> str:
    """The stream's name, and what the config says was done to it."""
    settings = run.config.get("stream")
    changes = []
    if isinstance(settings, Mapping):
        changes = [
            f"{key} {settings[key]}"
            for key in ("ablation", "num_tasks", "shuffle", "stop_year")
            if settings.get(key)
        ]
        if settings.get("shuffle") or settings.get("num_tasks"):
            changes.append(f"seed {settings.get('seed')}")
    return ", ".join([run.variant, *changes])


def _weights(run: RunRecord, done: PretrainRecord | None) -> str:
    if done is not None:
        score = "" if done.metric is None else f", reaching {formatting.metric(done.metric)}"
        cost = f"{done.steps} steps, {formatting.flops(done.flops)}"
        return f"pretrained in this run on {done.task} ({cost}{score})"
    return ", ".join(_find(run.config, "weights")) or "not recorded"


def _find(config: Mapping[str, Any], key: str) -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _find(value, key)
        elif name == key and value:
            yield str(value)
