"""Channels that come back."""

import chex
import jax
import numpy as np
import pytest

from ctl_jax import models, pruning
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import prune, regrow
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.workspace import Workspace


@pytest.mark.parametrize("name", ["filters@0.5", "channels@0.5"])
def test_what_stayed_is_as_it_was_trained_and_the_rest_as_before(config, make_plan, tmp_path, name):
    config.methods = (name,)
    plan = make_plan(config)
    cut = plan.start(plan.methods[name])

    class Place(Workspace):
        """What was trained is what was cut, plus one."""

        def local_variables(self, step):
            if step is None or step.kind != "finetune":
                return super().local_variables(step)
            variables = models.with_head(super().local_variables(cut), 7)
            return jax.tree.map(lambda leaf: leaf + 1, variables)

    workspace = Place(plan.workspace.config, plan.workspace.loader, Store(tmp_path, {}))
    workspace.store.create()
    workspace.store.save(cut.id, prune.run(cut, workspace, Job(cut)).records)
    trained = Step("finetune", {"task": {"name": "digits"}}, {"weights": cut})
    step = regrow.make(trained, None, {"image_size": 16})
    (record,) = regrow.run(step, workspace, Job(step)).records
    assert (record.task, record.params) == ("digits", models.count_params(workspace.given))
    found, whole = workspace.variables(step), workspace.given
    chex.assert_trees_all_equal_shapes_and_dtypes(found, whole)
    keep = pruning.Keep.from_json(workspace.store.result(cut.id).keep)
    headless = lambda tree: models.set_head(tree, whole["params"]["head"])  # noqa: E731
    again = headless(pruning.prune(found, workspace.groups, keep))
    chex.assert_trees_all_equal(again, headless(workspace.local_variables(trained)))
    # Nothing but what was trained is another number than before.
    changed = jax.tree.map(lambda new, old: np.sum(np.asarray(new) != old), found, whole)
    stayed = jax.tree.map(np.size, pruning.prune(whole, workspace.groups, keep))
    chex.assert_trees_all_equal(models.set_head(changed, {}), models.set_head(stayed, {}))
