"""The demo's source model: a small residual network with batch normalisation for 28x28 digits."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

CLASSES = tuple(str(digit) for digit in range(10))
STAGES = ((16, 1), (32, 2), (64, 2))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes (He et al. 2016, option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """A stem and three stages of one block each; about 78,000 parameters, 848 of them norm affines."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STAGES[0][0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(STAGES[0][0])
        width = STAGES[0][0]
        blocks = []
        for outputs, stride in STAGES:
            blocks.append(Block(width, outputs, stride))
            width = outputs
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, 10]` for images `[B, 1, 28, 28]` float32 in [0, 1]."""
        features = self.stages(functional.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits
