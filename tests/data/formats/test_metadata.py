"""dm_nevis's pickles, read without unpickling: honest ones, odd ones, hostile ones."""

import base64
import builtins
import collections
import os
import pathlib
import pickle
import time
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.data.formats import metadata

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(st.integers(), max_size=4)
        | st.frozensets(st.text(), max_size=4)
    ),
    max_leaves=20,
)


# dm_nevis takes the highest there is.
@pytest.mark.parametrize("protocol", [4, 5])
def test_plain_values(pickled: Callable[..., bytes], protocol: int) -> None:
    counts = collections.defaultdict(int, {"train": 880, "dev-test": 70_000})
    more = {
        "task_type": "classification",
        "num_data_points_per_split": counts,
        "splits": ["train", "dev-test"],
        "label_str_to_id": {"b": 1, "a": 0, "c": 2},
        "matrix": np.arange(6.0).reshape(2, 3),
    }
    content = pickled(
        protocol, num_classes=3, num_channels=1, additional_metadata=more, features=None
    )
    found = metadata.parse(content)
    assert found == metadata.Metadata(3, ("a", "b", "c"), {"train": 880, "dev-test": 70_000})


def test_real_files(shared_dir: pathlib.Path) -> None:
    folder = shared_dir / "real_data" / "dm_nevis"
    found = metadata.read(folder / "semeion" / "metadata")
    assert (found.num_classes, found.class_names) == (10, ())
    assert found.counts == {
        "train": 880,
        "dev": 194,
        "dev-test": 218,
        "test": 301,
        "train_and_dev": 1074,
    }
    assert metadata.read(folder / "usps" / "metadata").counts["train"] == 5139


def test_names_are_those_of_the_table_that_fits(pickled: Callable[..., bytes]) -> None:
    # AWA2 has tables of its 85 attributes and of its 50 animals.
    more = {"label_to_id": {"cat": 0}, "predicates_to_id": {"furry": 1, "wet": 0}}
    found = metadata.parse(pickled(num_classes=2, additional_metadata=more))
    assert found.class_names == ("wet", "furry")
    more = {"label_to_id": {"a": 0, "b": 2}}
    assert metadata.parse(pickled(num_classes=2, additional_metadata=more)).class_names == ()


@pytest.mark.parametrize("odd", [0, -1, True, None, "10", 1 << 40, np.int64(3), [3]])
def test_number_of_classes_that_is_none(pickled: Callable[..., bytes], odd: Any) -> None:
    assert metadata.parse(pickled(num_classes=odd)).num_classes is None


@hypothesis.given(more=st.dictionaries(st.text(max_size=5), PLAIN, max_size=4))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("protocol", [4, 5])
def test_whatever_else_there_is(
    pickled: Callable[..., bytes], protocol: int, more: dict[str, Any]
) -> None:
    counts = {"train": 7}
    content = pickled(
        protocol,
        image_shape=more,
        num_classes=12,
        additional_metadata={**more, "num_data_points_per_split": counts},
    )
    found = metadata.parse(content)
    assert (found.num_classes, found.counts) == (12, counts)


class Hostile:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["top", "beside", "state"])
@pytest.mark.parametrize("function", ["system", "eval", "mkdir"])
def test_hostile_pickles_do_nothing(
    pickled: Callable[..., bytes],
    tmp_path: pathlib.Path,
    protocol: int,
    place: str,
    function: str,
) -> None:
    marker = tmp_path / "executed"
    hostile = {
        "system": Hostile(os.system, f"touch {marker}"),
        "eval": Hostile(builtins.eval, f"__import__('pathlib').Path({str(marker)!r}).touch()"),
        "mkdir": Hostile(pathlib.Path.mkdir, marker),
    }[function]
    if place == "top":
        content = pickle.dumps(hostile, protocol)
    elif place == "beside":
        content = pickled(protocol, num_classes=10, additional_metadata={"x": hostile})
    else:
        content = pickled(protocol, num_classes=hostile)
    path = tmp_path / "metadata"
    path.write_bytes(base64.encodebytes(content))
    assert metadata.read(path) == metadata.Metadata()
    assert not marker.exists()
    # It would have, otherwise.
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "exhausted"),
        (b"\x80\x05", "exhausted"),
        (pickle.dumps({"num_classes": 3}), "DatasetMetaData"),
        (b"\x80\x02Ppersistent\n.", "PERSID"),
        (b"(cos\nsystem\nS'ls'\no.", "names 'os.system'"),
        (b"(S'ls'\nios\nsystem\n.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x05)R.", "more from its stack"),
        (b"\x80\x05K\x01u.", "whole pickle"),
        (b"\x80\x05h\x07.", "whole pickle"),
        (b"\x80\x05\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "pickle|bytes"),
    ],
)
def test_broken_programs(content: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        metadata.parse(content)


@hypothesis.given(data=st.data())
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_damage_is_a_value_error_or_harmless(
    pickled: Callable[..., bytes], data: st.DataObject
) -> None:
    more = {"num_data_points_per_split": {"train": 3}, "label_to_id": {"a": 0}}
    content = bytearray(pickled(num_classes=1, additional_metadata=more))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)
    ):
        content[place] = value
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        found = metadata.parse(bytes(content))
    except ValueError:
        return
    assert found.num_classes is None or found.num_classes > 0


def test_bombs_cost_no_more_than_their_size(tmp_path: pathlib.Path) -> None:
    start = time.perf_counter()
    # Tuples in each other: recursion anywhere would overflow the stack.
    deep = b"\x80\x05)" + b"\x85" * 300_000 + b"."
    with pytest.raises(ValueError, match="DatasetMetaData"):
        metadata.parse(deep)
    # As key of a dictionary, which would be hashed.
    with pytest.raises(ValueError, match="DatasetMetaData"):
        metadata.parse(b"\x80\x05})" + b"\x85" * 300_000 + b"Ns.")
    # Each list holds the one before ten times.
    laughs = b"\x80\x05]" + b"".join(
        b"\x94](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"e" for i in range(200)
    )
    with pytest.raises(ValueError, match="DatasetMetaData"):
        metadata.parse(laughs + b".")
    # A state of many entries, set many times.
    entries = b"".join(b"\x8c\x06%06dN" % i for i in range(50_000))
    name = b"cdm_nevis.types\nDatasetMetaData\n"
    many = b"\x80\x05}\x94(" + entries + b"u" + (name + b")Rh\x00b0") * 20_000 + name + b")R."
    assert metadata.parse(many) == metadata.Metadata()
    path = tmp_path / "metadata"
    path.write_bytes(base64.b64encode(bytes(5 << 20)))
    assert metadata.read(path) == metadata.Metadata()
    assert time.perf_counter() - start < 20


def test_files_that_are_none(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    assert metadata.read(tmp_path / "metadata") == metadata.Metadata()
    assert not caplog.records
    (tmp_path / "metadata").write_text("no base64 at all!")
    assert metadata.read(tmp_path / "metadata") == metadata.Metadata()
    assert "is not used" in caplog.text
    assert metadata.read(tmp_path) == metadata.Metadata()
