"""The models of the step benchmark, compiled into bundles of noise."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from acclimate.adapters.manifest import SOURCE_FILE, Cost
from acclimate.export import BundleSpec, CalibrationData, Preprocessing
from acclimate.export.bundle_graphs import BundleGraphs, Quantized
from acclimate.export.calibration import LEAST
from acclimate.export.contents import manifest, source_arrays
from acclimate.export.passes.sites import with_sites
from acclimate.export.statistics import source_statistics
from acclimate.export.trace import traced
from acclimate.export.write import write_bundle
from acclimate.runtime.bundle import Bundle, read_bundle
from benchmarks._report import ROOT
from benchmarks._resnet_cifar import MEAN, STD, ResNetCifar, load_resnet

WEIGHTS = ROOT.parent / "shared" / "data" / "models" / "resnet20_cifar10.safetensors"
CLASSES = tuple("0123456789")


@dataclass(frozen=True)
class Subject:
    """A model as it is compared.

    Attributes:
        name: begins its figures.
        exported: what is compiled; it maps preprocessed pictures to logits.
        model: what torch runs, the same function.
        preprocessing: of both.
        pixels: height and width of a picture.
        batches: how many pictures at once.
    """

    name: str
    exported: nn.Module
    model: nn.Module
    preprocessing: Preprocessing
    pixels: int
    batches: tuple[int, ...]

    def bundle(self) -> Bundle:
        """The compiled model, without the exporter's checks, which take longer than all that is measured here.

        Noise calibrates speed as well as pictures do, and its accuracy is nobody's concern.
        """
        data = CalibrationData(self.pictures(LEAST))
        spec = BundleSpec(name=self.name, classes=CLASSES, preprocessing=self.preprocessing)
        model = with_sites(traced(self.exported, self.preprocessing, data.inputs.shape[1:]))
        graphs = BundleGraphs.of(Quantized.of(model, data.inputs, spec.headroom), spec.headroom)
        statistics = source_statistics(model, graphs.frozen, graphs.vjp, data, canaries=1)
        files = graphs.serialized() | {SOURCE_FILE: source_arrays(model, graphs.folding, statistics)}
        with TemporaryDirectory() as folder:
            out = Path(folder, self.name)
            write_bundle(out, files, manifest(spec, model, statistics, Cost(1.0, 1.0, 1.0, 1.0), files))
            return read_bundle(out)

    def pictures(self, batch: int) -> NDArray[np.uint8]:
        """Noise `[B, 3, H, W]`."""
        return np.random.default_rng(batch).integers(0, 256, (batch, 3, self.pixels, self.pixels), np.uint8)

    def images(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pictures as the torch model takes them."""
        mean, std = (np.reshape(np.array(v, np.float32), (-1, 1, 1)) for v in (MEAN, STD))
        return np.asarray((pictures / np.float32(255) - mean) / std, np.float32)


def subjects(names: str) -> list[Subject]:
    """Those named, separated by commas; what needs a package that is not here is left out with a word."""
    known = {"resnet20": _resnet20, "vit_s": _vit_s}
    if unknown := sorted(set(names.split(",")) - set(known)):
        raise SystemExit(f"--models: {unknown} are not known; choose from {sorted(known)}")
    return [subject for name in names.split(",") for subject in known[name]()]


def _resnet20() -> list[Subject]:
    """ResNet-20 with the weights of the benchmark data where they are present, else random ones."""
    model = load_resnet(WEIGHTS, 20) if WEIGHTS.is_file() else ResNetCifar(3).eval()
    return [Subject("resnet20", model, model, Preprocessing(mean=MEAN, std=STD), 32, (1, 16, 64))]


def _vit_s() -> list[Subject]:
    """ViT-S/16 (Dosovitskiy et al. 2021, arXiv 2010.11929) as transformers defines it, with random weights.

    The exporter reads the plain attention; torch runs the fused one that the library chooses by default. A batch of
    64 has pictures of half the size, to end within minutes.
    """
    if find_spec("transformers") is None:
        sys.stderr.write("vit_s skipped: the model is that of transformers; pip install '.[bench]'\n")
        return []
    result = []
    for pixels, batches in ((224, (1, 16)), (112, (64,))):
        plain, fused = _vit(pixels, "eager"), _vit(pixels, "sdpa")
        fused.load_state_dict(plain.state_dict())
        result.append(Subject("vit_s", plain, fused, Preprocessing(mean=MEAN, std=STD), pixels, batches))
    return result


def _vit(pixels: int, attention: str) -> nn.Module:
    import transformers

    from benchmarks._architectures import Logits

    sizes: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "patch_size": 16}
    sizes |= {"image_size": pixels, "num_labels": len(CLASSES)}
    config = transformers.ViTConfig(**sizes)
    config._attn_implementation = attention
    return Logits(transformers.ViTForImageClassification(config)).eval()
