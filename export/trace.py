"""A torch module, with its preprocessing in front, as a graph that a client feeds raw samples."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Graph
from acclimate.export.onnx_format import OPSET, from_onnx
from acclimate.export.passes.sequences import without_sequences
from acclimate.export.passes.simplify import simplified
from acclimate.export.shapes import with_measured_shapes

INPUT, TOKENS, OUTPUT = "image", "input_ids", "logits"
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
    """A model that takes uint8 images, or int64 token ids, which it gets as they are."""

    gain: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        std = torch.tensor(preprocessing.std, dtype=torch.float64)
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
        self.model = model
        self.register_buffer("gain", (preprocessing.scale / std).float().view(-1, 1, 1))
        self.register_buffer("offset", (-mean / std).float().view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[B, C]` of images `[B, channels, H, W]` uint8 or of token ids `[B, length]` int64."""
        ids = inputs.dtype == torch.int64
        logits: Tensor = self.model(inputs if ids else inputs.to(self.gain.dtype) * self.gain + self.offset)
        return logits


def traced(
    model: nn.Module, preprocessing: Preprocessing, sample_shape: tuple[int, ...], dtype: DTypeLike = np.uint8
) -> Graph:
    """Export in inference mode with a free batch, un-optimised so that normalisations stay where they are.

    Args:
        model: maps float32 `[B, *sample_shape]` to logits `[B, C]`.
        preprocessing: what turns a client's bytes into the model's input.
        sample_shape: shape of one sample, `(channels, height, width)` or `(length,)`.
        dtype: uint8 for images, int64 for token ids.

    Raises:
        UnsupportedModel: torch cannot export the model, or only for one size of the batch; the message carries
            torch's first line.
    """
    wrapped = Preprocessed(model, preprocessing).eval()
    example = torch.from_numpy(np.ones((2, *sample_shape), dtype))
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
                input_names=[TOKENS if example.dtype == torch.int64 else INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except Exception as error:
            raise UnsupportedModel(f"torch cannot export this model: {_reason(error)}") from error
        finally:
            exporter_log.setLevel(level)
    if program is None:
        raise UnsupportedModel("torch returned no program for this model")
    graph = from_onnx(program.model_proto)
    if any(value.shape[:1] != (BATCH,) for value in graph.inputs.values()):
        raise UnsupportedModel("the model fixes the batch, as len(x) in its forward does; use x.shape[0]")
    return _unprefixed(simplified(with_measured_shapes(without_sequences(graph))))


def _reason(error: BaseException) -> str:
    """The first line of what went wrong first; the exporter wraps it several times in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)


def _unprefixed(graph: Graph) -> Graph:
    """Constants named as in the user's module, without our wrapper's attribute in front."""
    names = {name: name.removeprefix(_PREFIX) for name in graph.constants}
    result = graph.copy(node.renamed(names) for node in graph.nodes)
    result.constants = {names[name]: np.asarray(array) for name, array in graph.constants.items()}
    return result
