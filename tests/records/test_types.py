"""What a run may not say."""

import dataclasses

import pytest

from ctl_jax.errors import UserError
from ctl_jax.records._types import RunRecord, check_run


def test_a_run_that_names_all_once(example):
    check_run(example(RunRecord), "it")


@pytest.mark.parametrize("name", ["", "../etc", "a/b", "a\\b", ".hidden", "a\0b"])
def test_a_task_whose_name_is_no_file_name(example, name):
    run = example(RunRecord)
    task = dataclasses.replace(run.tasks[0], name=name)
    with pytest.raises(UserError, match=r"it: task .*, expected a name that is safe in a f"):
        check_run(dataclasses.replace(run, tasks=(task,)), "it")


@pytest.mark.parametrize("axis", ["methods", "budgets", "learning_rates", "seeds"])
def test_what_is_there_twice(example, axis):
    run = example(RunRecord)
    with pytest.raises(UserError, match=f"it: {axis}: .* is there more than once, expected once"):
        check_run(dataclasses.replace(run, **{axis: getattr(run, axis) * 2}), "it")


def test_tasks_of_one_name(example):
    run = example(RunRecord)
    with pytest.raises(UserError, match="it: names of tasks: '2 epochs' is there more than once"):
        check_run(dataclasses.replace(run, tasks=run.tasks * 2), "it")
