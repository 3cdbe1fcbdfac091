"""`acclimate export hf`: checkpoints of the transformers library, from a folder or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acclimate.export.cli_ends import exporting, show
from acclimate.export.cli_options import Adapt, AsJson, Headroom, Layout, Name, Out, Precision, Sites

Task = Annotated[
    str | None,
    typer.Option(help="image-classification or text-classification. [default: as the checkpoint's architecture says]"),
]


def hf(
    model: Annotated[str, typer.Argument(metavar="DIR_OR_ID", help="Folder of save_pretrained, or an id of the hub.")],
    calibration: Annotated[
        Path,
        typer.Option(help="npz: x uint8 pictures or int64 token ids, y if known; or csv, tsv, jsonl, txt of texts."),
    ],
    out: Out,
    task: Task = None,
    name: Name = None,
    classes: Annotated[
        str | None, typer.Option(help="Labels, comma-separated, or a text file with one a line. [default: id2label]")
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Tokens of a text; shorter ones are padded. [default: the model's, at most 128]")
    ] = None,
    text_column: Annotated[str, typer.Option(help="Column or key of the texts.")] = "text",
    label_column: Annotated[str | None, typer.Option(help="Column or key of the labels, by name or number.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="At most so many samples, evenly from the whole file.")] = 2000,
    adapt: Adapt = None,
    sites: Sites = None,
    headroom: Headroom = 1.5,
    precision: Precision = None,
    layout: Layout = "auto",
    as_json: AsJson = False,
) -> None:
    """Compile a classifier of the transformers library, with its preprocessing or its tokenizer."""
    with exporting():
        from acclimate.export import arguments
        from acclimate.export.calibration_texts import Columns
        from acclimate.export.hf import Reading, compile_checkpoint, read_checkpoint
        from acclimate.export.trace import Preprocessing
        from acclimate.export.write import refuse_other_content

        adapting = arguments.adaptations(adapt)
        reading = Reading(arguments.image_layout(layout), Columns(text_column, label_column), samples)
        refuse_other_content(out)
        checkpoint = read_checkpoint(model, task, length)
        labels = arguments.labels(classes, lambda: len(checkpoint.classes)) if classes else checkpoint.classes
        spec = arguments.bundle_spec(name or out.name, labels, sites, headroom, Preprocessing(), adapting, precision)
        report = compile_checkpoint(checkpoint, calibration, spec, out, reading)
    show(report, out, as_json=as_json)
