"""ONNX Runtime sessions over a verified bundle: memory, threads, providers, and the weights its graphs share."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass, replace
from functools import cache

import onnxruntime as ort

from acclimate.adapters.manifest import WEIGHTS_FILE, in_precision_file
from acclimate.runtime.bundle import Bundle, BundleError
from acclimate.runtime.engines.onnx_exact import EXACT, saturates
from acclimate.runtime.engines.onnx_external import MalformedModel, external_initializers

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}

AUTO = "auto"
"""CUDA where it is, else the CPU."""
_log = logging.getLogger(__name__)
_GRADIENTS = ("observe", "vjp")
PRECISIONS = {"float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """Execution provider (`cpu`, `cuda`, `tensorrt`, `auto`) and threads; 0 threads means one per core.

    `precision` is `float32`, `float16` or `bfloat16`: which of the bundle's graphs run.
    `specialised_sessions` sessions at most, and graphs of `specialised_bytes` in all, are specialised.
    """

    provider: str = "cpu"
    intra_op_threads: int = 0
    adaptation_threads: int = 1
    specialised_sessions: int = 4
    specialised_bytes: int = 2**26
    precision: str = "float32"


def answering_options(options: OnnxOptions) -> OnnxOptions:
    """The options of the graphs that answer: on the CPU where these are int8.

    CUDA has no integer kernels for them. Between a GPU and the CPU, operator by operator, the digits' answers took five
    times as long as on the CPU alone.
    """
    return options if options.precision != "float32" else replace(options, provider="cpu")


def graph_file(bundle: Bundle, name: str, options: OnnxOptions) -> str:
    """The file of a graph in the precision that was chosen.

    Raises:
        BundleError: the bundle has no such file.
    """
    if options.precision == "float32":
        return name
    precision = PRECISIONS[options.precision]
    file = in_precision_file(name, precision)
    if file not in bundle.graphs:
        raise BundleError(
            f"engine.precision is {options.precision!r}, but {bundle.path} has no {file!r}; "
            f"export it with --precision {precision} or choose 'float32'"
        )
    return file


def open_session(
    bundle: Bundle, name: str, options: OnnxOptions, threads: int, settings: ort.SessionOptions | None = None
) -> ort.InferenceSession:
    """A session of one graph of a bundle, made from the bytes that were verified.

    `settings` may hold initializers of the caller's own, which must outlive the session.

    Raises:
        BundleError: the provider is not here, or ONNX Runtime cannot load the graph; the message names the file.
    """
    settings = settings or ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Planning one block for a whole pass keeps it for good; the gradient's would be a fifth of the daemon's memory.
    settings.enable_mem_pattern = name.partition(".")[0] not in _GRADIENTS
    _share_arena()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    # Spinning workers would take the cores that the other graph and the event loop need.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if saturates():
        # The ResNet-20 of docs/benchmarks.md lost 7 points without it, on images that it answers as in float otherwise.
        settings.add_session_config_entry(EXACT, "1")
    _add_weights(bundle, name, settings)
    wanted = providers(options.provider)
    if wanted != PROVIDERS["cpu"]:
        _preload()
    chosen = [_provider_settings(provider, options) for provider in wanted]
    try:
        session = ort.InferenceSession(bundle.graphs[name], settings, providers=wanted, provider_options=chosen)
    except Exception as error:
        # ONNX Runtime's own exceptions share no base class but this one.
        raise BundleError(f"{bundle.path / name}: ONNX Runtime cannot load it ({error})") from error
    _check_provider(session.get_providers()[0], wanted[0], options.provider)
    return session


def providers(chosen: str) -> list[str]:
    """ONNX Runtime's names of a provider and of those it falls back to, operator by operator.

    Raises:
        BundleError: this ONNX Runtime was built without one of them.
    """
    available = ort.get_available_providers()
    if chosen == AUTO:
        return PROVIDERS["cuda" if PROVIDERS["cuda"][0] in available else "cpu"]
    if missing := [provider for provider in PROVIDERS[chosen] if provider not in available]:
        raise BundleError(
            f"engine.provider is {chosen!r}, but this ONNX Runtime lacks {missing}; "
            "install acclimate[gpu], or choose 'cpu' or 'auto'"
        )
    return PROVIDERS[chosen]


def _provider_settings(provider: str, options: OnnxOptions) -> dict[str, str]:
    """`float32` means that; by itself, CUDA rounds the factors of its products to TF32's ten bits.

    Gradients were then off by 3e-3 (the digits) and 2e-2 (ResNet-20), where the exporter allows 1e-3. An exhaustive
    search for the fastest convolution, cuDNN's default, stalls the first call of every batch size by a tenth of a
    second or several.
    """
    if provider != "CUDAExecutionProvider":
        return {}
    exact = options.precision == "float32"
    return {"cudnn_conv_algo_search": "HEURISTIC"} | ({"use_tf32": "0"} if exact else {})


def _check_provider(got: str, wanted: str, chosen: str) -> None:
    """ONNX Runtime goes on without a device that it cannot open; that is for the user to decide."""
    if got == wanted:
        return
    if chosen != AUTO:
        raise BundleError(
            f"engine.provider is {chosen!r}, but {wanted} could not be started here; "
            "check the driver and its libraries, or choose 'cpu' or 'auto'"
        )
    _log.warning("%s could not be started; running on %s", wanted, got)


def _add_weights(bundle: Bundle, name: str, settings: ort.SessionOptions) -> None:
    """Hand over the shared weights that a graph names, so that ONNX Runtime opens no file."""
    try:
        names = external_initializers(bundle.graphs[name], WEIGHTS_FILE)
    except MalformedModel as error:
        raise BundleError(f"{bundle.path / name}: {error}; export the bundle again") from error
    if missing := sorted(set(names) - set(bundle.weights)):
        raise BundleError(
            f"{bundle.path / name}: takes {missing[:3]} from {WEIGHTS_FILE!r}, which has no such tensor; "
            "export the bundle again"
        )
    if names:
        values = [ort.OrtValue.ortvalue_from_numpy(bundle.weights[key]) for key in names]
        settings.add_external_initializers(list(names), values)


@cache
def _preload() -> None:
    """Find CUDA's libraries where pip put them, for whoever installed no torch that would."""
    if hasattr(ort, "preload_dlls"):
        # It prints what it does not find; whether the device starts is checked, and said, elsewhere.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


@cache
def _share_arena() -> None:
    """One memory arena for all graphs of the process, grown by what is asked and not doubled: a third less memory."""
    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    unbounded = {"max_mem": 0, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(where, ort.OrtArenaCfg(unbounded | {"arena_extend_strategy": 1}))
