"""An adaptation step and a prediction, ours against what one would run without us, side by side in one run.

    python -m benchmarks.step [--json] [--models resnet20,vit_s] [--rounds N] [--threads N] [--no-compile]
                              [--profile DIR]

ResNet-20 at 32 pixels, and ViT-S/16 at 224 pixels (batch 64: 112), at batch 1, 16 and 64:

vjp                 vjp.onnx: logits and gradients for a given cotangent
step                observe.onnx, entropy's cotangent in NumPy, vjp.onnx: all that a TENT step asks of an engine
torch_eager         the same gradients in torch: forward, entropy, backward through the same norms
torch_compile       the same under torch.compile, where a C++ compiler is present; compiling is not counted
forward             what a settled session is answered by: frozen.onnx with the session's constants
forward_cold        what it is answered by before: forward.onnx with the session's numbers as inputs
frozen              frozen.onnx: int8 with the source's constants
fp32_folded         the float model in ONNX Runtime, its norms folded into the convolutions where there are any

Our graphs run as the engine runs them. Figures are ratios of times, `resnet20_b64_vjp_over_torch_eager` and so on:
below 1 is faster. On one thread, the default and what the engine adapts with, times are processor times, the least
of several blocks; on more they are medians of wall times, which need a machine with nothing else to do.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime as ort
import torch

from acclimate.adapters.manifest import FORWARD_FILE, FROZEN_FILE, VJP_FILE
from acclimate.runtime.bundle import Bundle
from acclimate.runtime.engines.onnx_session import OnnxOptions, open_session
from benchmarks._report import Report, Value, emit, parser
from benchmarks._step_contestants import predictions, rows, session_arrays, steps
from benchmarks._step_subjects import Subject, subjects
from benchmarks._timing import measured

# Of the rounds of one model at one batch size, seconds.
PATIENCE = 40.0
PROFILED_CALLS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print."""
    options = parser(__doc__)
    options.add_argument("--models", default="resnet20,vit_s", help="of these, separated by commas")
    options.add_argument("--rounds", type=int, default=15, help="timed blocks of each contestant, at most (default 15)")
    options.add_argument("--threads", type=int, default=1, help="threads of everyone (default 1)")
    options.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options.add_argument("--profile", type=Path, help="folder for ONNX Runtime's profiles at the largest batch")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    table: list[Mapping[str, Value]] = []
    figures: dict[str, float] = {}
    for subject in subjects(chosen.models):
        bundle = subject.bundle()
        if chosen.profile is not None:
            profile(subject, bundle, chosen.profile, chosen.threads)
        for batch in subject.batches:
            times = _times(subject, bundle, batch, chosen)
            table += [
                {"model": subject.name, "pixels": subject.pixels, "batch": batch, "what": what, "ms": ms}
                for what, ms in times.items()
            ]
            figures |= _figures(f"{subject.name}_b{batch}", times)
    emit(Report("step", figures, table), as_json=chosen.json)


def _times(subject: Subject, bundle: Bundle, batch: int, chosen: Namespace) -> dict[str, float]:
    sys.stderr.write(f"{subject.name}, {subject.pixels} pixels, batch {batch}\n")
    times: dict[str, float] = {}
    for contestants in (
        steps(subject, bundle, batch, chosen.threads, compiled=not chosen.no_compile),
        predictions(subject, bundle, batch, chosen.threads),
    ):
        times |= measured(contestants, chosen.rounds, PATIENCE, wall=chosen.threads > 1)
    return times


def _figures(name: str, times: Mapping[str, float]) -> dict[str, float]:
    pairs = [
        ("vjp", "torch_eager", "vjp_over_torch_eager"),
        ("vjp", "torch_compile", "vjp_over_torch_compile"),
        ("step", "torch_eager", "step_over_torch_eager"),
        ("forward", "frozen", "forward_over_int8_frozen"),
        ("forward", "fp32_folded", "forward_over_fp32_folded"),
        ("forward_cold", "frozen", "forward_cold_over_int8_frozen"),
        ("forward_cold", "fp32_folded", "forward_cold_over_fp32_folded"),
    ]
    return {f"{name}_{label}": times[ours] / times[theirs] for ours, theirs, label in pairs if theirs in times}


def profile(subject: Subject, bundle: Bundle, folder: Path, threads: int) -> None:
    """ONNX Runtime's own profile of each graph at the largest batch, as its JSON files; their names go to stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    feeds = rows(bundle, subject.pictures(subject.batches[-1]))
    for file in (VJP_FILE, FORWARD_FILE, FROZEN_FILE):
        settings = ort.SessionOptions()
        settings.enable_profiling = True
        settings.profile_file_prefix = str(folder / f"{subject.name}_{subject.pixels}_{file.removesuffix('.onnx')}")
        session = open_session(bundle, file, OnnxOptions(), threads, settings)
        given = feeds if file == VJP_FILE else feeds | session_arrays(bundle)
        taken = {entry.name: given[entry.name] for entry in session.get_inputs()}
        for _ in range(PROFILED_CALLS):
            session.run(None, taken)
        sys.stderr.write(f"{session.end_profiling()}\n")


if __name__ == "__main__":
    main()
