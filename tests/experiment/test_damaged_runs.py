"""Whatever becomes of the files of a finished run, the same command ends with the same results.

Trainings are played: their numbers follow from their ids. What is damaged is named in one line.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import pathlib
import shutil

import hypothesis
import jax
import pytest
import rich.console
from hypothesis import strategies as st

from ctl_jax import compute, data, experiment, failures, models, records
from ctl_jax.errors import UserError
from ctl_jax.experiment import build, runner, training
from ctl_jax.experiment.kinds import finetune
from ctl_jax.experiment.step_files import seal
from ctl_jax.experiment.steps import KINDS, Output
from ctl_jax.experiment.tasks import TaskLoader
from ctl_jax.experiment.workspace import Workspace

from .undrawn import fake_figures

CONFIG = {
    "stream.variant": "digits",
    "data.image_size": 16,
    "data.max_eval_examples": 40,
    "model.name": "resnet18",
    "model.stages": (1,),
    "model.width": 8,
    "pruning.round_to": 1,
    "pretrain.task": "synthetic_source",
    "pretrain.steps": 3,
    "pretrain.batch_size": 8,
    "methods": ("dense", "filters@0.5"),
    "budgets.min_flops": 1e8,
    "budgets.max_flops": 1e8,
    "budgets.num": 1,
    "finetune.batch_size": 8,
    "finetune.learning_rates": (0.1,),
}


def _trained(step, place, job):
    """A trial's records, as if it had been trained."""
    draws = hashlib.sha256(step.id.encode()).digest()
    scores = dict(zip(finetune.SCORES, (draw / 256 for draw in draws), strict=False))
    (stretch,) = finetune.plan(step, place)
    spent = stretch.updates * stretch.cost.step
    trial = records.TrialRecord(
        **finetune.describe(step, place),
        **scores,
        steps=stretch.updates,
        diverged=False,
        spent_flops=spent,
        ledger=compute.Ledger(train=spent),
        wall_s=1.0,
    )
    # What it starts from is looked at.
    place.variables(step.inputs["weights"])
    log = (training.train_record(step, [stretch], entry) for entry in LOG)
    return Output([*log, trial], _of(place, step, _variables(place, 4, 10)))


LOG = [finetune.finetune.LogEntry(updates, 1.0, 0.1, 0.5) for updates in (1, 2)]


def _pretrained(step, place, job):
    """Weights and record of a pretraining, as if there had been one."""
    variables = _variables(place, 3, place.source.num_classes)
    record = records.PretrainRecord(
        id=step.id,
        task=place.source.spec.name,
        steps=3,
        flops=place.flops(step),
        metric=0.5,
        loss=1.0,
        wall_s=1.0,
        weights=models.content_hash(variables),
    )
    return Output([record], _of(place, step, variables))


def _variables(place, seed, num_classes):
    drawn = models.init(place.module, jax.random.key(seed), place.config.data.image_size)
    return models.with_head(drawn, num_classes)


def _of(place, step, variables):
    make = functools.partial(build.as_model, place.network, variables)
    return lambda: make(place.config.data.image_size, "float32", notes={"step": step.id})


class Command:
    """The same command, again and again; `lines` are those that it said of damage."""

    def __init__(self):
        self.config = experiment.default_config()
        self.config.update_from_flattened_dict(CONFIG)
        self.lines = []

    def __call__(self, workdir, *, plan_only=False):
        console = rich.console.Console(file=io.StringIO(), width=140)
        try:
            experiment.run(self.config, workdir, console, plan_only=plan_only)
        finally:
            printed = console.file.getvalue()
            self.lines = [line for line in printed.splitlines() if line.startswith("ctl_jax: ")]


def _once(function):
    """Called once; the config is always the same."""
    known = {}
    return lambda *args: _known(known, function, lambda: function(*args))


def _known(known, key, make):
    if key not in known:
        known[key] = make()
    return known[key]


