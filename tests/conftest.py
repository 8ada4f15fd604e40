"""Strictness for every test, and where the real data of a developer's machine is."""

import math
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import hypothesis
import jax
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from ctl_jax import compilation, memory, object_store

from . import quickly

# A compilation takes longer than hypothesis allows an example; and CI finds what a developer finds.
hypothesis.settings.register_profile("ctl_jax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ctl_jax")

quickly.set_flags()
jax.config.update("jax_numpy_rank_promotion", "raise")
# As the command does: a fifth of the time of tests that trace networks.
memory.collect_rarely()

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first: the last to end would otherwise keep one process busy alone."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay in one process: what a module's fixtures make is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # In our own order, see above.
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of the test run, not the user's; its processes, and those they start, share them."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTL_JAX_CACHE", str(folder / "cache"))
        patch.setenv("CTL_JAX_DATA", str(folder / "synthetic"))
        compilation.enable_cache()
        quickly.take_flags()
        yield


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Real data sets and weights; absent on a user's machine, where their tests are skipped."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout")
    return SHARED


class _Bucket(MemoryFileSystem):
    """An object store in memory that answers to Google's addresses, and creates atomically too."""

    protocol = ("gs", "gcs")
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    _creating = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("gs://"))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """With a prefix as gcsfs: what is in the bucket `path` and begins so."""
        if "prefix" not in kwargs:
            return super().ls(path, detail)
        bucket = self._strip_protocol(path).strip("/")
        start, found = f"{bucket}/{kwargs['prefix']}", set()
        for name in (each.lstrip("/") for each in self.store):
            if name.startswith(start):
                inside, slash, _ = name.removeprefix(start).partition(kwargs["delimiter"] or "\0")
                found.add(f"{start}{inside}{slash}")
        return sorted(found)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with self._creating:
            super().pipe_file(path, value, mode, **kwargs)


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of an empty bucket; no network and no package of Google's is needed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in _Bucket.protocol:
            patch.setitem(_registry, name, _Bucket)
        # What is known of the stores of other tests.
        patch.setattr(object_store, "_silent_since", None)
        patch.setattr(object_store, "_answers_since", -math.inf)
        yield "gs://bucket"
    _Bucket.store.clear()


@pytest.fixture(scope="session")
def random_model() -> Any:
    """(name, options, image size, fields of the model) -> a model with random weights."""
    import jax.numpy as jnp
    import numpy as np

    from ctl_jax import models

    def make(name: str, options: dict[str, Any], image_size: int, **fields: Any) -> models.Model:
        module = models.create(name, 3, **options)
        shapes = jax.eval_shape(lambda key: models.init(module, key, image_size), jax.random.key(0))
        rng = np.random.default_rng(0)

        def fill(leaf: Any) -> Any:
            scale = 0.3 if leaf.ndim > 1 else 0.0
            return jnp.asarray(rng.normal(0, scale, leaf.shape) + (not scale), leaf.dtype)

        variables = jax.tree.map(fill, shapes)
        return models.Model(name, options, variables, "nevis", image_size, **fields)

    return make


@pytest.fixture(scope="session")
def tiny_model(random_model: Any) -> Any:
    """A trained model of a few hundred parameters and three classes."""
    options = {"stages": [1, 1], "width": 2}
    classes, notes = ("ant", "bee", "chê"), {"task": "pets"}
    return random_model("resnet20", options, 16, classes=classes, notes=notes)
