"""The ResNet of He et al. 2016 for 32x32 images (6n+2 layers), compiled into a bundle from safetensors weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from acclimate.export import BundleSpec, CalibrationData, Preprocessing, compile_model
from benchmarks._report import ROOT

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Enough for ranges and the Fisher; the paper's Fisher uses 2,000 images.
CALIBRATION = 2000


class Block(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut: every second pixel, zero-padded channels (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`."""
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(out + x)


class ResNetCifar(nn.Module):
    """Three stages of `blocks` blocks with 16, 32 and 64 channels; depth is `6 * blocks + 2`."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1)
        self.layer2 = _stage(16, 32, blocks, 2)
        self.layer3 = _stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 3, 32, 32]` float32 to logits `[B, 10]`."""
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(inputs, outputs, stride), *rest)


def load_resnet(weights: Path, depth: int) -> ResNetCifar:
    """The model with weights from a safetensors file, in eval mode."""
    model = ResNetCifar((depth - 2) // 6)
    missing, unexpected = model.load_state_dict(load_file(weights), strict=False)
    unknown = [name for name in missing if not name.endswith("num_batches_tracked")]
    if unknown or unexpected:
        raise ValueError(f"{weights}: not a ResNet-{depth}: missing {unknown[:3]}, unexpected {unexpected[:3]}")
    return model.eval()


def digest(weights: Path, data: Path) -> str:
    """A short name for what a bundle is made of: the weights and the calibration images."""
    both = weights.read_bytes() + (data / "source.npz").read_bytes()
    return hashlib.sha256(both).hexdigest()[:12]


def compile_resnet(weights: Path, depth: int, data: Path, out: Path) -> Path:
    """A bundle at `out`, calibrated on `source.npz` of the data folder."""
    with np.load(data / "source.npz") as source:
        images = np.ascontiguousarray(source["x"][:CALIBRATION].transpose(0, 3, 1, 2))
        labels = source["y"][:CALIBRATION].astype(np.int64)
    spec = BundleSpec(name=f"resnet{depth}-cifar10", classes=CLASSES, preprocessing=Preprocessing(mean=MEAN, std=STD))
    compile_model(load_resnet(weights, depth), CalibrationData(images, labels), spec, out)
    return out


def compiled(weights: Path, depth: int, data: Path) -> Path:
    """The bundle of these weights, compiled once and kept under `out/`."""
    out = ROOT / "out" / "bundles" / f"{weights.stem}-{digest(weights, data)}"
    return out if out.exists() else compile_resnet(weights, depth, data, out)
