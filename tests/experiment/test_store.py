"""The run's folder: what it keeps, on a disk and in an object store."""

import json
import os

import chex
import jax
import pytest

from ctl_jax import files, models, records
from ctl_jax.errors import UserError
from ctl_jax.experiment.store import Store
from ctl_jax.records import DevRecord

ABC, DEF, GHI = (16 * digit for digit in "abc")


def line(number):
    """A record that holds a number."""
    return DevRecord(trial="x", step=number, flops=0, dev=None, dev_top5=None)


@pytest.fixture(params=["local", "bucket"])
def place(request, tmp_path):
    return tmp_path if request.param == "local" else request.getfixturevalue("bucket")


@pytest.fixture
def store(place):
    store = Store(f"{place}/run", {"seeds": (0, 1)})
    store.check()
    store.create()
    return store


def test_a_finished_step_is_never_replaced(store):
    assert not store.is_done(ABC)
    assert store.save(ABC, [line(1), line(2)])
    assert not store.save(ABC, [line(3)])
    assert store.is_done(ABC)
    assert store.load(ABC) == [line(1), line(2)]
    assert store.result(ABC) == line(2)


def test_lists_what_is_done_and_nothing_half_written(store):
    assert store.finished().records == set()
    for step in (ABC, DEF):
        store.save(step, [line(1)])
    for stray in (f".{GHI}.123.tmp.jsonl", "notes.jsonl", f"{GHI}.jsonl.part"):
        files.write_text(store.workdir / "steps" / stray, "half")
    assert store.finished().records == {ABC, DEF}
    files.remove(store.workdir / "steps" / f"{ABC}.jsonl")
    assert store.finished().records == {DEF}


def test_another_config_is_noted(place):
    first, second = Store(f"{place}/run", {"seed": 1}), Store(f"{place}/run", {"seed": 2})
    for store, seed in ((first, 1), (second, 2), (first, 1)):
        store.check()
        store.create()
        assert json.loads(files.read_text(store.workdir / "config.json")) == {"seed": seed}


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
    store.save(ABC, [line(1)])
    files.write_bytes(store.workdir / "config.json", content)
    for _ in range(2):
        store.check()
    store.create()
    store.check()
    (told,) = lines
    assert told.startswith("config.json is ")
    assert told.endswith(" (damaged); it is written again")
    assert json.loads(files.read_text(store.workdir / "config.json")) == {"seed": 1}
    aside = [name for name in files.names(store.workdir) if ".damaged-" in name]
    assert [files.read_bytes(store.workdir / name) for name in aside] == [content]


def test_a_damaged_step_is_not_done_and_told_of_once(place):
    lines = []
    store = Store(f"{place}/run", {}, lines.append)
    store.create()
    for step in (ABC, DEF):
        store.save(step, [line(1)])
    path = store.workdir / "steps" / f"{ABC}.jsonl"
    files.write_bytes(path, files.read_bytes(path)[:-9])
    for _ in range(2):
        assert store.finished().records == {DEF}
        assert not store.is_done(ABC)
    assert lines == [f"steps/{ABC}.jsonl is cut off (damaged); that step is done again"]
    with pytest.raises(UserError, match=rf"steps/{ABC}\.jsonl is cut off \(damaged\); the same"):
        store.load(ABC)
    with pytest.raises(UserError, match=rf"steps/{GHI}\.jsonl is gone; the same command"):
        store.load(GHI)
    assert not store.save(ABC, [line(1)])
    store.set_aside(ABC)
    assert store.save(ABC, [line(2)])
    assert store.finished().records == {ABC, DEF}


def test_what_is_committed_while_damage_is_set_aside_stays(store):
    store.save(ABC, [line(1)])
    store.set_aside(ABC)
    assert store.load(ABC) == [line(1)]
    store.set_aside(ABC, whole=True)
    assert store.finished().records == set()
    store.set_aside(ABC)


@pytest.fixture(scope="module")
def model():
    module = models.create("resnet18", num_outputs=3, stages=(1,), width=4)
    variables = jax.device_get(models.init(module, jax.random.key(0), 8))
    return models.Model("resnet18", {"stages": (1,), "width": 4}, variables, "nevis", 8)


