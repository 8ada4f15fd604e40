"""The tables of Nevis'22 and the streams made from them."""

import csv
import dataclasses
import difflib
import functools
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import count

import numpy as np

from ctl_jax.data import _paths, synthetic
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
# After the last year of the benchmark.
ALL_YEARS = 2022
# What a stream may be without: see `stream`.
ABLATIONS = ("remove_first_30", "remove_last_30", "no_imagenet", "random")
SHUFFLES = ("within_year", "order")
_REMOVED = 30


def stream(
    variant: str,
    stop_year: int = STOP_YEAR,
    *,
    ablation: str = "",
    num_tasks: int = 0,
    shuffle: str = "",
    seed: int = 0,
) -> tuple[TaskSpec, ...]:
    """The tasks of a stream, in its order.

    The ablations are those of Nevis'22 (Bornschein et al., 2022, arXiv:2211.11747). They leave out
    tasks before 2020 only: what is held out stays, as far as `stop_year` lets it. dm_nevis' own
    "last 30" cuts the year that it ends in from that year's beginning; here they are the last.

    Args:
      variant: "synthetic", one of `VARIANTS`, or tasks joined by "+", each by its title, its TFDS
          or dm_nevis name, the name of a synthetic task, in upper or lower case, or by where its
          images are (see `paths`): "mnist+CIFAR 10+letters+/data/flowers+~/birds.zip".
      stop_year: a variant of Nevis'22 ends before this year; 2022 gives all of it. Data sets
          that are named are not left out.
      ablation: "" or one of `ABLATIONS`, of a variant of Nevis'22: without the first or the last
          30 tasks, without ImageNet, or `num_tasks` tasks drawn at random, in their order.
      num_tasks: with "random", how many; 0 otherwise. dm_nevis counts the 14 held-out ones in.
      shuffle: "" or one of `SHUFFLES`: the tasks of each year among themselves (as dm_nevis does,
          also for each seed), or all tasks.
      seed: of the draw and of the shuffle.

    Returns:
      One spec a task. A data set that comes twice is two tasks, "mnist" and "mnist_2"; a task has
      the same name in all ablations and shuffles of a stream.

    Raises:
      UserError: an unknown name, no task left, or an ablation that the variant does not have.
    """
    _check(variant, ablation, num_tasks, shuffle, seed)
    if variant not in VARIANTS:
        names = list(synthetic.TASKS) if variant == "synthetic" else _split(variant)
        return _shuffled(_unique(map(_named, names)), shuffle, seed)
    found = _data_sets()
    rows = [row for row in _read("streams.csv") if row["variant"] == variant]
    everything = _unique(
        dataclasses.replace(found[row["title"].casefold()], year=int(row["year"])) for row in rows
    )
    specs = [
        spec
        for spec in _ablated(everything, ablation, num_tasks, seed)
        if spec.year is not None and spec.year < stop_year
    ]
    if not specs:
        without = f" with ablation {ablation!r}" if ablation else ""
        raise UserError(
            f"stream {variant!r}{without} has no task before stop_year {stop_year!r}; "
            f"its first is of {rows[0]['year']}"
        )
    return _shuffled(specs, shuffle, seed)


def source_spec(name: str) -> TaskSpec:
    """The task to pretrain on of a name: "synthetic_source", or one that a stream may have.

    Raises:
      UserError: an unknown name, or several.
    """
    if name in synthetic.SOURCES:
        return _synthetic_spec(synthetic.SOURCES[name])
    expected = f"{', '.join(map(repr, synthetic.SOURCES))}, or one task that a stream may have"
    try:
        specs = stream(name) if name not in VARIANTS else ()
    except UserError as error:
        raise UserError(f"unknown source task {name!r}; expected {expected}: {error}") from error
    if len(specs) != 1:
        raise UserError(f"source task {name!r}: expected {expected}")
    return specs[0]


def _check(variant: str, ablation: str, num_tasks: int, shuffle: str, seed: int) -> None:
    for name, value, known in (("ablation", ablation, ABLATIONS), ("shuffle", shuffle, SHUFFLES)):
        if value not in ("", *known):
            raise UserError(f"{name} {value!r}: expected '' or one of {', '.join(known)}")
        needs_years = value and value != "order"
        if needs_years and variant not in VARIANTS:
            raise UserError(
                f"{name} {value!r}: expected '' for stream {variant!r}, which is no variant of "
                f"Nevis'22; they are {', '.join(VARIANTS)}"
            )
    if ablation == "random" and num_tasks < 1:
        raise UserError(f"num_tasks {num_tasks!r}: expected at least 1 with ablation 'random'")
    if ablation != "random" and num_tasks:
        raise UserError(f"num_tasks {num_tasks!r}: expected 0 without ablation 'random'")
    if seed < 0:
        raise UserError(f"seed {seed!r}: expected 0 or more")


