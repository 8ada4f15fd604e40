"""The finetuning step of `ctl_jax.finetune`, written in PyTorch as its users would write it."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ctl_jax import models

WEIGHT_DECAY, MOMENTUM = 1e-4, 0.9


class TorchTrainer:
    """One network of PyTorch in training: `channels_last`, SGD with Nesterov momentum.

    Crops, flips, resizing and normalising are done on the device, like ours: a batch of uint8
    images goes through `grid_sample`, each with a box of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        learning_rate: Callable[[int], float],
        preprocess: Callable[[torch.Tensor], torch.Tensor],
        crop_area: tuple[float, float] = (1.0, 1.0),
        crop_aspect: tuple[float, float] = (1.0, 1.0),
        flip: float = 0.0,
        device: str = "cpu",
        bf16: bool = False,
        compiled: bool = False,
    ) -> None:
        """Takes the model as its own.

        Args:
          model: with a head for the task.
          images: uint8 [batch, height, width, 3], of the first updates; see `use`.
          labels: int [batch].
          learning_rate: of the update after so many.
          preprocess: from float images 0..255 [batch, 3, height, width] to what the model expects.
          crop_area: see `finetune.Augmentation`; by default boxes happen to be whole images, so
            that losses can be compared with ours. The work is that of any other boxes.
          crop_aspect: see `finetune.Augmentation`.
          flip: the share of images that are mirrored.
          device: "cpu" or "cuda".
          bf16: whether convolutions and products are bfloat16 (autocast).
          compiled: whether `torch.compile` compiles what goes forward and backward.
        """
        model = model.train()
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
        self._learning_rate, self._device, self._steps = learning_rate, device, 0
        self._preprocess, self._crops = preprocess, (crop_area, crop_aspect, flip)
        self.use(images, labels)
        self._autocast = (
            functools.partial(torch.autocast, device, torch.bfloat16)
            if bf16
            else contextlib.nullcontext
        )
        self._loss = torch.compile(self._forward) if compiled else self._forward

    def use(self, images: np.ndarray, labels: np.ndarray) -> None:
        """What the next updates are made with: images uint8 [batch, H, W, 3], labels [batch]."""
        self._images = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
        self._labels = torch.from_numpy(labels).long().to(self._device)

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
        images = self._preprocess(_augment(self._images, *self._crops))
        with self._autocast():
            logits = self._model(images.contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(logits.float(), self._labels)


def nevis(images: torch.Tensor) -> torch.Tensor:
    """As `models.PREPROCESS["nevis"]`."""
    return images / 127.5 - 1.0


def preprocessor(preprocess: models.Preprocess) -> Callable[[torch.Tensor], torch.Tensor]:
    """What `models.Preprocess` does, of [batch, 3, height, width]."""
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))

    def call(images: torch.Tensor) -> torch.Tensor:
        if preprocess.channels == "bgr":
            images = images.flip(1)
        return (images / preprocess.scale - mean) / std

    return call


def _augment(
    images: torch.Tensor, areas: tuple[float, float], aspects: tuple[float, float], flip: float
) -> torch.Tensor:
    """Bilinear crops of boxes of their own, as `finetune.augment`."""
    batch = images.shape[0]
    area = torch.empty(batch, device=images.device).uniform_(*areas)
    low, high = map(math.log, aspects)
    aspect = torch.exp(torch.empty(batch, device=images.device).uniform_(low, high))
    height, width = torch.sqrt(area / aspect).clamp(max=1), torch.sqrt(area * aspect).clamp(max=1)
    y, x = (torch.rand(batch, device=images.device) * (1 - size) for size in (height, width))
    sign = torch.where(torch.rand(batch, device=images.device) < flip, -1.0, 1.0)
    zero = torch.zeros_like(x)
    across = torch.stack([sign * width, zero, 2 * x + width - 1], 1)
    down = torch.stack([zero, height, 2 * y + height - 1], 1)
    theta = torch.stack([across, down], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def cosine(peak: float, total_steps: int) -> Callable[[int], float]:
    """The learning rate after so many updates, as `finetune.warmup_cosine` without warm-up."""
    return lambda step: peak * 0.5 * (1 + math.cos(math.pi * step / total_steps))
