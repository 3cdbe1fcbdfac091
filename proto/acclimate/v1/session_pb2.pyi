import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Session(_message.Message):
    __slots__ = ("name", "recipe", "recipe_parameters", "state", "version", "create_time", "last_use_time", "activity", "quality", "budget", "budget_available_ms", "state_bytes", "paused", "etag", "ttl", "labels", "tenant")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Session.State]
        STATE_PRISTINE: _ClassVar[Session.State]
        STATE_ADAPTED: _ClassVar[Session.State]
        STATE_CLOSED: _ClassVar[Session.State]
    STATE_UNSPECIFIED: Session.State
    STATE_PRISTINE: Session.State
    STATE_ADAPTED: Session.State
    STATE_CLOSED: Session.State
    class RecipeParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RECIPE_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_USE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    BUDGET_AVAILABLE_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    name: str
    recipe: str
    recipe_parameters: _containers.ScalarMap[str, float]
    state: Session.State
    version: int
    create_time: _timestamp_pb2.Timestamp
    last_use_time: _timestamp_pb2.Timestamp
    activity: SessionActivity
    quality: SessionQuality
    budget: Budget
    budget_available_ms: float
    state_bytes: int
    paused: bool
    etag: str
    ttl: _duration_pb2.Duration
    labels: _containers.ScalarMap[str, str]
    tenant: str
    def __init__(self, name: _Optional[str] = ..., recipe: _Optional[str] = ..., recipe_parameters: _Optional[_Mapping[str, float]] = ..., state: _Optional[_Union[Session.State, str]] = ..., version: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., activity: _Optional[_Union[SessionActivity, _Mapping]] = ..., quality: _Optional[_Union[SessionQuality, _Mapping]] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., budget_available_ms: _Optional[float] = ..., state_bytes: _Optional[int] = ..., paused: _Optional[bool] = ..., etag: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., tenant: _Optional[str] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("name", "create_time", "version", "state", "theta_distance", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    THETA_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    create_time: _timestamp_pb2.Timestamp
    version: int
    state: Session.State
    theta_distance: float
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[int] = ..., state: _Optional[_Union[Session.State, str]] = ..., theta_distance: _Optional[float] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("refill_ms_per_s", "capacity_ms")
    REFILL_MS_PER_S_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_MS_FIELD_NUMBER: _ClassVar[int]
    refill_ms_per_s: float
    capacity_ms: float
    def __init__(self, refill_ms_per_s: _Optional[float] = ..., capacity_ms: _Optional[float] = ...) -> None: ...

class SessionActivity(_message.Message):
    __slots__ = ("requests", "samples", "buffered_samples", "updates", "rollbacks", "restorations", "skipped", "backward_samples", "adaptation_time")
    class SkippedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BUFFERED_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ROLLBACKS_FIELD_NUMBER: _ClassVar[int]
    RESTORATIONS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    BACKWARD_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ADAPTATION_TIME_FIELD_NUMBER: _ClassVar[int]
    requests: int
    samples: int
    buffered_samples: int
    updates: int
    rollbacks: int
    restorations: int
    skipped: _containers.ScalarMap[str, int]
    backward_samples: int
    adaptation_time: _duration_pb2.Duration
    def __init__(self, requests: _Optional[int] = ..., samples: _Optional[int] = ..., buffered_samples: _Optional[int] = ..., updates: _Optional[int] = ..., rollbacks: _Optional[int] = ..., restorations: _Optional[int] = ..., skipped: _Optional[_Mapping[str, int]] = ..., backward_samples: _Optional[int] = ..., adaptation_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionQuality(_message.Message):
    __slots__ = ("mean_entropy_nats", "mean_confidence", "estimated_accuracy", "labelled", "labelled_correct", "theta_distance", "estimated_accuracy_doc", "drift")
    class DriftEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MEAN_ENTROPY_NATS_FIELD_NUMBER: _ClassVar[int]
    MEAN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LABELLED_FIELD_NUMBER: _ClassVar[int]
    LABELLED_CORRECT_FIELD_NUMBER: _ClassVar[int]
    THETA_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_ACCURACY_DOC_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    mean_entropy_nats: float
    mean_confidence: float
    estimated_accuracy: float
    labelled: int
    labelled_correct: int
    theta_distance: float
    estimated_accuracy_doc: float
    drift: _containers.ScalarMap[str, float]
    def __init__(self, mean_entropy_nats: _Optional[float] = ..., mean_confidence: _Optional[float] = ..., estimated_accuracy: _Optional[float] = ..., labelled: _Optional[int] = ..., labelled_correct: _Optional[int] = ..., theta_distance: _Optional[float] = ..., estimated_accuracy_doc: _Optional[float] = ..., drift: _Optional[_Mapping[str, float]] = ...) -> None: ...

class SessionEvent(_message.Message):
    __slots__ = ("name", "kind", "time", "version_before", "version_after", "reason", "cost_ms", "samples", "restored_to", "snapshot", "source")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[SessionEvent.Kind]
        KIND_CREATED: _ClassVar[SessionEvent.Kind]
        KIND_RESET: _ClassVar[SessionEvent.Kind]
        KIND_DELETED: _ClassVar[SessionEvent.Kind]
        KIND_APPLIED: _ClassVar[SessionEvent.Kind]
        KIND_SKIPPED: _ClassVar[SessionEvent.Kind]
        KIND_ROLLED_BACK: _ClassVar[SessionEvent.Kind]
        KIND_RESTORED: _ClassVar[SessionEvent.Kind]
        KIND_FEEDBACK: _ClassVar[SessionEvent.Kind]
        KIND_SEEDED: _ClassVar[SessionEvent.Kind]
        KIND_DRIFTED: _ClassVar[SessionEvent.Kind]
        KIND_PAUSED: _ClassVar[SessionEvent.Kind]
        KIND_RESUMED: _ClassVar[SessionEvent.Kind]
        KIND_FORKED: _ClassVar[SessionEvent.Kind]
        KIND_UPDATED: _ClassVar[SessionEvent.Kind]
        KIND_SNAPSHOT_TAKEN: _ClassVar[SessionEvent.Kind]
        KIND_SNAPSHOT_DELETED: _ClassVar[SessionEvent.Kind]
        KIND_EXPIRED: _ClassVar[SessionEvent.Kind]
        KIND_EVICTED: _ClassVar[SessionEvent.Kind]
        KIND_RETURNED: _ClassVar[SessionEvent.Kind]
        KIND_FENCED: _ClassVar[SessionEvent.Kind]
        KIND_MOVED: _ClassVar[SessionEvent.Kind]
    KIND_UNSPECIFIED: SessionEvent.Kind
    KIND_CREATED: SessionEvent.Kind
    KIND_RESET: SessionEvent.Kind
    KIND_DELETED: SessionEvent.Kind
    KIND_APPLIED: SessionEvent.Kind
    KIND_SKIPPED: SessionEvent.Kind
    KIND_ROLLED_BACK: SessionEvent.Kind
    KIND_RESTORED: SessionEvent.Kind
    KIND_FEEDBACK: SessionEvent.Kind
    KIND_SEEDED: SessionEvent.Kind
    KIND_DRIFTED: SessionEvent.Kind
    KIND_PAUSED: SessionEvent.Kind
    KIND_RESUMED: SessionEvent.Kind
    KIND_FORKED: SessionEvent.Kind
    KIND_UPDATED: SessionEvent.Kind
    KIND_SNAPSHOT_TAKEN: SessionEvent.Kind
    KIND_SNAPSHOT_DELETED: SessionEvent.Kind
    KIND_EXPIRED: SessionEvent.Kind
    KIND_EVICTED: SessionEvent.Kind
    KIND_RETURNED: SessionEvent.Kind
    KIND_FENCED: SessionEvent.Kind
    KIND_MOVED: SessionEvent.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    VERSION_BEFORE_FIELD_NUMBER: _ClassVar[int]
    VERSION_AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COST_MS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    RESTORED_TO_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: SessionEvent.Kind
    time: _timestamp_pb2.Timestamp
    version_before: int
    version_after: int
    reason: str
    cost_ms: float
    samples: int
    restored_to: int
    snapshot: str
    source: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[SessionEvent.Kind, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version_before: _Optional[int] = ..., version_after: _Optional[int] = ..., reason: _Optional[str] = ..., cost_ms: _Optional[float] = ..., samples: _Optional[int] = ..., restored_to: _Optional[int] = ..., snapshot: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class Lora(_message.Message):
    __slots__ = ("name", "a", "b", "rank", "alpha")
    NAME_FIELD_NUMBER: _ClassVar[int]
    A_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    name: str
    a: str
    b: str
    rank: int
    alpha: float
    def __init__(self, name: _Optional[str] = ..., a: _Optional[str] = ..., b: _Optional[str] = ..., rank: _Optional[int] = ..., alpha: _Optional[float] = ...) -> None: ...

class Seed(_message.Message):
    __slots__ = ("tensors", "lora")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    LORA_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[NamedTensor]
    lora: _containers.RepeatedCompositeFieldContainer[Lora]
    def __init__(self, tensors: _Optional[_Iterable[_Union[NamedTensor, _Mapping]]] = ..., lora: _Optional[_Iterable[_Union[Lora, _Mapping]]] = ...) -> None: ...

class NamedTensor(_message.Message):
    __slots__ = ("name", "kind", "shape", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    values: bytes
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., values: _Optional[bytes] = ...) -> None: ...
