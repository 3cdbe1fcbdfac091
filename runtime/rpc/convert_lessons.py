"""Messages of lessons <-> the service's own types."""

from __future__ import annotations

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.generation import types
from acclimate.runtime.rpc import names
from acclimate.v1 import generation_pb2 as pb
from acclimate.v1 import generation_service_pb2 as service_pb

VERDICTS: dict[types.LearnVerdict, pb.LearnVerdict] = {
    types.LearnVerdict.COMMITTED: pb.LEARN_VERDICT_COMMITTED,
    types.LearnVerdict.ROLLED_BACK: pb.LEARN_VERDICT_ROLLED_BACK,
    types.LearnVerdict.SKIPPED: pb.LEARN_VERDICT_SKIPPED,
}
_VERDICTS_BACK = {number: verdict for verdict, number in VERDICTS.items()}


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
        material=_material(message),
        recipe=message.recipe or None,
        parameters=dict(message.recipe_parameters),
        max_tokens=message.max_tokens or None,
        max_ms=message.max_ms or None,
        etag=message.etag,
    )


def learn_message(request: types.LearnRequest) -> service_pb.LearnRequest:
    """Inverse of `learn_request`."""
    given = request.material
    message = service_pb.LearnRequest(
        name=names.session_name(request.model, request.session_id),
        recipe=request.recipe or "",
        recipe_parameters=dict(request.parameters),
        max_tokens=request.max_tokens or 0,
        max_ms=request.max_ms or 0.0,
        etag=request.etag,
    )
    pairs = pb.Pairs(pairs=[pb.Pair(prompt=prompt, completion=completion) for prompt, completion in given.pairs])
    if given.kind is types.MaterialKind.TEXTS:
        message.texts.CopyFrom(pb.Texts(texts=given.texts))
    elif given.kind is types.MaterialKind.PAIRS:
        message.pairs.CopyFrom(pairs)
    else:
        message.demonstrations.CopyFrom(pairs)
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
    outcome = pb.LearnOutcome(
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
    )
    return service_pb.LearnResponse(outcome=outcome)


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
    end = message.outcome
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
    )


def _material(message: service_pb.LearnRequest) -> types.Material:
    kind = message.WhichOneof("material")
    if kind is None:
        raise InvalidArgument(
            "MATERIAL_EMPTY", "there is nothing to learn; send texts, pairs or demonstrations", field="texts"
        )
    if kind == "texts":
        return types.Material(types.MaterialKind.TEXTS, texts=tuple(message.texts.texts))
    given = message.pairs if kind == "pairs" else message.demonstrations
    return types.Material(types.MaterialKind(kind), pairs=tuple((pair.prompt, pair.completion) for pair in given.pairs))
