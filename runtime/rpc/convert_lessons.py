"""Messages of lessons <-> the service's own types."""

from __future__ import annotations

from typing import TypeAlias

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.generation import types
from acclimate.runtime.rpc import names
from acclimate.v1 import generation_pb2 as pb
from acclimate.v1 import generation_service_pb2 as service_pb

VERDICTS: dict[types.LearnVerdict, pb.LearnVerdict] = {
    types.LearnVerdict.COMMITTED: pb.LEARN_VERDICT_COMMITTED,
    types.LearnVerdict.ROLLED_BACK: pb.LEARN_VERDICT_ROLLED_BACK,
    types.LearnVerdict.SKIPPED: pb.LEARN_VERDICT_SKIPPED,
    types.LearnVerdict.USED: pb.LEARN_VERDICT_USED,
}
_VERDICTS_BACK = {number: verdict for verdict, number in VERDICTS.items()}
HasMaterial: TypeAlias = service_pb.LearnRequest | pb.LearnFirst


def learn_request(message: service_pb.LearnRequest) -> types.LearnRequest:
    """What is to be learnt.

    Raises:
        InvalidArgument: the name is no session's, there is nothing to learn, or a bound is negative.
    """
    model, session_id = names.parse_session(message.name)
    for field, bound in (("max_tokens", message.max_tokens), ("max_ms", message.max_ms)):
        if not bound >= 0:
            raise InvalidArgument(
                "BUDGET_INVALID", f"{field} is {bound}; it must not be negative, and 0 means no bound", field=field
            )
    return types.LearnRequest(
        model=model,
        session_id=session_id,
        material=_required(message),
        recipe=message.recipe or None,
        parameters=dict(message.recipe_parameters),
        max_tokens=message.max_tokens or None,
        max_ms=message.max_ms or None,
        etag=message.etag,
    )


def learn_message(request: types.LearnRequest) -> service_pb.LearnRequest:
    """Inverse of `learn_request`."""
    message = service_pb.LearnRequest(
        name=names.session_name(request.model, request.session_id),
        recipe=request.recipe or "",
        recipe_parameters=dict(request.parameters),
        max_tokens=request.max_tokens or 0,
        max_ms=request.max_ms or 0.0,
        etag=request.etag,
    )
    _put_material(message, request.material)
    return message


def learn_first(message: pb.LearnFirst) -> types.LearnFirst:
    """What is to be learnt before a text.

    Raises:
        InvalidArgument: it is not said how much of the budget is for learning.
    """
    if not message.HasField("share"):
        raise InvalidArgument(
            "SHARE_INVALID",
            "learn.share is not set; say which share of the budget goes to learning, 0 to 1",
            field="learn.share",
        )
    return types.LearnFirst(
        share=message.share,
        material=_material(message),
        recipe=message.recipe or None,
        parameters=dict(message.recipe_parameters),
        discard=message.discard,
    )


def learn_first_message(learn: types.LearnFirst) -> pb.LearnFirst:
    """Inverse of `learn_first`."""
    message = pb.LearnFirst(
        share=learn.share,
        recipe=learn.recipe or "",
        recipe_parameters=dict(learn.parameters),
        discard=learn.discard,
    )
    if learn.material is not None:
        _put_material(message, learn.material)
    return message


def learn_response(update: types.LearnProgress | types.LearnOutcome) -> service_pb.LearnResponse:
    """The message for how a lesson goes or has ended."""
    if isinstance(update, types.LearnProgress):
        progress = pb.LearnProgress(
            step=update.step,
            steps=update.steps,
            tokens=update.tokens,
            loss=update.loss,
            held_out_perplexity=update.held_out_perplexity,
            elapsed_ms=update.elapsed_ms,
            tokens_left=update.tokens_left,
            ms_left=update.ms_left,
        )
        return service_pb.LearnResponse(progress=progress)
    return service_pb.LearnResponse(outcome=outcome_message(update))


def outcome_message(update: types.LearnOutcome) -> pb.LearnOutcome:
    """The message for how a lesson has ended."""
    return pb.LearnOutcome(
        verdict=VERDICTS[update.verdict],
        reason=update.reason,
        stopped=update.stopped,
        version=update.version,
        steps=update.steps,
        tokens=update.tokens,
        elapsed_ms=update.elapsed_ms,
        cost_ms=update.cost_ms,
        held_out_perplexity_before=update.held_out_perplexity_before,
        held_out_perplexity_after=update.held_out_perplexity_after,
        theta_distance=update.theta_distance,
        replayed=update.replayed,
    )


def learn_update(message: service_pb.LearnResponse) -> types.LearnProgress | types.LearnOutcome:
    """Inverse of `learn_response`."""
    if message.WhichOneof("update") == "progress":
        seen = message.progress
        return types.LearnProgress(
            seen.step,
            seen.steps,
            seen.tokens,
            seen.loss,
            seen.held_out_perplexity,
            seen.elapsed_ms,
            seen.tokens_left if seen.HasField("tokens_left") else None,
            seen.ms_left if seen.HasField("ms_left") else None,
        )
    return outcome(message.outcome)


def outcome(end: pb.LearnOutcome) -> types.LearnOutcome:
    """Inverse of `outcome_message`."""
    return types.LearnOutcome(
        _VERDICTS_BACK[end.verdict],
        end.reason,
        end.stopped,
        end.version,
        end.steps,
        end.tokens,
        end.elapsed_ms,
        end.cost_ms,
        end.held_out_perplexity_before,
        end.held_out_perplexity_after,
        end.theta_distance,
        end.replayed,
    )


def _required(message: service_pb.LearnRequest) -> types.Material:
    material = _material(message)
    if material is None:
        raise InvalidArgument(
            "MATERIAL_EMPTY", "there is nothing to learn; send texts, pairs or demonstrations", field="texts"
        )
    return material


def _material(message: HasMaterial) -> types.Material | None:
    kind = message.WhichOneof("material")
    if kind is None:
        return None
    if kind == "texts":
        return types.Material(types.MaterialKind.TEXTS, texts=tuple(message.texts.texts))
    given = message.pairs if kind == "pairs" else message.demonstrations
    return types.Material(types.MaterialKind(kind), pairs=tuple((pair.prompt, pair.completion) for pair in given.pairs))


def _put_material(message: HasMaterial, given: types.Material) -> None:
    pairs = pb.Pairs(pairs=[pb.Pair(prompt=prompt, completion=completion) for prompt, completion in given.pairs])
    if given.kind is types.MaterialKind.TEXTS:
        message.texts.CopyFrom(pb.Texts(texts=given.texts))
    elif given.kind is types.MaterialKind.PAIRS:
        message.pairs.CopyFrom(pairs)
    else:
        message.demonstrations.CopyFrom(pairs)
