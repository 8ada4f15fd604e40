"""The run's folder: whose it is, and what it keeps, on a disk and in an object store."""

import json
import os

import pytest

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.experiment.store import Store


@pytest.fixture(params=["local", "bucket"])
def place(request, tmp_path):
    return tmp_path if request.param == "local" else request.getfixturevalue("bucket")


@pytest.fixture
def store(place):
    store = Store(f"{place}/run", {"seeds": (0, 1)})
    store.check()
    store.create()
    return store


def test_a_finished_trial_is_never_replaced(store):
    assert not store.is_done("abc")
    assert store.save_trial("abc", [{"n": 1}, {"n": 2}])
    assert not store.save_trial("abc", [{"n": 3}])
    assert store.is_done("abc")
    assert store.load_trial("abc") == [{"n": 1}, {"n": 2}]


def test_lists_what_is_done_and_nothing_half_written(store):
    ids = ("abc", "def", "ghi")
    assert store.done(ids) == set()
    store.save_trial("abc", [])
    store.save_trial("def", [])
    files.write_text(store.workdir / "trials" / ".ghi.123.tmp.jsonl", "half")
    assert store.done(ids) == {"abc", "def"}
    assert store.done(("abc", "ghi")) == {"abc"}
    files.remove(store.workdir / "trials" / "abc.jsonl")
    assert store.done(ids) == {"def"}


def test_of_two_configs_at_once_one_has_the_folder(place):
    first, second = Store(f"{place}/run", {"seed": 1}), Store(f"{place}/run", {"seed": 2})
    first.check()
    second.check()
    first.create()
    with pytest.raises(UserError, match=r"another config.*config\.seed=2 \(there: 1\)"):
        second.create()
    first.create()
    assert json.loads(files.read_text(first.workdir / "config.json")) == {"seed": 1}


def test_a_place_that_cannot_be_a_runs_folder_is_said_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for workdir in ("file", "file/run", "file/a/run", "link", "link/run"):
        with pytest.raises(UserError, match=r"/(file|link) is no folder\)$") as error:
            Store(tmp_path / workdir, {}).check()
        assert str(error.value).startswith(f"--workdir={tmp_path / workdir}: expected a folder")
    Store(tmp_path / "new" / "run", {}).check()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=rf"\({tmp_path} may not be written\)$"):
        Store(tmp_path / "new" / "run", {}).check()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[1]", bytes(40)])
def test_a_damaged_config_is_set_aside(place, content):
    lines = []
    store = Store(f"{place}/run", {"seed": 1}, lines.append)
    store.create()
    store.save_trial("abc", [])
    files.write_bytes(store.workdir / "config.json", content)
    for _ in range(2):
        store.check()
    store.create()
    store.check()
    (line,) = lines
    assert line.startswith("config.json is ")
    assert line.endswith(" (damaged); it is written again")
    assert json.loads(files.read_text(store.workdir / "config.json")) == {"seed": 1}
    aside = [name for name in files.names(store.workdir) if ".damaged-" in name]
    assert [files.read_bytes(store.workdir / name) for name in aside] == [content]


def test_a_damaged_trial_is_not_done_and_told_of_once(place):
    lines = []
    store = Store(f"{place}/run", {}, lines.append)
    store.create()
    for trial in ("abc", "def"):
        store.save_trial(trial, [{"n": 1}])
    path = store.workdir / "trials" / "abc.jsonl"
    files.write_bytes(path, files.read_bytes(path)[:-9])
    for _ in range(2):
        assert store.done(["abc", "def", "ghi"]) == {"def"}
        assert not store.is_done("abc")
    assert lines == ["trials/abc.jsonl is cut off (damaged); that trial is done again"]
    with pytest.raises(UserError, match=r"trials/abc\.jsonl is cut off \(damaged\); the same"):
        store.load_trial("abc")
    with pytest.raises(UserError, match=r"trials/ghi\.jsonl is gone; the same command"):
        store.load_trial("ghi")
    assert not store.save_trial("abc", [])
    store.set_aside("abc")
    assert store.save_trial("abc", [{"n": 2}])
    assert store.done(["abc"]) == {"abc"}


def test_what_is_committed_while_damage_is_set_aside_stays(store):
    store.save_trial("abc", [{"n": 1}])
    store.set_aside("abc")
    assert store.load_trial("abc") == [{"n": 1}]
    store.set_aside("abc", whole=True)
    assert store.done(["abc"]) == set()
    store.set_aside("abc")


def test_scratch_folders_are_a_trials_own(store):
    for trial in ("abc", "def"):
        files.write_text(store.scratch(trial) / "1" / "state", trial)
    assert store.scratches() == {"abc", "def"}
    store.remove_scratch(["abc", "never"])
    assert store.scratches() == {"def"}
    assert files.read_text(store.scratch("def") / "1" / "state") == "def"


def test_what_a_run_keeps_besides(store):
    store.save_keep("filters@0.5", "{}")
    path = store.save_records([{"n": 1}])
    assert files.read_text(path) == '{"n": 1}\n'
    assert files.read_text(store.workdir / "keep" / "filters@0.5.json") == "{}\n"


def test_a_folder_out_of_reach(bucket, monkeypatch):
    store = Store(f"{bucket}/run", {})

    def refuse(*args, **kwargs):
        raise OSError("Forbidden: no such permission")

    for name, call, what in (
        ("read_bytes", store.check, "read"),
        ("create_bytes", store.create, "written"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(files, name, refuse)
            with pytest.raises(UserError) as error:
                call()
        assert str(error.value) == (
            f"--workdir=gs://bucket/run: expected a folder that can be {what} "
            "(Forbidden: no such permission)"
        )
