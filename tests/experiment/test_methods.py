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
    ],
)
def test_reads_a_name(name, method):
    assert parse_method(name) == method


@pytest.mark.parametrize("name", ["", "Dense", "filters", "filters@", "filter@0.5", "filters@a"])
def test_an_unknown_name_is_told_the_known_ones(name):
    with pytest.raises(UserError, match=r"unknown method .*dense, scratch, .*filters@RATIO"):
        parse_method(name)


@pytest.mark.parametrize("name", ["filters@0", "filters@1", "channels@1.5", "filters@0.0"])
def test_a_ratio_that_drops_nothing_or_everything(name):
    with pytest.raises(UserError, match=rf"{name}.* between 0 and 1"):
        parse_method(name)
