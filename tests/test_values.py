"""Values as a command line writes them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.errors import UserError
from ctl_jax.values import as_text, is_truth, read_list, read_scalar

TRUTHS = ("true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", bool, True),
        ("No", bool, False),
        (" 1 ", bool, True),
        ("off", bool, False),
        ("64", int, 64),
        ("-3", int, -3),
        ("1_000", int, 1000),
        ("1e3", int, 1000),
        ("64.0", int, 64),
        ("1e30", int, 10**30),
        ("1e9", float, 1e9),
        ("3", float, 3.0),
        ("-.5", float, -0.5),
        ("1e400", float, math.inf),
        (" a, 'b' ", str, " a, 'b' "),
        ("", str, ""),
    ],
)
def test_one_value(text, kind, value):
    found = read_scalar("--k", text, kind)
    assert (found, type(found)) == (value, kind)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("maybe", bool, "true or false"),
        ("", bool, "true or false"),
        ("2", bool, "true or false"),
        ("1.5", int, "an integer"),
        ("0x10", int, "an integer"),
        ("1e999999999", int, "an integer"),
        ("inf", int, "an integer"),
        ("nan", int, "an integer"),
        ("٣", int, "an integer"),
        ("1 2", int, "an integer"),
        ("", int, "an integer"),
        ("1,5", float, "a number"),
        ("½", float, "a number"),
        ("(1.0)", float, "a number"),
    ],
)
def test_no_value_of_the_kind(text, kind, expected):
    with pytest.raises(UserError) as error:
        read_scalar("--k", text, kind)
    assert str(error.value) == f"--k={text}: expected {expected}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("", ()), (" ", ()), ("()", ()), ("[]", ()), ("( )", ())),
        *((text, ("a",)) for text in ("a", " a ", "a,", "(a)", "[a]", "'a'", "('a')", "('a',)")),
        *((text, ("a", "b")) for text in ("a,b", "a, b", "(a,b)", "[a, b ,]", "('a','b')")),
        *((text, ("a", "b")) for text in ("'a','b'", "\"a\", 'b'", "['a', \"b\"]", "'a',b")),
        ("/x/a,/y/b", ("/x/a", "/y/b")),
        ("~/a,~you/b", ("~/a", "~you/b")),
        ("./a, ../b", ("./a", "../b")),
        ("/a b/c", ("/a b/c",)),
        ("/a b/c,/d  e", ("/a b/c", "/d  e")),
        ("'/a,b'", ("/a,b",)),
        ("('/a,b', '/c')", ("/a,b", "/c")),
        ("'/a,b',/c", ("/a,b", "/c")),
        ("('(a)',)", ("(a)",)),
        ("(' a ',)", (" a ",)),
        (r"('a\'b',)", ("a'b",)),
        ("/o'brien,/c", ("/o'brien", "/c")),
        ("'tis,a", ("'tis", "a")),
        (r"'C:\d', /x", (r"C:\d", "/x")),
        ("(old)/a,b", ("(old)/a", "b")),
        ("é,\udce9", ("é", "\udce9")),
        ("True,None,1", ("True", "None", "1")),
        ("(1, 'a')", ("1", "a")),
    ],
)
def test_texts(text, value):
    assert read_list("--k", text, str) == value


@pytest.mark.parametrize("text", ["0,1", "0, 1", "(0, 1)", "[0,1,]", "0,1e0", "'0','1'", " 0,1.0"])
def test_integers(text):
    assert read_list("--k", text, int) == (0, 1)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("a,,b", str, "--k=a,,b: expected a value before and after each comma"),
        (",a", str, "--k=,a: expected"),
        ("0,x", int, "--k[1]=x: expected an integer"),
        ("((0,1),2)", int, "--k[0]=(0: expected an integer"),
        ("0 1", int, "--k[0]=0 1: expected an integer"),
        ("0.1;0.2", float, "--k[0]=0.1;0.2: expected a number"),
    ],
)
def test_no_lists(text, kind, message):
    with pytest.raises(UserError) as error:
        read_list("--k", text, kind)
    assert str(error.value).startswith(message)


@given(st.lists(st.floats(allow_nan=False)).map(tuple))
def test_numbers_as_python_writes_them(values):
    assert read_list("--k", repr(values), float) == values


@given(st.lists(st.text()).map(tuple))
def test_texts_as_python_writes_them(values):
    assert read_list("--k", repr(values), str) == values
    assert read_list("--k", repr(list(values)), str) == values


@given(st.text(), st.sampled_from([bool, int, float, str]))
def test_any_text_is_read_or_refused(text, kind):
    for read in (read_scalar, read_list):
        try:
            read("--k", text, kind)
        except UserError:
            continue
    if kind is bool:
        assert is_truth(text) == (text.strip().lower() in TRUTHS)


VALUES = {
    bool: st.booleans(),
    int: st.integers(-(10**30), 10**30),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8"), max_size=5),
}


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_what_is_written_is_read_back(kind, data):
    values = data.draw(st.lists(VALUES[kind], max_size=3).map(tuple))
    assert read_list("--k", as_text(values), kind) == values
    for value in values:
        assert read_scalar("--k", as_text(value), kind) == value


def test_values_are_written_as_one_would():
    assert as_text((True, 3, 1e10, 0.1, 60.0, 4 / 3)) == "true,3,1e+10,0.1,60,1.3333333333333333"
    assert as_text(("/a", "b@0.5")) == "/a,b@0.5"
    assert as_text(("a,b", "c")) == "('a,b', 'c')"
