"""`acclimate bundle`: look into a bundle, verify it, sign it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from acclimate.adapters.manifest import Manifest
from acclimate.runtime.cli.output import ExitCode, fail, write_json, write_table

# A parameter is a float32.
_WORD = 4

app = typer.Typer(no_args_is_help=True, help="Look into a bundle, verify it, sign it.")


@app.command("inspect")
def inspect(
    path: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify every file against the manifest and show what the bundle says."""
    from acclimate.runtime.bundle import BundleError, read_bundle

    try:
        bundle = read_bundle(path)
    except BundleError as error:
        fail(ExitCode.BAD_BUNDLE, str(error))
    document = summary(bundle.manifest)
    if as_json:
        write_json(document)
        return
    tables = {name: document.pop(name) for name in ("files", "sites", "slices", "kinds", "lora")}
    rows = [(key, value) for key, value in document.items() if not isinstance(value, dict)]
    rows += [
        (f"{key}.{inner}", number)
        for key, value in document.items()
        if isinstance(value, dict)
        for inner, number in value.items()
    ]
    write_table(str(path), ("field", "value"), rows)
    for name, entries in tables.items():
        if entries:
            write_table(name, tuple(entries[0]), [tuple(entry.values()) for entry in entries])


@app.command("sign")
def sign(
    path: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    key: Annotated[Path, typer.Option(help="PEM file of an Ed25519 private key.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify the bundle, then write manifest.sig beside its manifest; needs the extra `sign`."""
    from acclimate.runtime.bundle import BundleError, read_bundle
    from acclimate.runtime.security import signatures

    try:
        digest = read_bundle(path).manifest_sha256
        named = signatures.sign(path, digest, signatures.private_key(key))
    except BundleError as error:
        fail(ExitCode.BAD_BUNDLE, str(error))
    except signatures.SignatureError as error:
        fail(ExitCode.BAD_CONFIG, str(error))
    _tell(as_json, path, digest, named)


@app.command("verify")
def verify(
    path: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    keys: Annotated[Path, typer.Option(help="PEM file of Ed25519 public keys.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify every file against the manifest, and the manifest's signature against trusted keys."""
    from acclimate.runtime.bundle import BundleError, read_bundle
    from acclimate.runtime.security import signatures

    try:
        trusted = signatures.trusted(keys)
    except signatures.SignatureError as error:
        fail(ExitCode.BAD_CONFIG, str(error))
    try:
        digest = read_bundle(path).manifest_sha256
        named = trusted.verify(path, digest)
    except (BundleError, signatures.SignatureError) as error:
        fail(ExitCode.BAD_BUNDLE, str(error))
    _tell(as_json, path, digest, named)


def _tell(as_json: bool, path: Path, digest: str, named: str) -> None:
    if as_json:
        write_json({"bundle": str(path), "manifest_sha256": digest, "key": named})
    else:
        typer.echo(f"{path}: manifest {digest[:16]}… signed with key {named[:16]}…")


def summary(manifest: Manifest) -> dict[str, Any]:
    """What a person asks of a bundle; every file in it has been verified by `read_bundle`.

    `slices` are all that a session adapts, `kinds` their totals, in bytes of one session.
    """
    document = manifest.to_json()
    tensors = {
        field: ", ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in getattr(manifest, field))
        for field in ("inputs", "outputs")
    }
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "classes": len(manifest.classes),
        **tensors,
        "parameters": manifest.parameters.size,
        "parameters_digest": manifest.parameters.digest,
        "statistics": manifest.statistics.size,
        "calibration": document["calibration"],
        "cost": document["cost"],
        "provenance": document["provenance"],
        "files": [
            {"name": name, "bytes": entry.bytes, "sha256": entry.sha256, "check": "ok"}
            for name, entry in sorted(manifest.files.items())
        ],
        "sites": [{"name": site.name, "channels": site.channels, "epsilon": site.epsilon} for site in manifest.sites],
        "slices": [
            {"name": entry.name, "kind": entry.kind, "shape": list(entry.shape), "bytes": _WORD * entry.size}
            for entry in manifest.parameters.slices
        ],
        "kinds": _totals(manifest),
        "lora": document["lora"],
    }


def _totals(manifest: Manifest) -> list[dict[str, Any]]:
    """Slices, parameters and bytes of each kind of slice, in the order they first come."""
    slices = manifest.parameters.slices
    totals = []
    for kind in dict.fromkeys(entry.kind for entry in slices):
        sizes = [entry.size for entry in slices if entry.kind == kind]
        totals.append({"kind": kind, "slices": len(sizes), "parameters": sum(sizes), "bytes": _WORD * sum(sizes)})
    return totals
