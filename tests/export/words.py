"""A small text encoder whose activations have the outliers of trained language models, and token ids for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.export.calibration import CalibrationData

WORDS, LENGTH, WIDTH = 50, 6, 32
CLASSES = ("a", "b", "c")


class TextNet(nn.Module):
    """Embeddings, layer norms, a feed-forward block with a residual, the mean over tokens, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.norm, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, len(CLASSES))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.embedding(ids))
        x = self.norm2(x + self.narrow(functional.gelu(self.wide(x))))
        logits: Tensor = self.head(x.mean(1))
        return logits


def text_net(outlier: float = 0.0) -> nn.Module:
    """The same net every time; `outlier` is how far one word's embedding lies out in one channel."""
    torch.manual_seed(0)
    model = TextNet().eval()
    with torch.no_grad():
        model.norm.weight[3] += outlier
        model.embedding.weight[7, 3] += outlier
        # What reads the channel reads little of it, as trained weights do.
        model.wide.weight[:, 3] *= 0.01
    return model


def tokens(count: int, seed: int = 0) -> np.ndarray:
    """Token ids `[count, LENGTH]`."""
    return np.random.default_rng(seed).integers(0, WORDS, (count, LENGTH))


def texts(model: nn.Module, count: int = 64) -> CalibrationData:
    """Token ids with the model's own answers as labels."""
    ids = tokens(count)
    with torch.no_grad():
        return CalibrationData(ids, model(torch.from_numpy(ids)).argmax(1).numpy())
