"""An adaptation step and a prediction, ours against what one would run without us, side by side in one run.

    python -m benchmarks.step [--json] [--rounds N] [--threads N] [--no-compile] [--profile DIR]

ResNet-20 with the weights of the benchmark data where they are present, else random ones. At batch 1, 16 and 64:

vjp                 vjp.onnx in ONNX Runtime: logits and gradients for a given cotangent
step                observe.onnx, entropy's cotangent in NumPy, vjp.onnx: all that a TENT step asks of an engine
torch_eager         the same gradients in torch: forward, entropy, backward through the same norms
torch_compile       the same under torch.compile, where a C++ compiler is present
forward             forward.onnx with a session's scales and biases as inputs
forward_bound       the same, with scales and biases bound once as after a commit (IOBinding)
specialised         frozen.onnx with the session's scales and biases put in place of its constants at load
frozen              frozen.onnx: int8 with constants
fp32_folded         the float model in ONNX Runtime with its norms folded into the convolutions

Figures are ratios of medians, `resnet20_b64_vjp_over_torch_eager` and so on: below 1 is faster. Contestants take
turns, each after a pause, because worker threads spin for a while after a call.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from acclimate.adapters.folding import FOLD_ARRAYS, Folding, fold
from acclimate.export import BundleSpec, CalibrationData, Preprocessing, compile_model
from acclimate.export.onnx_format import to_onnx
from acclimate.export.passes.sites import at_source, with_sites
from acclimate.export.trace import traced
from acclimate.export.verify import Limits
from acclimate.runtime.bundle import Bundle, read_bundle
from benchmarks import _torch_step
from benchmarks._report import ROOT, Report, Value, emit, parser
from benchmarks._resnet_cifar import CLASSES, MEAN, STD, ResNetCifar, load_resnet

WEIGHTS = ROOT.parent / "shared" / "data" / "models" / "resnet20_cifar10.safetensors"
BATCHES = (1, 16, 64)
PAUSE_SECONDS = 0.3
# A timed block repeats a call until it has taken about this long, so that batch 1 is not one tick of the clock.
BLOCK_SECONDS = 0.05
Call = Callable[[], object]
Array = NDArray[Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=15, help="timed blocks of each contestant (default 15)")
    options.add_argument("--threads", type=int, default=2, help="threads of everyone (default 2)")
    options.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options.add_argument("--profile", type=Path, help="folder for ONNX Runtime's profiles at the largest batch")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    model = load_resnet(WEIGHTS, 20) if WEIGHTS.is_file() else ResNetCifar(3).eval()
    with TemporaryDirectory() as folder:
        bundle = _bundle(model, Path(folder, "resnet20"))
    if chosen.profile is not None:
        _profile(bundle, chosen.profile, chosen.threads)
    rows: list[Mapping[str, Value]] = []
    figures: dict[str, float] = {}
    for batch in BATCHES:
        steps, predictions = _steps(model, bundle, batch, chosen), _predictions(model, bundle, batch, chosen.threads)
        times = measured(steps, chosen.rounds) | measured(predictions, chosen.rounds)
        rows += [{"batch": batch, "what": what, "ms": ms} for what, ms in times.items()]
        figures |= _figures(batch, times)
    emit(Report("step", figures, rows), as_json=chosen.json)


def measured(contestants: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Median milliseconds of a call, over `rounds` blocks of each; contestants take turns."""
    repeats = {what: _repeats(call) for what, call in contestants.items()}
    times: dict[str, list[float]] = {what: [] for what in contestants}
    for _ in range(rounds):
        for what, call in contestants.items():
            time.sleep(PAUSE_SECONDS)
            call()
            start = time.perf_counter()
            for _ in range(repeats[what]):
                call()
            times[what].append((time.perf_counter() - start) / repeats[what])
    return {what: 1e3 * median(values) for what, values in times.items()}


def _repeats(call: Call) -> int:
    for _ in range(3):
        call()
    start = time.perf_counter()
    call()
    return max(1, round(BLOCK_SECONDS / (time.perf_counter() - start)))


