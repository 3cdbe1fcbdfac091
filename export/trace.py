"""A torch module, with its preprocessing in front, as a graph that a client feeds raw samples."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import Graph
from acclimate.export.onnx_format import OPSET, from_onnx
from acclimate.export.passes.simplify import simplified

INPUT, OUTPUT = "image", "logits"
_PREFIX = "model."


@dataclass(frozen=True)
class Preprocessing:
    """`(x * scale - mean) / std` per channel, of uint8 images `[B, C, H, W]`.

    `mean` and `std` have one entry per channel, in units of scaled pixels.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    scale: float = 1 / 255


class Preprocessed(nn.Module):
    """A model that takes uint8 images."""

    gain: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        std = torch.tensor(preprocessing.std, dtype=torch.float64)
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
        self.model = model
        self.register_buffer("gain", (preprocessing.scale / std).float().view(-1, 1, 1))
        self.register_buffer("offset", (-mean / std).float().view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits `[B, C]` of images `[B, channels, H, W]` uint8."""
        logits: Tensor = self.model(image.to(self.gain.dtype) * self.gain + self.offset)
        return logits


def traced(model: nn.Module, preprocessing: Preprocessing, sample_shape: tuple[int, ...]) -> Graph:
    """Export in inference mode with a free batch, un-optimised so that normalisations stay where they are.

    Args:
        model: maps float32 `[B, *sample_shape]` to logits `[B, C]`.
        preprocessing: what turns a client's bytes into the model's input.
        sample_shape: shape of one sample, `(channels, height, width)`.

    Raises:
        UnsupportedModel: torch cannot export the model; the message carries torch's first line.
    """
    wrapped = Preprocessed(model, preprocessing).eval()
    example = torch.zeros((2, *sample_shape), dtype=torch.uint8)
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    with warnings.catch_warnings():
        # The exporter warns about its own internals (torchvision missing, tree specs); none concern the model.
        warnings.simplefilter("ignore")
        exporter_log.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                wrapped,
                (example,),
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise UnsupportedModel(f"torch cannot export this model: {reason[0] if reason else error!r}") from error
        finally:
            exporter_log.setLevel(level)
    if program is None:
        raise UnsupportedModel("torch returned no program for this model")
    return _unprefixed(simplified(from_onnx(program.model_proto)))


def _unprefixed(graph: Graph) -> Graph:
    """Constants named as in the user's module, without our wrapper's attribute in front."""
    names = {name: name.removeprefix(_PREFIX) for name in graph.constants}
    result = graph.copy(node.renamed(names) for node in graph.nodes)
    result.constants = {names[name]: np.asarray(array) for name, array in graph.constants.items()}
    return result
