"""Train the demo model on the train split and export its bundle: `python -m acclimate.examples.digits.train`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from acclimate.examples.digits.data import Digits, load
from acclimate.examples.digits.model import CLASSES, DigitsNet
from acclimate.export import BundleSpec, CalibrationData, Report, compile_model
from acclimate.export.report_page import page

BUNDLE = Path(__file__).parent / "bundle"
CALIBRATION = 600
SEED = 7
EPOCHS = 28
BATCH = 64
PEAK_RATE = 0.1
WEIGHT_DECAY = 5e-4
MAX_SHIFT = 2
LEAST_LIGHT = 0.3
MAX_LIFT = 0.12
MAX_NOISE = 0.06


def perturbed(images: Tensor, generator: torch.Generator) -> Tensor:
    """`[B, 1, H, W]` in [0, 1], each moved, dimmed, lifted and made noisy a little, as any camera would.

    Without this a network that has only seen perfect black backgrounds falls to chance at the faintest haze, and
    beating it would prove nothing.
    """
    count, _, height, width = images.shape
    padded = functional.pad(images, (MAX_SHIFT,) * 4)
    rows, columns = torch.randint(0, 2 * MAX_SHIFT + 1, (2, count), generator=generator).tolist()
    moved = torch.stack(
        [image[:, r : r + height, c : c + width] for image, r, c in zip(padded, rows, columns, strict=True)]
    )
    dimmed, lifted, noisy = torch.rand(3, count, 1, 1, 1, generator=generator)
    grain = torch.randn(images.shape, generator=generator)
    varied: Tensor = moved * (1 - LEAST_LIGHT * dimmed) + MAX_LIFT * lifted + MAX_NOISE * noisy * grain
    return varied.clamp(0, 1)


def train(digits: Digits, epochs: int = EPOCHS, seed: int = SEED) -> DigitsNet:
    """Fit a fresh network with SGD, Nesterov momentum and a one-cycle rate; the same seed gives the same model."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DigitsNet()
    images = torch.from_numpy(digits.images).float() / 255
    labels = torch.from_numpy(digits.labels)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = epochs * (len(digits) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(digits), generator=generator)
        for start in range(0, len(digits) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            loss = functional.cross_entropy(model(perturbed(images[rows], generator)), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: DigitsNet, digits: Digits) -> float:
    """Share of digits that the float model gets right."""
    logits = model(torch.from_numpy(digits.images).float() / 255)
    predicted: NDArray[np.int64] = logits.argmax(1).numpy()
    return float((predicted == digits.labels).mean())


def export(model: DigitsNet, calibration: Digits, out: Path) -> Report:
    """Write the demo's bundle."""
    spec = BundleSpec(name="digits", classes=CLASSES)
    return compile_model(model, CalibrationData(calibration.images, calibration.labels), spec, out)


def main() -> None:
    """Train on the first 2,400 digits of the train split, calibrate on its other 600, and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLE, help="bundle folder (default: the committed one)")
    arguments = parser.parse_args()
    digits = load()
    # Confidence on digits that the model was fitted to would calibrate the accuracy estimate far too high.
    fitted = digits.train.head(len(digits.train) - CALIBRATION)
    model = train(fitted)
    report = export(model, digits.train.tail(CALIBRATION), arguments.out)
    print(page(report))  # noqa: T201
    print(f"Float accuracy on the dev split: {100 * accuracy(model, digits.dev):.2f} %")  # noqa: T201


if __name__ == "__main__":
    main()
