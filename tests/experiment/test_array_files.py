"""Files of arrays: read back as they were, or told to be damaged."""

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.experiment import array_files
from ctl_jax.experiment.step_files import Damaged

ID, OTHER = 16 * "a", 16 * "b"
ARRAYS = {"features": np.arange(6, dtype=np.float16).reshape(3, 2), "hidden/bias": np.ones(4, "f4")}
TYPES = st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8])
SOME = st.dictionaries(
    st.text(min_size=1, max_size=5).filter(lambda name: name != "__metadata__"),
    TYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_side=0, max_side=4))),
    max_size=3,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("arrays") / f"{ID}{array_files.SUFFIX}"


@hypothesis.given(SOME)
def test_what_was_written_is_read(path, given):
    path.write_bytes(array_files.pack(ID, given))
    found = array_files.read(path, ID)
    assert found.keys() == given.keys()
    for name, array in given.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_they_cannot_be_changed(path):
    path.write_bytes(array_files.pack(ID, ARRAYS))
    with pytest.raises(ValueError, match="read-only"):
        array_files.read(path, ID)["features"][0] = 1


@hypothesis.given(st.data())
def test_any_damage_is_noticed(path, data):
    whole = array_files.pack(ID, ARRAYS)
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        damaged = bytearray(whole)
        damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        found = array_files.read(path, ID)
    except Damaged:
        return
    # A space more or less in the header, say.
    chex.assert_trees_all_equal(dict(found), ARRAYS)


def test_of_another_step(path):
    path.write_bytes(array_files.pack(OTHER, ARRAYS))
    with pytest.raises(Damaged, match=f"is of another step, '{OTHER}'"):
        array_files.read(path, ID)


def test_there_is_none(path):
    with pytest.raises(FileNotFoundError):
        array_files.read(path.with_name("other"), ID)
