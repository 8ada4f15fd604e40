"""One process of a group of two, with two devices; `test_devices` starts both.

Arguments: the coordinator's address, the number of this process, a file with the start and the
data, and the folder for what it finds.
"""

import json
import os
import pathlib
import signal
import sys

import jax
import numpy as np

from ctl_jax import finetune, models
from ctl_jax.finetune import Augmentation, Hyper, Recipe

RECIPE = Recipe("nevis", Augmentation())
MODULE = models.create("resnet18", num_outputs=1, stages=(1,), width=4, stem="cifar")


class Stopped(Exception):
    """Raised from the training's own callback."""


def main(address: str, index: int, given: str, folder: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, index)
    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    variables = models.with_head(models.init(MODULE, jax.random.key(0), 8), 16)
    with np.load(given) as file:
        images, labels = file["images"], file["labels"]
    step = finetune.make_step(MODULE, RECIPE)

    def fit(total_steps, **options):
        return finetune.fit(
            [finetune.Leg(step, RECIPE, Hyper(0.1, total_steps, 2, 3))],
            variables,
            images,
            labels,
            batch_size=16,
            seed=0,
            log_every=5,
            **options,
        )

    snapshots = {}
    result = fit(12, on_chunk=lambda at, snapshot: snapshots.update({at: snapshot()}))
    again = fit(12, device_bytes=0, start=snapshots[7])
    scores = finetune.evaluate(
        MODULE, "nevis", result.variables, images, labels, num_classes=3, batch_size=13
    )
    features = finetune.extract(MODULE, "nevis", result.variables, images, batch_size=13)

    def until_stopped(at, snapshot):
        if at == 20 and index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if finetune.agree_to_stop(bool(told), at):
            assert snapshot().state.step == at
            raise Stopped(at)

    stopped = None
    try:
        fit(10**6, on_chunk=until_stopped)
    except Stopped as error:
        stopped = error.args[0]
    same = jax.tree.map(lambda a, b: bool((a == b).all()), result.variables, again.variables)
    leaves = {str(k): leaf for k, leaf in enumerate(jax.tree.leaves(result.variables))}
    np.savez(pathlib.Path(folder, f"{index}.npz"), **leaves, features=features)
    found = {
        "history": [entry[:3] for entry in result.history],
        "same": all(jax.tree.leaves(same)),
        "score": scores.value,
        "stopped": stopped,
        "told": bool(told),
    }
    pathlib.Path(folder, f"{index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
