"""predictions/TASK.npz: what the best network of each task says, for people and other tools."""

import io
from collections.abc import Mapping

import numpy as np

from ctl_jax import files, records
from ctl_jax.experiment.kinds import predict
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.workspace import Workspace

FOLDER = "predictions"


def write(workspace: Workspace, wanted: Mapping[str, Step]) -> None:
    """Writes the predictions of the best trial of each task.

    Args:
      workspace: of the run.
      wanted: its steps by id, all done. Of those that predict, the trials that are best on dev
        count.
    """
    best: dict[str, tuple[records.TrialRecord, Step]] = {}
    for step in wanted.values():
        if step.kind != predict.KIND:
            continue
        trial = workspace.store.result(predict.trial_of(step).id)
        assert isinstance(trial, records.TrialRecord)
        there = best.get(trial.task)
        if there is None or records.rank(trial) < records.rank(there[0]):
            best[trial.task] = trial, step
    for task, (_, step) in best.items():
        arrays = workspace.local_arrays(step)
        classes = np.array(workspace.tasks[task].class_names, dtype=str)
        content = io.BytesIO()
        np.savez(
            content,
            targets=arrays[predict.TARGETS],
            outputs=arrays[predict.OUTPUTS],
            classes=classes,
        )
        path = workspace.store.workdir / FOLDER / f"{task}.npz"
        files.write_bytes(path, content.getvalue())
