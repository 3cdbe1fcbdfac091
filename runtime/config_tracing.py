"""The section of the configuration that says where traces go."""

from __future__ import annotations

from pydantic import Field

from acclimate.runtime.config_adaptation import Section, Share


class Tracing(Section):
    """OpenTelemetry; without an endpoint nothing is traced, and its packages are not imported."""

    endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="collector that spans are sent to by OTLP over gRPC, `http://HOST:4317` or `https://HOST:4317`; "
        "empty: none; needs `pip install 'acclimate[trace]'`",
    )
    sample_ratio: Share = Field(0.01, description="share of the requests traced about which their caller says nothing")
    follow_caller: bool = Field(
        True,
        description="whether a caller's `traceparent` decides if its request is traced; false: only whose trace it is",
    )
    service_name: str = Field("acclimate", min_length=1, description="`service.name` of the spans")
