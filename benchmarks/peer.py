"""Torch-Pruning (Fang et al. 2023, DepGraph) used as its examples use it, for `pruning.py`.

Of what was tried the fastest that prunes the same groups: L2 group importance, uniform ratio, a
fresh dependency graph for each result (a built one can not be copied), and for the transformer
`round_to` the number of heads, with which `examples/torchvision_models` prunes torchvision's.
"""

import copy
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch_models
import torch_pruning as tp
from torch import nn
from torch_vit import VisionTransformer

# Bisection halves the range of ratios; after so many trials, a network of a few hundred channels
# a layer does not change any more.
MAX_TRIALS = 12

HEADS = 12  # of ViT-B/16


class Target(NamedTuple):
    """What a search for a FLOPs target found: the share of the full FLOPs, after some trials."""

    share: float
    trials: int


class Peer:
    """One network and the inputs that Torch-Pruning traces it with."""

    def __init__(self, name: str, image_size: int) -> None:
        self.name = name
        self.model = torch_models.create(name)
        # The graph does not depend on the size of the images, the work of tracing does. A vision
        # transformer takes one size only, and FLOPs are counted at the full size.
        fixed = isinstance(self.model, VisionTransformer)
        size = 224 if fixed else image_size
        self.inputs = torch.zeros(1, 3, size, size)
        self.full_inputs = torch.zeros(1, 3, 224, 224)

    def pruner(self, model: nn.Module, ratio: float, steps: int = 1) -> tp.pruner.BasePruner:
        """Builds the dependency graph of `model`, which `step()` then prunes in place."""
        head = [
            layer
            for layer in model.modules()
            if isinstance(layer, nn.Linear) and layer.out_features == torch_models.CLASSES
        ]
        more: dict[str, Any] = {}
        if isinstance(model, VisionTransformer):
            embeddings = (model.class_token, model.encoder.pos_embedding)
            more = {"round_to": HEADS, "unwrapped_parameters": [(p, 2) for p in embeddings]}
        return tp.pruner.BasePruner(
            model,
            self.inputs,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            iterative_steps=steps,
            ignored_layers=head,
            **more,
        )

    def once(self, model: nn.Module, ratio: float = 0.5) -> nn.Module:
        """Prunes `model` in place."""
        self.pruner(model, ratio).step()
        return model

    def ratios(self, ratios: Sequence[float]) -> list[int]:
        """Parameters left at each ratio: a fresh copy and graph each."""
        return [parameters(self.once(copy.deepcopy(self.model), ratio)) for ratio in ratios]

    def ratios_in_steps(self, ratios: Sequence[float], limit: float) -> float:
        """Seconds for the same number of ratios as steps of one pruner, copied after each.

        Not the same networks: channels are ranked again in the pruned network at each step. Stops
        after `limit` seconds: the time is then a lower bound.
        """
        start = time.perf_counter()
        model = copy.deepcopy(self.model)
        pruner = self.pruner(model, max(ratios), len(ratios))
        for _ in ratios:
            pruner.step()
            copy.deepcopy(model)
            if time.perf_counter() - start > limit:
                break
        return time.perf_counter() - start

    def flops(self, model: nn.Module) -> float:
        """Torch-Pruning's own count."""
        return tp.utils.count_ops_and_params(model, self.full_inputs)[0]

    def to_target(self, target: float, tolerance: float) -> Target:
        """Bisects the ratio until the share of FLOPs is within `tolerance` of `target`."""
        full = self.flops(self.model)
        low, high = 0.0, 1.0
        trials = 0
        while trials < MAX_TRIALS:
            trials += 1
            ratio = (low + high) / 2
            share = self.flops(self.once(copy.deepcopy(self.model), ratio)) / full
            if abs(share / target - 1) <= tolerance:
                break
            low, high = (ratio, high) if share > target else (low, ratio)
        return Target(share, trials)

    def to_target_in_steps(self, target: float, steps: int, limit: float) -> Target:
        """The loop of its examples: many small steps of one pruner until the target is passed.

        After `limit` seconds it is given up.
        """
        start = time.perf_counter()
        full = self.flops(self.model)
        model = copy.deepcopy(self.model)
        pruner = self.pruner(model, 1.0, steps)
        trials, share = 0, 1.0
        while share > target and trials < steps and time.perf_counter() - start < limit:
            pruner.step()
            share = self.flops(model) / full
            trials += 1
        return Target(share, trials)


def parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())
