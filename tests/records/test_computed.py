"""Records say what they were computed on; those of before, which do not, are read."""

import pytest

from ctl_jax import records
from ctl_jax.records import Computed, Hardware


def test_in_words():
    cpu = Hardware(device="cpu", devices=1, processor="EPYC 7B13", cores=1)
    gpus = Hardware(device="NVIDIA H200", devices=8, processor="", cores=16)
    assert str(cpu) == "EPYC 7B13, 1 core"
    assert str(gpus) == "8 x NVIDIA H200, an unknown processor, 16 cores"


STEPS = [cls for cls in records.TYPES.values() if issubclass(cls, Computed)]


@pytest.mark.parametrize("cls", STEPS)
def test_records_of_before_are_read(cls, example):
    record = example(cls)
    line = records.to_json(record)
    assert records.from_json(line) == record
    del line["computed_on"]
    assert records.from_json(line).computed_on is None


def test_every_step_says_it():
    """The others are of a run, of what is wanted, or of a trial on the way, which says it."""
    others = records.TYPES.keys() - {cls.type for cls in STEPS}
    assert others == {"run", "task", "method", "train", "dev", "pending"}


def test_results_are_what_follows_from_a_config():
    assert "computed_on" not in {column.name for column in records.COLUMNS}