@pytest.fixture(scope="module")
def command():
    made = Command()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "source_spec", lambda name: data.stream("digits")[0])
        for kind, run in (("finetune", _trained), ("pretrain", _pretrained)):
            patch.setitem(KINDS, kind, dataclasses.replace(KINDS[kind], run=run))
        patch.setattr(runner, "Queue", functools.partial(runner.Queue, lease_s=0.02))
        # They take most of the time, and are the same each time.
        for name in ("abstract_variables", "trace_groups"):
            patch.setattr(build, name, _once(getattr(build, name)))
        known = {}
        patch.setattr(Workspace, "once", lambda self, key, make: _known(known, key, make))
        load, tasks = TaskLoader.load, {}
        patch.setattr(
            TaskLoader,
            "load",
            lambda self, spec, **how: _known(
                tasks, (spec.name, *how.values()), lambda: load(self, spec, **how)
            ),
        )
        fake_figures(patch.setattr)
        yield made


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    """The folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    command(folder)
    assert command.lines == []
    assert (folder / "results.csv").read_text().count("\n") == 3
    return folder


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def _steps(workdir, kind="trial"):
    found = sorted((workdir / "steps").glob("*.jsonl"))
    return [path for path in found if f'"type": "{kind}"' in path.read_text()]


def _lines_changed(change):
    return lambda content: b"".join(change(content.splitlines(keepends=True)))


def _flipped(content):
    changed = bytearray(content)
    changed[len(content) // 3] ^= 4
    return bytes(changed)


CONTENTS = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "a block of zeros": lambda content: content[:20] + bytes(30) + content[50:],
    "zeros at its end": lambda content: content + bytes(100),
    "a changed bit": _flipped,
    "half a character at its end": lambda content: content + "é".encode()[:1],
    "the end of another": lambda content: content + content[-30:],
    "twice": lambda content: content + content,
    "without its first line": _lines_changed(lambda lines: lines[1:]),
    "without a line": _lines_changed(lambda lines: lines[:1] + lines[2:]),
    "without its last records": _lines_changed(lambda lines: lines[:-2]),
    "without its seal": _lines_changed(lambda lines: lines[:-1]),
    "an object": lambda content: b"{}\n",
    "a list": lambda content: b"[]\n",
    "a number": lambda content: b"3\n",
    "nested without end": lambda content: b"[" * 100_000 + b"\n",
    "another program's": lambda content: b'{"type": "trial", "epoch": 3}\n',
}


def _as_folder(path):
    path.unlink()
    path.mkdir()
    (path / "something").write_text("else")


def _as_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def _check(command, workdir, finished, *named):
    """The command says one line, which names what is damaged, and the results are the same."""
    trials = {path.name: path.read_bytes() for path in (finished / "steps").iterdir()}
    command(workdir)
    (line,) = command.lines
    for text in named:
        assert text in line
    for name in ("results.csv", "records.jsonl", "config.json"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes()
    assert {name: (workdir / "steps" / name).read_bytes() for name in trials} == trials


@pytest.mark.parametrize("damage", CONTENTS)
def test_a_trial_with_damaged_records_is_done_again(command, workdir, finished, damage):
    path = _steps(workdir)[0]
    path.write_bytes(CONTENTS[damage](path.read_bytes()))
    _check(command, workdir, finished, f"ctl_jax: steps/{path.name} ", "that step is done")


def test_a_plan_says_what_is_damaged_and_the_run_says_it_once(command, workdir):
    path, content = _steps(workdir)[0], b"{"
    path.write_bytes(content)
    command(workdir, plan_only=True)
    assert len(command.lines) == 1
    assert path.read_bytes() == content
    command(workdir)
    assert len(command.lines) == 1
    command(workdir)
    assert command.lines == []
    # What it was is left for who wants to know.
    (aside,) = path.parent.glob(f"{path.name}.damaged-*")
    assert aside.read_bytes() == content


@pytest.mark.parametrize("replace", [_as_folder, _as_link])
def test_what_is_no_file_makes_way(command, workdir, finished, replace):
    path = _steps(workdir)[0]
    replace(path)
    _check(command, workdir, finished, path.name, "(damaged)")
    assert path.is_file()


def test_a_trial_under_the_name_of_another(command, workdir, finished):
    first, second = _steps(workdir)
    shutil.copyfile(first, second)
    _check(command, workdir, finished, f"{second.name} is of another step, '{first.stem}'")


def test_trials_that_are_gone_are_done_again(command, workdir, finished):
    second = _steps(workdir)[1]
    second.unlink()
    _check(command, workdir, finished, "records of 1 results are gone", second.name, "done again")
    shutil.rmtree(workdir / "steps")
    _check(command, workdir, finished, "records of 2 results are gone", "e.g. steps/", "done again")


@pytest.mark.parametrize("damage", ["empty", "half", "a changed bit", "another program's"])
@pytest.mark.parametrize("kind", ["pretrain", "prune"])
def test_an_input_with_a_damaged_record_is_done_again(command, workdir, finished, kind, damage):
    (path,) = _steps(workdir, kind)
    path.write_bytes(CONTENTS[damage](path.read_bytes()))
    _check(command, workdir, finished, path.name)


def _lose_a_part(folder):
    max(folder.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0).unlink()


def _of_another_network(folder):
    module = models.create("resnet18", num_outputs=10, stages=(1, 1), width=8)
    variables = models.init(module, jax.random.key(3), 16)
    options = {"stages": (1, 1), "width": 8}
    models.save(folder, models.Model("resnet18", options, variables, "nevis", 16))


def _of_another_pretraining(folder):
    model = models.load(folder)
    other = jax.tree.map(lambda leaf: leaf + 1, model.variables)
    models.save(folder, dataclasses.replace(model, variables=other))


def _without_what_it_is(folder):
    models.save_checkpoint(folder, models.load_checkpoint(folder))


@pytest.fixture
def weights(workdir):
    """The pretrained weights of a run that has to read them: one trial is left to do."""
    _steps(workdir)[0].unlink()
    # It says that the trial was done.
    (workdir / "results.csv").unlink()
    (path,) = _steps(workdir, "pretrain")
    return workdir / "models" / path.stem


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b""), "SHA256SUMS"),
        (_lose_a_part, "is not the one in SHA256SUMS"),
        (_of_another_network, "not those of its record"),
        (_of_another_pretraining, "not those of its record"),
        (_without_what_it_is, "no model.json"),
        (lambda folder: shutil.rmtree(folder) or folder.write_text("x"), "no such directory"),
        (lambda folder: shutil.rmtree(folder) or folder.mkdir(), "expected what"),
    ],
)
def test_pretrained_weights_are_made_again(command, workdir, finished, weights, damage, reason):
    damage(weights)
    named = f"ctl_jax: models/{weights.name} is damaged", reason, "made again"
    _check(command, workdir, finished, *named)
    # Nothing is left of it but what it was.
    assert all(path.name.startswith(weights.name) for path in weights.parent.iterdir())
    models.load(weights)


def test_weights_that_several_trials_need_are_made_again_once(command, workdir, finished, weights):
    (weights / "SHA256SUMS").unlink()
    for path in _steps(workdir):
        path.unlink()
    _check(command, workdir, finished, f"models/{weights.name} is damaged", "no SHA256SUMS")


def test_weights_that_are_gone_are_made_again_where_they_are_needed(
    command, workdir, finished, weights
):
    shutil.rmtree(weights.parent)
    command(workdir)
    assert command.lines == []
    assert (workdir / "records.jsonl").read_bytes() == (finished / "records.jsonl").read_bytes()
    shutil.rmtree(weights.parent)
    command(workdir)
    assert not weights.exists()


def test_weights_of_another_network_whose_record_names_none(command, workdir, weights):
    (path,) = _steps(workdir, "pretrain")
    record = json.loads(path.read_text().splitlines()[0])
    del record["weights"]
    path.write_bytes(seal(path.stem, [record]))
    _of_another_network(weights)
    command(workdir)
    (line,) = command.lines
    assert f"models/{weights.name} is damaged (they are of another network)" in line


def test_weights_that_cannot_be_read_back_are_made_once(command, workdir, weights, monkeypatch):
    hashes = itertools.count()
    monkeypatch.setattr(models, "content_hash", lambda variables: f"{next(hashes)}")
    with pytest.raises(UserError, match=f"--workdir={workdir}: .*cannot be read back"):
        command(workdir)


def test_other_weights_than_the_trials_had_are_told_of(command, workdir, weights, monkeypatch):
    def other(step, place, job):
        model = _of(place, step, _variables(place, 5, place.source.num_classes))
        (record,) = _pretrained(step, place, job).records
        changed = models.content_hash(model().variables)
        return Output([dataclasses.replace(record, weights=changed)], model)

    shutil.rmtree(weights)
    monkeypatch.setitem(KINDS, "pretrain", dataclasses.replace(KINDS["pretrain"], run=other))
    command(workdir)
    assert f"step {weights.name} are not those of before" in command.lines[-1]


@pytest.mark.parametrize("mode", ["best", "all"])
def test_models_that_are_gone_are_made_again(command, workdir, finished, monkeypatch, mode):
    monkeypatch.setattr(command, "config", command.config.copy_and_resolve_references())
    command.config.keep_models = mode
    command(workdir)
    kept = sorted((workdir / "models").glob("[0-9a-f]*"))
    assert len(kept) == {"best": 2, "all": 3}[mode]
    for folder in kept:
        shutil.rmtree(folder)
        command(workdir)
        # The pretrained weights are not needed unless another is.
        assert set(kept) - set((workdir / "models").iterdir()) <= {_pretraining(workdir)}
        assert command.lines == []
    assert (workdir / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


def _pretraining(workdir):
    (path,) = _steps(workdir, "pretrain")
    return workdir / "models" / path.stem


@pytest.mark.parametrize("damage", ["empty", "half", "zeros", "a list", "nested without end"])
def test_a_damaged_config_is_written_again(command, workdir, finished, damage):
    path = workdir / "config.json"
    path.write_bytes(CONTENTS[damage](path.read_bytes()))
    _check(command, workdir, finished, "config.json is ", "(damaged); it is written again")


def test_a_config_that_is_gone_is_written_again(command, workdir, finished):
    (workdir / "config.json").unlink()
    _check(command, workdir, finished, "config.json is gone; it is written again")


@pytest.mark.parametrize("content", [b"", b"{not JSON", b'{"architectures": ["Bert"], "n": 3}'])
def test_a_config_of_something_else_is_left_alone(command, tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    for plan_only in (True, False):
        with pytest.raises(UserError, match=r"/config\.json: expected the .* that a run wrote"):
            command(tmp_path, plan_only=plan_only)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_changed_kept_channel_is_written_again(command, workdir, finished):
    path = workdir / "keep" / "filters@0.5.json"
    path.write_bytes(path.read_bytes()[:-9])
    _check(command, workdir, finished, f"keep/{path.name} is not what it should be")
    kept = (finished / "keep" / path.name).read_bytes()
    assert path.read_bytes() == kept


STRAYS = (
    *(".DS_Store", "._{}", "Thumbs.db", "desktop.ini", ".directory", "{}~", "#{}#", ".#{}"),
    *("{stem} (1){suffix}", "{stem} (conflicted copy 2024-01-01){suffix}", "Copy of {}"),
    *("{stem}.sync-conflict-20240101-101010-ABCDEFG{suffix}", ".syncthing.{}.tmp", "{}.part"),
    *(".{}.swp", ".fuse_hidden0000000100000001", ".nfs000000000000000100000001", "{}.crdownload"),
    *(".~lock.{}#", "{}.20240101", "{}.bak", "{}.\N{SUPERSCRIPT TWO}", "{}.999999999999999999999"),
    *("~${}", "{}.icloud", ".{}.AbCdEf", "{}:Zone.Identifier"),
)
FOLDERS = ("@eaDir", "lost+found", ".stfolder", ".Trash-0", ".snapshot", "__MACOSX", "{}.d")


def test_strays_are_nobodys_damage(command, workdir, finished, weights):
    """Beside each file of the run, and some in its place in every folder; all of it is read."""
    before = sorted(path for path in workdir.rglob("*"))
    for path in before:
        for pattern in (*STRAYS, *FOLDERS):
            name = pattern.format(path.name, stem=path.stem, suffix=path.suffix)
            stray = path.with_name(name)
            if pattern in FOLDERS:
                (stray / "inside").mkdir(parents=True, exist_ok=True)
            elif not stray.exists():
                stray.write_bytes(b"\0stray" if path.is_dir() else path.read_bytes()[:20])
    command(workdir)
    assert command.lines == []
    for name in ("results.csv", "records.jsonl"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes()


def _refusal(command, workdir):
    """The line that the command ends with; "" where it is done."""
    try:
        command(workdir)
        return ""
    except UserError as error:
        line = str(error)
    except OSError as error:
        line = failures.explain(error)
    assert len(line.splitlines()) == 1
    return line


@pytest.mark.parametrize("name", ["steps", "models", "leases", "keep", "figures", "scratch"])
def test_a_file_in_place_of_a_folder(command, workdir, name):
    shutil.rmtree(workdir / name, ignore_errors=True)
    (workdir / name).write_text("x")
    line = _refusal(command, workdir)
    # Nothing is to be trained, so that nothing is to be kept there, or read from there.
    assert (str(workdir / name) in line) == (name not in ("models", "scratch"))


def test_what_went_after_it_was_looked_at_is_said(command, workdir, monkeypatch):
    """A run that says that it is done has all results."""
    write, path = runner._write, _steps(workdir)[0]
    for damage in (lambda: path.write_bytes(b""), path.unlink):

        def damaged(*args, damage=damage, **options):
            damage()
            return write(*args, **options)

        monkeypatch.setattr(runner, "_write", damaged)
        with pytest.raises(UserError, match=f"{path.name}.*the same command does"):
            command(workdir)
        monkeypatch.undo()
        command(workdir)


def _damage(draw, content):
    """Bytes as some accident leaves them."""
    place = draw(st.integers(0, max(0, len(content) - 1)))
    size = draw(st.integers(1, 600))
    kind = draw(st.sampled_from(["cut", "zeros", "flip", "append", "lose", "random"]))
    if kind == "cut":
        return content[:place]
    if kind == "zeros":
        return content[:place] + bytes(min(size, len(content) - place)) + content[place + size :]
    if kind == "flip" and content:
        flipped = content[place] ^ 1 << draw(st.integers(0, 7))
        return content[:place] + bytes([flipped]) + content[place + 1 :]
    if kind == "append":
        return content + draw(st.binary(min_size=1, max_size=40))
    if kind == "lose":
        return content[:place] + content[place + size :]
    return draw(st.binary(max_size=40))


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.data())
def test_any_damage_of_any_file(command, finished, tmp_path_factory, data):
    """The results are the same again, or one line names the file; never anything else."""
    workdir = shutil.copytree(finished, tmp_path_factory.mktemp("damaged") / "run")
    if data.draw(st.booleans(), label="weights are read"):
        _steps(workdir)[0].unlink()
        (workdir / "results.csv").unlink()
    found = sorted(path.relative_to(workdir) for path in workdir.rglob("*") if path.is_file())
    damaged = data.draw(st.lists(st.sampled_from(found), min_size=1, max_size=2, unique=True))
    for name in damaged:
        path = workdir / name
        if data.draw(st.integers(0, 9)):
            path.write_bytes(_damage(data.draw, path.read_bytes()))
        else:
            data.draw(st.sampled_from([pathlib.Path.unlink, _as_folder, _as_link]))(path)
    if line := _refusal(command, workdir):
        assert any(name.name in line for name in damaged)
        return
    for name in ("results.csv", "records.jsonl"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes()
