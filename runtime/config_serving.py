"""The sections of the configuration about the public protocol and about changing models while the daemon runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from acclimate.runtime.config_adaptation import Section


class Repository(Section):
    """Models beyond `bundles`, and who may change which are served."""

    directory: str = Field(
        "",
        description="directory whose children are bundles, served beside `bundles`; of a model's versions the highest "
        "is; empty: none; in a file relative to the file",
    )
    remote_control: bool = Field(
        False, description="whether clients may load and unload models by rpc; SIGHUP reads them again in any case"
    )


class OpenInference(Section):
    """What clients of the Open Inference Protocol are told and allowed."""

    scheduling: Literal["dynamic", "sequence"] = Field(
        "dynamic",
        description="what ModelConfig says of every model; some clients (perf_analyzer) send sequences only to models "
        "that say `sequence`; requests of both kinds are served either way",
    )
    stream_requests: int = Field(
        64,
        ge=1,
        le=65536,
        description="requests of one stream under way, at most; one more is read when one is done",
    )
