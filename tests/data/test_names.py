"""Names that are bytes."""

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax.data._names import printable


@pytest.mark.parametrize(
    ("name", "printed"),
    [("caf\u00e9", "caf\u00e9"), ("caf\udce9", r"caf\xe9"), ("\ud800x", r"\ud800x"), ("", "")],
)
def test_printable(name: str, printed: str) -> None:
    assert printable(name) == printed


@hypothesis.given(st.text(st.characters()))
def test_any_name_can_be_written(name: str) -> None:
    assert printable(name).encode().decode() == printable(name)
