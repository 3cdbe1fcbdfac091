"""The default engine: a bundle's graphs on ONNX Runtime. No torch, no autograd, no graph building here.

`frozen.onnx` and `forward.onnx` answer requests; `observe.onnx` gives float outputs and batch statistics and
`vjp.onnx` gradients, for adaptation. They are created from the very bytes whose hashes were verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from acclimate.adapters.errors import LayoutError
from acclimate.adapters.folding import FOLD_ARRAYS, Folding, fold
from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import FORWARD_FILE, FROZEN_FILE, OBSERVE_FILE, VJP_FILE, Manifest
from acclimate.adapters.requests import Forward, Gradient, Gradients, Index, Outputs, Rows
from acclimate.adapters.source import Source
from acclimate.runtime.bundle import Bundle, BundleError
from acclimate.runtime.engines.base import Folded

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
SESSION_INPUTS = frozenset({"scale", "bias", "theta", "stats"})
"""What `forward.onnx` may take of one session: folded norms, and rows for the norms that run in float."""


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """Execution provider (`cpu`, `cuda`, `tensorrt`) and threads; 0 threads means one per core."""

    provider: str = "cpu"
    intra_op_threads: int = 0
    adaptation_threads: int = 1


class OnnxEngine:
    """Implements `Engine` for one verified bundle.

    Raises:
        BundleError: ONNX Runtime cannot load a graph, or a graph's inputs are not those the format names.
    """

    def __init__(self, bundle: Bundle, options: OnnxOptions) -> None:
        self._bundle = bundle
        arrays = {name: bundle.tensors.get(f"fold.{name}", np.empty(0, np.float32)) for name in FOLD_ARRAYS}
        try:
            self._folding = Folding.of(
                bundle.manifest.sites, bundle.manifest.parameters, bundle.manifest.statistics, arrays
            )
        except LayoutError as error:
            raise BundleError(f"{bundle.path}: {error}; export the bundle again") from error
        self._input = bundle.manifest.inputs[0].name
        self._frozen = _session(bundle, FROZEN_FILE, options, options.intra_op_threads)
        self._forward = _session(bundle, FORWARD_FILE, options, options.intra_op_threads)
        self._vjp = _session(bundle, VJP_FILE, options, options.adaptation_threads)
        self._observe = _session(bundle, OBSERVE_FILE, options, options.adaptation_threads)
        rows = {self._input, "theta", "stats", "mix", "alpha"}
        _expect(bundle, FROZEN_FILE, self._frozen, {self._input})
        self._own = [entry.name for entry in self._forward.get_inputs() if entry.name != self._input]
        needed = {"scale", "bias"} if bundle.manifest.sites else {"theta"}
        _expect(bundle, FORWARD_FILE, self._forward, {self._input} | needed | (SESSION_INPUTS & set(self._own)))
        _expect(bundle, OBSERVE_FILE, self._observe, rows)
        _expect(bundle, VJP_FILE, self._vjp, rows | {"cotangent"})

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._bundle.manifest

    @property
    def source(self) -> Source:
        """The unadapted model's arrays."""
        return self._bundle.source

    def frozen(self, inputs: NDArray[Any]) -> Float:
        """Logits `[B, C]` of `frozen.onnx`."""
        logits: Float = self._frozen.run(["logits"], {self._input: inputs})[0]
        return logits

    def fold(self, theta: Float, stats: Float) -> Folded:
        """What `forward.onnx` takes of one session, in the graph's order."""
        scale, bias = fold(self._folding, theta, stats)
        arrays = {"scale": scale, "bias": bias, "theta": theta, "stats": stats}
        # Copies, since the caller may step its row in place while this fold still answers.
        return Folded(tuple(np.array(arrays[name]) for name in self._own))

    def predict(self, inputs: NDArray[Any], folded: Folded) -> Float:
        """Logits `[B, C]` of `forward.onnx`."""
        feed = {self._input: inputs, **dict(zip(self._own, folded.arrays, strict=True))}
        logits: Float = self._forward.run(["logits"], feed)[0]
        return logits

    def forward(self, request: Forward) -> Outputs:
        """Logits and batch statistics of `observe.onnx`."""
        logits, batch_stats = self._observe.run(["logits", "batch_stats"], self._feed(request.rows))
        return Outputs(logits, batch_stats)

    def vjp(self, request: Gradient) -> Gradients:
        """Gradients `[B, P]` of `vjp.onnx`."""
        feed = self._feed(request.rows) | {"cotangent": request.cotangent}
        gradient, logits = self._vjp.run(["grad_theta", "logits"], feed)
        return Gradients(gradient, logits)

    def close(self) -> None:
        """The graphs are released with the engine; nothing else is held."""

    def _feed(self, rows: Rows) -> dict[str, NDArray[Any]]:
        return {
            self._input: rows.inputs,
            "theta": rows.theta,
            "stats": rows.stats,
            "mix": mixing(rows.group),
            "alpha": rows.alpha,
        }


def mixing(group: Index) -> Float:
    """The row-stochastic matrix `[B, B]` that averages over the rows of the same group."""
    same = (group[:, np.newaxis] == group[np.newaxis, :]).astype(np.float32)
    result: Float = same / same.sum(axis=1, keepdims=True)
    return result


@cache
def _share_arena() -> None:
    """One memory arena for all graphs of the process, grown by what is asked and not doubled: a third less memory."""
    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    unbounded = {"max_mem": 0, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(where, ort.OrtArenaCfg(unbounded | {"arena_extend_strategy": 1}))


def _session(bundle: Bundle, name: str, options: OnnxOptions, threads: int) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Planning one block for a whole pass keeps it for good; the gradient's would be a fifth of the daemon's memory.
    settings.enable_mem_pattern = name not in (OBSERVE_FILE, VJP_FILE)
    _share_arena()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    # Spinning workers would take the cores that the other graph and the event loop need.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = PROVIDERS[options.provider]
    missing = [provider for provider in wanted if provider not in ort.get_available_providers()]
    if missing:
        raise BundleError(
            f"engine.provider is {options.provider!r}, but this ONNX Runtime lacks {missing}; "
            "install acclimate[gpu] or choose 'cpu'"
        )
    try:
        return ort.InferenceSession(bundle.graphs[name], settings, providers=wanted)
    except Exception as error:
        # ONNX Runtime's own exceptions share no base class but this one.
        raise BundleError(f"{bundle.path / name}: ONNX Runtime cannot load it ({error})") from error


def _expect(bundle: Bundle, name: str, session: ort.InferenceSession, inputs: set[str]) -> None:
    given = {entry.name for entry in session.get_inputs()}
    if given != inputs:
        raise BundleError(
            f"{bundle.path / name}: inputs are {sorted(given)}; expected {sorted(inputs)}; export the bundle again"
        )
