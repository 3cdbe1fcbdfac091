"""Messages of `GenerationService` <-> the service's own types."""

from __future__ import annotations

from typing import TypeAlias

from acclimate.runtime.engines.language import Message
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.generation import types
from acclimate.runtime.rpc import convert_lessons, names
from acclimate.v1 import generation_pb2 as pb
from acclimate.v1 import generation_service_pb2 as service_pb

FINISHES: dict[types.Ending, pb.FinishReason] = {
    "": pb.FINISH_REASON_UNSPECIFIED,
    "eos": pb.FINISH_REASON_END,
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "context": pb.FINISH_REASON_CONTEXT,
    "budget": pb.FINISH_REASON_BUDGET,
}
STRATEGIES: dict[types.Strategy, pb.SearchStrategy] = {
    types.Strategy.NONE: pb.SEARCH_STRATEGY_UNSPECIFIED,
    types.Strategy.BEST_OF_N: pb.SEARCH_STRATEGY_BEST_OF_N,
    types.Strategy.SELF_CONSISTENCY: pb.SEARCH_STRATEGY_SELF_CONSISTENCY,
    types.Strategy.FIRST_FINISH: pb.SEARCH_STRATEGY_FIRST_FINISH,
}
_FINISHES_BACK = {number: finish for finish, number in FINISHES.items()}
_STRATEGIES_BACK = {number: strategy for strategy, number in STRATEGIES.items()}
HasPrompt: TypeAlias = service_pb.GenerateRequest | service_pb.ScoreRequest


def generate_request(message: service_pb.GenerateRequest) -> types.GenerateRequest:
    """What is to be written.

    Raises:
        InvalidArgument: the name is neither a session's nor a model's, nothing comes before, or a strategy is none.
    """
    model, session_id = writer(message.name)
    prompt = _prompt(message)
    if prompt is None:
        raise InvalidArgument("PROMPT_EMPTY", "prompt is empty; send a prompt or a conversation", field="prompt")
    budget = types.ComputeBudget(message.budget.max_tokens or None, message.budget.max_ms or None)
    learn = convert_lessons.learn_first(message.learn) if message.HasField("learn") else None
    return types.GenerateRequest(
        model, session_id, prompt, drawing(message.sampling, message.search), budget=budget, learn=learn
    )


def drawing(sampling: pb.Sampling, search: pb.Search) -> types.Drawing:
    """How a text is drawn; whether the values are any good is for the service to say."""
    if search.strategy not in _STRATEGIES_BACK:
        raise InvalidArgument(
            "SAMPLING_INVALID",
            f"search.strategy is {search.strategy}; it has to be one of {pb.SearchStrategy.keys()}",
            field="search.strategy",
        )
    return types.Drawing(
        max_tokens=sampling.max_tokens or None,
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.HasField("top_p") else 1.0,
        stop=tuple(sampling.stop),
        seed=sampling.seed,
        strategy=_STRATEGIES_BACK[search.strategy],
        samples=search.samples,
    )


def generate_message(request: types.GenerateRequest) -> service_pb.GenerateRequest:
    """The message for what is to be written."""
    asked, message = request.drawing, service_pb.GenerateRequest(name=_name(request.model, request.session_id))
    _put_prompt(message, request.prompt)
    message.sampling.CopyFrom(
        pb.Sampling(
            max_tokens=asked.max_tokens or 0,
            temperature=asked.temperature,
            top_p=asked.top_p,
            stop=asked.stop,
            seed=asked.seed,
        )
    )
    if asked.strategy is not types.Strategy.NONE:
        message.search.CopyFrom(pb.Search(strategy=STRATEGIES[asked.strategy], samples=asked.samples))
    if request.budget != types.ComputeBudget():
        budget = request.budget
        message.budget.CopyFrom(pb.ComputeBudget(max_tokens=budget.max_tokens or 0, max_ms=budget.max_ms or 0.0))
    if request.learn is not None:
        message.learn.CopyFrom(convert_lessons.learn_first_message(request.learn))
    return message


def generate_response(reply: types.GenerateReply) -> service_pb.GenerateResponse:
    """The message for a part of a text."""
    message = service_pb.GenerateResponse(version=reply.version, finish_reason=FINISHES[reply.finish])
    if reply.token is not None:
        message.token.CopyFrom(_token_message(reply.token))
    if reply.usage is not None:
        used = reply.usage
        message.usage.CopyFrom(
            pb.Usage(
                prompt_tokens=used.prompt_tokens,
                generated_tokens=used.generated_tokens,
                first_token_ms=used.first_token_ms,
                total_ms=used.total_ms,
                learned_tokens=used.learned_tokens,
                learning_ms=used.learning_ms,
            )
        )
    if reply.lesson is not None:
        message.lesson.CopyFrom(convert_lessons.outcome_message(reply.lesson))
    return message


def generate_reply(message: service_pb.GenerateResponse) -> types.GenerateReply:
    """Inverse of `generate_response`."""
    used = message.usage
    usage = types.Usage(
        used.prompt_tokens,
        used.generated_tokens,
        used.first_token_ms,
        used.total_ms,
        used.learned_tokens,
        used.learning_ms,
    )
    return types.GenerateReply(
        version=message.version,
        token=_token(message.token) if message.HasField("token") else None,
        finish=_FINISHES_BACK[message.finish_reason],
        usage=usage if message.HasField("usage") else None,
        lesson=convert_lessons.outcome(message.lesson) if message.HasField("lesson") else None,
    )


def score_request(message: service_pb.ScoreRequest) -> types.ScoreRequest:
    """What is to be scored."""
    model, session_id = writer(message.name)
    return types.ScoreRequest(model, session_id, tuple(message.texts), _prompt(message), message.each_token)


def score_message(request: types.ScoreRequest) -> service_pb.ScoreRequest:
    """Inverse of `score_request`."""
    name = _name(request.model, request.session_id)
    message = service_pb.ScoreRequest(name=name, texts=request.texts, each_token=request.each_token)
    if request.context is not None:
        _put_prompt(message, request.context)
    return message


def score_response(reply: types.ScoreReply) -> service_pb.ScoreResponse:
    """The message for scores."""
    scored = [
        pb.Scored(
            logprob=entry.logprob,
            perplexity=entry.perplexity,
            tokens=entry.tokens,
            each=[_token_message(token) for token in entry.each],
        )
        for entry in reply.scored
    ]
    return service_pb.ScoreResponse(scored=scored, version=reply.version)


def score_reply(message: service_pb.ScoreResponse) -> types.ScoreReply:
    """Inverse of `score_response`."""
    scored = [
        types.Scored(entry.logprob, entry.perplexity, entry.tokens, tuple(_token(token) for token in entry.each))
        for entry in message.scored
    ]
    return types.ScoreReply(tuple(scored), message.version)


def writer(name: str) -> tuple[str, str | None]:
    """Model and session id of a session's name, or the model and None of a model's, which means the base.

    Raises:
        InvalidArgument: it is neither.
    """
    if name.count("/") <= 1:
        return names.parse_model(name, "name"), None
    return names.parse_session(name)


def _name(model: str, session_id: str | None) -> str:
    return names.model_name(model) if session_id is None else names.session_name(model, session_id)


def _prompt(message: HasPrompt) -> types.Prompt | None:
    if message.HasField("conversation"):
        return tuple(Message(turn.role, turn.content) for turn in message.conversation.messages)
    return message.prompt if message.HasField("prompt") else None


def _put_prompt(message: HasPrompt, prompt: types.Prompt) -> None:
    if isinstance(prompt, str):
        message.prompt = prompt
        return
    turns = [pb.ChatMessage(role=turn.role, content=turn.content) for turn in prompt]
    message.conversation.CopyFrom(pb.Conversation(messages=turns))


def _token_message(token: types.GeneratedToken) -> pb.Token:
    return pb.Token(id=token.id, text=token.text, logprob=token.logprob, entropy=token.entropy)


def _token(message: pb.Token) -> types.GeneratedToken:
    return types.GeneratedToken(message.id, message.text, message.logprob, message.entropy)
