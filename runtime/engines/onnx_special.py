"""A graph of its own for a session that predicts much: `frozen.onnx` with the session's numbers as its constants.

`forward.onnx` takes a session's scales and biases as inputs, and ONNX Runtime leaves its fast integer kernels for
that. Put in place of the constants of `frozen.onnx` the same numbers give the same bits sooner, but a graph takes
time to make and memory to keep (docs/decisions/0005-specialised-sessions.md).

So a fold starts on `forward.onnx`, and each answer notes what it would have saved. When that has come to what a
graph costs to make, a thread makes one: at no time has a session cost more than twice what it would have with
foresight (the ski-rental argument; Karlin, Manasse, Rudolph and Sleator 1988, "Competitive snoopy caching"). Both
sides are measured: the cost is the least time a graph took to make, the saving the difference of the least times
that the two kinds of graph took for as many rows.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import FROZEN_FILE, WEIGHTS_FILE
from acclimate.runtime.bundle import Bundle, BundleError
from acclimate.runtime.engines.base import Specialised
from acclimate.runtime.engines.onnx_external import external_initializers
from acclimate.runtime.engines.onnx_session import OnnxOptions, open_session

Arrays = Mapping[str, NDArray[Any]]
Call = Callable[[NDArray[Any]], Float]
FOLD_DTYPES = {"scale": np.dtype(np.float32), "bias": np.dtype(np.int32)}
FOLDED = frozenset(FOLD_DTYPES)
"""The inputs of `forward.onnx` that a graph can have as constants."""
ENOUGH = 32
"""Answers of graphs with constants that have to be timed before their least counts."""
_SESSION_BYTES = 2**20
"""What ONNX Runtime's own tables of a session take, besides weights."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Settling:
    """How a fold is answered: by `graph` where it has one. `missed` is the time a graph would have saved, seconds."""

    arrays: Arrays
    graph: Call | None = None
    missed: float = 0.0
    asked: bool = False
    used: int = 0


@dataclass
class _Pace:
    """Least seconds seen for a number of rows, and how often they were seen."""

    least: dict[int, float] = field(default_factory=dict)
    seen: Counter[int] = field(default_factory=Counter)

    def note(self, rows: int, seconds: float) -> float:
        self.seen[rows] += 1
        self.least[rows] = seconds = min(seconds, self.least.get(rows, seconds))
        return seconds

    def at_least(self, rows: int) -> float:
        """0 until enough was seen.

        On a busy machine a few answers may all be slow, and without graphs there come no more to put it right.
        """
        return self.least[rows] if self.seen[rows] >= ENOUGH else 0.0


class Specialiser:
    """Makes, counts and takes back the graphs of one engine's folds.

    Args:
        bundle: whose `frozen.onnx` is taken.
        options: how many graphs there may be, and how many bytes they may take.
        made_in: seconds that loading `frozen.onnx` took.
        inputs: what `forward.onnx` takes of a session.
        forward: the answer that a graph's has to equal in every bit.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: OnnxOptions,
        made_in: float,
        inputs: Collection[str],
        forward: Callable[[NDArray[Any], Arrays], Float],
    ) -> None:
        self._bundle = bundle
        self._options = options
        self._forward = forward
        self._limit = _room(bundle, options, inputs)
        self._made_in = made_in
        self._cold, self._constant = _Pace(), _Pace()
        self._lock = threading.Lock()
        self._clock = count(1)
        self._pool: ThreadPoolExecutor | None = None
        self._having: list[weakref.ref[Settling]] = []
        self._made = self._evicted = 0

    @property
    def figures(self) -> Specialised:
        """How many graphs there are, were made, and were taken back for others."""
        with self._lock:
            return Specialised(len(self._live()), self._made, self._evicted)

    def constant(self, rows: int, seconds: float) -> None:
        """Note an answer of a graph with constants: `frozen.onnx`, or a specialised one."""
        with self._lock:
            self._constant.note(rows, seconds)

    def answered(self, own: Settling, rows: int, seconds: float) -> None:
        """Note an answer of `forward.onnx`, and have a graph made once that pays."""
        if not self._limit:
            return
        with self._lock:
            own.missed += max(0.0, self._cold.note(rows, seconds) - self._constant.at_least(rows))
            if own.asked or own.missed < self._made_in or not self._limit:
                return
            own.asked = True
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="specialise")
            # Weakly, so that a fold which a commit has replaced in the meantime costs nothing more.
            self._pool.submit(self._make, weakref.ref(own))

    def run(self, own: Settling, graph: Call, inputs: NDArray[Any]) -> Float:
        """The answer of a fold's own graph."""
        own.used = next(self._clock)
        start = time.perf_counter()
        logits = graph(inputs)
        self.constant(len(inputs), time.perf_counter() - start)
        return logits

    def close(self) -> None:
        """Make no more, and give up those there are; answers under way finish on what they hold."""
        with self._lock:
            self._limit = 0
            pool, self._pool = self._pool, None
            for own in self._live():
                own.graph = None
            self._having = []
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        # It belongs to the engine, which belongs to nobody any more once it is replaced: without this circle its
        # graphs go when their last answer is given, and not when a collector next comes by.
        self._forward = _given_up

    def _make(self, reference: weakref.ref[Settling]) -> None:
        own = reference()
        if own is None or not self._limit:
            return
        try:
            start = time.perf_counter()
            graph = specialised(self._bundle, self._options, own.arrays)
            seconds = time.perf_counter() - start
            sample = self._bundle.source.canary_inputs[:1]
            if not np.array_equal(graph(sample), self._forward(sample, own.arrays)):
                raise ValueError(f"{FROZEN_FILE} with a session's constants answers otherwise than its forward graph")
        except Exception as error:
            # Whatever it is, sessions are answered without; there is no one here to tell but the log.
            self._limit = 0
            logging.getLogger(__name__).warning("%s: no specialised graphs: %s", self._bundle.path, error)
            return
        with self._lock:
            self._made_in = min(self._made_in, seconds)
            if not self._limit:
                return
            own.graph, own.used = graph, next(self._clock)
            self._made += 1
            self._having = [weakref.ref(other) for other in self._live()] + [reference]
            if len(self._having) > self._limit:
                self._evict()

    def _evict(self) -> None:
        """The least recently used goes back to where it started."""
        last = min(self._live(), key=lambda own: own.used)
        last.graph, last.missed, last.asked = None, 0.0, False
        self._evicted += 1

    def _live(self) -> list[Settling]:
        return [own for own in (reference() for reference in self._having) if own is not None and own.graph]


