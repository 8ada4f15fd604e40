"""The tables of Nevis'22 and the streams made from them."""

import csv
import dataclasses
import difflib
import functools
from collections.abc import Iterable
from importlib import resources

from ctl_jax.data import embedded
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError

# In the order of their size.
VARIANTS = (
    "FULL",
    "MAJOR_DOMAIN_ONLY",
    "LARGE_DATASET_ONLY",
    "SHORT",
    "TINY",
    "DEBUG",
    "IMAGENET_ONLY",
)
# Tasks from this year on are held out.
STOP_YEAR = 2020


def stream(variant: str, stop_year: int = STOP_YEAR) -> tuple[TaskSpec, ...]:
    """The tasks of a stream, in its order.

    Args:
      variant: "embedded", one of `VARIANTS`, or data sets joined by "+", each by its title, its
          TFDS or dm_nevis name, or the name of an embedded task, in upper or lower case:
          "mnist+CIFAR 10+letters".
      stop_year: a variant of Nevis'22 ends before this year; 2022 gives all of it. Data sets
          that are named are not left out.

    Returns:
      One spec a task. A data set that comes twice is two tasks, "mnist" and "mnist_2".

    Raises:
      UserError: an unknown name, or no task before `stop_year`.
    """
    if variant == "embedded":
        return tuple(_named(task) for task in embedded.TASKS)
    if variant in VARIANTS:
        rows = [row for row in _read("streams.csv") if row["variant"] == variant]
        found = _data_sets()
        specs = [
            dataclasses.replace(found[row["title"].casefold()], year=int(row["year"]))
            for row in rows
            if int(row["year"]) < stop_year
        ]
        if not specs:
            raise UserError(
                f"stream {variant!r} has no task before stop_year {stop_year!r}; "
                f"its first is of {rows[0]['year']}"
            )
        return _unique(specs)
    return _unique([_named(name) for name in variant.split("+")])


def _named(name: str) -> TaskSpec:
    known = _data_sets()
    key = name.strip().casefold()
    if key in known:
        return known[key]
    close = difflib.get_close_matches(key, [*known, *map(str.casefold, VARIANTS)], n=3)
    hint = f"; close: {', '.join(map(repr, close))}" if close else ""
    raise UserError(
        f"unknown stream or data set {name!r}{hint}; expected 'embedded', one of "
        f"{', '.join(VARIANTS)}, or data sets of Nevis'22 or embedded ones joined by '+'"
    )


def _unique(specs: Iterable[TaskSpec]) -> tuple[TaskSpec, ...]:
    """Numbers the tasks of a data set from the second on."""
    seen: dict[str, int] = {}
    result = []
    for spec in specs:
        seen[spec.name] = seen.get(spec.name, 0) + 1
        suffix = f"_{seen[spec.name]}" if seen[spec.name] > 1 else ""
        result.append(dataclasses.replace(spec, name=spec.name + suffix))
    return tuple(result)


@functools.cache
def _read(file: str) -> tuple[dict[str, str], ...]:
    text = resources.files("ctl_jax.data").joinpath("nevis22", file).read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@functools.cache
def _data_sets() -> dict[str, TaskSpec]:
    """Every known data set, by title and by name, in lower case."""
    # The year of its first task in the whole benchmark.
    years: dict[str, int] = {}
    for row in _read("streams.csv"):
        if row["variant"] == "FULL":
            years.setdefault(row["title"], int(row["year"]))
    specs = [
        TaskSpec(
            name=row["name"].replace("/", "_"),
            title=row["title"],
            dataset=row["name"],
            source=row["source"],
            domain=row["domain"],
            kind=row["kind"],
            year=years.get(row["title"]),
        )
        for row in _read("datasets.csv")
    ]
    specs += [embedded_spec(task) for task in embedded.TASKS.values()]
    return {key.casefold(): spec for spec in specs for key in (spec.title, spec.dataset)}


def embedded_spec(task: embedded.EmbeddedTask) -> TaskSpec:
    """How a stream names an embedded task."""
    return TaskSpec(
        name=task.name,
        title=task.title,
        dataset=task.name,
        source="embedded",
        domain=task.domain,
        kind="single_label",
        year=None,
    )