def _ablated(specs: Sequence[TaskSpec], ablation: str, num_tasks: int, seed: int) -> list[TaskSpec]:
    """The tasks without those that the ablation leaves out, in their order."""
    development = [spec for spec in specs if spec.year is not None and spec.year < STOP_YEAR]
    held_out = [spec for spec in specs if spec not in development]
    if ablation == "remove_first_30":
        development = development[_REMOVED:]
    elif ablation == "remove_last_30":
        development = development[:-_REMOVED]
    elif ablation == "no_imagenet":
        development = [spec for spec in development if spec.dataset != "imagenet2012"]
    elif ablation == "random":
        if num_tasks > len(development):
            raise UserError(
                f"num_tasks {num_tasks!r}: expected at most {len(development)}, which is how many "
                f"tasks before {STOP_YEAR} the stream has"
            )
        chosen = _permuted(development, np.random.default_rng(seed))[:num_tasks]
        development = [spec for spec in development if spec in chosen]
    return development + held_out


def _shuffled(specs: Sequence[TaskSpec], shuffle: str, seed: int) -> tuple[TaskSpec, ...]:
    generator = np.random.default_rng(seed)
    if shuffle == "order":
        return tuple(_permuted(specs, generator))
    if shuffle == "within_year":
        years = dict.fromkeys(spec.year for spec in specs)
        return tuple(
            spec
            for year in years
            for spec in _permuted([spec for spec in specs if spec.year == year], generator)
        )
    return tuple(specs)


def _permuted(specs: Sequence[TaskSpec], generator: np.random.Generator) -> list[TaskSpec]:
    # A list and not an array: numpy draws differently for the two, and dm_nevis shuffles lists.
    order = list(range(len(specs)))
    generator.shuffle(order)
    return [specs[index] for index in order]


def _split(text: str) -> list[str]:
    """The names of tasks that "+" joins; paths with "+" in them are kept where they exist."""
    words, names = text.split("+"), []
    while words:
        most = 1 if words[0].strip().casefold() in _data_sets() else len(words)
        taken = next((n for n in range(most, 1, -1) if _paths.exists("+".join(words[:n]))), 1)
        names.append("+".join(words[:taken]))
        words = words[taken:]
    return names


def _named(name: str) -> TaskSpec:
    known = _data_sets()
    key = name.strip().casefold()
    if key in known:
        return known[key]
    if key in synthetic.SOURCES:
        return _synthetic_spec(synthetic.SOURCES[key])
    if (spec := _paths.spec(name)) is not None:
        # An official set of TFDS is that of the catalogue.
        return known.get(spec.dataset, spec) if not spec.path else spec
    streams = {stream.casefold(): stream for stream in (*VARIANTS, "synthetic")}
    if name in streams.values():
        raise UserError(f"stream {name!r}: expected alone, or data sets joined by '+'")
    # Each as it has to be written.
    names = {each: each for each in known} | streams
    close = [names[each] for each in difflib.get_close_matches(key, names, n=3)]
    hint = f"; close: {', '.join(map(repr, close))}" if close else ""
    raise UserError(
        f"unknown stream or data set {name!r}{hint}; expected 'synthetic', one of "
        f"{', '.join(VARIANTS)}, or data sets of Nevis'22 or synthetic ones joined by '+', or "
        "paths of images"
    )


def _unique(specs: Iterable[TaskSpec]) -> tuple[TaskSpec, ...]:
    """Numbers the tasks of a data set from the second on."""
    result: dict[str, TaskSpec] = {}
    for spec in specs:
        names = (f"{spec.name}_{number}" if number > 1 else spec.name for number in count(1))
        name = next(name for name in names if name not in result)
        result[name] = dataclasses.replace(spec, name=name)
    return tuple(result.values())


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
    specs += [_synthetic_spec(task) for task in synthetic.TASKS.values()]
    return {key.casefold(): spec for spec in specs for key in (spec.title, spec.dataset)}


def _synthetic_spec(task: synthetic.SyntheticTask) -> TaskSpec:
    """How a stream names a synthetic task."""
    return TaskSpec(
        name=task.name,
        title=task.title,
        dataset=task.name,
        source="synthetic",
        domain=task.domain,
        kind="single_label",
        year=None,
    )
