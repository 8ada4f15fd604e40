"""Finding data sets where people say that they are."""

import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ctl_jax import data
from ctl_jax.data import _loading
from ctl_jax.errors import UserError

PACS, MNIST, USPS = data.stream("pacs+mnist+usps")


def _found(spec: data.TaskSpec, dirs: list[str]) -> tuple[str, pathlib.Path] | None:
    found = data.find_set(spec, dirs)
    return None if found is None else (found[0].name, found[1])


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Images of two classes, in tmp_path/images/pacs; test repeats one of train's."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images" / "pacs"
    for split, count in (("train", 12), ("test", 3)):
        for name in "ab":
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    repeated = (folder / "train" / "a" / "0.png").read_bytes()
    (folder / "test" / "a" / "0.png").write_bytes(repeated)
    return folder


def test_what_was_found_is_said(folder: pathlib.Path) -> None:
    (folder / "train" / "a" / "Thumbs.db").touch()
    task = data.load(PACS, 8, [f"folder:{folder.parent}"])
    assert task.passed_over == {"thumbnails": 1}
    (note,) = task.notes
    assert note.startswith("the same files are in two splits: 1 of 6 test are in ")
    # The other way of looking at it, which decodes nothing.
    dataset = data.open_set(PACS, [f"folder:{folder.parent}"])
    assert (dataset.notes, dataset.passed_over) == ((), task.passed_over)


@pytest.mark.parametrize(
    ("given", "note"),
    [("images", None), ("images/", None), ("images/pacs", "is taken for the folder of 'pacs'")],
)
def test_its_own_folder(
    folder: pathlib.Path, tmp_path: pathlib.Path, given: str, note: str | None
) -> None:
    dataset = data.open_set(PACS, [f"folder:{tmp_path}/{given}"])
    assert dataset.path == str(folder)
    assert len(dataset.notes) == (note is not None)
    assert note is None or note in dataset.notes[0]


def test_another_case_is_said(folder: pathlib.Path) -> None:
    folder.rename(folder.with_name("PACS"))
    (note,) = data.open_set(PACS, [f"folder:{folder.parent}"]).notes
    assert note == f"'PACS' in {str(folder.parent)!r} is taken for 'pacs'"


def test_a_folder_too_high_or_of_another_name(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"it is in '.*/images', which is to be given instead"):
        data.open_set(PACS, [f"folder:{tmp_path}"])
    folder.rename(folder.with_name("mine"))
    with pytest.raises(UserError, match=r"mine' has splits itself; expected a folder that holds"):
        data.open_set(PACS, [f"folder:{folder.with_name('mine')}"])
    (tmp_path / "pacs.zip").touch()
    with pytest.raises(UserError, match=r"pacs.zip' is not a folder; expected .*, such as '"):
        data.open_set(PACS, [f"folder:{tmp_path}/pacs.zip"])


def test_a_folder_of_another_kind(
    folder: pathlib.Path, tmp_path: pathlib.Path, write_nevis: Any, example: Any, picture: Any
) -> None:
    with pytest.raises(UserError, match=r"is not in .*; it is in 'folder:.*/images', which is to"):
        data.open_set(PACS, [f"nevis:{folder.parent}"])
    pictures = [example(png_encoded_image=picture(i), label=[i % 2]) for i in range(4)]
    splits = dict.fromkeys(("train", "dev", "dev-test", "test"), pictures)
    nevis = write_nevis("usps", splits, num_classes=2).parent
    with pytest.raises(UserError, match=f"has no image .*; it is in 'nevis:{nevis}', which is to"):
        data.open_set(USPS, [f"folder:{nevis}"])
    # What is damaged has the name of a folder, and is none with images.
    (nevis / "usps" / "status").write_text("failed")
    with pytest.raises(UserError, match=r"let dm_nevis finish it$"):
        data.open_set(USPS, [f"nevis:{nevis}"])
    (tmp_path / "tfds" / "mnist").mkdir(parents=True)
    with pytest.raises(UserError, match=r"'mnist' is not in '.*/tfds'$"):
        data.open_set(MNIST, [f"tfds:{tmp_path}/tfds"])


