"""int8 products are exact on every processor.

Where there is no VNNI, ONNX Runtime's fastest kernels add two uint8 x int8 products in 16 bits; 2 x 255 x 127 does not
fit. A processor with VNNI passes whatever the engine asks for.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.adapters.requests import Forward, Rows
from acclimate.export import BundleSpec, CalibrationData, compile_model
from acclimate.export.verify import Limits
from acclimate.runtime.bundle import read_bundle
from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions

WIDTH = 16


class Loud(nn.Module):
    """Weights of one size, so that all are at the end of int8's range; one layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, WIDTH, 3, bias=False), nn.BatchNorm2d(WIDTH)
        self.again, self.norm1, self.norm2 = nn.Conv2d(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.BatchNorm2d(WIDTH)
        self.head = nn.Linear(WIDTH, 3)
        for layer in (self.first, self.again):
            nn.init.constant_(layer.weight, 0.1)
            with torch.no_grad():
                layer.weight[::2] *= -1
        nn.init.constant_(self.norm.get_buffer("running_var"), 4.0)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.first(x)))
        x = functional.relu(self.norm1(self.again(x)))
        x = functional.relu(self.norm2(self.again(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def test_the_int8_model_answers_as_in_float_where_every_product_is_large(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(180, 256, (64, 3, 8, 8)).astype(np.uint8)
    data = CalibrationData(images, np.zeros(64, np.int64))
    spec = BundleSpec(name="loud", classes=("a", "b", "c"), limits=Limits(int8_points=100.0))
    compile_model(Loud().eval(), data, spec, tmp_path / "loud")
    engine = OnnxEngine(read_bundle(tmp_path / "loud"), OnnxOptions())
    source = engine.source
    rows = Rows(
        images,
        np.tile(source.theta, (64, 1)),
        np.tile(source.stats, (64, 1)),
        np.zeros(64, np.intp),
        np.zeros(64, np.float32),
    )
    expected = engine.forward(Forward(rows)).logits
    for got in (engine.frozen(images), engine.predict(images, engine.fold(source.theta, source.stats))):
        assert np.abs(got - expected).max() < 0.05 * np.ptp(expected)
