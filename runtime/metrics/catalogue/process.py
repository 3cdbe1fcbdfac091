"""The process, its ports, and which models it serves."""

from __future__ import annotations

from acclimate.runtime.metrics.catalogue.rows import CODES, ProcessMetric
from acclimate.runtime.repository.control import LOAD_OUTCOMES, UNLOAD_OUTCOMES

ROWS = (
    ProcessMetric(
        "build_info", "gauge", "Always 1; the label is the package's version.", lambda s: {s.version: 1.0},
        ("version",),
    ),
    ProcessMetric("ready", "gauge", "1 if new work is accepted, else 0.", lambda s: s.service.ready),
    ProcessMetric(
        "draining", "gauge", "1 once the daemon finishes what it has and refuses more, else 0.",
        lambda s: s.service.draining,
    ),
    ProcessMetric(
        "start_time_seconds", "gauge", "When the daemon started, Unix time.", lambda s: s.service.started_at
    ),
    ProcessMetric("queue_depth", "gauge", "Requests waiting for an engine.", lambda s: s.service.queue_depth),
    ProcessMetric("watchers", "gauge", "Open event watches.", lambda s: s.service.watchers),
    ProcessMetric("resident_memory_bytes", "gauge", "Resident memory of the process.", lambda s: s.memory_bytes),
    ProcessMetric("cpu_seconds_total", "counter", "User and system time of the process.", lambda s: s.cpu_seconds),
    ProcessMetric(
        "energy_joules_total", "counter", "Energy that the machine has used, by what counted it: processor packages "
        "and memory (RAPL), GPUs (NVML); no series where nothing can be read.", lambda s: s.joules, ("source",),
    ),
    ProcessMetric("models", "gauge", "Served models.", lambda s: len(s.service.models)),
    ProcessMetric(
        "model_info", "gauge", "Always 1 for each served model and its version.",
        lambda s: [((model.model, model.version), 1.0) for model in s.service.models], ("model", "version"),
    ),
    ProcessMetric(
        "model_loads_total", "counter", "Loads of models asked for while serving, by outcome.",
        lambda s: s.service.loads, ("outcome",), LOAD_OUTCOMES,
    ),
    ProcessMetric(
        "model_unloads_total", "counter", "Unloads of models asked for while serving, by outcome.",
        lambda s: s.service.unloads, ("outcome",), UNLOAD_OUTCOMES,
    ),
    ProcessMetric("inference_streams", "gauge", "Open inference streams.", lambda s: s.streams),
    ProcessMetric(
        "inference_stream_requests_total", "counter", "Requests of inference streams by status code.",
        lambda s: s.streamed, ("code",), CODES,
    ),
    ProcessMetric(
        "rpcs_total", "counter", "Finished rpcs by method and gRPC status code.", lambda s: sorted(s.rpcs.items()),
        ("rpc", "code")
    ),
)  # fmt: skip
