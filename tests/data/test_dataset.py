"""What data sets of every source have in common."""

import pathlib
import shutil
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ctl_jax import data
from ctl_jax.data import _importing, sources

Make = Callable[..., Any]
SIZES = {"train": 8, "dev": 2, "dev-test": 2, "test": 2}
(UMIST,) = data.stream("umist")


def folder(root: pathlib.Path, pictures: Mapping[str, bytes]) -> None:
    for name, content in pictures.items():
        path = root / "umist" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def archive(root: pathlib.Path, pictures: Mapping[str, bytes]) -> None:
    root.mkdir()
    with zipfile.ZipFile(root / "umist.zip", "w") as file:
        for name, content in pictures.items():
            file.writestr(name, content)


@pytest.fixture(params=["folder", "zip", "nevis", "imported"])
def made(
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
    picture: Make,
    example: Make,
    write_nevis: Make,
) -> Callable[..., tuple[str, pathlib.Path]]:
    """Writes a set of one source; gives its kind and the folder that it is in.

    `changed` tells whether one example of train is another one.
    """

    def make(*, changed: bool = False) -> tuple[str, pathlib.Path]:
        root = tmp_path / f"made {changed}"
        if request.param == "nevis":
            records = {
                split: [
                    example(png_encoded_image=picture(i + changed), label=[i % 2])
                    for i in range(size)
                ]
                for split, size in SIZES.items()
            }
            path = write_nevis("umist", records, num_classes=2)
            return "nevis", shutil.move(path.parent, root)
        pictures = {
            f"{split}/{'ab'[i % 2]}/{i}.png": picture(i)
            for split, size in SIZES.items()
            for i in range(size)
        }
        if changed:
            pictures["train/a/0.png"] = picture(700, "BMP")
        if request.param == "zip":
            archive(root, pictures)
            return "folder", root
        folder(root, pictures)
        if request.param == "folder":
            return "folder", root
        _importing.import_set(data.open_set(UMIST, [f"folder:{root}"]), "umist", root / "imported")
        return "imported", root / "imported"

    return make


def test_the_identity_is_that_of_a_copy(made: Make, tmp_path: pathlib.Path) -> None:
    """Not of where it is, and not of when it was written."""
    kind, root = made()
    dataset = data.open_set(UMIST, [f"{kind}:{root}"])
    assert len({records.identity() for records in dataset.splits.values()}) == 4
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = data.open_set(UMIST, [f"{kind}:{tmp_path}/copy"])
    assert copy.path != dataset.path
    assert copy.identity() == dataset.identity()
    kind, root = made(changed=True)
    assert data.open_set(UMIST, [f"{kind}:{root}"]).identity() != dataset.identity()


def test_every_source_opens_what_it_finds(made: Make) -> None:
    kind, root = made()
    found = data.find_set(UMIST, [f"{kind}:{root}"])
    assert found is not None
    assert (found[0].name, found[0] in sources.registered()) == (kind, True)
    dataset = found[0].open(UMIST, found[1])
    assert tuple(dataset.splits) == data.SPLITS
    assert [len(dataset.splits[split]) for split in data.SPLITS] == list(SIZES.values())


def test_the_identity_of_an_synthetic_task(tmp_path: pathlib.Path) -> None:
    specs = [*data.stream("synthetic"), data.source_spec("synthetic_source")]
    one, two = (
        [data.open_set(spec, [f"synthetic:{tmp_path}/{where}"]).identity() for spec in specs]
        for where in "ab"
    )
    assert one == two
    assert len(set(one)) == len(specs)
