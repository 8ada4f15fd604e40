"""Which class names of several splits mean the same."""

import itertools
import unicodedata

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax.data.formats import classes
from ctl_jax.errors import UserError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("train", "test", "united"),
    [
        (["cat", "dog"], ["cat", "dog"], {}),
        (["cat", "dog"], ["cat"], {}),
        (["Cat", "DOG"], ["cat", "dog"], {"cat": "Cat", "dog": "DOG"}),
        (["a", "b"], ["A", "B"], {"A": "a", "B": "b"}),
        (["stra\u00dfe", "b"], ["STRASSE", "b"], {"STRASSE": "stra\u00dfe"}),
        ([COMPOSED, "b"], [DECOMPOSED], {DECOMPOSED: COMPOSED}),
        ([DECOMPOSED, "b"], [COMPOSED], {COMPOSED: DECOMPOSED}),
        ([DECOMPOSED, COMPOSED, "b"], [DECOMPOSED], {DECOMPOSED: COMPOSED}),
        (["cat", "dog"], ["cat ", "Dog."], {"cat ": "cat", "Dog.": "dog"}),
        (["hot dog", "b"], ["hot\u00a0 dog"], {"hot\u00a0 dog": "hot dog"}),
        (["cat", "b"], ["cat\u200b"], {"cat\u200b": "cat"}),
        (["\u30cd\u30b3", "b"], ["\uff88\uff7a"], {"\uff88\uff7a": "\u30cd\u30b3"}),
        # Letters, of which capitals are others.
        (["a", "A", "b", "B"], ["A", "a", "b"], {}),
        # Bytes that are not UTF-8 are nobody's capitals: here two letters of Shift JIS.
        (["\udc83A", "\udc83a"], ["\udc83a"], {}),
    ],
)
def test_names_of_one_class(train: list[str], test: list[str], united: dict[str, str]) -> None:
    found, notes = classes.unite("set", {"train": set(train), "test": set(test)}, "train")
    assert found == {name: united.get(name, name) for name in (*train, *test)}
    assert bool(notes) == bool(united)
    for note in notes:
        assert note.isascii()
        assert "taken as one each" in note


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"train": {"cat", "Cat"}, "test": {"cat"}}, "folders 'Cat' and 'cat' in train"),
        ({"train": {"cat", "dog"}, "test": {"cat", "CAT"}}, "folders 'CAT' and 'cat' in test"),
        ({"train": {"cat", "cat "}, "test": {"cat"}}, "folders 'cat' and 'cat ' in train"),
        ({"train": {"cat", "cat\u200b"}, "test": {"cat"}}, r"'cat' and 'cat\\u200b' in train"),
        ({"train": {"a", "b"}, "test": {"c", "d"}}, "train lacks 2 of 2 classes of test: 'c', 'd'"),
        ({"train": {"a", "A", "b"}, "test": {"B"}}, "train lacks 1 of 1 classes of test: 'B'"),
        ({"train": {"hot dog", "b"}, "test": {"hot_dog"}}, "train lacks 1 of 1"),
        ({"train": {"\udce9", "b"}, "test": {"\udcc9"}}, r"train lacks 1 of 1.*'\\udcc9'"),
    ],
)
def test_names_that_are_not_clear(found: dict[str, set[str]], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        classes.unite("set", found, "train")
    assert str(caught.value).isprintable()


@hypothesis.given(
    names=st.sets(st.text(st.characters(codec="utf-8"), min_size=2, max_size=6), min_size=1),
    form=st.sampled_from(["NFC", "NFD"]),
)
def test_forms_are_always_one(names: set[str], form: str) -> None:
    other = {unicodedata.normalize(form, name) for name in names}
    splits = {"train": names, "test": other}
    # Two that differ in case are another test's.
    hypothesis.assume(not any(classes.same(a, b) for a, b in itertools.combinations(names, 2)))
    found, _ = classes.unite("set", splits, "train")
    for name in names:
        assert found[unicodedata.normalize(form, name)] == found[name]
        assert unicodedata.normalize("NFC", found[name]) == unicodedata.normalize("NFC", name)
