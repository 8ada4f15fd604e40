"""The tables of Nevis'22 and the streams made from them."""

import re

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


def test_named_sets_by_title_name_and_embedded_name() -> None:
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
    assert [spec.source for spec in stream[3:6]] == ["embedded", "tfds", "nevis"]
    # The years of held-out sets do not matter when they are asked for by name.
    late = data.stream("FULL", stop_year=2022)[-1]
    assert late.year == 2021
    assert data.stream(late.title) == (late,)


def test_the_embedded_stream_has_tasks_of_every_domain() -> None:
    stream = data.stream("embedded")
    assert len(stream) >= 8
    assert {spec.domain for spec in stream} == DOMAINS
    assert {spec.source for spec in stream} == {"embedded"}


@pytest.mark.parametrize(
    ("variant", "close"),
    [("SHORTT", "'short'"), ("cifar11+mnist", "'cifar10'"), ("mnist+", ""), ("", ""), ("full", "")],
)
def test_unknown_names(variant: str, close: str) -> None:
    with pytest.raises(UserError) as error:
        data.stream(variant)
    message = str(error.value)
    assert "\n" not in message
    assert close in message
    assert all(name in message for name in ("embedded", *data.VARIANTS))
