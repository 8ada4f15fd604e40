"""The grid: the product of a run's axes, whatever is finished."""

import itertools

import pytest

from ctl_jax.errors import UserError
from ctl_jax.experiment import strategies
from ctl_jax.experiment.steps import closure
from ctl_jax.experiment.strategies.grid import grid


class Nothing:
    """That is finished, or asked for."""

    def __contains__(self, step):
        pytest.fail("the grid looks at what is finished")


def test_the_product_of_the_axes_in_order(config, make_plan):
    config.seeds = (3, 0)
    steps = grid(make_plan(config))(Nothing())
    found = [
        (
            step.params["task"]["name"],
            step.params["method"],
            step.params["budget"],
            step.params["seed"],
            step.params["learning_rate"],
        )
        for step in steps
    ]
    axes = (
        ("digits", "shapes"),
        ("dense", "filters@0.5", "scratch"),
        ("40000000 flops", "120000000 flops"),
        (3, 0),
        (0.02, 0.2),
    )
    assert found == list(itertools.product(*axes))
    assert len({step.id for step in steps}) == len(steps) == 48
    # The trials of a method share one cut.
    assert len(closure(steps)) == 48 + 1


def test_a_second_strategy_of_a_name_is_refused():
    with pytest.raises(UserError, match="strategy 'grid': there is one of this name"):
        strategies.strategy("grid")(grid)