def _given_up(_inputs: NDArray[Any], _arrays: Arrays) -> Float:
    raise RuntimeError("the engine was closed")


def specialised(bundle: Bundle, options: OnnxOptions, arrays: Arrays) -> Call:
    """`frozen.onnx` with other constants.

    Args:
        bundle: whose graph it is.
        options: provider and threads.
        arrays: of one session, as `forward.onnx` takes them: `scale [S]` float32 and `bias [S]` int32.

    Raises:
        BundleError: ONNX Runtime cannot load the graph, or an array is of another type than its constants.
    """
    for name, kind in FOLD_DTYPES.items():
        # ONNX Runtime takes a constant of another type where it rewrites the operator that reads it.
        if arrays[name].dtype != kind:
            raise BundleError(f"{bundle.path / FROZEN_FILE}: {name} is {arrays[name].dtype}; it takes {kind}")
    settings = ort.SessionOptions()
    # ONNX Runtime refers to these and copies nothing: they live as long as the function that is returned.
    kept = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in _constants(bundle, arrays).items()}
    for name, value in kept.items():
        settings.add_initializer(name, value)
    session = open_session(bundle, FROZEN_FILE, options, options.intra_op_threads, settings)
    image = bundle.manifest.inputs[0].name

    def call(inputs: NDArray[Any], _kept: object = kept) -> Float:
        logits: Float = session.run(["logits"], {image: inputs})[0]
        return logits

    return call


def _constants(bundle: Bundle, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """What `frozen.onnx` calls each site's part of a session's arrays."""
    sites = bundle.manifest.sites
    ends = np.cumsum([site.channels for site in sites])[:-1]
    return {
        f"{part}.{site.name}": values.copy()
        for part in sorted(FOLDED)
        for site, values in zip(sites, np.split(arrays[part], ends), strict=True)
    }


def _room(bundle: Bundle, options: OnnxOptions, inputs: Collection[str]) -> int:
    """How many graphs may exist.

    None off the CPU, and none where `forward.onnx` takes theta itself: `frozen.onnx` has no low-rank updates, and
    ONNX Runtime computes with a constant of float operators before it looks at the one in its place.
    """
    if options.provider != "cpu" or set(inputs) != FOLDED:
        return 0
    graph = bundle.graphs[FROZEN_FILE]
    shared = sum(bundle.weights[name].nbytes for name in external_initializers(graph, WEIGHTS_FILE))
    # A graph repacks its weights for its kernels and keeps what it read from its own file.
    each = _SESSION_BYTES + 2 * len(graph) + shared
    return min(options.specialised_sessions, options.specialised_bytes // each)