def test_a_model_is_kept_once_and_found_by_its_step(store, model):
    assert not store.has_product(ABC)
    for _ in range(2):
        store.save_model(ABC, model)
    assert store.has_product(ABC)
    assert store.finished().products == {ABC}
    found = models.load(store.model(ABC))
    chex.assert_trees_all_equal(found.variables, model.variables)
    assert [name for name in files.names(store.workdir / "models") if name != ABC] == []


def test_provisional_models_go_unless_they_are_asked_for(store, model):
    for step in (ABC, DEF, GHI):
        store.save_model(step, model, provisional=True)
    assert store.finished().products == {ABC, DEF, GHI}
    # Nothing is known of the third: another config may ask for it.
    store.settle_models(store.finished(), stay={ABC}, go={DEF})
    assert store.finished().products == {ABC, GHI}
    # What was asked for once stays.
    store.settle_models(store.finished(), go={ABC, DEF})
    assert store.finished().products == {ABC, GHI}
    store.settle_models(store.finished(), go={GHI})
    assert files.names(store.workdir / "models") == [ABC]


def test_what_was_asked_for_is_not_provisional(store, model):
    store.save_model(ABC, model)
    store.settle_models(store.finished(), go={ABC})
    assert store.finished().products == {ABC}


def test_of_two_workers_that_save_a_model_at_once_one_is_kept(tmp_path, model, monkeypatch):
    """Both have written all of it before either gives it its name."""
    store, move = Store(tmp_path, {}), files.move

    def late(source, target):
        monkeypatch.setattr(files, "move", move)
        store.save_model(ABC, model)
        move(source, target)

    monkeypatch.setattr(files, "move", late)
    store.save_model(ABC, model)
    assert files.names(tmp_path / "models") == [ABC]
    models.load(store.model(ABC))


def test_a_damaged_model_makes_way_and_is_told_of(place, model):
    lines = []
    store = Store(f"{place}/run", {}, lines.append)
    store.save_model(ABC, model)
    store.set_aside_product(ABC, "it is bent")
    assert lines == [f"models/{ABC} is damaged (it is bent); it is made again"]
    assert not store.has_product(ABC)
    store.save_model(ABC, model)
    assert store.finished().products == {ABC}


def test_what_killed_workers_left_half_written_goes(store, model):
    left = store.workdir / "models" / f".{ABC}.12-0123abcd.tmp"
    files.write_text(left / "params" / "part", "half")
    store.save_model(DEF, model)
    store.sweep_steps(store.finished())
    assert files.names(store.workdir / "models") == [DEF]
    for folder in ("", "figures", "keep"):
        files.write_text(store.workdir / folder / ".some.12-0123abcd.tmp.json", "half")
    store.sweep_report()
    assert not [name for name in files.tree(store.workdir) if ".tmp" in name]


def test_scratch_folders_are_a_steps_own(store):
    for step in ("abc", "def"):
        files.write_text(store.scratch(step) / "1" / "state", step)
    assert store.finished().scratches == {"abc", "def"}
    store.remove_scratch(["abc", "never"])
    assert store.finished().scratches == {"def"}
    assert files.read_text(store.scratch("def") / "1" / "state") == "def"


def test_what_a_run_keeps_besides(store):
    store.save_keep("filters@0.5", "{}")
    path = store.save_records([line(1)])
    assert json.loads(files.read_text(path)) == records.to_json(line(1))
    assert files.read_text(store.workdir / "keep" / "filters@0.5.json") == "{}\n"


def test_a_folder_out_of_reach(bucket, monkeypatch):
    store = Store(f"{bucket}/run", {})

    def refuse(*args, **kwargs):
        raise OSError("Forbidden: no such permission")

    for name, call, what in (
        ("read_bytes", store.check, "read"),
        ("write_text", store.create, "written"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(files, name, refuse)
            with pytest.raises(UserError) as error:
                call()
        assert str(error.value) == (
            f"--workdir=gs://bucket/run: expected a folder that can be {what} "
            "(Forbidden: no such permission)"
        )
