"""Preparing official sets where it cannot be done: what is said, and what is left."""

import io
import logging
import pathlib
from typing import Any

import pytest
import requests
from tensorflow_datasets.core.download import downloader

from ctl_jax import data
from ctl_jax.data import prepare
from ctl_jax.errors import UserError


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, url: str, **kwargs: Any) -> Any:
        raise OSError(f"cannot reach {url}\nat all")

    monkeypatch.setattr("requests.Session.get", fail)


@pytest.mark.usefixtures("no_network")
def test_without_a_network_one_line_says_what_to_do(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manual = str(tmp_path / "downloads" / "manual")
    with pytest.raises(UserError) as error:
        prepare.prepare("coil100", tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"TFDS data set 'coil100' cannot be prepared in '{tmp_path}': cannot")
    url = "http://www.cs.columbia.edu/CAVE/databases/SLAM_coil-20_coil-100/coil-100/coil-100.zip"
    assert f"by hand: put coil-100.zip ({url}) into {manual!r} and try again" in message
    # Of VOC, only what belongs to the year.
    with pytest.raises(UserError) as error:
        prepare.prepare("voc/2012", tmp_path)
    assert "VOC2012test.tar" in str(error.value)
    assert "2007" not in str(error.value)
    with pytest.raises(UserError) as error:
        prepare.prepare("domainnet", tmp_path)
    assert "set 'domainnet/real' cannot be prepared" in str(error.value)
    assert "by hand: prepare it on another machine and copy 'domainnet/real'" in str(error.value)
    # Nothing is left, and standard output is the caller's.
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""
    assert downloader.MAX_RETRIES == 10
    assert logging.getLogger("urllib3.connectionpool").level == logging.NOTSET


def test_of_a_download_that_breaks_off_no_part_is_left(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if part := super().read(4):
                return part
            assert list(tmp_path.glob("downloads/coil100/*.zip.tmp.*/coil-100.zip"))
            raise OSError("connection reset")

    def get(self: Any, url: str, **kwargs: Any) -> requests.Response:
        response = requests.Response()
        response.url, response.status_code, response.raw = url, 200, Broken(b"some")
        return response

    monkeypatch.setattr("requests.Session.get", get)
    # Another version of the set, a whole download, and one of another process that goes on.
    others = ("coil100/1.0.0/x", "downloads/coil100/y.zip", "downloads/coil100/y.zip.tmp.0/y")
    for other in others:
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).touch()
    with pytest.raises(UserError, match="connection reset"):
        prepare._prepare("coil100", tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {path for path in left if (tmp_path / path).is_file()} == set(others)
    assert left - set(others) == {
        *("coil100", "coil100/1.0.0", "downloads", "downloads/coil100"),
        "downloads/coil100/y.zip.tmp.0",
    }


def test_what_must_be_downloaded_by_hand(tmp_path: pathlib.Path) -> None:
    text = prepare.by_hand("imagenet2012", tmp_path)
    assert text is not None
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in text
    assert str(tmp_path / "downloads" / "manual") in text
    assert "\n" not in text
    others = {spec.dataset for spec in data.stream("FULL", 2022) if spec.source == "tfds"}
    for dataset in others - {"imagenet2012"}:
        assert prepare.by_hand(dataset, tmp_path) is None
    with pytest.raises(UserError) as error:
        prepare.prepare("imagenet2012", tmp_path)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_prepared_is_left_alone(tmp_path: pathlib.Path) -> None:
    # Another version, and in whatever format.
    folder = tmp_path / "mnist" / "1.0.0"
    folder.mkdir(parents=True)
    assert prepare.prepare("mnist", tmp_path) == folder
    assert list(folder.iterdir()) == []


def test_no_official_set_or_no_folder(tmp_path: pathlib.Path) -> None:
    for function in (prepare.prepare, prepare.by_hand):
        with pytest.raises(UserError, match="'scenes15' is not an official TFDS set of Nevis'22"):
            function("scenes15", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data_dir '.*/file/x' cannot be made: Not a directory"):
        prepare.prepare("mnist", tmp_path / "file" / "x")


def test_a_file_that_is_not_the_official_one(tmp_path: pathlib.Path) -> None:
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "coil-100.zip").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"coil-100\.zip, has wrong checksum"):
        prepare.prepare("coil100", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["downloads", "manual", "coil-100.zip"]
