"""Synthetic tasks: what they hold, that they are always the same, and how they are prepared."""

import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ctl_jax import data
from ctl_jax.data import synthetic
from ctl_jax.data.sources import synthetic as source_of_data
from ctl_jax.data.synthetic import builder, objects, source, textures
from ctl_jax.errors import UserError

NAMES = tuple(synthetic.TASKS)


def python(code: str, **environment: str) -> str:
    """Runs a program of its own, warnings being errors, and returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_task(synthetic_dir: pathlib.Path, name: str) -> None:
    (spec,) = data.stream(name)
    task = data.load(spec, 32)
    made = synthetic.TASKS[name]
    assert task.num_classes == len(made.classes) == len(set(made.classes))
    assert tuple(task.splits) == data.SPLITS
    assert tuple(map(len, task.splits.values())) == made.sizes
    for split in task.splits.values():
        assert split.images.shape == (len(split), 32, 32, 3)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        counts = np.bincount(split.labels, minlength=task.num_classes)
        # The drawn tasks are balanced; the digits are as people wrote them.
        assert counts.max() - counts.min() <= (1 if made.draw else 0.08 * len(split))
    images = np.concatenate([split.images for split in task.splits.values()])
    assert len({image.tobytes() for image in images}) == len(images)
    assert data.availability(spec) is None


@pytest.mark.parametrize("name", [name for name in NAMES if synthetic.TASKS[name].draw])
def test_no_drawn_task_is_linearly_trivial(synthetic_dir: pathlib.Path, name: str) -> None:
    (spec,) = data.stream(name)
    task = data.load(spec, 32)
    train, test = task.splits["train"], task.splits["test"]

    def features(split: data.Split) -> np.ndarray:
        halved = split.images.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4))
        return halved.reshape(len(split), -1) / 255

    # Ridge regression to the classes, on pictures of half the size.
    mean = features(train).mean(0)
    pixels = features(train) - mean
    moments = pixels.T @ pixels
    ridge = np.trace(moments) / len(moments) * np.eye(len(moments))
    weights = np.linalg.solve(moments + ridge, pixels.T @ np.eye(task.num_classes)[train.labels])
    scores = (features(test) - mean) @ weights
    assert np.mean(scores.argmax(1) == test.labels) < 0.75


def test_the_source_task() -> None:
    made = synthetic.SOURCES["synthetic_source"]
    assert len(made.classes) == len(set(made.classes))
    assert made.sizes[0] >= 20000
    drawn = list(itertools.islice(synthetic.examples(made), 600))
    labels = [label for _, label in drawn]
    assert set(labels) == set(range(len(made.classes)))
    assert len({image.tobytes() for image, _ in drawn}) == 600
    # What is pretrained on is not what is tested.
    assert not set(source.CLASSES) & {*objects.LETTERS, *objects.SHAPES, *textures.TASK}
    assert not set(source.SHAPES) & {*objects.SIGN_BORDERS, *objects.SIGN_SYMBOLS}


@pytest.mark.slow
def test_the_source_task_loads(synthetic_dir: pathlib.Path) -> None:
    task = data.load(data.source_spec("synthetic_source"), 32)
    assert tuple(map(len, task.splits.values())) == synthetic.SOURCES["synthetic_source"].sizes
    assert task.num_classes == len(source.CLASSES)
    assert task.spec.name == "synthetic_source"


DIGEST = """
import hashlib, itertools
from ctl_jax.data import synthetic
found = []
for task in (*synthetic.TASKS.values(), *synthetic.SOURCES.values()):
    digest = hashlib.sha256()
    for image, label in itertools.islice(synthetic.examples(task), 100):
        digest.update(image.tobytes() + bytes([label]))
    found.append(f"{task.name} {digest.hexdigest()}")
