"""Keys as fields of dataclasses."""

import dataclasses

from ctl_jax.experiment.config.keys import Check, Key, key, keys_of


@dataclasses.dataclass(frozen=True)
class Inner:
    """A section."""

    sizes: tuple[int, ...] = key((1, 2), "Sizes.", canonical=sorted)
    pair: tuple[float, float] = key((0.5, 1.0), "Two numbers.")


@dataclasses.dataclass(frozen=True)
class Outer:
    """All of them."""

    inner: Inner = Inner()
    name: str = key("x", "A name.", Check(str.isalpha, "letters"))


def test_types_are_those_of_the_annotations():
    found = keys_of(Outer)
    check = found["name"].check
    assert found == {
        "inner.sizes": Key("inner.sizes", int, True, (1, 2), "Sizes.", None, sorted),
        "inner.pair": Key("inner.pair", float, True, (0.5, 1.0), "Two numbers.", None, None),
        "name": Key("name", str, False, "x", "A name.", check, None),
    }
    assert check.holds("a")
    assert check.expected == "letters"
