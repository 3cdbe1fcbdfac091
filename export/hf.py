"""Checkpoints of the transformers library: read, brought to one input, calibrated, compiled as torch models are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acclimate.export import hf_model, hf_pictures, hf_texts
from acclimate.export.calibration import CalibrationData
from acclimate.export.calibration_file import ImageLayout, read_calibration
from acclimate.export.calibration_texts import SUFFIXES, Columns, class_numbers, read_texts
from acclimate.export.compile import Notify, compile_model
from acclimate.export.errors import CalibrationError, ExportError, UnsupportedModel
from acclimate.export.hf_pictures import PictureFormat
from acclimate.export.hf_texts import TextFormat
from acclimate.export.report import Report
from acclimate.export.spec import BundleSpec
from acclimate.export.write import refuse_other_content

MOST_SAMPLES = 2000


@dataclass(frozen=True)
class Checkpoint:
    """A classifier that `compile_model` takes, and how its samples are made.

    Attributes:
        model: maps what `samples` describes to logits `[B, classes]`; names are the checkpoint's.
        classes: of `config.json`.
        samples: pictures or texts.
        provenance: architecture and versions, for the manifest.
    """

    model: nn.Module
    classes: tuple[str, ...]
    samples: PictureFormat | TextFormat
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """How a calibration file is read.

    Attributes:
        layout: axes of pictures in an npz file.
        columns: of a table of texts.
        most: so many samples at most, taken evenly from the whole file.
    """

    layout: ImageLayout = "auto"
    columns: Columns = field(default_factory=Columns)
    most: int = MOST_SAMPLES


def read_checkpoint(source: str, task: str | None = None, length: int | None = None) -> Checkpoint:
    """Load a classifier of pictures or of texts.

    Args:
        source: a folder that `save_pretrained` wrote, or an id of the Hugging Face hub.
        task: `image-classification` or `text-classification`; by default the checkpoint's architecture tells it.
        length: tokens of every text; by default what the model takes, at most 128.

    Raises:
        ExportError: it cannot be loaded, has no head, or wants samples that a bundle cannot describe.
    """
    config = hf_model.load_config(source)
    task = hf_model.task_of(config, task)
    if task == hf_model.IMAGES and length is not None:
        raise ExportError(f"length: {length} was given for {task}; only texts have one")
    model = hf_model.load_model(source, task, config)
    samples: PictureFormat | TextFormat
    if task == hf_model.IMAGES:
        samples = hf_pictures.picture_format(source, config)
        example = hf_pictures.dummy(config, samples)
    else:
        samples = hf_texts.text_format(source, config, model, length)
        example = hf_texts.dummy(config, samples)
    classes = _classes(config)
    model = hf_model.with_one_input(model, samples.arguments)
    _refuse_other_answers(model, example, classes)
    return Checkpoint(model, classes, samples, _provenance(config, model))


def calibration(
    checkpoint: Checkpoint, path: Path, reading: Reading | None = None, classes: Sequence[str] = ()
) -> CalibrationData:
    """Samples for this checkpoint: an npz file, or a table or a list of texts, which its tokenizer turns into ids.

    Args:
        checkpoint: what `read_checkpoint` returned.
        path: the file.
        reading: how to read it.
        classes: names for labels that are not numbers; by default the checkpoint's.

    Raises:
        CalibrationError: the file or what is in it does not fit.
    """
    reading, samples = reading or Reading(), checkpoint.samples
    if path.suffix.lower() not in SUFFIXES:
        return samples.checked(_thinned(read_calibration(path, reading.layout), reading.most))
    if isinstance(samples, PictureFormat):
        raise CalibrationError(f"calibration: {str(path)!r} holds texts; this checkpoint takes pictures: give an npz")
    texts, written = read_texts(path, reading.columns)
    labels = None if written is None else class_numbers(written, classes or checkpoint.classes)
    chosen = evenly(len(texts), reading.most)
    ids = samples.ids([texts[i] for i in chosen])
    return samples.checked(CalibrationData(ids, None if labels is None else labels[chosen]))


def compile_hf(
    source: str | Path,
    data: CalibrationData | Path,
    spec: BundleSpec,
    out: Path,
    *,
    task: str | None = None,
    length: int | None = None,
    reading: Reading | None = None,
    notify: Notify | None = None,
) -> Report:
    """Compile a checkpoint of the transformers library and write the bundle at `out`, or write nothing.

    Args:
        source: a folder that `save_pretrained` wrote, or an id of the Hugging Face hub.
        data: source samples, or the file they are in: npz, or csv, tsv, jsonl or txt of texts.
        spec: names and choices; preprocessing is the checkpoint's, and so are `classes` where they are empty.
        out: the bundle's folder; an older bundle there is replaced.
        task: `image-classification` or `text-classification`; by default what the architecture is for.
        length: tokens of every text.
        reading: how a file of samples is read.
        notify: called with the name of each stage.

    Raises:
        ExportError: as `read_checkpoint`, `calibration` and `compile_model`.
    """
    refuse_other_content(out)
    return compile_checkpoint(read_checkpoint(str(source), task, length), data, spec, out, reading, notify)


def compile_checkpoint(
    checkpoint: Checkpoint,
    data: CalibrationData | Path,
    spec: BundleSpec,
    out: Path,
    reading: Reading | None = None,
    notify: Notify | None = None,
) -> Report:
    """What `compile_hf` does, with a checkpoint that has been read.

    Raises:
        ExportError: as `calibration` and `compile_model`.
    """
    spec = _completed(spec, checkpoint)
    if isinstance(data, Path):
        data = calibration(checkpoint, data, reading, spec.classes)
    return compile_model(checkpoint.model, checkpoint.samples.checked(data), spec, out, notify)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` positions, spread over all `count`: files are often sorted by class."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def _thinned(data: CalibrationData, most: int) -> CalibrationData:
    """Fewer samples; labels that do not fit are left for the check of both."""
    chosen = evenly(len(data.inputs), most)
    labels = data.labels
    if labels is not None and labels.shape[:1] == data.inputs.shape[:1]:
        labels = labels[chosen]
    return CalibrationData(data.inputs[chosen], labels)


def _completed(spec: BundleSpec, checkpoint: Checkpoint) -> BundleSpec:
    """The same choices, with what the checkpoint decides: preprocessing, tokenizer and, if none are named, classes."""
    samples = checkpoint.samples
    return replace(
        spec,
        classes=spec.classes or checkpoint.classes,
        preprocessing=samples.preprocessing if isinstance(samples, PictureFormat) else spec.preprocessing,
        files=samples.files if isinstance(samples, TextFormat) else {},
        provenance=checkpoint.provenance,
    )


def _classes(config: Any) -> tuple[str, ...]:
    """Names in the order of the logits; where two classes share one, the later has its number added."""
    if config.problem_type == "multi_label_classification" or len(config.id2label) < 2:
        raise UnsupportedModel(
            f"model: it has {len(config.id2label)} labels and problem_type {config.problem_type!r}; sessions adapt "
            "classifiers that choose one of at least two"
        )
    names: dict[str, None] = {}
    for index, name in sorted(config.id2label.items()):
        text = str(name)
        names[f"{text} ({index})" if text in names else text] = None
    return tuple(names)


def _refuse_other_answers(model: nn.Module, example: Tensor, classes: tuple[str, ...]) -> None:
    try:
        with torch.no_grad():
            logits = model(example)
    except Exception as error:
        # Whatever the architecture raises for samples that its own configuration describes.
        raise UnsupportedModel(
            f"model: {type(model).__name__} fails on samples of shape {list(example.shape[1:])} "
            f"({hf_model.first_line(error)}); does its preprocessing belong to it?"
        ) from error
    if tuple(logits.shape) != (len(example), len(classes)):
        raise UnsupportedModel(
            f"model: {type(model).__name__} answers {list(logits.shape)} for {len(example)} samples; config.json names "
            f"{len(classes)} classes"
        )


def _provenance(config: Any, model: nn.Module) -> dict[str, Any]:
    return {
        "architecture": type(model).__name__,
        "model_type": config.model_type,
        "transformers": version("transformers"),
        "optimum": version("optimum"),
    }
