"""Who is timed in the step benchmark: our graphs as the engine runs them, and what one would run without us."""

from __future__ import annotations

import shutil
import sys
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from acclimate.adapters.folding import FOLD_ARRAYS, Folding, fold
from acclimate.adapters.manifest import FORWARD_FILE, FROZEN_FILE, OBSERVE_FILE, VJP_FILE
from acclimate.export.onnx_format import to_onnx
from acclimate.export.passes.sites import at_source, with_sites
from acclimate.export.trace import traced
from acclimate.runtime.bundle import Bundle
from acclimate.runtime.engines.onnx_session import OnnxOptions, open_session
from acclimate.runtime.engines.onnx_special import FOLDED, specialised
from benchmarks import _torch_step
from benchmarks._step_subjects import CLASSES, Subject
from benchmarks._timing import Call

Array = NDArray[Any]


def steps(subject: Subject, bundle: Bundle, batch: int, threads: int, *, compiled: bool) -> dict[str, Call]:
    """Gradients of the mean entropy with respect to every norm's affine, under the batch's statistics."""
    pictures = subject.pictures(batch)
    vjp, observe = _session(bundle, VJP_FILE, threads), _session(bundle, OBSERVE_FILE, threads)
    feeds = rows(bundle, pictures)
    seen = {entry.name: feeds[entry.name] for entry in observe.get_inputs()}

    def whole_step() -> object:
        (logits,) = observe.run(["logits"], seen)
        return vjp.run(["grad_theta"], feeds | {"cotangent": _entropy_cotangent(logits)})

    twin, images = _torch_step.prepared(subject.model), subject.images(pictures)
    contestants: dict[str, Call] = {
        "vjp": lambda: vjp.run(["grad_theta"], feeds),
        "step": whole_step,
        "torch_eager": _torch_step.step(twin, images),
    }
    if compiled and (call := _compiled(twin, images)) is not None:
        contestants["torch_compile"] = call
    return contestants


def predictions(subject: Subject, bundle: Bundle, batch: int, threads: int) -> dict[str, Call]:
    """A session's forward pass, cold and settled, the frozen model's, and the float model's.

    Raises:
        RuntimeError: the settled graph answers otherwise than the cold one; its timing would mean nothing.
    """
    pictures = subject.pictures(batch)
    frozen, forward = _session(bundle, FROZEN_FILE, threads), _session(bundle, FORWARD_FILE, threads)
    floats = _float_session(subject, threads)
    arrays = session_arrays(bundle)
    own = {entry.name: arrays[entry.name] for entry in forward.get_inputs() if entry.name in arrays}
    image = bundle.manifest.inputs[0].name

    def cold() -> Array:
        logits: Array = forward.run(["logits"], {image: pictures, **own})[0]
        return logits

    graph = specialised(bundle, OnnxOptions(intra_op_threads=threads), own) if set(own) == FOLDED else None
    if graph is not None and not np.array_equal(graph(pictures), cold()):
        raise RuntimeError("the settled graph answers otherwise than forward.onnx")
    return {
        "forward_cold": cold,
        "forward": cold if graph is None else lambda: graph(pictures),
        "frozen": lambda: frozen.run(["logits"], {image: pictures}),
        "fp32_folded": lambda: floats.run(["logits"], {image: pictures}),
    }


def rows(bundle: Bundle, pictures: Array) -> dict[str, Array]:
    """One session's rows under test-batch statistics, and a cotangent of entropy's size."""
    batch, source = len(pictures), bundle.source
    cotangent = np.random.default_rng(1).standard_normal((batch, len(CLASSES))).astype(np.float32) / batch
    return {
        bundle.manifest.inputs[0].name: pictures,
        "theta": np.tile(source.theta, (batch, 1)),
        "stats": np.tile(source.stats, (batch, 1)),
        "mix": np.full((batch, batch), 1 / batch, np.float32),
        "alpha": np.ones(batch, np.float32),
        "cotangent": cotangent,
    }


def session_arrays(bundle: Bundle) -> dict[str, Array]:
    """What `forward.onnx` may take of a session at the source."""
    manifest, source = bundle.manifest, bundle.source
    parts = {name: bundle.tensors.get(f"fold.{name}", np.empty(0, np.float32)) for name in FOLD_ARRAYS}
    folding = Folding.of(manifest.sites, manifest.parameters, manifest.statistics, parts)
    scale, bias = fold(folding, source.theta, source.stats)
    return {"scale": scale, "bias": bias, "theta": source.theta, "stats": source.stats}


def _entropy_cotangent(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gradient of the batch's mean entropy with respect to its logits: `-p (log p + H) / B`."""
    logp = logits - logits.max(1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(1, keepdims=True))
    p = np.exp(logp)
    entropy = -(p * logp).sum(1, keepdims=True)
    return np.asarray(-p * (logp + entropy) / len(logits), np.float32)


def _compiled(twin: nn.Module, images: NDArray[np.float32]) -> Call | None:
    """The step under torch.compile, already compiled; None where it has no C++ compiler or does not work."""
    if shutil.which("g++") is None:
        sys.stderr.write("torch.compile left out: no g++ on the path\n")
        return None
    call = _torch_step.step(cast(nn.Module, torch.compile(twin)), images)
    try:
        call()
    except Exception as error:
        # Whatever its toolchain lacks here, the other contestants are still worth measuring.
        sys.stderr.write(f"torch.compile left out: {str(error).splitlines()[0]}\n")
        return None
    return call


def _float_session(subject: Subject, threads: int) -> ort.InferenceSession:
    """The float graph at the source; ONNX Runtime itself folds constant norms into convolutions."""
    shape = (3, subject.pixels, subject.pixels)
    graph = at_source(with_sites(traced(subject.exported, subject.preprocessing, shape)))
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    return ort.InferenceSession(to_onnx(graph).SerializeToString(), settings, providers=["CPUExecutionProvider"])


def _session(bundle: Bundle, name: str, threads: int) -> ort.InferenceSession:
    return open_session(bundle, name, OnnxOptions(), threads)
