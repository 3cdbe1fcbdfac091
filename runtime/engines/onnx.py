"""The default engine: a bundle's graphs on ONNX Runtime. No torch, no autograd, no graph building here.

`frozen.onnx` and `forward.onnx` answer requests; `observe.onnx` gives float outputs and batch statistics and
`vjp.onnx` gradients, for adaptation. They are created from the very bytes whose hashes were verified.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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
from acclimate.runtime.engines.base import Folded, Specialised
from acclimate.runtime.engines.onnx_session import OnnxOptions, answering_options, graph_file, open_session
from acclimate.runtime.engines.onnx_special import Settling, Specialiser

__all__ = ["OnnxEngine", "OnnxOptions"]

SESSION_INPUTS = frozenset({"scale", "bias", "theta", "stats"})
"""What `forward.onnx` may take of one session: folded norms, and rows for the norms that run in float."""


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
        graphs = FROZEN_FILE, FORWARD_FILE, OBSERVE_FILE, VJP_FILE
        files = {name: graph_file(bundle, name, options) for name in graphs}
        folds = options.precision == "float32"
        answering = answering_options(options)
        start = time.perf_counter()
        self._frozen = open_session(bundle, files[FROZEN_FILE], answering, options.intra_op_threads)
        made_in = time.perf_counter() - start
        self._forward = open_session(bundle, files[FORWARD_FILE], answering, options.intra_op_threads)
        self._vjp = open_session(bundle, files[VJP_FILE], options, options.adaptation_threads)
        self._observe = open_session(bundle, files[OBSERVE_FILE], options, options.adaptation_threads)
        rows = {self._input, "theta", "stats", "mix", "alpha"}
        _expect(bundle, files[FROZEN_FILE], self._frozen, {self._input})
        self._own = [entry.name for entry in self._forward.get_inputs() if entry.name != self._input]
        self._special = Specialiser(bundle, answering, made_in, self._own, self._folded_forward)
        needed = {"scale", "bias"} if bundle.manifest.sites and folds else {"theta"}
        _expect(bundle, files[FORWARD_FILE], self._forward, {self._input} | needed | (SESSION_INPUTS & set(self._own)))
        _expect(bundle, files[OBSERVE_FILE], self._observe, rows)
        _expect(bundle, files[VJP_FILE], self._vjp, rows | {"cotangent"})
        _expect_features(bundle, self._observe)
        optional = [entry.name for entry in self._vjp.get_overridable_initializers()]
        self._reaches_features = "cotangent_features" in optional

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._bundle.manifest

    @property
    def source(self) -> Source:
        """The unadapted model's arrays."""
        return self._bundle.source

    @property
    def specialised(self) -> Specialised:
        """Sessions answered by a graph of their own."""
        return self._special.figures

    def frozen(self, inputs: NDArray[Any]) -> Float:
        """Logits `[B, C]` of `frozen.onnx`."""
        start = time.perf_counter()
        logits: Float = self._frozen.run(["logits"], {self._input: inputs})[0]
        self._special.constant(len(inputs), time.perf_counter() - start)
        return logits

    def fold(self, theta: Float, stats: Float) -> Folded:
        """What `forward.onnx` takes of one session, in the graph's order."""
        scale, bias = fold(self._folding, theta, stats)
        arrays = {"scale": scale, "bias": bias, "theta": theta, "stats": stats}
        # Copies, since the caller may step its row in place while this fold still answers.
        own = {name: np.array(arrays[name]) for name in self._own}
        return Folded(tuple(own.values()), Settling(own))

    def predict(self, inputs: NDArray[Any], folded: Folded) -> Float:
        """Logits `[B, C]` of `forward.onnx`, or of the fold's own graph once it has one."""
        own: Settling = folded.settling
        if (graph := own.graph) is not None:
            return self._special.run(own, graph, inputs)
        start = time.perf_counter()
        logits = self._folded_forward(inputs, own.arrays)
        self._special.answered(own, len(inputs), time.perf_counter() - start)
        return logits

    def forward(self, request: Forward) -> Outputs:
        """Logits and batch statistics of `observe.onnx`."""
        names = ["logits", "batch_stats"] + (["features"] if self.manifest.features else [])
        return Outputs(*self._observe.run(names, self._feed(request.rows)))

    def vjp(self, request: Gradient) -> Gradients:
        """Gradients `[B, P]` of `vjp.onnx`."""
        feed = self._feed(request.rows) | {"cotangent": request.cotangent}
        # A graph without this input has features that theta does not reach.
        if request.features is not None and self._reaches_features:
            feed["cotangent_features"] = request.features
        gradient, logits = self._vjp.run(["grad_theta", "logits"], feed)
        return Gradients(gradient, logits)

    def close(self) -> None:
        """The graphs are released with the engine; sessions lose their own at once."""
        self._special.close()

    def _folded_forward(self, inputs: NDArray[Any], arrays: Mapping[str, NDArray[Any]]) -> Float:
        logits: Float = self._forward.run(["logits"], {self._input: inputs, **arrays})[0]
        return logits

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


def _expect(bundle: Bundle, name: str, session: ort.InferenceSession, inputs: set[str]) -> None:
    given = {entry.name for entry in session.get_inputs()}
    if given != inputs:
        raise BundleError(
            f"{bundle.path / name}: inputs are {sorted(given)}; expected {sorted(inputs)}; export the bundle again"
        )


def _expect_features(bundle: Bundle, observe: ort.InferenceSession) -> None:
    width = bundle.manifest.features
    given = [entry.shape[1:] for entry in observe.get_outputs() if entry.name == "features"]
    if width and given != [[width]]:
        raise BundleError(
            f"{bundle.path / OBSERVE_FILE}: output 'features' is {given}; the manifest's features is {width}; "
            "export the bundle again"
        )
