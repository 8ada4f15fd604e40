"""The data commands: what they print, write and refuse."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from ctl_jax import data
from ctl_jax.data import _status, cli, prepare
from ctl_jax.data.sources import imported
from ctl_jax.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A user who has nothing."""
    for name in ("NEVIS_DATA_DIR", "TFDS_DATA_DIR", "CTL_JAX_IMPORTED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))
    return tmp_path / "home"


@pytest.fixture
def folder_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder and an archive of images, and a damaged archive."""
    rng = np.random.default_rng(0)
    where = tmp_path / "folders"
    for split, count in (("train", 20), ("test", 5)):
        for name in ("cloth", "paper $x$"):
            for number in range(count):
                pixels = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
                path = where / "kth_tips" / split / name / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    with zipfile.ZipFile(where / "umd.zip", "w") as archive:
        for path in sorted((where / "kth_tips").rglob("*.png")):
            archive.write(path, path.relative_to(where / "kth_tips"))
    (where / "usps.zip").write_bytes(b"no archive")
    return where


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*argv: object) -> tuple[int, str, str]:
        result = cli.main([str(word) for word in argv])
        output = capsys.readouterr()
        return result, output.out, output.err

    return run


def _tasks(output: str) -> dict[str, dict[str, object]]:
    return {task["name"]: task for task in json.loads(output)["tasks"]}


def test_status_of_a_user_who_has_nothing(run: Callable[..., tuple[int, str, str]]) -> None:
    result, output, errors = run("status", "--json")
    assert (result, errors) == (0, "")
    content = json.loads(output)
    assert content["variant"] == "FULL"
    official = [spec for spec in data.stream("FULL", 2022) if spec.source == "tfds"]
    automatic = sum(spec.dataset != "imagenet2012" for spec in official)
    assert content["counts"] == {
        "ready": 0,
        "can_be_prepared": automatic,
        "by_hand": 106 - automatic,
        "damaged": 0,
    }
    assert len(content["tasks"]) == 106
    for task in content["tasks"]:
        assert task["instruction"]
        assert "\n" not in task["instruction"]
        assert (task["origin"], task["path"], task["examples"]) == ("", "", {})
        assert task["num_bytes"] is task["num_classes"] is None
        if task["source"] == "nevis":
            assert f"build_dataset.sh -b -d {task['dataset']} " in task["instruction"]
            assert ("--dir=folder:" in task["instruction"]) == (task["kind"] == "single_label")
    tasks = _tasks(output)
    assert tasks["mnist_2"]["dataset"] == "mnist"
    assert "data prepare mnist --dir=tfds:" in str(tasks["mnist"]["instruction"])
    imagenet = str(tasks["imagenet2012"]["instruction"])
    assert tasks["imagenet2012"]["state"] == "by_hand"
    assert imagenet.index("ILSVRC2012_img_train.tar") < imagenet.index("prepare imagenet2012")
    assert tasks["celeb_a"]["metric"] == "mAP"


def test_status_of_folders_and_archives(
    run: Callable[..., tuple[int, str, str]], folder_dir: pathlib.Path
) -> None:
    variant = "kth_tips+umd+usps+digits+kth_tips"
    result, output, _ = run(
        "status", "--json", f"--variant={variant}", f"--dir=folder:{folder_dir}"
    )
    assert result == 0
    tasks = _tasks(output)
    for name, origin in (("kth_tips", "folder"), ("umd", "zip")):
        task = tasks[name]
        assert (task["state"], task["origin"], task["instruction"]) == ("ready", origin, "")
        assert task["num_classes"] == 2
        assert task["examples"] == {"train": 28, "dev": 6, "dev_test": 6, "test": 10}
    size = sum(path.stat().st_size for path in (folder_dir / "kth_tips").rglob("*.png"))
    assert tasks["kth_tips"]["num_bytes"] == tasks["kth_tips_2"]["num_bytes"] == size
    assert tasks["umd"]["num_bytes"] == (folder_dir / "umd.zip").stat().st_size
    assert tasks["usps"]["state"] == "damaged"
    assert "usps.zip" in str(tasks["usps"]["instruction"])
    assert (tasks["digits"]["state"], tasks["digits"]["path"]) == ("ready", "")
    assert json.loads(output)["counts"]["ready"] == 4


def test_status_for_people(
    run: Callable[..., tuple[int, str, str]], folder_dir: pathlib.Path
) -> None:
    flags = "--variant=kth_tips+usps+mnist+lfw", f"--dir=folder:{folder_dir}"
    result, output, errors = run("status", *flags)
    assert (result, errors) == (0, "")
    lines = {line.split()[1]: line for line in output.splitlines() if line.startswith("│")}
    assert "ready" in lines["kth_tips"]
    assert "28" in lines["kth_tips"]
    assert "4 tasks. Ready: 1, can be prepared: 1" in output
    for name in ("  usps: ", "  mnist: python -m ctl_jax.data prepare mnist", "  lfw: run ./build"):
        assert name in output
    assert "  kth_tips: " not in output


def test_notes_of_a_folder(
    run: Callable[..., tuple[int, str, str]], folder_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """What was put right and passed over is said by status, import and show, and stays known."""
    folder = folder_dir / "kth_tips"
    (folder / "train").rename(folder / "inner")
    (folder / "train").mkdir()
    (folder / "inner").rename(folder / "train" / "images")
    (folder / "train" / "images" / "cloth" / "Thumbs.db").touch()
    (folder / "test" / "cloth" / "000.png").write_bytes(
        (folder / "train" / "images" / "cloth" / "000.png").read_bytes()
    )
    flags = "--variant=kth_tips+umd", f"--dir=folder:{folder_dir}"
    _, output, _ = run("status", *flags)
    put_right = "'train/images' is taken for 'train': it has the classes"
    for line in (put_right, "files passed over: thumbnails 1", "1 of 10 test are in"):
        assert line in output
    assert output.count("  kth_tips: ") == 3
    assert "  umd: " not in output
    task = _tasks(run("status", "--json", *flags)[1])["kth_tips"]
    assert task["passed_over"] == {"thumbnails": 1}
    assert task["notes"][0] == put_right  # type: ignore[index]
    assert task["notes"][1].startswith("the same files are in two splits")  # type: ignore[index]
    assert task["examples"] == {"train": 28, "dev": 6, "dev_test": 6, "test": 10}
    for words in (
        ("import", "kth_tips", folder),
        ("show", "kth_tips", f"--out={tmp_path / 'x.png'}", flags[1]),
        ("status", "--variant=kth_tips"),
    ):
        _, output, errors = run(*words)
        assert put_right in output, words
        assert "files passed over: thumbnails 1" in output
        assert errors == ""


def test_names_that_are_not_utf8(
    run: Callable[..., tuple[int, str, str]], folder_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for split in (b"train", b"test"):
        outer = os.path.join(os.fsencode(folder_dir), b"kth_tips", split)
        os.rename(os.path.join(outer, b"cloth"), os.path.join(outer, b"caf\xe9"))
    flag = f"--dir=folder:{folder_dir}"
    assert "ready" in run("status", "--variant=kth_tips", flag)[1]
    assert run("show", "kth_tips", f"--out={tmp_path / 'a.png'}", flag)[0] == 0
    assert run("import", "kth_tips", folder_dir / "kth_tips")[0] == 0
    (spec,) = data.stream("kth_tips")
    assert data.open_set(spec).class_names == (r"caf\xe9", "paper $x$")
    assert run("show", "kth_tips", f"--out={tmp_path / 'b.png'}")[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_import_of_the_folder_above(
    run: Callable[..., tuple[int, str, str]], folder_dir: pathlib.Path
) -> None:
    assert "train 28, dev 6" in run("import", "kth_tips", folder_dir)[1]


@pytest.fixture
def real(shared_dir: pathlib.Path) -> tuple[str, ...]:
    where = shared_dir / "real_data"
    kinds = {"tfds": "tfds", "nevis": "dm_nevis", "folder": "folders"}
    return tuple(f"--dir={kind}:{where / name}" for kind, name in kinds.items())


def test_status_of_real_data(
    run: Callable[..., tuple[int, str, str]], real: tuple[str, ...]
) -> None:
    _, output, errors = run("status", "--variant=FULL", "--json", *real)
    assert errors == ""
    tasks = _tasks(output)
    ready = {name: task["origin"] for name, task in tasks.items() if task["state"] == "ready"}
    assert ready == {
        **dict.fromkeys(("mnist", "mnist_2", "cifar10", "caltech101", "caltech101_2"), "tfds"),
        **dict.fromkeys(("semeion", "usps"), "dm_nevis"),
        **dict.fromkeys(("german_tsr", "scenes15", "scenes15_2", "pacs"), "zip"),
        "pneumonia_chest_xray": "zip",
    }
    # ../shared/real_data/README.md has these numbers.
    examples = {"train": 880, "dev": 194, "dev_test": 218, "test": 301}
    assert tasks["semeion"]["examples"] == examples
    assert tasks["cifar10"]["examples"] == dict(train=5600, dev=1200, dev_test=1200, test=2000)  # noqa: C408
    assert tasks["caltech101"]["num_classes"] == 102
    assert all(int(str(tasks[name]["num_bytes"])) > 100_000 for name in ready)


def test_nevis_data_dir_is_looked_at(
    run: Callable[..., tuple[int, str, str]],
    shared_dir: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEVIS_DATA_DIR", str(shared_dir / "real_data" / "dm_nevis"))
    _, output, _ = run("status", "--json", "--variant=semeion")
    assert _tasks(output)["semeion"]["origin"] == "dm_nevis"


@pytest.mark.parametrize("name", ["kth_tips", "umd"])
def test_import_and_then_status(
    run: Callable[..., tuple[int, str, str]], folder_dir: pathlib.Path, name: str
) -> None:
    path = folder_dir / (name if name == "kth_tips" else f"{name}.zip")
    result, output, errors = run("import", name.upper(), path)
    assert (result, errors) == (0, "")
    assert f"imported {name} (2 classes; train 28, dev 6, dev_test 6, test 10): " in output
    assert str(imported.default_dir()) in output
    (shutil.rmtree if path.is_dir() else pathlib.Path.unlink)(path)
    _, output, _ = run("status", "--json", f"--variant={name}")
    task = _tasks(output)[name]
    assert (task["state"], task["origin"]) == ("ready", "imported")
    assert task["examples"] == {"train": 28, "dev": 6, "dev_test": 6, "test": 10}


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, pathlib.Path]]]:
    """Sets that `prepare` was asked for; there is no network in a test."""
    asked: list[tuple[str, pathlib.Path]] = []

    def fake(dataset: str, data_dir: pathlib.Path) -> pathlib.Path:
        asked.append((dataset, data_dir))
        if dataset == "cifar10":
            raise UserError("TFDS data set 'cifar10' cannot be prepared: no network")
        return data_dir / dataset / "1.0.0"

    monkeypatch.setattr(prepare, "prepare", fake)
    return asked


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (ConnectionError("no network"), 1),
        (TimeoutError(), 1),
        (ValueError("damaged"), 2),
        (None, 2),
    ],
)
def test_prepare_without_a_network_is_no_wrong_input(
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    cause: Exception | None,
    status: int,
) -> None:
    def fake(dataset: str, data_dir: pathlib.Path) -> pathlib.Path:
        raise UserError(f"TFDS data set {dataset!r} cannot be prepared") from cause

    monkeypatch.setattr(prepare, "prepare", fake)
    result, _, errors = run("prepare", "mnist", f"--dir=tfds:{tmp_path}/tfds")
    assert result == status
    assert errors == "ctl_jax.data: TFDS data set 'mnist' cannot be prepared\n"


def test_prepare(
    run: Callable[..., tuple[int, str, str]],
    prepared: list[tuple[str, pathlib.Path]],
    tmp_path: pathlib.Path,
) -> None:
    target = tmp_path / "tfds"
    result, output, errors = run("prepare", "mnist", "cifar10", "VOC/2007", f"--dir=tfds:{target}")
    assert prepared == [(name, target) for name in ("mnist", "cifar10", "voc/2007")]
    # The third is tried although the second failed.
    assert result == 2
    assert f"prepared mnist: {target}/mnist/1.0.0\n" in output
    assert "prepared voc/2007" in output
    assert errors == "ctl_jax.data: TFDS data set 'cifar10' cannot be prepared: no network\n"


def test_prepare_a_stream(
    run: Callable[..., tuple[int, str, str]],
    prepared: list[tuple[str, pathlib.Path]],
    home: pathlib.Path,
) -> None:
    run("prepare", "--variant=TINY", "--stop_year=2020")
    names = [name for name, _ in prepared]
    assert names == ["mnist", "caltech101", "voc/2012", "cifar100"]
    assert {folder for _, folder in prepared} == {home / "tensorflow_datasets"}


def test_prepare_leaves_alone_what_is_there(
    run: Callable[..., tuple[int, str, str]],
    prepared: list[tuple[str, pathlib.Path]],
    real: tuple[str, ...],
) -> None:
    result, output, errors = run("prepare", "mnist", "caltech101", *real)
    assert (result, errors, prepared) == (0, "", [])
    assert output.count("is there already: ") == 2


@pytest.mark.parametrize("name", ["kth_tips", "umd", "digits"])
def test_show(
    run: Callable[..., tuple[int, str, str]],
    folder_dir: pathlib.Path,
    tmp_path: pathlib.Path,
    name: str,
) -> None:
    path = tmp_path / "pictures" / "picture.png"
    result, output, errors = run("show", name, f"--out={path}", f"--dir=folder:{folder_dir}")
    assert (result, errors, output) == (0, "", f"wrote {path}\n")
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
    assert [other.name for other in path.parent.iterdir()] == ["picture.png"]


def test_paths_instead_of_names(
    run: Callable[..., tuple[int, str, str]], folder_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    paths = (folder_dir / "kth_tips", folder_dir / "umd.zip", folder_dir / "usps.zip")
    result, output, errors = run("status", *paths, "mnist", "--json")
    tasks = json.loads(output)["tasks"]
    assert (result, errors) == (0, "")
    assert [(task["name"], task["state"], task["origin"], task["kind"]) for task in tasks] == [
        ("kth_tips", "ready", "folder", "single_label"),
        ("umd", "ready", "zip", "single_label"),
        ("usps", "damaged", "folder", ""),
        ("mnist", "can_be_prepared", "", "single_label"),
    ]
    assert tasks[0]["examples"] == {"train": 28, "dev": 6, "dev_test": 6, "test": 10}
    assert "usps.zip' is not a whole zip archive" in tasks[2]["instruction"]
    result, output, errors = run("show", paths[0], f"--out={tmp_path / 'x.png'}")
    assert (result, errors) == (0, "")
    assert output.splitlines() == [
        f"wrote {tmp_path / 'x.png'}",
        "cut from train, by class: dev (15%), dev_test (15%)",
    ]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("status", "x", "--variant=TINY"), "expected either names and paths or --variant"),
        (("status", "./x"), "there is no such file or folder"),
        (("show", "./x", "--out=x.png"), "there is no such file or folder"),
        (("status", "--variant=HUGE"), "unknown stream or data set 'HUGE'"),
        (("status", "--dir=tfds:/nowhere/tfds"), "/nowhere/tfds"),
        (("status", "--dir=folder:/nowhere/folders"), "/nowhere/folders"),
        (("status", "--dir=nevis:/nowhere/nevis"), "/nowhere/nevis"),
        (("prepare",), "expected either NAMEs of data sets or --variant"),
        (("prepare", "mnist", "--variant=TINY"), "expected either NAMEs"),
        (("prepare", "usps"), "'usps' is not in TFDS: run ./build_dataset.sh -b -d usps"),
        (("prepare", "TINY"), "'TINY': expected one data set, not a stream"),
        (("import", "mnist+usps", "x.zip"), "'mnist+usps': expected one data set"),
        (("import", "usps", "/nowhere/usps.zip"), "'/nowhere/usps.zip' does not exist"),
        (("show", "usps", "--out=usps.png"), "'usps' is not there: run ./build_dataset.sh"),
        (("show", "digits", "--out=digits.gif"), "--out=digits.gif: expected the name of a .png"),
        (("show", "digits", "--out=/proc/x/digits.png"), "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_a_status(
    run: Callable[..., tuple[int, str, str]], argv: tuple[str, ...], expected: str
) -> None:
    result, output, errors = run(*argv)
    assert (result, output) == (2, "")
    assert errors.startswith("ctl_jax.data: ")
    assert expected in errors
    assert errors.count("\n") == 1


def test_the_module_is_a_command(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "ctl_jax.data"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    for word in ("status", "prepare", "import", "show"):
        assert word in done.stdout
    wrong = subprocess.run([*command, "destroy"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "destroy" in wrong.stderr


def test_dirs_may_be_joined_and_repeated(
    run: Callable[..., tuple[int, str, str]], folder_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (folder_dir / "umd.zip").rename(other / "umd.zip")
    for flags in (
        (f"--dir=folder:{folder_dir},folder:{other}",),
        ("--dir", f"folder:{folder_dir}", "--dir", f"folder:{other}"),
    ):
        _, output, _ = run("status", "--json", "--variant=kth_tips+umd", *flags)
        assert json.loads(output)["counts"]["ready"] == 2


def test_a_set_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(_status._loading, "find_set", lambda spec, dirs: looked.append(spec))
    found = _status.look(data.stream("mnist+usps+mnist"), [])
    assert [entry.spec.name for entry in found] == ["mnist", "usps", "mnist_2"]
    assert [spec.dataset for spec in looked] == ["mnist", "usps"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "the following arguments are required: command; see python -m ctl_jax.data --help"),
        (["nowhere"], "argument command: invalid choice: 'nowhere'"),
        (["status", "--stop_year=x"], "argument --stop_year: invalid int value: 'x'; see python"),
        (["status", "--dir"], "argument --dir: expected one argument"),
        (["status", "--variants=X"], "unrecognized arguments: --variants=X"),
        (["status", "--dir=a,,b"], "--dir=a,,b: expected a value before and after"),
        (["status", "--dir=tfds:~nobody-here/x"], "~nobody-here/x: there is no user"),
        (["status", "--dir=/a"], "'/a': expected folders as KIND:PATH, KIND one of synthetic, imp"),
        (["show", "mnist", "--out=~nobody-here/x.png"], "~nobody-here/x.png: there is no user"),
        (["import", "mnist", "~nobody-here/x"], "~nobody-here/x: there is no user"),
        (["status", "--variant=full"], "unknown stream or data set 'full'; close: 'FULL'"),
    ],
)
def test_a_command_line_that_is_wrong_is_one_line(words, expected, capsys):
    assert cli.main(words) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"ctl_jax.data: {expected}")
    assert errors.count("\n") == 1


def test_help_of_folders_with_a_percent_sign(monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", "/a%b%(c)s")
    with pytest.raises(SystemExit) as end:
        cli.main(["status", "--help"])
    assert end.value.code == 0
    assert "/a%b%(c)s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "flag"),
    [(["prepare", "mnist"], "--dir=tfds:DIR"), (["import", "mnist", "x"], "--dir=imported:DIR")],
)
def test_what_should_last_is_not_written_to_temporary_files(words, flag, monkeypatch, capsys):
    for name in ("TFDS_DATA_DIR", "CTL_JAX_IMPORTED", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/dev/null/home")
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith(f"ctl_jax.data: {flag}: there is no home folder for")
