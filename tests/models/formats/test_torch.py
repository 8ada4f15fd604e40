"""Checkpoints of training programs, whose weights are somewhere inside."""

import argparse

import chex
import ml_dtypes
import numpy as np
import pytest

from ctl_jax.errors import UserError
from ctl_jax.models import formats

torch = pytest.importorskip("torch")

STATE = {"conv.weight": torch.ones(2, 3), "steps": torch.tensor(3)}
AVERAGE = {"conv.weight": torch.zeros(2, 3)}


def read(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    return formats.read(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (STATE, ""),
        ({"state_dict": STATE, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, ""),
        ({"model": STATE, "optimizer": {"state": {}}}, ""),
        ({"model": {"state_dict": STATE}}, ""),
        ({"net": STATE, "acc": 93.1}, ""),
        ({"state_dict": STATE, "state_dict_ema": AVERAGE}, "not the moving average"),
        ({"state_dict_ema": STATE}, "are the moving average 'state_dict_ema'"),
    ],
)
def test_wrappers(tmp_path, content, remark):
    found = read(tmp_path, content)
    chex.assert_trees_all_equal(found.arrays["conv.weight"], np.ones((2, 3), "f4"))
    assert remark in " ".join(found.remarks)
    assert bool(found.remarks) == bool(remark)


def test_bfloat16(tmp_path):
    found = read(tmp_path, {"a": torch.tensor([1.5], dtype=torch.bfloat16)})
    chex.assert_trees_all_equal(found.arrays["a"], np.array([1.5], ml_dtypes.bfloat16))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "it holds a list; expected a state_dict"),
        ({"epoch": 3}, "its keys are epoch; expected tensors"),
        (torch.nn.Linear(2, 2), "holds more than arrays, .*Linear, .*torch.save.model.state_dict"),
    ],
)
def test_no_weights(tmp_path, content, said):
    with pytest.raises(UserError, match=said) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
