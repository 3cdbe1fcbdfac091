"""`acclimate export`: the compiler's command line. Torch and onnx are loaded by the commands that need them.

Exit codes: 0 done, 1 the export is refused, 2 bad arguments, 3 the packages of the extra `export` are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.export.cli_ends import exporting, refusals, show
from acclimate.export.cli_hf import hf
from acclimate.export.cli_options import (
    Adapt,
    AsJson,
    Calibration,
    Classes,
    Headroom,
    Layout,
    Name,
    Out,
    Precision,
    Sites,
)

app = typer.Typer(
    name="acclimate export",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compile models into bundles, and adapted sessions into plain models.",
)


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
    adapt: Adapt = None,
    sites: Sites = None,
    headroom: Headroom = 1.5,
    precision: Precision = None,
    layout: Layout = "auto",
    as_json: AsJson = False,
) -> None:
    """Compile a torch module; pixels reach it as (x * scale - mean) / std, token ids as they are."""
    with exporting():
        from acclimate.export import arguments
        from acclimate.export.calibration_file import read_calibration
        from acclimate.export.compile import compile_model
        from acclimate.export.torch_import import class_count, load_weights, make_module

        adapting = arguments.adaptations(adapt)
        data = read_calibration(calibration, arguments.image_layout(layout))
        shape = data.inputs.shape[1:]
        pixels = arguments.preprocessing(mean, std, scale, shape[0] if len(shape) == 3 else 1)
        module = make_module(target)
        load_weights(module, weights)
        labels = arguments.labels(classes, lambda: class_count(module, shape))
        spec = arguments.bundle_spec(name or out.name, labels, sites, headroom, pixels, adapting, precision)
        report = compile_model(module, data, spec, out)
    show(report, out, as_json=as_json)


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
    adapt: Adapt = None,
    sites: Sites = None,
    headroom: Headroom = 1.5,
    precision: Precision = None,
    layout: Layout = "auto",
    as_json: AsJson = False,
) -> None:
    """Compile a model that exists only as ONNX; no torch module is needed."""
    with exporting():
        from acclimate.export import arguments
        from acclimate.export.calibration_file import read_calibration
        from acclimate.export.onnx_import import compile_onnx, read_onnx

        adapting = arguments.adaptations(adapt)
        data = read_calibration(calibration, arguments.image_layout(layout))
        pixels = arguments.preprocessing(mean, std, scale, data.inputs.shape[1])
        source = read_onnx(model, data.inputs.shape[1:], pixels)
        labels = arguments.labels(classes, lambda: source.classes)
        spec = arguments.bundle_spec(name or out.name, labels, sites, headroom, pixels, adapting, precision)
        report = compile_onnx(source, data, spec, out)
    show(report, out, as_json=as_json)


@app.command("adapted")
def adapted(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle that the session ran on.")],
    state: Annotated[Path, typer.Argument(help="safetensors file of `acclimate session export`.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
) -> None:
    """Merge a session's parameters into the bundle's int8 model: one plain ONNX file."""
    with refusals():
        from acclimate.export.adapted import write_merged

        write_merged(bundle, state, out)
    typer.echo(f"{out}: {out.stat().st_size} bytes")


@app.command("adapter")
def adapter(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle that the session ran on.")],
    state: Annotated[Path, typer.Argument(help="safetensors file of `acclimate session export`.")],
    out: Annotated[Path, typer.Option(help=".onnx_adapter file to write.")],
    host: Annotated[
        Path | None, typer.Option(help="Also write forward.onnx with the source as default: for Python's run().")
    ] = None,
) -> None:
    """Make a session an ONNX Runtime adapter for the bundle's forward.onnx."""
    with refusals():
        from acclimate.export.ort_adapter import write_adapter

        write_adapter(bundle, state, out, host)
    typer.echo(f"{out}: {out.stat().st_size} bytes")


app.command("hf")(hf)