@pytest.fixture
def tfds_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """Names of folders, which is all that is looked at."""
    for name in (
        "mnist/3.0.0",
        "mnist/3.0.1",
        "cifar10/3.0.2",
        "voc/2007/4.0.0",
        "sun397/tfds/1.0.0",
    ):
        (tmp_path / "tfds" / name).mkdir(parents=True)
    for name in ("real", "clipart"):
        (tmp_path / "tfds" / "domainnet" / name / "1.0.0").mkdir(parents=True)
    return tmp_path / "tfds"


@pytest.mark.parametrize(
    ("name", "given", "found"),
    [
        ("mnist", "", "mnist/3.0.1"),
        ("mnist", "mnist", "mnist/3.0.1"),
        ("mnist", "mnist/3.0.1", "mnist/3.0.1"),
        ("mnist", "mnist/3.0.0", "mnist/3.0.0"),
        ("mnist", "cifar10", "mnist/3.0.1"),
        ("voc/2007", "voc", "voc/2007/4.0.0"),
        ("voc/2007", "voc/2007", "voc/2007/4.0.0"),
        ("voc/2007", "voc/2007/4.0.0", "voc/2007/4.0.0"),
        ("sun397", "sun397", "sun397/tfds/1.0.0"),
        ("sun397", "sun397/tfds", "sun397/tfds/1.0.0"),
        ("domainnet", "domainnet", "domainnet"),
        ("domainnet", "domainnet/real", "domainnet"),
        ("cifar100", "mnist", None),
    ],
)
def test_a_tfds_set_s_own_folder(
    tfds_dir: pathlib.Path, name: str, given: str, found: str | None
) -> None:
    dirs = [f"tfds:{tfds_dir / given}"]
    wanted = None if found is None else ("tfds", tfds_dir / found)
    assert _found(data.stream(name)[0], dirs) == wanted


def test_a_folder_named_like_a_set(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mnist" / "mnist" / "3.0.1").mkdir(parents=True)
    dirs = [f"tfds:{tmp_path}/mnist"]
    assert _found(MNIST, dirs) == ("tfds", tmp_path / "mnist" / "mnist" / "3.0.1")


@pytest.mark.parametrize("given", ["", "usps", "stable"])
def test_a_set_of_dm_nevis(tmp_path: pathlib.Path, given: str) -> None:
    inner = "stable/usps" if given == "stable" else "usps"
    (tmp_path / inner).mkdir(parents=True)
    (tmp_path / inner / "status").write_text("ready")
    dirs = [f"nevis:{tmp_path / given}"]
    assert _found(USPS, dirs) == ("nevis", tmp_path / inner)


def test_names_in_any_bytes_reach_a_task(folder: pathlib.Path) -> None:
    for split in (b"train", b"test"):
        root = os.path.join(os.fsencode(folder), split)
        os.rename(os.path.join(root, b"a"), os.path.join(root, b"caf\xe9"))
    moved = os.fsdecode(os.fsencode(folder.parent) + b"\xff")
    folder.parent.rename(moved)
    dirs = [f"folder:{moved}"]
    assert _loading.availability(PACS, dirs) is None
    task = data.load(PACS, 8, dirs)
    assert task.num_classes == 2
    assert json.loads(json.dumps(task.notes)) == list(task.notes)
    (pathlib.Path(moved) / "pacs" / "test" / "b" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"\\udcff/pacs/test/b/0.png': not an image") as caught:
        data.load(PACS, 8, dirs)
    assert str(caught.value).isprintable()


def test_places_with_too_much_in_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path
) -> None:
    monkeypatch.setattr(_loading, "_MOST_INNER", 0)
    assert _loading.elsewhere(PACS, [f"folder:{tmp_path}"]) == ""
