"""Groups by scope and pattern."""

import jax.numpy as jnp
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError
from ctl_jax.pruning._patterns import own_ratios, prunable


def groups() -> pruning.Groups:
    """Groups "one/kernel" and "two/kernel" in blocks, "three/kernel" the representation."""

    def apply(v, x):
        for layer in ("one", "two", "three"):
            x = jnp.tanh(x @ v[layer]["kernel"] + v[layer]["bias"])
        return x @ v["head"]["kernel"]

    def layer(size: int, width: int) -> dict[str, object]:
        return {"kernel": jnp.ones((size, width)), "bias": jnp.ones((1, width))}

    variables = {
        "one": layer(3, 4),
        "two": layer(4, 5),
        "three": layer(5, 6),
        "head": layer(6, 2),
    }
    return pruning.trace(apply, variables, jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("scope", "frozen", "names"),
    [
        ("channels", (), ["one/kernel", "two/kernel", "three/kernel"]),
        ("filters", (), ["one/kernel", "two/kernel"]),
        ("channels", ["two/*"], ["three/kernel"]),
        ("channels", ["two/bias"], ["one/kernel", "three/kernel"]),
        ("channels", ["head*"], ["one/kernel", "two/kernel"]),
        ("channels", ["head/bias"], ["one/kernel", "two/kernel", "three/kernel"]),
        ("filters", ["*e/bias"], ["two/kernel"]),
        ("channels", ("one/bias", "t[w]o/bias"), ["three/kernel"]),
    ],
)
def test_prunable(scope, frozen, names):
    assert prunable(groups(), scope, frozen) == names


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        ("one/kernel", "frozen is 'one/kernel', expected a sequence of patterns"),
        (["four*"], "frozen: 'four.' matches no parameter and no group"),
        (["ONE/*"], "frozen: 'ONE/.' matches no parameter"),
        ([3], "3 is no pattern, expected a string"),
        (["*"], "frozen is .'.'., expected to leave some of the 3 groups of scope 'channels'"),
    ],
)
def test_bad_frozen(frozen, message):
    with pytest.raises(UserError, match=message):
        prunable(groups(), "channels", frozen)


def test_the_first_pattern_that_matches_is_the_one():
    free = ["one/kernel", "two/kernel", "three/kernel"]
    own = own_ratios({"t*": 0.25, "*": 0.5}, free)
    assert own == {"one/kernel": 0.5, "two/kernel": 0.25, "three/kernel": 0.25}
    assert own_ratios({}, free) == {}


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ({"o*": 1}, r"ratios\['o.'\] is 1, expected a number in \[0, 1\)"),
        ({"o*": None}, r"ratios\['o.'\] is None, expected"),
        ({"four": 0.5}, "ratios: 'four' matches none of the 1 groups to be cut"),
    ],
)
def test_bad_ratios(ratios, message):
    with pytest.raises(UserError, match=message):
        own_ratios(ratios, ["one/kernel"])
