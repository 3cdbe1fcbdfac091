from acclimate.v1 import generation_pb2 as _generation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("name", "prompt", "conversation", "sampling", "search", "budget", "learn")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    LEARN_FIELD_NUMBER: _ClassVar[int]
    name: str
    prompt: str
    conversation: _generation_pb2.Conversation
    sampling: _generation_pb2.Sampling
    search: _generation_pb2.Search
    budget: _generation_pb2.ComputeBudget
    learn: _generation_pb2.LearnFirst
    def __init__(self, name: _Optional[str] = ..., prompt: _Optional[str] = ..., conversation: _Optional[_Union[_generation_pb2.Conversation, _Mapping]] = ..., sampling: _Optional[_Union[_generation_pb2.Sampling, _Mapping]] = ..., search: _Optional[_Union[_generation_pb2.Search, _Mapping]] = ..., budget: _Optional[_Union[_generation_pb2.ComputeBudget, _Mapping]] = ..., learn: _Optional[_Union[_generation_pb2.LearnFirst, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("token", "finish_reason", "usage", "version", "lesson")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LESSON_FIELD_NUMBER: _ClassVar[int]
    token: _generation_pb2.Token
    finish_reason: _generation_pb2.FinishReason
    usage: _generation_pb2.Usage
    version: int
    lesson: _generation_pb2.LearnOutcome
    def __init__(self, token: _Optional[_Union[_generation_pb2.Token, _Mapping]] = ..., finish_reason: _Optional[_Union[_generation_pb2.FinishReason, str]] = ..., usage: _Optional[_Union[_generation_pb2.Usage, _Mapping]] = ..., version: _Optional[int] = ..., lesson: _Optional[_Union[_generation_pb2.LearnOutcome, _Mapping]] = ...) -> None: ...

class LearnRequest(_message.Message):
    __slots__ = ("name", "texts", "pairs", "demonstrations", "recipe", "recipe_parameters", "max_tokens", "max_ms", "etag")
    class RecipeParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    DEMONSTRATIONS_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RECIPE_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    texts: _generation_pb2.Texts
    pairs: _generation_pb2.Pairs
    demonstrations: _generation_pb2.Pairs
    recipe: str
    recipe_parameters: _containers.ScalarMap[str, float]
    max_tokens: int
    max_ms: float
    etag: str
    def __init__(self, name: _Optional[str] = ..., texts: _Optional[_Union[_generation_pb2.Texts, _Mapping]] = ..., pairs: _Optional[_Union[_generation_pb2.Pairs, _Mapping]] = ..., demonstrations: _Optional[_Union[_generation_pb2.Pairs, _Mapping]] = ..., recipe: _Optional[str] = ..., recipe_parameters: _Optional[_Mapping[str, float]] = ..., max_tokens: _Optional[int] = ..., max_ms: _Optional[float] = ..., etag: _Optional[str] = ...) -> None: ...

class LearnResponse(_message.Message):
    __slots__ = ("progress", "outcome")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    progress: _generation_pb2.LearnProgress
    outcome: _generation_pb2.LearnOutcome
    def __init__(self, progress: _Optional[_Union[_generation_pb2.LearnProgress, _Mapping]] = ..., outcome: _Optional[_Union[_generation_pb2.LearnOutcome, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("name", "prompt", "conversation", "texts", "each_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    EACH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    prompt: str
    conversation: _generation_pb2.Conversation
    texts: _containers.RepeatedScalarFieldContainer[str]
    each_token: bool
    def __init__(self, name: _Optional[str] = ..., prompt: _Optional[str] = ..., conversation: _Optional[_Union[_generation_pb2.Conversation, _Mapping]] = ..., texts: _Optional[_Iterable[str]] = ..., each_token: _Optional[bool] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scored", "version")
    SCORED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    scored: _containers.RepeatedCompositeFieldContainer[_generation_pb2.Scored]
    version: int
    def __init__(self, scored: _Optional[_Iterable[_Union[_generation_pb2.Scored, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...
