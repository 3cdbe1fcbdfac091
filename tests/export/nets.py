"""Small networks with random weights, and samples for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.export.calibration import CalibrationData
from acclimate.export.trace import Preprocessing

SHAPE = (2, 9, 9)
CLASSES = ("a", "b", "c")
PREPROCESSING = Preprocessing(mean=(0.4, 0.5), std=(0.2, 0.3))


class TinyNet(nn.Module):
    """Nine by nine, two channels: a biased, a depthwise and a strided convolution, and both kinds of shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        y = functional.relu(self.norm1(self.depthwise(x)))
        y = self.norm2(self.down(y))
        y = functional.relu(y + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        y = functional.relu(self.block(y) + y)
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


class OddNet(nn.Module):
    """Operators without an integer form between those with one, a convolution without a norm, pooling of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.norm2 = nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.plain = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(24, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.sigmoid(self.norm(self.first(x))), 3, 1, 1)
        y = self.norm2(self.second(x))
        y = torch.cat([functional.relu(y), torch.tanh(y)], 1)
        y = functional.relu6(self.plain(functional.avg_pool2d(y, 3, 2, 1))) - 0.5
        logits: Tensor = self.head(functional.avg_pool2d(y, 2).flatten(1))
        return logits


def odd_net(seed: int = 0) -> nn.Module:
    """An `OddNet`, the same for the same seed."""
    torch.manual_seed(seed)
    return randomised(OddNet(), seed)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Affines and running statistics that look trained; convolutions keep torch's initialisation."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            size = module.weight.shape
            module.weight.data = 0.5 + torch.rand(size, generator=generator)
            module.bias.data = 0.3 * torch.randn(size, generator=generator)
            module.running_mean.data = 0.2 * torch.randn(size, generator=generator)
            module.running_var.data = 0.2 + torch.rand(size, generator=generator)
    return model.eval()


def tiny_net(seed: int = 0) -> nn.Module:
    """A `TinyNet`, the same for the same seed."""
    torch.manual_seed(seed)
    return randomised(TinyNet(), seed)


def pictures(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Random uint8 images `[count, *shape]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def calibration(count: int = 64, *, labelled: bool = False) -> CalibrationData:
    """Random pictures; labels, where wanted, are the float model's own answers."""
    inputs = pictures(count)
    if not labelled:
        return CalibrationData(inputs)
    scaled = torch.from_numpy(inputs).float() / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    with torch.no_grad():
        return CalibrationData(inputs, tiny_net()((scaled - mean) / std).argmax(1).numpy())
