"""The bundle manifest: what `manifest.json` says about the graphs and arrays beside it.

`acclimate.export` writes it and `acclimate.runtime` reads it; this module is all they share.
The format is described field by field in `docs/bundle-format.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from acclimate.adapters.errors import LayoutError, ManifestError
from acclimate.adapters.layout import Layout

FORMAT = "acclimate.bundle"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
SOURCE_FILE = "source.safetensors"
FROZEN_FILE = "frozen.onnx"
FORWARD_FILE = "forward.onnx"
OBSERVE_FILE = "observe.onnx"
VJP_FILE = "vjp.onnx"
WEIGHTS_FILE = "weights.safetensors"
LANGUAGE_TASK = "text-generation"
REQUIRED_FILES = (SOURCE_FILE, FROZEN_FILE, FORWARD_FILE, OBSERVE_FILE, VJP_FILE)


def in_precision_file(name: str, precision: str) -> str:
    """The file of a graph in another precision: `vjp.onnx` in `fp16` is `vjp.fp16.onnx`."""
    return f"{name.removesuffix('.onnx')}.{precision}.onnx"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that clients send or receive: Open Inference datatype, and shape with -1 for the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """One adaptable normalisation: which slices of theta and stats it uses, and its epsilon.

    `scale`, `shift` name slices of the parameter layout, `mean`, `var` slices of the statistics layout.
    Sites are listed in the order of the channels in `forward.onnx`'s packed `scale` and `bias` inputs.
    """

    name: str
    channels: int
    epsilon: float
    scale: str
    shift: str
    mean: str
    var: str


@dataclass(frozen=True, slots=True)
class Lora:
    """A low-rank update of one frozen weight: `W + (alpha / rank) B A` (Hu et al. 2021, arXiv 2106.09685).

    `a` and `b` name slices of the parameter layout, in PEFT's shapes: `[rank, in]` and `[out, rank]` for a linear
    layer, `[rank, in, kh, kw]` and `[out, rank, 1, 1]` for a convolution. `name` is the module's path.
    """

    name: str
    a: str
    b: str
    rank: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the source model looks like on its own calibration data (all unlabelled but `accuracy`).

    `confidence_threshold` is ATC's: the share of samples above it equals `accuracy` on source data
    (Garg et al. 2022, arXiv 2201.04234). `accuracy` is NaN-free: where no labels were given it is the mean
    confidence and `labelled` is false.
    """

    accuracy: float
    labelled: bool
    mean_confidence: float
    mean_entropy: float
    confidence_threshold: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What one sample costs: multiply-accumulates as two FLOPs, and milliseconds of one core on the export host."""

    forward_flops: float
    vjp_flops: float
    forward_ms: float
    vjp_ms: float


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle: hex SHA-256 and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """A validated manifest; see `docs/bundle-format.md`.

    `features` is D, the width of the `features [B, D]` that `observe.onnx` answers beside the logits; 0 for none.
    """

    name: str
    version: str
    task: str
    classes: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Layout
    statistics: Layout
    sites: tuple[Site, ...]
    calibration: Calibration
    cost: Cost
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, Any]
    lora: tuple[Lora, ...] = ()
    features: int = 0

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what computes: name, layouts and files. The version is a label and not part of it."""
        document = self.to_json()
        computes = {key: document[key] for key in ("name", "parameters", "statistics", "sites", "lora", "files")}
        return hashlib.sha256(json.dumps(computes, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values, `format` and `format_version` first."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "version": self.version,
            "task": self.task,
            "classes": list(self.classes),
            "inputs": [asdict(spec) | {"shape": list(spec.shape)} for spec in self.inputs],
            "outputs": [asdict(spec) | {"shape": list(spec.shape)} for spec in self.outputs],
            "parameters": self.parameters.to_json(),
            "statistics": self.statistics.to_json(),
            "sites": [asdict(site) for site in self.sites],
            "calibration": asdict(self.calibration),
            "cost": asdict(self.cost),
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
            "provenance": dict(self.provenance),
            "lora": [asdict(update) for update in self.lora],
            "features": self.features,
        }

    @classmethod
    def from_json(cls, document: object) -> Manifest:
        """Validate a parsed `manifest.json`.

        Raises:
            ManifestError: not a bundle manifest, of another format version, or a field is missing or wrong.
        """
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            raise ManifestError(f"manifest: field 'format' must be {FORMAT!r}; this is not an Acclimate bundle")
        if document.get("format_version") != FORMAT_VERSION:
            raise ManifestError(
                f"manifest: format_version is {document.get('format_version')!r}; this build reads "
                f"{FORMAT_VERSION}; export the bundle again"
            )
        try:
            manifest = cls(
                name=str(document["name"]),
                version=str(document["version"]),
                task=str(document["task"]),
                classes=tuple(str(c) for c in document["classes"]),
                inputs=tuple(_tensor(entry) for entry in document["inputs"]),
                outputs=tuple(_tensor(entry) for entry in document["outputs"]),
                parameters=Layout.from_json(document["parameters"]),
                statistics=Layout.from_json(document["statistics"]),
                sites=tuple(Site(**entry) for entry in document["sites"]),
                calibration=Calibration(**document["calibration"]),
                cost=Cost(**document["cost"]),
                files={str(name): FileEntry(**entry) for name, entry in document["files"].items()},
                provenance=dict(document["provenance"]),
                lora=tuple(Lora(**entry) for entry in document.get("lora", ())),
                features=int(document.get("features", 0)),
            )
        except KeyError as error:
            raise ManifestError(f"manifest: field {error} is missing; export the bundle again") from error
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, LayoutError):
                raise ManifestError(f"manifest: {error}") from error
            raise ManifestError(f"manifest: malformed field ({error}); export the bundle again") from error
        manifest._check()
        return manifest

    def _check(self) -> None:
        # A language model is no bundle of graphs: its files are its weights, wherever they lie.
        missing = [name for name in REQUIRED_FILES if name not in self.files and self.task != LANGUAGE_TASK]
        if missing:
            raise ManifestError(f"manifest: files {missing} are not listed; export the bundle again")
        for name in self.files:
            if "/" in name or "\\" in name or name.startswith("."):
                raise ManifestError(f"manifest: file name {name!r} must be a plain name inside the bundle")
        parameters = {entry.name: entry.shape for entry in self.parameters.slices}
        statistics = {entry.name: entry.shape for entry in self.statistics.slices}
        for update in self.lora:
            shapes = parameters.get(update.a, ())[:1], parameters.get(update.b, ())[1:2]
            if shapes != ((update.rank,), (update.rank,)):
                raise ManifestError(
                    f"manifest: low-rank update {update.name!r} expects slices {update.a!r} and {update.b!r} of "
                    f"rank {update.rank}; the layout has {parameters.get(update.a)} and {parameters.get(update.b)}"
                )
        for site in self.sites:
            for table, key in (
                (parameters, site.scale),
                (parameters, site.shift),
                (statistics, site.mean),
                (statistics, site.var),
            ):
                if table.get(key) != (site.channels,):
                    raise ManifestError(
                        f"manifest: site {site.name!r} expects {key!r} of shape ({site.channels},); "
                        f"the layout has {table.get(key)}"
                    )


def _tensor(entry: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(str(entry["name"]), str(entry["datatype"]), tuple(int(n) for n in entry["shape"]))
