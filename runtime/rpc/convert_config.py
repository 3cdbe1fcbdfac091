"""A model's manifest -> its configuration in Triton's terms."""

from __future__ import annotations

from acclimate.adapters.manifest import LANGUAGE_TASK, Manifest, TensorSpec
from acclimate.oip.v1 import model_config_pb2 as pb
from acclimate.runtime.config import Config
from acclimate.runtime.inference import DEFAULT_PRIORITY, PRIORITY_LEVELS, max_rows
from acclimate.runtime.rpc.convert_oip import PLATFORM, inputs_of, outputs_of, properties

BACKEND = "acclimate"
TRITON_NAMES = {"BYTES": "STRING"}
GPU_PROVIDERS = ("cuda", "tensorrt")


def model_config(manifest: Manifest, config: Config) -> pb.ModelConfig:
    """The configuration that Triton would have for the model."""
    microseconds = round(config.scheduler.max_delay_ms * 1e3)
    kind, writes = pb.ModelInstanceGroup.KIND_CPU, manifest.task == LANGUAGE_TASK
    if config.engine.provider in GPU_PROVIDERS:
        kind = pb.ModelInstanceGroup.KIND_GPU
    elif config.engine.provider == "auto":
        kind = pb.ModelInstanceGroup.KIND_AUTO
    message = pb.ModelConfig(
        name=manifest.name,
        platform=PLATFORM,
        backend=BACKEND,
        version_policy=pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1)),
        max_batch_size=0 if writes else max_rows(config.scheduler.max_batch),
        input=[
            pb.ModelInput(name=s.name, data_type=_datatype(s), dims=_dims(s, writes), optional=writes and place > 0)
            for place, s in enumerate(inputs_of(manifest))
        ],
        output=[
            pb.ModelOutput(name=s.name, data_type=_datatype(s), dims=_dims(s, writes)) for s in outputs_of(manifest)
        ],
        instance_group=[pb.ModelInstanceGroup(name=f"{manifest.name}_0", count=1, kind=kind)],
        parameters={key: pb.ModelParameter(string_value=value) for key, value in properties(manifest).items()},
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=writes),
    )
    if writes:
        return message
    if config.open_inference.scheduling == "sequence":
        direct = pb.ModelSequenceBatching.StrategyDirect(max_queue_delay_microseconds=microseconds)
        message.sequence_batching.CopyFrom(pb.ModelSequenceBatching(direct=direct))
    else:
        message.dynamic_batching.CopyFrom(
            pb.ModelDynamicBatching(
                preferred_batch_size=[config.scheduler.max_batch],
                max_queue_delay_microseconds=microseconds,
                preserve_ordering=False,
                priority_levels=PRIORITY_LEVELS,
                default_priority_level=DEFAULT_PRIORITY,
            )
        )
    return message


def _dims(spec: TensorSpec, whole: bool) -> tuple[int, ...]:
    """The shape, without the batch's dimension where there is one."""
    return spec.shape if whole else spec.shape[1:]


def _datatype(spec: TensorSpec) -> str:
    return f"TYPE_{TRITON_NAMES.get(spec.datatype, spec.datatype)}"
