"""What is known of a stream's tasks before an image is decoded, and what only afterwards."""

import numpy as np
import pytest
from PIL import Image

from ctl_jax import data, experiment
from ctl_jax.data import cache, images, synthetic
from ctl_jax.data.formats.image_files import FolderRecords, ZipRecords
from ctl_jax.data.sources.dm_nevis import NevisRecords
from ctl_jax.data.sources.tfds.record_files import RecordFiles
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.tasks import TaskLoader, find_tasks, loaded

(PACS,) = data.stream("pacs")


@pytest.fixture
def nothing_is_read(monkeypatch):
    """Reading an example, or making a synthetic task, is an error."""

    def refuse(*arguments, **options):
        pytest.fail("an example was read")

    for records in (FolderRecords, ZipRecords, RecordFiles, NevisRecords):
        monkeypatch.setattr(records, "read", refuse)
    for module, name in ((cache, "load_split"), (images, "decode"), (synthetic, "examples")):
        monkeypatch.setattr(module, name, refuse)


@pytest.fixture
def folder(tmp_path):
    """PACS as a folder: 2 classes, 12 and 4 images each, one of which is none."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("dev", 4), ("dev_test", 4), ("test", 4)):
        for name in "ab":
            path = tmp_path / "images/pacs" / split / name
            path.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path / f"{number}.png")
    (tmp_path / "images/pacs/dev/a/3.png").write_bytes(b"no image")
    (tmp_path / "images/pacs/dev/a/Thumbs.db").touch()
    return tmp_path / "images"


@pytest.fixture
def settings(folder):
    config = experiment.default_config()
    config.stream.variant = "pacs"
    config.methods = ("scratch",)
    config.data.dirs = (f"folder:{folder}",)
    config.data.image_size = 8
    config.data.max_corrupt = 1
    return config


def loader_of(config):
    return TaskLoader(validate(config).data)


@pytest.mark.usefixtures("nothing_is_read")
def test_a_plan_reads_no_example(config, console, tmp_path, monkeypatch, shared_dir):
    monkeypatch.setenv("CTL_JAX_DATA", str(tmp_path / "synthetic"))
    real = shared_dir / "real_data"
    config.stream.variant = "digits+shapes+mnist+cifar10+usps+pacs"
    config.weights, config.pretrain.task = "", "synthetic_source"
    kinds = {"tfds": "tfds", "nevis": "dm_nevis", "folder": "folders"}
    config.data.dirs = tuple(f"{kind}:{real / name}" for kind, name in kinds.items())
    experiment.run(config, tmp_path / "run", console, plan_only=True)
    assert "Trials: 72 = 6 tasks x" in console.file.getvalue()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_is_read")
def test_what_is_known_without_decoding(settings):
    info = loader_of(settings).info(PACS)
    assert (info.spec, info.num_classes) == (PACS, 2)
    assert info.examples == {"train": 24, "dev": 8, "dev_test": 8, "test": 8}
    assert (info.notes, info.passed_over) == ((), {"thumbnails": 1})
    settings.data.max_eval_examples = 3
    loader = loader_of(settings)
    assert loader.info(PACS).examples == {"train": 24, "dev": 3, "dev_test": 3, "test": 8}
    assert loader.info(PACS, whole=True).examples == info.examples
    assert loader.info(PACS).fingerprint == info.fingerprint


def test_what_only_decoding_tells(settings):
    task = loader_of(settings).load(PACS)
    found = loaded(task)
    assert found == {
        "task": "pacs",
        "examples": {"train": 24, "dev": 7, "dev_test": 8, "test": 8},
        "corrupt": 1,
        "notes": [],
        "passed_over": {"thumbnails": 1},
        "content": task.fingerprint,
        "image_size": 8,
    }
    settings.data.max_eval_examples = 3
    loader = loader_of(settings)
    limited, whole = loader.load(PACS), loader.load(PACS, whole=True)
    assert [len(task.splits["dev"]) for task in (limited, whole)] == [3, 7]
    settings.data.max_corrupt = 0
    with pytest.raises(UserError, match=r"dev/a/3.png': not an image .*max_corrupt=0 allows no"):
        loader_of(settings).load(PACS)


def test_a_data_set_that_changes(settings, folder):
    first = loader_of(settings).info(PACS).fingerprint
    (folder / "pacs/dev/a/3.png").rename(folder / "pacs/dev/a/4.png")
    assert loader_of(settings).info(PACS).fingerprint != first
    (folder / "pacs/dev/a/4.png").rename(folder / "pacs/dev/a/3.png")
    assert loader_of(settings).info(PACS).fingerprint == first


def test_a_set_that_comes_twice_is_opened_once(settings, monkeypatch):
    opened = []
    open_set = data.open_set
    monkeypatch.setattr(data, "open_set", lambda *given: opened.append(given) or open_set(*given))
    settings.stream.variant = "pacs+pacs"
    config = validate(settings)
    loader = TaskLoader(config.data)
    found, missing = find_tasks(config.stream, loader)
    assert [loader.info(spec).spec.name for spec in found] == ["pacs", "pacs_2"]
    assert (len(opened), missing) == (1, ())


def test_tasks_that_are_missing(settings):
    settings.stream.variant = "pacs+mnist"
    config = validate(settings)
    with pytest.raises(UserError, match=r"^config\.stream\.variant=.*: 1 of 2 tasks .*'skip'"):
        find_tasks(config.stream, TaskLoader(config.data))
    settings.stream.missing = "skip"
    config = validate(settings)
    (found,), ((spec, reason),) = find_tasks(config.stream, TaskLoader(config.data))
    assert (found, spec.name) == (PACS, "mnist")
    assert reason.startswith("data set 'mnist' is not in '/")
    settings.data.dirs = ("folder:/nowhere",)
    config = validate(settings)
    with pytest.raises(UserError, match=r"^config\.data\.dirs: 'folder:/nowhere' is not a folder"):
        find_tasks(config.stream, TaskLoader(config.data))


def test_the_size_of_images_as_they_are_on_disk(settings, folder):
    """The median of short sides, of those that are images."""
    loader = loader_of(settings)
    (spec,) = find_tasks(validate(settings).stream, loader)[0]
    assert loader.native_side(spec) == 8
    train = folder / "pacs/train"
    for number in range(12):
        Image.new("RGB", (40, 20 + number)).save(train / "a" / f"{number}.png")
    for number in range(4):
        (train / "b" / f"{number}.png").write_bytes(b"no image")
    # 8 of 8 pixels, and 12 of 20 to 31.
    assert loader_of(settings).native_side(spec) == 21
    for path in train.rglob("*.png"):
        path.write_bytes(b"no image")
    assert loader_of(settings).native_side(spec) == settings.data.image_size