"""


def test_images_are_the_same_in_every_process() -> None:
    here: dict[str, list[str]] = {}
    exec(DIGEST, here)
    there = python(DIGEST + "print(*found, sep='\\n')", PYTHONHASHSEED="1").splitlines()
    assert there == here["found"]
    assert len({line.split()[1] for line in there}) == len(NAMES) + 1


def test_a_second_preparation_holds_the_same(
    synthetic_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (spec,) = data.stream("digits")
    first = data.load(spec, 32)
    assert data.load(spec, 32, dirs=[f"synthetic:{tmp_path}"]).fingerprint == first.fingerprint
    # Reading again prepares nothing and changes nothing.
    prepared: list[str] = []
    again = data.load(spec, 32, dirs=[f"synthetic:{tmp_path}"], on_prepare=prepared.append)
    assert again.fingerprint == first.fingerprint
    assert prepared == []


def test_what_was_left_by_an_interrupted_process_does_not_matter(
    tmp_path: pathlib.Path,
) -> None:
    # Ends as if killed, in the middle of writing.
    code = (
        "import itertools, os\nfrom ctl_jax import data\nfrom ctl_jax.data import synthetic\n"
        "whole = synthetic.examples\n"
        "def half(task):\n"
        "    yield from itertools.islice(whole(task), 1100)\n"
        "    os._exit(9)\n"
        "synthetic.examples = half\n"
        "data.load(data.stream('digits')[0], 32)\n"
    )
    environment = {**os.environ, "CTL_JAX_DATA": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert killed.returncode == 9
    assert not list(tmp_path.glob("ctl_jax/digits/*"))
    assert list(tmp_path.rglob("*.array_record*")), "nothing was left behind"
    (spec,) = data.stream("digits")
    prepared: list[str] = []
    task = data.load(spec, 32, dirs=[f"synthetic:{tmp_path}"], on_prepare=prepared.append)
    assert prepared == ["digits"]
    assert tuple(map(len, task.splits.values())) == synthetic.TASKS["digits"].sizes
    assert not list(tmp_path.glob(".*.tmp"))


def test_two_processes_at_once(tmp_path: pathlib.Path) -> None:
    code = (
        "import sys\nfrom ctl_jax import data\n"
        "task = data.load(data.stream('digits')[0], 32, on_prepare=print)\n"
        "assert 'tensorflow' not in sys.modules\nprint(task.fingerprint)"
    )
    environment = {**os.environ, "CTL_JAX_DATA": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", code]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    lines = [line for process in both for line in process.communicate()[0].split()]
    assert [process.returncode for process in both] == [0, 0]
    # One of them prepared, and nothing else was printed.
    assert len(lines) == 3
    assert lines.count("digits") == 1
    assert len(set(lines)) == 2


def test_importing_is_light() -> None:
    code = (
        "import sys\nimport ctl_jax.data\n"
        "print([name for name in ('tensorflow', 'tensorflow_datasets', 'matplotlib', 'sklearn',"
        " 'jax') if name in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_where_synthetic_data_is_kept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CTL_JAX_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert source_of_data.default_dir() == tmp_path / ".cache" / "ctl_jax" / "tfds"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert source_of_data.default_dir() == tmp_path / "x" / "ctl_jax" / "tfds"
    monkeypatch.setenv("CTL_JAX_DATA", str(tmp_path / "y"))
    assert source_of_data.default_dir() == tmp_path / "y"


def test_bad_input(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"unknown source task 'x'; expected 'synthetic_source'"):
        data.source_spec("x")
    with pytest.raises(UserError, match="image_size 0"):
        data.load(data.source_spec("synthetic_source"), 0)
    (spec,) = data.stream("digits")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"file/data' is not writable .* CTL_JAX_DATA"):
        data.load(spec, 32, [f"synthetic:{file}/data"])


def test_images_of_another_size(synthetic_dir: pathlib.Path) -> None:
    (spec,) = data.stream("digits")
    task = data.load(spec, 64)
    assert task.splits["test"].images.shape == (297, 64, 64, 3)
    small = data.load(spec, 32)
    assert small.fingerprint != task.fingerprint
    means = [t.splits["test"].images.mean() for t in (small, task)]
    np.testing.assert_allclose(means[0], means[1], rtol=0.01)


def test_the_version_is_that_of_the_builder() -> None:
    assert str(builder.CtlJax.VERSION) == synthetic.VERSION
    names = {config.name for config in builder.CtlJax.BUILDER_CONFIGS}
    assert names == {*NAMES, *synthetic.SOURCES}


def test_digits_are_the_real_ones() -> None:
    from sklearn import datasets

    real, labels = datasets.load_digits(return_X_y=True)
    drawn = list(synthetic.examples(synthetic.TASKS["digits"]))
    assert sorted(label for _, label in drawn) == sorted(labels.tolist())
    # Averaged over their 4 x 4 blocks, the pictures are the originals, whatever the order.
    reduced = np.stack([image[..., 0].reshape(8, 4, 8, 4).mean((1, 3)) for image, _ in drawn])
    original = real.reshape(-1, 8, 8) * (255 / 16)
    assert abs(np.sort(reduced.mean((1, 2))) - np.sort(original.mean((1, 2)))).max() < 6