def _figures(batch: int, times: Mapping[str, float]) -> dict[str, float]:
    name = f"resnet20_b{batch}"
    pairs = [
        ("vjp", "torch_eager", "vjp_over_torch_eager"),
        ("vjp", "torch_compile", "vjp_over_torch_compile"),
        ("step", "torch_eager", "step_over_torch_eager"),
        ("forward", "frozen", "forward_over_int8_frozen"),
        ("forward", "fp32_folded", "forward_over_fp32_folded"),
        ("forward_bound", "frozen", "forward_bound_over_int8_frozen"),
        ("specialised", "frozen", "specialised_over_int8_frozen"),
        ("specialised", "fp32_folded", "specialised_over_fp32_folded"),
    ]
    return {f"{name}_{label}": times[ours] / times[theirs] for ours, theirs, label in pairs if theirs in times}


def _bundle(model: ResNetCifar, out: Path) -> Bundle:
    # Noise calibrates speed as well as pictures do, and its int8 accuracy is nobody's concern here.
    noise = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), np.uint8)
    limits = Limits(int8_points=100.0, disagreement_points=100.0)
    spec = BundleSpec(name="resnet20", classes=CLASSES, preprocessing=Preprocessing(mean=MEAN, std=STD), limits=limits)
    compile_model(model, CalibrationData(noise), spec, out, notify=lambda _: None)
    return read_bundle(out)


def _pictures(batch: int) -> NDArray[np.uint8]:
    return np.random.default_rng(batch).integers(0, 256, (batch, 3, 32, 32), np.uint8)


def _steps(model: ResNetCifar, bundle: Bundle, batch: int, chosen: Any) -> dict[str, Call]:
    """Gradients of the mean entropy with respect to every norm's affine, under the batch's statistics."""
    pictures = _pictures(batch)
    vjp = _session(bundle.graphs["vjp.onnx"], chosen.threads)
    observe = _session(bundle.graphs["observe.onnx"], chosen.threads)
    feeds = _rows(bundle, pictures)
    seen = {entry.name: feeds[entry.name] for entry in observe.get_inputs()}

    def whole_step() -> object:
        (logits,) = observe.run(["logits"], seen)
        return vjp.run(["grad_theta"], feeds | {"cotangent": _entropy_cotangent(logits)})

    contestants: dict[str, Call] = {"vjp": lambda: vjp.run(["grad_theta"], feeds), "step": whole_step}
    mean, std = (np.reshape(np.array(values, np.float32), (-1, 1, 1)) for values in (MEAN, STD))
    images = ((pictures / np.float32(255) - mean) / std).astype(np.float32)
    twin = _torch_step.prepared(model)
    contestants["torch_eager"] = _torch_step.step(twin, images)
    if not chosen.no_compile and shutil.which("g++"):
        contestants["torch_compile"] = _torch_step.step(cast(nn.Module, torch.compile(twin)), images)
        try:
            contestants["torch_compile"]()
        except Exception as error:
            # Whatever its toolchain lacks here, the other contestants are still worth measuring.
            del contestants["torch_compile"]
            sys.stderr.write(f"torch.compile does not work here: {str(error).splitlines()[0]}\n")
    return contestants


