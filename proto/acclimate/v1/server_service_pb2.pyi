import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "pid", "start_time", "rss_bytes", "torch_imported", "transformers_imported", "onnx_imported", "limits", "models")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    TORCH_IMPORTED_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMERS_IMPORTED_FIELD_NUMBER: _ClassVar[int]
    ONNX_IMPORTED_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    version: str
    pid: int
    start_time: _timestamp_pb2.Timestamp
    rss_bytes: int
    torch_imported: bool
    transformers_imported: bool
    onnx_imported: bool
    limits: ServerLimits
    models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., pid: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rss_bytes: _Optional[int] = ..., torch_imported: _Optional[bool] = ..., transformers_imported: _Optional[bool] = ..., onnx_imported: _Optional[bool] = ..., limits: _Optional[_Union[ServerLimits, _Mapping]] = ..., models: _Optional[_Iterable[str]] = ...) -> None: ...

class ServerLimits(_message.Message):
    __slots__ = ("max_message_bytes", "max_sessions", "recipes", "default_recipe")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    RECIPES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_RECIPE_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_sessions: int
    recipes: _containers.RepeatedScalarFieldContainer[str]
    default_recipe: str
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_sessions: _Optional[int] = ..., recipes: _Optional[_Iterable[str]] = ..., default_recipe: _Optional[str] = ...) -> None: ...
