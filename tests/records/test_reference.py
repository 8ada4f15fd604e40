"""docs/columns.md."""

import pathlib

from ctl_jax.records.reference import reference

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "columns.md"


def test_the_page_is_of_these_columns():
    """Where it is not: python -m ctl_jax.records.reference > docs/columns.md."""
    assert PAGE.read_text(encoding="utf-8") == reference()
