"""What a model has done -> Triton's statistics message."""

from __future__ import annotations

from acclimate.adapters.manifest import Manifest
from acclimate.oip.v1 import model_statistics_pb2 as pb
from acclimate.runtime.scheduler.usage import Spent, Usage


def model_statistics(manifest: Manifest, usage: Usage) -> pb.ModelStatistics:
    """The statistics of one served model."""
    requests = usage.requests
    return pb.ModelStatistics(
        name=manifest.name,
        version=manifest.version,
        last_inference=round(usage.last_answer * 1e3),
        inference_count=usage.samples,
        execution_count=usage.executions,
        inference_stats=pb.InferStatistics(
            success=_duration(usage.success),
            fail=_duration(usage.fail),
            queue=_duration(usage.queue),
            compute_input=_duration(requests.gather),
            compute_infer=_duration(requests.compute),
            compute_output=_duration(requests.score),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(phases.gather),
                compute_infer=_duration(phases.compute),
                compute_output=_duration(phases.score),
            )
            for size, phases in sorted(usage.batches.items())
        ],
    )


def _duration(spent: Spent) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=spent.count, ns=round(spent.seconds * 1e9))
