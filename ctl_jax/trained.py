"""The trained model that a command names: a run's, in a folder of its own, or anybody's weights."""

import argparse

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.models import Model, load, load_pretrained
from ctl_jax.models.model import is_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments by which a command names a model, `model` and `task`: for `open_model`."""
    parser.add_argument(
        "model",
        metavar="RUN_OR_MODEL",
        help="a finished run's --workdir, a model's folder, or weights that config.weights takes",
    )
    parser.add_argument(
        "--task", default="", metavar="NAME", help="which task's model, of a run of several"
    )


def open_model(name: str, task: str = "") -> Model:
    """The model that a path is of.

    Args:
      name: the --workdir of a finished run, of which it is the best model of its task; a model's
        folder; or what `load_pretrained` takes. The first two also as `gs://bucket/path`.
      task: of a run of several tasks, whose model.

    Raises:
      UserError: there is none, or not of that task; or a run of several tasks and no task said.

    Example:
      >>> model = open_model("runs/flowers")
    """
    place = files.path(name)
    if is_model(place):
        model = load(place)
        if task and (own := model.notes.get("task", "")) != task:
            raise UserError(f"model {place}: its task is {own!r}; expected {task!r}")
        return model
    if not {"records.jsonl", "steps"}.isdisjoint(files.names(place)):
        # Most of the time that a command takes to start, and of no use but here.
        from ctl_jax.experiment import best_models

        best = best_models(place, task)
        if len(best) > 1:
            raise UserError(f"run {place}: of several tasks; expected --task={'|'.join(best)}")
        (folder,) = best.values()
        return load(folder)
    if not name.startswith("hf:") and not (files.is_remote(place) or place.exists()):
        raise UserError(
            f"{place}: no such file or folder; expected a run's --workdir, a model's folder or "
            "weights"
        )
    if task:
        raise UserError(f"{place}: no run; expected one with a task {task!r}")
    return load_pretrained(name)
