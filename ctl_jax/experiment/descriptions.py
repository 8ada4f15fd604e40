"""Descriptions: what steps say of a method's network, phases and settings, as plain values."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax

from ctl_jax import models
from ctl_jax.errors import UserError, naming
from ctl_jax.experiment import build, searches, tunings
from ctl_jax.experiment.methods import Method
from ctl_jax.experiment.strategies import Point
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.finetune import Phase
from ctl_jax.finetune.phases import SGD

# Fields of a phase that steps always name.
_PHASE = ("train", "batch_norm", "share", "rate")


class Descriptions:
    """Of the methods of a run; ids of steps rest on them.

    Args:
      workspace: of the run.
      weights_id: hash of the weights that were given; None where none were.
    """

    def __init__(self, workspace: Workspace, weights_id: str | None):
        self._place = workspace
        self._weights_id = weights_id

    def network(self, method: Method) -> dict[str, Any]:
        """What says which network is trained, where its start does not."""
        return {
            "image_size": method.image_size or self._place.config.data.image_size,
            "model": self.model,
            "weights": self._weights_id if method.start == "pretrained" else None,
        }

    def phases_after_head(self, method: Method) -> list[dict[str, Any]]:
        """Those that are a trial's own: a head that is fitted, and what is before, are steps."""
        phases = self.phases(method)
        fitted = (n for n, each in enumerate(phases, start=1) if each.get("solver", SGD) != SGD)
        return phases[max(fitted, default=0) :]

    def phases(self, method: Method) -> list[dict[str, Any]]:
        """A method's phases, as plain values."""
        return self._place.once(
            ("phases", method), lambda: list(map(plain, self.phase_list(method)))
        )

    def phase_list(self, method: Method) -> tuple[Phase, ...]:
        """A method's phases."""
        return self._place.once(("phase list", method), lambda: self._make_phases(method))

    def _make_phases(self, method: Method) -> tuple[Phase, ...]:
        variables = self._place.whole
        if method.stages:
            with naming(f"config.methods: {method.name!r}"):
                variables = models.shorten(variables, method.stages)
        paths = jax.tree_util.tree_leaves_with_path(variables["params"])
        network = tunings.Network(
            build.stages(self._place.network, variables),
            ["/".join(key.key for key in path) for path, _ in paths],
        )
        phases = method.phases(network)
        if method.learner and any(phase.ensemble for phase in phases):
            raise UserError(
                f"config.methods: {method.name!r} leaves two networks; expected one that the next "
                f"task can start from"
            )
        return phases

    @functools.cached_property
    def model(self) -> dict[str, Any]:
        """The network's name and options."""
        return dict(self._place.network.described)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Keys of config.finetune that every trial depends on."""
        settings = dataclasses.asdict(self._place.config.finetune)
        settings["compute_dtype"] = build.compute_dtype(self._place.config.finetune)
        for searched in ("learning_rates", "batch_sizes", "label_smoothings", "search", "trials"):
            del settings[searched]
        if settings["warmup_epochs"]:
            del settings["warmup_fraction"]
        return _that_do_something(settings)

    def settings_of(self, point: Point) -> dict[str, Any]:
        """The same with what the search chose."""
        if point.batch_size is None:
            section, examples = self._place.config.finetune, point.task.examples["train"]
            chosen: dict[str, Any] = {"batch_size": searches.batch_size(section, examples)}
        else:
            chosen = {
                name: getattr(point, name) for name in ("batch_size", "mixup", "label_smoothing")
            }
        return self._place.once(
            ("settings", *chosen.items()),
            lambda: _that_do_something(self.settings | chosen),
        )


def _that_do_something(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that do nothing, so that ids are what they were before these keys."""
    later = ("label_smoothing", "ema", "mixup", "warmup_epochs")
    return {key: value for key, value in settings.items() if value or key not in later}


def plain(phase: Phase) -> dict[str, Any]:
    """A phase as plain values.

    What does nothing is left out, so that ids stay what they were before these fields.
    """
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(phase).items()
        if name in _PHASE or value != getattr(Phase(), name)
    }
