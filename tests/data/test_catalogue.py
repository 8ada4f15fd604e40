"""The tables of Nevis'22 and the streams made from them."""

import itertools
import re

import numpy as np
import pytest

from ctl_jax import data
from ctl_jax.data import catalogue
from ctl_jax.errors import UserError

DOMAINS = {
    "object",
    "ocr",
    "face",
    "scene",
    "texture",
    "medical",
    "counting",
    "shape",
    "satellite",
    "quality",
}


@pytest.mark.parametrize(
    ("variant", "tasks", "sets"),
    [
        ("FULL", 106, 97),
        ("SHORT", 29, 28),
        ("TINY", 7, 6),
        ("DEBUG", 2, 2),
        ("IMAGENET_ONLY", 1, 1),
        ("MAJOR_DOMAIN_ONLY", 70, None),
        ("LARGE_DATASET_ONLY", 67, None),
    ],
)
def test_variants_have_the_published_number_of_tasks(
    variant: str, tasks: int, sets: int | None
) -> None:
    stream = data.stream(variant, stop_year=2022)
    assert len(stream) == tasks
    assert sets is None or len({spec.dataset for spec in stream}) == sets
    names = [spec.name for spec in stream]
    assert len(set(names)) == tasks
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)
    years = [spec.year for spec in stream]
    assert None not in years
    assert years == sorted(years, key=lambda year: year or 0)


def test_every_variant_is_listed() -> None:
    assert set(data.VARIANTS) == {row["variant"] for row in catalogue._read("streams.csv")}


def test_data_sets_are_told_apart_by_title_and_by_name() -> None:
    rows = catalogue._read("datasets.csv")
    assert len(rows) == 100
    for column in ("title", "name"):
        assert len({row[column].casefold() for row in rows}) == 100
    assert {row["domain"] for row in rows} == DOMAINS
    assert {row["source"] for row in rows} == {"tfds", "nevis"}
    # A title that is another set's name would make "+" ambiguous.
    owner: dict[str, str] = {}
    for row in rows:
        for key in (row["title"].casefold(), row["name"].casefold()):
            assert owner.setdefault(key, row["title"]) == row["title"]


def test_stop_year_is_exclusive_and_2020_unless_given() -> None:
    everything = data.stream("SHORT", stop_year=2022)
    assert [spec.title for spec in everything if spec.year == 2020] == [
        "Stanford Dogs",
        "CUB 200",
        "Stanford Cars",
        "FGVC Aircraft",
    ]
    assert data.stream("SHORT") == tuple(spec for spec in everything if (spec.year or 0) < 2020)
    assert len(data.stream("DEBUG", stop_year=2000)) == 1
    with pytest.raises(UserError, match=r"'DEBUG' has no task before stop_year 1999.* 1999"):
        data.stream("DEBUG", stop_year=1999)


def test_a_set_that_comes_twice_is_two_tasks() -> None:
    mnist = [spec for spec in data.stream("SHORT") if spec.title == "MNIST"]
    assert [(spec.name, spec.dataset, spec.year) for spec in mnist] == [
        ("mnist", "mnist", 2004),
        ("mnist_2", "mnist", 2018),
    ]


def test_a_spec_has_what_the_tables_say() -> None:
    assert data.stream("DEBUG")[0] == data.TaskSpec(
        name="voc_2007",
        title="Pascal 2007",
        dataset="voc/2007",
        source="tfds",
        domain="object",
        kind="multi_label",
        year=1999,
    )


def test_named_sets_by_title_name_and_synthetic_name() -> None:
    stream = data.stream("MNIST+cifar 10+caltech101 + Letters+voc/2012+15 Scenes+mnist")
    assert [spec.name for spec in stream] == [
        "mnist",
        "cifar10",
        "caltech101",
        "letters",
        "voc_2012",
        "scenes15",
        "mnist_2",
    ]
    assert [spec.source for spec in stream[3:6]] == ["synthetic", "tfds", "nevis"]
    # The years of held-out sets do not matter when they are asked for by name.
    late = data.stream("FULL", stop_year=2022)[-1]
    assert late.year == 2021
    assert data.stream(late.title) == (late,)


def test_the_synthetic_stream_has_tasks_of_every_domain() -> None:
    stream = data.stream("synthetic")
    assert len(stream) >= 8
    assert {spec.domain for spec in stream} == DOMAINS
    assert {spec.source for spec in stream} == {"synthetic"}


@pytest.mark.parametrize(
    ("variant", "close"),
    [
        ("SHORTT", "; close: 'SHORT'"),
        ("full", "; close: 'FULL'"),
        ("Synthetic", "; close: 'synthetic'"),
        ("cifar11+mnist", "'cifar10'"),
        ("mnist+", ""),
        ("", ""),
    ],
)
def test_unknown_names(variant: str, close: str) -> None:
    with pytest.raises(UserError) as error:
        data.stream(variant)
    message = str(error.value)
    assert "\n" not in message
    assert close in message
    assert all(name in message for name in ("synthetic", *data.VARIANTS))


@pytest.mark.parametrize("variant", ["FULL+mnist", "mnist+SHORT", "synthetic+mnist"])
def test_a_stream_is_not_joined(variant: str) -> None:
    with pytest.raises(UserError, match=r"^stream '(FULL|SHORT|synthetic)': expected alone"):
        data.stream(variant)


