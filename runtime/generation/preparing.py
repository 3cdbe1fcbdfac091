"""What a text may cost, and what is to be learnt before it: checked before anything is queued or changed."""

from __future__ import annotations

from acclimate.adapters.language import Ids
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.generation.desk import Desk
from acclimate.runtime.generation.lessons import Pupil
from acclimate.runtime.generation.studying import examples, own_prompt, recipe_of, refuse_paused
from acclimate.runtime.generation.types import GenerateRequest, LearnFirst
from acclimate.runtime.language.jobs import LearningBudget
from acclimate.runtime.sessions.session import Session


def budget_of(request: GenerateRequest) -> LearningBudget:
    """What learning and drawing may cost together.

    Raises:
        InvalidArgument: a bound is not above 0.
    """
    given = request.budget
    for field, bound in (("budget.max_tokens", given.max_tokens), ("budget.max_ms", given.max_ms)):
        if bound is not None and not bound > 0:
            raise InvalidArgument(
                "BUDGET_INVALID", f"{field} is {bound}; it must not be negative, and 0 means no bound", field=field
            )
    return LearningBudget(given.max_tokens, given.max_ms)


def first_lesson(request: GenerateRequest) -> LearnFirst | None:
    """What is to be learnt before the text; None where nothing is.

    Raises:
        InvalidArgument: the share is none, there is no budget to share, or the base is asked, which learns nothing.
    """
    learn = request.learn
    if learn is None:
        return None
    if not 0 <= learn.share <= 1:
        raise InvalidArgument(
            "SHARE_INVALID",
            f"learn.share is {learn.share}; it must lie in [0, 1]: the share of the budget that goes to learning",
            field="learn.share",
        )
    if request.budget.max_tokens is None and request.budget.max_ms is None:
        raise InvalidArgument(
            "SHARE_WITHOUT_BUDGET",
            "learn.share is a share of the request's budget, and there is none; send budget.max_tokens, budget.max_ms "
            "or both",
            field="budget",
        )
    if request.session_id is None:
        raise InvalidArgument(
            "LEARN_WITHOUT_SESSION",
            f"the base of model {request.model!r} learns nothing; name a session, with learn.discard if it is to stay "
            "as it is",
            field="name",
        )
    return learn if learn.share > 0 else None


async def pupil_of(
    desk: Desk, session: Session, learn: LearnFirst, budget: LearningBudget, prompt: Ids, arrived: float
) -> Pupil:
    """The session with what it is to learn before a text that comes after `prompt [t]`.

    Raises:
        InvalidArgument: material or recipe. FailedPrecondition: it would be committed, and the session is paused.
    """
    name, parameters = recipe_of(learn, session)
    if (material := learn.material) is None:
        shown = own_prompt(name, prompt)
    else:
        shown = await desk.read(lambda: examples(desk.engine, name, material))
    if not learn.discard:
        refuse_paused(session)
    part = budget.part(learn.share)
    return Pupil(session, name, parameters, shown, part.tokens, part.milliseconds, arrived, discard=learn.discard)
