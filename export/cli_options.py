"""The options that several commands of `acclimate export` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Calibration = Annotated[
    Path,
    typer.Option(help="npz file: x uint8 [N, C, H, W] or [N, H, W, C], or token ids [N, length]; and y [N] if known."),
]
Out = Annotated[Path, typer.Option(help="Folder of the bundle; an older bundle there is replaced.")]
Name = Annotated[str | None, typer.Option(help="How the daemon calls the model. [default: the folder's name]")]
Classes = Annotated[
    str | None, typer.Option(help="Labels, comma-separated, or a text file with one a line. [default: 0, 1, …]")
]
Adapt = Annotated[
    list[str] | None,
    typer.Option(
        help="What sessions may adapt: norm, bias[:targets=GLOB|GLOB], lora[:r=8,alpha=8,targets=GLOB|GLOB]; "
        "repeat for more. [default: norm]"
    ),
]
Sites = Annotated[list[str] | None, typer.Option(help="Glob over norm names; repeat for more. [default: all]")]
Headroom = Annotated[float, typer.Option(min=1.0, help="Factor on calibrated activation ranges.")]
Layout = Annotated[str, typer.Option(help="Axes of x: auto, nchw or nhwc.")]
Precision = Annotated[
    list[str] | None, typer.Option(help="One more precision of the graphs, for GPUs: fp16 or bf16; repeat for both.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
