"""PyTorch networks as torchvision 0.2x defines them, for comparisons: torchvision is not needed.

Modules have torchvision's names, orders and hyper-parameters; `create` asserts its published
numbers of parameters. Only the initial weights differ (PyTorch's defaults).
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch_vit import VisionTransformer

CLASSES = 1000


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, size, stride, padding=(size - 1) // 2, groups=groups, bias=False
    )


class Block(nn.Module):
    """A basic (two 3x3) or a bottleneck (1x1, 3x3 with the stride, 1x1) residual block."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        self.bottleneck = bottleneck
        self.conv1 = _conv(inputs, width, 1 if bottleneck else 3, 1 if bottleneck else stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride if bottleneck else 1)
        self.bn2 = nn.BatchNorm2d(width)
        if bottleneck:
            self.conv3 = _conv(width, outputs, 1)
            self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """He et al. 2015; bottlenecks stride in the 3x3 ("v1.5")."""

    def __init__(self, stages: tuple[int, ...], bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = len(stages)
        inputs = 64
        for i, blocks in enumerate(stages):
            layer = []
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                layer.append(Block(inputs, 64 * 2**i, stride, bottleneck))
                inputs = 64 * 2**i * (4 if bottleneck else 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1, BN, ReLU, 3x3 on the concatenation of all that came before in the block."""

    def __init__(self, inputs: int, growth: int, bottleneck: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = _conv(inputs, bottleneck * growth, 1)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = _conv(bottleneck * growth, growth, 3)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    """Layers that each add `growth` channels."""

    def __init__(self, layers: int, inputs: int, growth: int, bottleneck: int) -> None:
        super().__init__()
        for i in range(layers):
            layer = DenseLayer(inputs + i * growth, growth, bottleneck)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    """Huang et al. 2016, with bottlenecks of 4 x growth and transitions that halve."""

    def __init__(self, growth: int, blocks: tuple[int, ...], stem: int) -> None:
        super().__init__()
        parts: list[tuple[str, nn.Module]] = [
            ("conv0", _conv(3, stem, 7, 2)),
            ("norm0", nn.BatchNorm2d(stem)),
            ("relu0", nn.ReLU(inplace=True)),
            ("pool0", nn.MaxPool2d(3, 2, 1)),
        ]
        width = stem
        for i, layers in enumerate(blocks, start=1):
            parts.append((f"denseblock{i}", DenseBlock(layers, width, growth, 4)))
            width += layers * growth
            if i < len(blocks):
                transition = OrderedDict(
                    norm=nn.BatchNorm2d(width),
                    relu=nn.ReLU(inplace=True),
                    conv=_conv(width, width // 2, 1),
                    pool=nn.AvgPool2d(2, 2),
                )
                parts.append((f"transition{i}", nn.Sequential(transition)))
                width //= 2
        parts.append(("norm5", nn.BatchNorm2d(width)))
        self.features = nn.Sequential(OrderedDict(parts))
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class ConvNorm(nn.Sequential):
    """A convolution, BatchNorm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, groups: int = 1) -> None:
        super().__init__(
            _conv(inputs, outputs, size, stride, groups),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """1x1 to `expand` times the width, depthwise 3x3, linear 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        width = inputs * expand
        layers: list[nn.Module] = [] if expand == 1 else [ConvNorm(inputs, width, 1, 1)]
        layers += [
            ConvNorm(width, width, 3, stride, groups=width),
            _conv(width, outputs, 1),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, width 1."""

    # Expansion, channels, blocks, stride of the first block.
    SETTINGS = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
        inputs = 32
        for expand, outputs, blocks, stride in self.SETTINGS:
            for i in range(blocks):
                first = stride if i == 0 else 1
                features.append(InvertedResidual(inputs, outputs, first, expand))
                inputs = outputs
        features.append(ConvNorm(inputs, 1280, 1, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(x, 1))


def _vit_b16(split: bool = False) -> nn.Module:
    return VisionTransformer(224, 16, 12, 768, 12, 3072, CLASSES, split)


# Each with torchvision's number of parameters; "resnet50_conv4" is its resnet50 without layer4.
MODELS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "resnet18": (lambda: ResNet((2, 2, 2, 2), False), 11_689_512),
    "resnet50": (lambda: ResNet((3, 4, 6, 3), True), 25_557_032),
    "resnet50_conv4": (lambda: ResNet((3, 4, 6), True), 9_568_296),
    "resnet101": (lambda: ResNet((3, 4, 23, 3), True), 44_549_160),
    "densenet121": (lambda: DenseNet(32, (6, 12, 24, 16), 64), 7_978_856),
    "mobilenet_v2": (MobileNetV2, 3_504_872),
    "vit_b16": (_vit_b16, 86_567_656),
    "vit_b16_split": (lambda: _vit_b16(split=True), 86_567_656),
}


def create(name: str) -> nn.Module:
    """The network of this name, in evaluation mode, with random weights."""
    make, parameters = MODELS[name]
    model = make().eval()
    found = sum(p.numel() for p in model.parameters())
    assert found == parameters, f"{name} has {found} parameters, torchvision's has {parameters}"
    return model