def _entropy_cotangent(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gradient of the batch's mean entropy with respect to its logits: `-p (log p + H) / B`."""
    logp = logits - logits.max(1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(1, keepdims=True))
    p = np.exp(logp)
    entropy = -(p * logp).sum(1, keepdims=True)
    return np.asarray(-p * (logp + entropy) / len(logits), np.float32)


def _rows(bundle: Bundle, pictures: Array) -> dict[str, Array]:
    """One session's rows under test-batch statistics, and a cotangent of entropy's size."""
    batch, source = len(pictures), bundle.source
    cotangent = np.random.default_rng(1).standard_normal((batch, len(CLASSES))).astype(np.float32) / batch
    return {
        "image": pictures,
        "theta": np.tile(source.theta, (batch, 1)),
        "stats": np.tile(source.stats, (batch, 1)),
        "mix": np.full((batch, batch), 1 / batch, np.float32),
        "alpha": np.ones(batch, np.float32),
        "cotangent": cotangent,
    }


def _predictions(model: ResNetCifar, bundle: Bundle, batch: int, threads: int) -> dict[str, Call]:
    pictures = _pictures(batch)
    frozen = _session(bundle.graphs["frozen.onnx"], threads)
    forward = _session(bundle.graphs["forward.onnx"], threads)
    floats = _session(_folded_float(model), threads)
    parts = {name: bundle.tensors[f"fold.{name}"] for name in FOLD_ARRAYS}
    manifest = bundle.manifest
    folding = Folding.of(manifest.sites, manifest.parameters, manifest.statistics, parts)
    scale, bias = fold(folding, bundle.source.theta, bundle.source.stats)
    packed = {"scale": scale, "bias": bias}
    specialised, kept = _specialised(bundle, packed, threads)
    (own,), (same,) = (
        specialised.run(["logits"], {"image": pictures}),
        forward.run(["logits"], {"image": pictures, **packed}),
    )
    if not np.array_equal(own, same):
        raise RuntimeError("the specialised graph answers otherwise than forward.onnx; its timing means nothing")
    binding = forward.io_binding()
    for name, array in packed.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("logits", "cpu")

    def bound_call() -> object:
        binding.bind_cpu_input("image", pictures)
        forward.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    return {
        "forward": lambda: forward.run(["logits"], {"image": pictures, **packed}),
        "forward_bound": bound_call,
        "specialised": lambda: kept and specialised.run(["logits"], {"image": pictures}),
        "frozen": lambda: frozen.run(["logits"], {"image": pictures}),
        "fp32_folded": lambda: floats.run(["logits"], {"image": pictures}),
    }


def _specialised(
    bundle: Bundle, packed: Mapping[str, Array], threads: int
) -> tuple[ort.InferenceSession, list[ort.OrtValue]]:
    """frozen.onnx with other constants, and these: ONNX Runtime keeps references to them, not copies."""
    settings, sites, kept = _settings(threads), bundle.manifest.sites, []
    ends = np.cumsum([site.channels for site in sites])[:-1]
    for part, array in packed.items():
        for site, values in zip(sites, np.split(array, ends), strict=True):
            kept.append(ort.OrtValue.ortvalue_from_numpy(values.copy()))
            settings.add_initializer(f"{part}.{site.name}", kept[-1])
    return ort.InferenceSession(bundle.graphs["frozen.onnx"], settings, providers=["CPUExecutionProvider"]), kept


def _folded_float(model: ResNetCifar) -> bytes:
    """The float graph at the source; ONNX Runtime itself folds constant norms into convolutions."""
    graph = at_source(with_sites(traced(model, Preprocessing(mean=MEAN, std=STD), (3, 32, 32))))
    content: bytes = to_onnx(graph).SerializeToString()
    return content


def _settings(threads: int) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    return settings


def _session(content: bytes, threads: int, profile: Path | None = None) -> ort.InferenceSession:
    settings = _settings(threads)
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(profile)
    return ort.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def _profile(bundle: Bundle, folder: Path, threads: int) -> None:
    """ONNX Runtime's own profile of each graph at the largest batch, as its JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = _rows(bundle, _pictures(BATCHES[-1]))
    sites = sum(site.channels for site in bundle.manifest.sites)
    rows |= {"scale": np.full(sites, 1e-3, np.float32), "bias": np.zeros(sites, np.int32)}
    for name in ("vjp", "forward", "frozen"):
        session = _session(bundle.graphs[f"{name}.onnx"], threads, folder / name)
        feeds = {entry.name: rows[entry.name] for entry in session.get_inputs()}
        for _ in range(5):
            session.run(None, feeds)
        sys.stderr.write(f"{session.end_profiling()}\n")


if __name__ == "__main__":
    main()
