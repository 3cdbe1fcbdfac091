"""`acclimate export`: the compiler's command line. Torch and onnx are loaded by the commands that need them.

Exit codes: 0 done, 1 the export is refused, 2 bad arguments, 3 the packages of the extra `export` are missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from acclimate.export.report import Report

app = typer.Typer(
    name="acclimate export",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compile models into bundles, and adapted sessions into plain models.",
)
EXTRA = frozenset({"torch", "onnx", "onnxscript", "onnxruntime"})


class ExitCode(IntEnum):
    """How a command ends when it does not succeed."""

    REFUSED = 1
    BAD_ARGUMENT = 2
    EXTRA_MISSING = 3


Calibration = Annotated[Path, typer.Option(help="npz file: x uint8 [N, C, H, W] or [N, H, W, C], and y [N] if known.")]
Out = Annotated[Path, typer.Option(help="Folder of the bundle; an older bundle there is replaced.")]
Name = Annotated[str | None, typer.Option(help="How the daemon calls the model. [default: the folder's name]")]
Classes = Annotated[
    str | None, typer.Option(help="Labels, comma-separated, or a text file with one a line. [default: 0, 1, …]")
]
Adapt = Annotated[str, typer.Option(help="What sessions may adapt: norm.")]
Sites = Annotated[list[str] | None, typer.Option(help="Glob over norm names; repeat for more. [default: all]")]
Headroom = Annotated[float, typer.Option(min=1.0, help="Factor on calibrated activation ranges.")]
Layout = Annotated[str, typer.Option(help="Axes of x: auto, nchw or nhwc.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.callback()
def _group() -> None:
    """Keeps the commands sub-commands however many there are."""


@app.command("torch")
def torch_(
    target: Annotated[str, typer.Argument(metavar="PKG.MODULE:FACTORY", help="Function that returns the module.")],
    weights: Annotated[Path, typer.Option(help="safetensors file with the module's state dict.")],
    calibration: Calibration,
    out: Out,
    name: Name = None,
    classes: Classes = None,
    mean: Annotated[str, typer.Option(help="Per channel, comma-separated, in scaled pixels.")] = "0",
    std: Annotated[str, typer.Option(help="Per channel, comma-separated, in scaled pixels.")] = "1",
    scale: Annotated[float, typer.Option(help="Factor on uint8 pixels. [default: 1/255]")] = 1 / 255,
    adapt: Adapt = "norm",
    sites: Sites = None,
    headroom: Headroom = 1.5,
    layout: Layout = "auto",
    as_json: AsJson = False,
) -> None:
    """Compile a torch module; pixels reach it as (x * scale - mean) / std."""
    with _refusals():
        from acclimate.export import arguments
        from acclimate.export.calibration_file import read_calibration
        from acclimate.export.compile import compile_model
        from acclimate.export.torch_import import class_count, load_weights, make_module

        arguments.refuse_unknown_adaptation(adapt)
        data = read_calibration(calibration, arguments.image_layout(layout))
        shape = data.inputs.shape[1:]
        pixels = arguments.preprocessing(mean, std, scale, shape[0])
        module = make_module(target)
        load_weights(module, weights)
        labels = arguments.labels(classes, lambda: class_count(module, shape))
        spec = arguments.bundle_spec(name or out.name, labels, sites, headroom, pixels)
        _show(compile_model(module, data, spec, out), out, as_json)


@app.command("onnx")
def onnx_(
    model: Annotated[Path, typer.Argument(help="ONNX file with BatchNormalization nodes.")],
    calibration: Calibration,
    out: Out,
    name: Name = None,
    classes: Classes = None,
    mean: Annotated[str, typer.Option(help="Per channel, for float models; uint8 models take pixels.")] = "0",
    std: Annotated[str, typer.Option(help="Per channel, for float models.")] = "1",
    scale: Annotated[float, typer.Option(help="Factor on uint8 pixels. [default: 1/255]")] = 1 / 255,
    adapt: Adapt = "norm",
    sites: Sites = None,
    headroom: Headroom = 1.5,
    layout: Layout = "auto",
    as_json: AsJson = False,
) -> None:
    """Compile a model that exists only as ONNX; no torch module is needed."""
    with _refusals():
        from acclimate.export import arguments
        from acclimate.export.calibration_file import read_calibration
        from acclimate.export.onnx_import import compile_onnx, read_onnx

        arguments.refuse_unknown_adaptation(adapt)
        data = read_calibration(calibration, arguments.image_layout(layout))
        pixels = arguments.preprocessing(mean, std, scale, data.inputs.shape[1])
        source = read_onnx(model, data.inputs.shape[1:], pixels)
        labels = arguments.labels(classes, lambda: source.classes)
        spec = arguments.bundle_spec(name or out.name, labels, sites, headroom, pixels)
        _show(compile_onnx(source, data, spec, out), out, as_json)


@app.command("adapted")
def adapted(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle that the session ran on.")],
    state: Annotated[Path, typer.Argument(help="safetensors file of `acclimate session export`.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
) -> None:
    """Merge a session's parameters into the bundle's int8 model: one plain ONNX file."""
    with _refusals():
        from acclimate.export.adapted import write_merged

        write_merged(bundle, state, out)
    typer.echo(f"{out}: {out.stat().st_size} bytes")


def _show(report: Report, out: Path, as_json: bool) -> None:
    """What was written, on stdout; the whole report lies in the bundle."""
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), indent=2) + "\n")
        return
    parity, size = report.parity, sum(report.file_bytes.values())
    drop = "unknown (no labels)" if parity.int8_drop_points is None else f"{parity.int8_drop_points:.2f} points"
    typer.echo(
        f"{out}: {report.sites} sites, {report.parameters} adaptable parameters, {size} bytes; "
        f"forward error {parity.forward_rel_error:.1e}, VJP error {parity.vjp_rel_error:.1e}, int8 drop {drop}"
    )


@contextmanager
def _refusals() -> Iterator[None]:
    """What the exporter refuses, and what is not installed, ends the command with one line."""
    try:
        from acclimate.export.errors import ExportError

        try:
            yield
        except ExportError as error:
            fail(ExitCode.REFUSED, str(error))
    except ModuleNotFoundError as error:
        # Any other missing module is a defect, and its traceback is wanted.
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        fail(ExitCode.EXTRA_MISSING, f"package {error.name!r} is missing; run: pip install 'acclimate[export]'")


def fail(code: ExitCode, message: str) -> NoReturn:
    """One line on stderr, and out."""
    sys.stderr.write(f"acclimate: {' '.join(message.split())}\n")
    raise typer.Exit(code)
