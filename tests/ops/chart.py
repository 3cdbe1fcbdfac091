"""The Helm chart, rendered as `helm template` would, with gotpl's Go templates, Sprig and Helm functions in Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.house.tree import ROOT

CHART = ROOT / "ops" / "helm" / "acclimate"
RELEASE = {
    "Name": "cameras",
    "Namespace": "edge",
    "Service": "Helm",
    "IsInstall": True,
    "IsUpgrade": False,
    "Revision": 1,
}


class Refused(Exception):
    """The chart's schema or one of its templates refuses the values."""


def values(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The chart's own values with others over them, table by table, held against the schema as Helm holds them."""
    jsonschema = pytest.importorskip("jsonschema", reason="no jsonschema; pip install jsonschema")
    merged: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    for layer in layers:
        merged = _over(merged, layer)
    try:
        jsonschema.validate(merged, json.loads((CHART / "values.schema.json").read_text("utf-8")))
    except jsonschema.ValidationError as error:
        raise Refused(f"{'.'.join(map(str, error.absolute_path))}: {error.message}") from error
    return merged


def case(name: str) -> dict[str, Any]:
    """Values of `ci/`."""
    found: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text("utf-8"))
    return found


def rendered(chosen: Mapping[str, Any]) -> dict[str, str]:
    """The text of each template by file name."""
    helm = pytest.importorskip("gotpl.exts.helm", reason="no gotpl; pip install 'gotpl[helm]'")
    sources = {path.name: path.read_text("utf-8") for path in sorted((CHART / "templates").iterdir())}
    engine = helm.HelmTemplateEngine(sources)
    about = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    chart = {key[0].upper() + key[1:]: value for key, value in about.items()}
    data = {"Values": chosen, "Chart": chart, "Release": RELEASE, "Template": {"BasePath": "acclimate/templates"}}
    try:
        texts: dict[str, str] = engine.render({name: data for name in sources if not name.startswith("_")})
    except Exception as error:
        raise Refused(str(error)) from error
    return texts


def manifests(chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every object that the chart makes of these values."""
    texts = (text for name, text in rendered(chosen).items() if name.endswith(".yaml"))
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def _over(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged
