"""What crosses the line between the edges and the service about language models: plain data, no protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from acclimate.runtime.engines.language import Finish, Message
from acclimate.runtime.types import Histogram

Prompt = str | tuple[Message, ...]
"""A text that is continued, or a conversation whose next turn is the assistant's."""
Ending = Finish | Literal["budget"]
"""Why a text ended: as its decoder says, or because its budget was spent."""


class Strategy(StrEnum):
    """How one of several texts is chosen."""

    NONE = "none"
    BEST_OF_N = "best_of_n"
    SELF_CONSISTENCY = "self_consistency"
    FIRST_FINISH = "first_finish"


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a client wants a text drawn; None: the daemon's default."""

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    strategy: Strategy = Strategy.NONE
    samples: int = 1


class MaterialKind(StrEnum):
    """What a lesson is made of."""

    TEXTS = "texts"
    PAIRS = "pairs"
    DEMONSTRATIONS = "demonstrations"


@dataclass(frozen=True, slots=True)
class Material:
    """What is to be learnt: texts as they are, or prompts with what follows each."""

    kind: MaterialKind
    texts: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ComputeBudget:
    """Tokens that one request may have computed and drawn, and milliseconds; None: no bound."""

    max_tokens: int | None = None
    max_ms: float | None = None


@dataclass(frozen=True, slots=True)
class LearnFirst:
    """A lesson before a text, for a `share` of its budget, 0 to 1; None means the text's prompt, the session's recipe.

    With `discard` the session stays as it is, and only the text is written with what was learnt.
    """

    share: float
    material: Material | None = None
    recipe: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    discard: bool = False


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A text to be written: by a session, or by the base where `session_id` is None."""

    model: str
    session_id: str | None
    prompt: Prompt
    drawing: Drawing = Drawing()
    budget: ComputeBudget = ComputeBudget()
    learn: LearnFirst | None = None


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """A token: its id, what it adds to the text, and log-probability and entropy in nats."""

    id: int
    text: str
    logprob: float
    entropy: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What a text has cost: tokens, milliseconds since the request arrived, and the lesson before it."""

    prompt_tokens: int
    generated_tokens: int
    first_token_ms: float
    total_ms: float
    learned_tokens: int = 0
    learning_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class GenerateReply:
    """One message of a text: who writes it and what it learnt first; then a token; last, why it ended and its cost."""

    version: int
    token: GeneratedToken | None = None
    finish: Ending = ""
    usage: Usage | None = None
    lesson: LearnOutcome | None = None


@dataclass(frozen=True, slots=True)
class LearnRequest:
    """A lesson for a session; None means the session's recipe, and no bound but its budget."""

    model: str
    session_id: str
    material: Material
    recipe: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    max_tokens: int | None = None
    max_ms: float | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True)
class LearnProgress:
    """How far a lesson has come; a perplexity of 0 was not measured, None means no such bound."""

    step: int
    steps: int
    tokens: int
    loss: float
    held_out_perplexity: float
    elapsed_ms: float
    tokens_left: int | None = None
    ms_left: float | None = None


class LearnVerdict(StrEnum):
    """What became of a lesson."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    SKIPPED = "skipped"
    USED = "used"


@dataclass(frozen=True, slots=True)
class LearnOutcome:
    """How a lesson ended; see `LearnOutcome` in generation.proto."""

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
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Texts to be scored, each after the same context if there is one."""

    model: str
    session_id: str | None
    texts: tuple[str, ...]
    context: Prompt | None = None
    each_token: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A text's scores given what comes before it; `each` is empty unless asked for."""

    logprob: float
    perplexity: float
    tokens: int
    each: tuple[GeneratedToken, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoreReply:
    """Scores in the order of the texts, under the session's parameters of this version."""

    scored: tuple[Scored, ...]
    version: int


@dataclass(frozen=True, slots=True)
class LanguageSnapshot:
    """What an operator may ask about one language model; counters count since the daemon started.

    Attributes:
        texts: generated texts by how they ended: the finish reasons, `cancelled`, or a refusal's code.
        prompt_tokens, generated_tokens, learned_tokens, scored_tokens: read, written, learnt from, scored.
        first_token_seconds: arrival to first token; between_tokens_seconds: from one token of a text to the next.
        lessons: by verdict, and `cancelled`; lesson_seconds: computation of those that ended.
        slots, slots_in_use, texts_waiting, lessons_waiting, learning: places for texts, and who is where now.
    """

    model: str
    texts: Mapping[str, int]
    prompt_tokens: int
    generated_tokens: int
    learned_tokens: int
    scored_tokens: int
    first_token_seconds: Histogram
    between_tokens_seconds: Histogram
    lessons: Mapping[str, int]
    lesson_seconds: Histogram
    slots: int
    slots_in_use: int
    texts_waiting: int
    lessons_waiting: int
    learning: int
