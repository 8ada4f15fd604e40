"""tf.train.Example: what TFDS writes, and hostile bytes."""

from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax.data.formats import tf_example

INTEGERS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=4)


@hypothesis.given(features=st.dictionaries(st.text(max_size=5), st.binary() | INTEGERS, max_size=4))
def test_values(example: Callable[..., bytes], features: dict[str, bytes | list[int]]) -> None:
    found = tf_example.parse(example(**features))
    for name, value in features.items():
        if isinstance(value, bytes):
            assert list(tf_example.values(found, name, "bytes_list")) == [value]
        else:
            assert list(tf_example.values(found, name, "int64_list")) == value
    assert list(tf_example.values(found, "another", "int64_list")) == []


def test_another_kind_is_an_error(example: Callable[..., bytes]) -> None:
    found = tf_example.parse(example(label=b"cat"))
    with pytest.raises(ValueError, match="has label as a bytes_list; expected a int64_list"):
        tf_example.values(found, "label", "int64_list")


@hypothesis.given(data=st.data())
def test_hostile_bytes(example: Callable[..., bytes], data: st.DataObject) -> None:
    content = bytearray(example(image=b"pixels" * 5, label=[3, -1]))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    for hostile in (cut, data.draw(st.binary(max_size=64))):
        try:
            found = tf_example.parse(hostile)
            for name, kind in (("image", "bytes_list"), ("label", "int64_list")):
                list(tf_example.values(found, name, kind))
        except ValueError:
            pass
