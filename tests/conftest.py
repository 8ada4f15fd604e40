"""Strictness for every test, and where the real data of a developer's machine lies."""

import pathlib
from collections.abc import Iterator

import hypothesis
import jax
import pytest

# A compilation takes longer than hypothesis allows an example; and CI finds what a developer finds.
hypothesis.settings.register_profile("ctl_jax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ctl_jax")

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _cache_of_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go to a folder of the test run, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTL_JAX_CACHE", str(tmp_path_factory.mktemp("images")))
        yield


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Real data sets and weights; absent on a user's machine, where their tests are skipped."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout")
    return SHARED
