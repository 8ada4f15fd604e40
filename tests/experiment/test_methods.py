"""Names of methods."""

import pytest

from ctl_jax.errors import UserError
from ctl_jax.experiment import Method, parse_method


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("dense", Method("dense")),
        ("scratch", Method("scratch", pretrained=False)),
        ("linear_probe", Method("linear_probe", train_backbone=False)),
        ("filters@0.5", Method("filters@0.5", scope="filters", ratio=0.5)),
        ("channels@.25", Method("channels@0.25", scope="channels", ratio=0.25)),
        ("filters@0.50", Method("filters@0.5", scope="filters", ratio=0.5)),
        ("filters@5e-1", Method("filters@0.5", scope="filters", ratio=0.5)),
        (" filters @ 00.5 ", Method("filters@0.5", scope="filters", ratio=0.5)),
        ("all@0.125", Method("all@0.125", scope="all", ratio=0.125)),
        ("dense ", Method("dense")),
    ],
)
def test_reads_a_name(name, method):
    assert parse_method(name) == method


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Dense",
        "filters",
        "filters@",
        "filter@0.5",
        "filters@a",
        "filters@nan",
        "filters@inf",
        "filters@-0.5",
        "filters@\u0660.\u0665",
        "filters@0,5",
        "filters@.",
        "filters@0x1",
        "filters@1_0e-2",
        "filters@0.5@0.5",
    ],
)
def test_an_unknown_name_is_told_the_known_ones(name):
    with pytest.raises(UserError, match=r"unknown method .*dense, scratch, .*filters@RATIO"):
        parse_method(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Dense", "'dense'"), ("filter@RATIO", "'filters@RATIO'"), ("scrach", "'scratch'")],
)
def test_a_hint(name, hint):
    with pytest.raises(UserError, match=rf"; did you mean {hint}\?$"):
        parse_method(name)


def test_a_hint_is_not_the_name_itself():
    with pytest.raises(UserError) as error:
        parse_method("filters@RATIO")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("ratio", [0.1, 1 / 3, 1e-7, 0.5000000000000001, 1 - 2**-53])
def test_a_name_is_read_back(ratio):
    method = parse_method(f"filters@{ratio!r}")
    assert (method.ratio, parse_method(method.name)) == (ratio, method)


@pytest.mark.parametrize(
    "name",
    [
        "filters@1e-400",
        "filters@1e400",
        "filters@0.99999999999999999",
        "filters@0",
        "filters@1",
        "channels@1.5",
        "filters@0.0",
    ],
)
def test_a_ratio_that_drops_nothing_or_everything(name):
    with pytest.raises(UserError, match=rf"{name}.* between 0 and 1"):
        parse_method(name)
