"""Folders of data as KIND:PATH."""

import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax import data
from ctl_jax.data import places, sources
from ctl_jax.errors import UserError

KINDS = [source.name for source in sources.registered()]


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    for name in ("NEVIS_DATA_DIR", "CTL_JAX_IMPORTED", "CTL_JAX_DATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def resolved(*dirs: str) -> dict[str, list[str]]:
    return {
        source.name: [str(folder) for folder in folders]
        for source, folders in places.resolve(dirs).items()
    }


def test_the_order_in_which_sources_are_searched() -> None:
    assert list(resolved()) == ["synthetic", "imported", "tfds", "hf", "nevis", "table", "folder"]


def test_named_folders_come_before_those_that_go_without_saying(
    home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEVIS_DATA_DIR", "/n")
    found = resolved("folder:/b", "tfds:~/t", "imported:~/i", "folder:/a", "nevis:/m:x")
    assert found["imported"] == [f"{home}/i", f"{home}/.local/share/ctl_jax/imported"]
    assert (found["tfds"], found["folder"]) == ([f"{home}/t"], ["/b", "/a"])
    assert found["nevis"] == ["/m:x", "/n"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("synthetic", "imported")])
@pytest.mark.parametrize("name", ["mnist", "COIL 20", "digits"])
def test_a_folder_that_is_not_there(tmp_path: pathlib.Path, kind: str, name: str) -> None:
    (spec,) = data.stream(name)
    for look in (data.find_set, data.open_set, data.availability):
        with pytest.raises(UserError, match=f"^'{kind}:{tmp_path}/x' is not a folder; expected"):
            look(spec, [f"{kind}:{tmp_path}/x"])


@pytest.mark.parametrize(
    "text",
    ["", ":", "/data", "gs://bucket/x", "C:\\data", "tfds", "tfds:", "TFDS:/x", "/a:tfds:/x"],
)
def test_a_path_without_a_kind(text: str) -> None:
    with pytest.raises(
        UserError, match="KIND one of synthetic, imported, tfds, hf, nevis, table, folder"
    ) as e:
        places.resolve([text])
    assert str(e.value).startswith(f"{text!r}: expected folders as KIND:PATH")


@hypothesis.given(st.sampled_from(KINDS), st.text(min_size=1).filter(lambda s: s[0] != "~"))
def test_any_path_behind_a_kind(kind: str, path: str) -> None:
    hypothesis.assume(len(path) < 50)
    assert places.kind_and_path(f"{kind}:{path}") == (kind, path)
    assert resolved(f"{kind}:{path}")[kind][0] == str(pathlib.Path(path))
    assert not places.has_kind(f" {kind}:{path}")
