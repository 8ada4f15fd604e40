"""Tasks that are named by where their images are."""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from ctl_jax import data, experiment
from ctl_jax.data import _paths
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.tasks import TaskLoader, find_tasks

from .forms import Picture, delimited, folder

Make = Callable[..., Any]


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, picture: Make) -> pathlib.Path:
    """A home, which is the current folder too, with flowers/, a+b/flowers/ and flowers.csv."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = [
        Picture("", label, f"{number}.png", picture(number + 10 * (label == "a")))
        for label in "ab"
        for number in range(9)
    ]
    folder(tmp_path / "a+b", made)
    delimited(tmp_path, made)
    return tmp_path


def names(text: str) -> list[tuple[str, str]]:
    return [(spec.name, spec.path or spec.dataset) for spec in data.stream(text)]


def test_paths_and_names_make_a_stream(home: pathlib.Path) -> None:
    found = names("mnist+flowers+./flowers/+~/flowers.csv?label=species+a+b/flowers+MNIST+digits")
    own = f"{home}/flowers"
    assert found == [
        ("mnist", "mnist"),
        ("flowers", f"folder:{own}"),
        ("flowers_2", f"folder:{own}"),
        ("flowers_3", f"table:{own}.csv?label=species"),
        ("flowers_4", f"folder:{home}/a+b/flowers"),
        ("mnist_2", "mnist"),
        ("digits", "digits"),
    ]
    specs = data.stream("flowers+a+b/flowers")
    assert specs[0].key != specs[1].key
    assert {spec.file_name for spec in specs} == {"flowers"}
    assert (specs[0].title, specs[0].source, specs[0].domain, specs[0].year) == (
        "flowers",
        "folder",
        "own",
        None,
    )


def test_a_name_of_the_catalogue_comes_first(home: pathlib.Path) -> None:
    (home / "flowers").rename(home / "mnist")
    assert names("mnist") == [("mnist", "mnist")]
    assert names("./mnist+mnist+folder:mnist") == [
        ("mnist", f"folder:{home}/mnist"),
        ("mnist_2", "mnist"),
        ("mnist_3", f"folder:{home}/mnist"),
    ]


def test_names_are_fit_for_files(home: pathlib.Path) -> None:
    odd = home / "..my *flowers* 日本 (1)"
    (home / "flowers").rename(odd)
    ((name, path),) = names(str(odd))
    assert (name, path) == ("my_flowers_日本_1", f"folder:{odd}")
    (home / ("x" * 200)).symlink_to(odd)
    assert names("x" * 200)[0][0] == "x" * 60


def test_a_number_is_not_taken_twice(home: pathlib.Path) -> None:
    (home / "flowers_2").symlink_to("flowers")
    assert [name for name, _ in names("flowers+flowers_2+flowers")] == [
        "flowers",
        "flowers_2",
        "flowers_3",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./flower", r"no such file or folder; close in '.*': 'flowers', 'flowers.csv'$"),
        ("~/x/y/z", r"'.*/x/y/z': there is no such file or folder; there is no '.*/x'$"),
        ("flwers.csv", r"no such file or folder; close in '.*': 'flowers.csv'"),
        ("flower", r"unknown stream or data set 'flower'; close: .*, or paths of images$"),
        ("voc/2008", r"unknown stream or data set 'voc/2008'; close: 'voc/2007'"),
        ("notes.txt", r"'.*/notes.txt' is of no known form; expected a folder or archive \(zip, "),
        ("flowers?label=x", r"option label=x: expected none for this form"),
        ("flowers.csv?lable=x", r"option lable=x: expected image \(the column .*\), label \("),
        ("flowers.csv?label=", r"option label=: expected image"),
        ("flowers.csv?missing=no", r"option missing=no: expected skip"),
        (
            "synthetic:flowers",
            r"'synthetic:flowers': a task of kind 'synthetic' has a name,",
        ),
        ("table:flowers", r"'.*/flowers' has no table; expected csv, tsv, jsonl or parquet files"),
        ("zip:flowers", r"unknown stream or data set 'zip:flowers'"),
        ("gs://bucket/flowers", r"unknown stream or data set 'gs://bucket/flowers'"),
    ],
)
def test_what_is_not_there(text: str, message: str, home: pathlib.Path) -> None:
    (home / "notes.txt").write_text("notes")
    with pytest.raises(UserError, match=message) as caught:
        data.open_set(data.stream(text)[0])
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_read(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(_paths.os, "stat", refuse)
    with pytest.raises(UserError, match=r"flowers' cannot be read: Permission denied"):
        data.stream("./flowers")


def test_a_task_to_pretrain_on(home: pathlib.Path) -> None:
    assert data.source_spec("./flowers").path == f"folder:{home}/flowers"
    assert data.source_spec("imagenet2012").source == "tfds"
    with pytest.raises(UserError, match=r"source task 'flowers\+mnist': expected 'synthetic_sou"):
        data.source_spec("flowers+mnist")


def test_a_plan_knows_them(home: pathlib.Path) -> None:
    config = experiment.default_config()
    config.methods = ("scratch",)
    config.stream.variant = "flowers+a+b/flowers+flowers.csv"
    settings = validate(config)
    loader = TaskLoader(settings.data)
    found, missing = find_tasks(settings.stream, loader)
    assert ([spec.name for spec in found], missing) == (["flowers", "flowers_2", "flowers_3"], ())
    assert {(spec.kind, spec.metric) for spec in found} == {("single_label", "accuracy")}
    infos = [loader.info(spec) for spec in found]
    assert {info.class_names for info in infos} == {("a", "b")}
    # Ids rest on what is in them.
    assert len({info.fingerprint for info in infos}) == 1
    (home / "moved").mkdir()
    (home / "flowers").rename(home / "moved" / "flowers")
    (spec,) = data.stream("moved/flowers")
    assert TaskLoader(settings.data).info(spec).identity == infos[0].identity
    with pytest.raises(UserError, match=r"'.*/flowers': there is no such file or folder"):
        TaskLoader(settings.data).info(found[0])