def _titles(**changes: object) -> list[tuple[int | None, str]]:
    arguments = {"stop_year": 2022, **changes}
    return [(spec.year, spec.title) for spec in data.stream("FULL", **arguments)]  # type: ignore[arg-type]


DEVELOPMENT = [(spec.year, spec.title) for spec in data.stream("FULL")]
HELD_OUT = _titles()[92:]


def test_held_out_tasks() -> None:
    assert (len(DEVELOPMENT), len(HELD_OUT)) == (92, 14)
    assert {year for year, _ in HELD_OUT} == {2020, 2021}


@pytest.mark.parametrize(
    ("ablation", "expected"),
    [
        ("remove_first_30", DEVELOPMENT[30:]),
        ("remove_last_30", DEVELOPMENT[:62]),
        ("no_imagenet", [task for task in DEVELOPMENT if task[1] != "ImageNet"]),
    ],
)
def test_ablations_leave_out_development_tasks_only(
    ablation: str, expected: list[tuple[int | None, str]]
) -> None:
    assert len(expected) == {"no_imagenet": 91}.get(ablation, 62)
    assert _titles(ablation=ablation, stop_year=2020) == expected
    assert _titles(ablation=ablation) == expected + HELD_OUT
    assert ("ImageNet" in {title for _, title in HELD_OUT}) is True


def test_a_task_keeps_its_name_in_ablations_and_shuffles() -> None:
    names = {(spec.title, spec.year): spec.name for spec in data.stream("FULL", 2022)}
    changed: list[dict[str, object]] = [
        {"ablation": "remove_first_30"},
        {"shuffle": "order", "seed": 3},
        {"shuffle": "within_year"},
        {"ablation": "random", "num_tasks": 50},
    ]
    for arguments in changed:
        stream = data.stream("FULL", 2022, **arguments)  # type: ignore[arg-type]
        assert all(names[spec.title, spec.year] == spec.name for spec in stream)
    late = [s for s in data.stream("FULL", ablation="remove_first_30") if s.title == "MNIST"]
    assert [spec.name for spec in late] == ["mnist_2"]


def test_random_tasks_keep_their_order_and_depend_on_the_seed() -> None:
    draws = [_titles(ablation="random", num_tasks=20, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    for draw in draws:
        assert draw[20:] == HELD_OUT
        assert draw[:20] == [task for task in DEVELOPMENT if task in set(draw)]
    # What dm_nevis draws: numpy's shuffle of the list of tasks.
    tasks = list(DEVELOPMENT)
    np.random.default_rng(1).shuffle(tasks)
    assert set(tasks[:20]) == set(draws[2][:20])


def test_shuffles_keep_the_tasks() -> None:
    everything = _titles()
    within = [_titles(shuffle="within_year", seed=seed) for seed in (1, 1, 2)]
    order = [_titles(shuffle="order", seed=seed) for seed in (1, 1, 2)]
    for shuffled in (within, order):
        assert all(sorted(s, key=str) == sorted(everything, key=str) for s in shuffled)
        assert shuffled[0] == shuffled[1] != shuffled[2]
        assert shuffled[0] != everything
    assert [year for year, _ in within[0]] == [year for year, _ in everything]
    assert [year for year, _ in order[0]] != [year for year, _ in everything]
    # What dm_nevis does with its default seed.
    generator, expected = np.random.default_rng(1), []
    for _, group in itertools.groupby(everything, key=lambda task: task[0]):
        tasks = list(group)
        generator.shuffle(tasks)
        expected += tasks
    assert within[0] == expected


def test_named_and_synthetic_tasks_can_be_shuffled() -> None:
    plain, shuffled = (data.stream("synthetic", shuffle=shuffle) for shuffle in ("", "order"))
    assert plain != shuffled
    assert set(plain) == set(shuffled)
    one = data.stream("MNIST")
    assert [spec.title for spec in one] == ["MNIST"]
    assert data.stream("mnist+mnist+usps", shuffle="order", seed=2) != data.stream(
        "mnist+mnist+usps"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"ablation": "no_mnist"}, "'no_mnist': expected '' or one of remove_first_30"),
        ({"shuffle": "years"}, "'years': expected '' or one of within_year"),
        ({"ablation": "random"}, "num_tasks 0: expected at least 1"),
        ({"ablation": "random", "num_tasks": 93}, "num_tasks 93: expected at most 92"),
        ({"num_tasks": 3}, "num_tasks 3: expected 0"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
        ({"variant": "SHORT", "ablation": "remove_first_30"}, "ablation 'remove_first_30' has no"),
        ({"variant": "synthetic", "ablation": "no_imagenet"}, "expected '' for stream 'synthetic'"),
        ({"variant": "mnist", "shuffle": "within_year"}, "expected '' for stream 'mnist'"),
    ],
)
def test_impossible_streams(arguments: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        data.stream(**{"variant": "FULL", **arguments})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_the_metric_follows_from_the_kind() -> None:
    metrics = {spec.title: spec.metric for spec in data.stream("FULL", 2022)}
    assert metrics["Pascal 2007"] == metrics["CelebA"] == "mAP"
    assert metrics["MNIST"] == "accuracy"
    assert sum(metric == "mAP" for metric in metrics.values()) == 9
