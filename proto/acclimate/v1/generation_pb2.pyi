from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_STRATEGY_UNSPECIFIED: _ClassVar[SearchStrategy]
    SEARCH_STRATEGY_BEST_OF_N: _ClassVar[SearchStrategy]
    SEARCH_STRATEGY_SELF_CONSISTENCY: _ClassVar[SearchStrategy]
    SEARCH_STRATEGY_FIRST_FINISH: _ClassVar[SearchStrategy]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_CONTEXT: _ClassVar[FinishReason]
    FINISH_REASON_BUDGET: _ClassVar[FinishReason]

class LearnVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARN_VERDICT_UNSPECIFIED: _ClassVar[LearnVerdict]
    LEARN_VERDICT_COMMITTED: _ClassVar[LearnVerdict]
    LEARN_VERDICT_ROLLED_BACK: _ClassVar[LearnVerdict]
    LEARN_VERDICT_SKIPPED: _ClassVar[LearnVerdict]
    LEARN_VERDICT_USED: _ClassVar[LearnVerdict]
SEARCH_STRATEGY_UNSPECIFIED: SearchStrategy
SEARCH_STRATEGY_BEST_OF_N: SearchStrategy
SEARCH_STRATEGY_SELF_CONSISTENCY: SearchStrategy
SEARCH_STRATEGY_FIRST_FINISH: SearchStrategy
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_CONTEXT: FinishReason
FINISH_REASON_BUDGET: FinishReason
LEARN_VERDICT_UNSPECIFIED: LearnVerdict
LEARN_VERDICT_COMMITTED: LearnVerdict
LEARN_VERDICT_ROLLED_BACK: LearnVerdict
LEARN_VERDICT_SKIPPED: LearnVerdict
LEARN_VERDICT_USED: LearnVerdict

class ChatMessage(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class Conversation(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("max_tokens", "temperature", "top_p", "stop", "seed")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    temperature: float
    top_p: float
    stop: _containers.RepeatedScalarFieldContainer[str]
    seed: int
    def __init__(self, max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., stop: _Optional[_Iterable[str]] = ..., seed: _Optional[int] = ...) -> None: ...

class Search(_message.Message):
    __slots__ = ("strategy", "samples")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    strategy: SearchStrategy
    samples: int
    def __init__(self, strategy: _Optional[_Union[SearchStrategy, str]] = ..., samples: _Optional[int] = ...) -> None: ...

class ComputeBudget(_message.Message):
    __slots__ = ("max_tokens", "max_ms")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    max_ms: float
    def __init__(self, max_tokens: _Optional[int] = ..., max_ms: _Optional[float] = ...) -> None: ...

class LearnFirst(_message.Message):
    __slots__ = ("texts", "pairs", "demonstrations", "recipe", "recipe_parameters", "share", "discard")
    class RecipeParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    DEMONSTRATIONS_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    RECIPE_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    texts: Texts
    pairs: Pairs
    demonstrations: Pairs
    recipe: str
    recipe_parameters: _containers.ScalarMap[str, float]
    share: float
    discard: bool
    def __init__(self, texts: _Optional[_Union[Texts, _Mapping]] = ..., pairs: _Optional[_Union[Pairs, _Mapping]] = ..., demonstrations: _Optional[_Union[Pairs, _Mapping]] = ..., recipe: _Optional[str] = ..., recipe_parameters: _Optional[_Mapping[str, float]] = ..., share: _Optional[float] = ..., discard: _Optional[bool] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "text", "logprob", "entropy")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    logprob: float
    entropy: float
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., logprob: _Optional[float] = ..., entropy: _Optional[float] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "generated_tokens", "first_token_ms", "total_ms", "learned_tokens", "learning_ms")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    LEARNED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_MS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    generated_tokens: int
    first_token_ms: float
    total_ms: float
    learned_tokens: int
    learning_ms: float
    def __init__(self, prompt_tokens: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., first_token_ms: _Optional[float] = ..., total_ms: _Optional[float] = ..., learned_tokens: _Optional[int] = ..., learning_ms: _Optional[float] = ...) -> None: ...

class Pair(_message.Message):
    __slots__ = ("prompt", "completion")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    completion: str
    def __init__(self, prompt: _Optional[str] = ..., completion: _Optional[str] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class Pairs(_message.Message):
    __slots__ = ("pairs",)
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[Pair]
    def __init__(self, pairs: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ...) -> None: ...

class LearnProgress(_message.Message):
    __slots__ = ("step", "steps", "tokens", "loss", "held_out_perplexity", "elapsed_ms", "tokens_left", "ms_left")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_LEFT_FIELD_NUMBER: _ClassVar[int]
    MS_LEFT_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    tokens: int
    loss: float
    held_out_perplexity: float
    elapsed_ms: float
    tokens_left: int
    ms_left: float
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., tokens: _Optional[int] = ..., loss: _Optional[float] = ..., held_out_perplexity: _Optional[float] = ..., elapsed_ms: _Optional[float] = ..., tokens_left: _Optional[int] = ..., ms_left: _Optional[float] = ...) -> None: ...

class LearnOutcome(_message.Message):
    __slots__ = ("verdict", "reason", "stopped", "version", "steps", "tokens", "elapsed_ms", "cost_ms", "held_out_perplexity_before", "held_out_perplexity_after", "theta_distance", "replayed")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    COST_MS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_PERPLEXITY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_PERPLEXITY_AFTER_FIELD_NUMBER: _ClassVar[int]
    THETA_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    verdict: LearnVerdict
    reason: str
    stopped: str
    version: int
    steps: int
    tokens: int
    elapsed_ms: float
    cost_ms: float
    held_out_perplexity_before: float
    held_out_perplexity_after: float
    theta_distance: float
    replayed: int
    def __init__(self, verdict: _Optional[_Union[LearnVerdict, str]] = ..., reason: _Optional[str] = ..., stopped: _Optional[str] = ..., version: _Optional[int] = ..., steps: _Optional[int] = ..., tokens: _Optional[int] = ..., elapsed_ms: _Optional[float] = ..., cost_ms: _Optional[float] = ..., held_out_perplexity_before: _Optional[float] = ..., held_out_perplexity_after: _Optional[float] = ..., theta_distance: _Optional[float] = ..., replayed: _Optional[int] = ...) -> None: ...

class Scored(_message.Message):
    __slots__ = ("logprob", "perplexity", "tokens", "each")
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    EACH_FIELD_NUMBER: _ClassVar[int]
    logprob: float
    perplexity: float
    tokens: int
    each: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, logprob: _Optional[float] = ..., perplexity: _Optional[float] = ..., tokens: _Optional[int] = ..., each: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...
