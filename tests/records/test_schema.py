"""What annotations say a field holds."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.errors import UserError
from ctl_jax.records._schema import kind_of, positive, read_fields, to_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    size: int = positive()
    note: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    type: ClassVar[str] = "whole"

    done: bool
    score: float | None
    counts: Mapping[str, int]
    parts: tuple[Part, ...]


WHOLES = st.builds(
    Whole,
    done=st.booleans(),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    counts=st.dictionaries(st.text(max_size=3), st.integers(-9, 9), max_size=3),
    parts=st.lists(
        st.builds(Part, name=st.text(max_size=3), size=st.integers(1), note=st.none() | st.text())
    ).map(tuple),
)


@given(WHOLES)
def test_what_was_written_is_read(whole):
    line = json.loads(json.dumps(to_json(whole)))
    assert list(line) == ["type", "done", "score", "counts", "parts"]
    assert read_fields(Whole, line, "it") == whole
    assert read_fields(Whole, {**line, "of a newer version": 3}, "it") == whole


GOOD = {"done": False, "score": 1, "counts": {"a": 2.0}, "parts": [{"name": "x", "size": 1}]}


def test_numbers_come_in_the_type_of_their_field():
    whole = read_fields(Whole, GOOD, "it")
    assert [type(whole.score), type(whole.counts["a"])] == [float, int]
    for not_finite in (math.nan, math.inf):
        assert read_fields(Whole, {**GOOD, "score": not_finite}, "it").score is None


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"done": 0}, "it: done is 0, expected boolean"),
        ({"score": "1"}, "it: score is '1', expected number or null"),
        ({"score": 10**400}, "it: score is 1000.*, expected number or null"),
        ({"score": True}, "it: score is True, expected number or null"),
        ({"counts": {"a": 1.5}}, "it: counts is {'a': 1.5}, expected object of integers"),
        ({"counts": [1]}, r"it: counts is \[1\], expected object of integers"),
        ({"parts": "x"}, "it: parts is 'x', expected objects"),
        ({"parts": [3]}, r"it: parts is \[3\], expected objects"),
        ({"parts": [{"name": "x"}]}, r"it parts\[0\]: no field 'size', expected positive integer"),
        (
            {"parts": [*GOOD["parts"], {"name": "x", "size": 0}]},
            r"it parts\[1\]: size is 0, expected positive integer",
        ),
    ],
)
def test_a_wrong_value_is_named(change, line):
    with pytest.raises(UserError, match=line):
        read_fields(Whole, {**GOOD, **change}, "it")


@pytest.mark.parametrize("field", GOOD)
def test_a_missing_field_is_named(field):
    left = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(UserError, match=f"it: no field '{field}', expected "):
        read_fields(Whole, left, "it")


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (str, "text"),
        (float | None, "number or null"),
        (tuple[int, ...], "integers"),
        (Mapping[str, str], "object of texts"),
        (Part, "object"),
    ],
)
def test_kinds_in_words(hint, words):
    assert kind_of(hint).words == words
