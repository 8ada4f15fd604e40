"""The finetuning step of `ctl_jax.finetune`, written in PyTorch as its users would write it."""

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transfer
from torch.nn import functional as F

WEIGHT_DECAY, MOMENTUM = 1e-4, 0.9


class TorchTrainer:
    """One network of PyTorch in training: `channels_last`, SGD with Nesterov momentum.

    Crops, flips, resizing and normalising are done on the device, like ours: a batch of uint8
    images goes through `grid_sample`, each with a box of its own.
    """

    def __init__(
        self,
        name: str,
        variables: Mapping[str, Any],
        images: np.ndarray,
        labels: np.ndarray,
        *,
        learning_rate: Callable[[int], float],
        device: str,
        bf16: bool,
        compiled: bool,
    ) -> None:
        """Copies the weights.

        Args:
          name: of the network in `torch_models`.
          variables: ctl_jax's, perhaps pruned, with a head for the task.
          images: uint8 [batch, height, width, 3].
          labels: int [batch].
          learning_rate: of the update after so many.
          device: "cpu" or "cuda".
          bf16: whether convolutions and products are bfloat16 (autocast).
          compiled: whether `torch.compile` compiles what goes forward and backward.
        """
        model = transfer.to_torch(name, variables).train()
        self._model: Any = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        kernels = [p for p in self._model.parameters() if p.ndim > 1]
        others = [p for p in self._model.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": kernels, "weight_decay": WEIGHT_DECAY},
            {"params": others},
        ]
        self._optimizer = torch.optim.SGD(
            groups,
            lr=torch.tensor(0.0),
            momentum=MOMENTUM,
            nesterov=True,
            fused=True,
        )
        self._images = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        self._labels = torch.from_numpy(labels).long().to(device)
        self._learning_rate, self._device, self._steps = learning_rate, device, 0
        self._autocast = (
            functools.partial(torch.autocast, device, torch.bfloat16)
            if bf16
            else contextlib.nullcontext
        )
        self._loss = torch.compile(self._forward) if compiled else self._forward

    def steps(self, count: int) -> list[float]:
        """Makes `count` updates and returns their losses."""
        losses = []
        for _ in range(count):
            for group in self._optimizer.param_groups:
                group["lr"].fill_(self._learning_rate(self._steps))
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss()
            loss.backward()
            self._optimizer.step()
            losses.append(loss.detach())
            self._steps += 1
        return torch.stack(losses).tolist()

    def _forward(self) -> torch.Tensor:
        images = _augment(self._images) / 127.5 - 1.0  # As `models.PREPROCESS["nevis"]`.
        with self._autocast():
            logits = self._model(images.contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(logits.float(), self._labels)


def _augment(images: torch.Tensor) -> torch.Tensor:
    """Boxes that happen to be whole images, so that the losses can be compared with ours.

    The work is that of any other boxes.
    """
    batch = images.shape[0]
    area = torch.empty(batch, device=images.device).uniform_(1.0, 1.0)
    aspect = torch.exp(torch.empty(batch, device=images.device).uniform_(0.0, 0.0))
    height, width = torch.sqrt(area / aspect).clamp(max=1), torch.sqrt(area * aspect).clamp(max=1)
    y, x = (torch.rand(batch, device=images.device) * (1 - size) for size in (height, width))
    flip = torch.where(torch.rand(batch, device=images.device) < 0.0, -1.0, 1.0)
    zero = torch.zeros_like(x)
    across = torch.stack([flip * width, zero, 2 * x + width - 1], 1)
    down = torch.stack([zero, height, 2 * y + height - 1], 1)
    theta = torch.stack([across, down], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def cosine(peak: float, total_steps: int) -> Callable[[int], float]:
    """The learning rate after so many updates, as `finetune.warmup_cosine` without warm-up."""
    return lambda step: peak * 0.5 * (1 + math.cos(math.pi * step / total_steps))
