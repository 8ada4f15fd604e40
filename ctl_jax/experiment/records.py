"""Records of the run itself and of its methods; trials and pretraining make their own."""

import collections
import importlib.metadata
import platform
from typing import Any

import jax

import ctl_jax
from ctl_jax import pruning
from ctl_jax.experiment.plan import Plan
from ctl_jax.experiment.store import Record
from ctl_jax.experiment.tasks import describe
from ctl_jax.experiment.trials import budgets

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def run_record(config: Any, plan: Plan) -> Record:
    """What was run, on what, with which versions."""
    return {
        "type": "run",
        "variant": config.stream.variant,
        "model": config.model.name,
        "tasks": describe(plan.tasks),
        "missing": [
            {"name": spec.name, "title": spec.title, "reason": reason}
            for spec, reason in plan.missing
        ],
        "methods": list(config.methods),
        "budgets": list(budgets(config)),
        "learning_rates": list(config.finetune.learning_rates),
        "seeds": list(config.seeds),
        "config": config.to_dict(),
        "versions": {
            "ctl_jax": ctl_jax.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "device": jax.devices()[0].device_kind,
    }


def method_records(config: Any, plan: Plan) -> list[Record]:
    """What each method makes of the network, without the task's head."""
    records: list[Record] = []
    for name, network in plan.networks.items():
        cost, method, keep = plan.costs[name](0), network.method, network.keep
        cut = [] if keep is None else [n for n, kept in keep.items() if len(kept) < keep.sizes[n]]
        records.append(
            {
                "type": "method",
                "method": name,
                "scope": method.scope,
                "ratio": method.ratio,
                "criterion": config.pruning.criterion if method.scope else None,
                "params": cost.params,
                "forward_flops": cost.forward,
                "flops_per_step": cost.step,
                "groups": len(plan.groups),
                "cut_groups": len(cut),
                "notes": [] if keep is None else pruning_notes(plan.groups, keep),
            }
        )
    return records


def pruning_notes(groups: pruning.Groups, keep: pruning.Keep) -> list[str]:
    """What a method could not cut as asked, and what it left whole and why."""
    whole = collections.Counter(
        group.stream
        for name, group in groups.items()
        if len(keep[name]) == group.size and group.stream is not None
    )
    return [
        *keep.notes,
        *(f"{count} groups left whole: {reason}" for reason, count in whole.items()),
    ]
