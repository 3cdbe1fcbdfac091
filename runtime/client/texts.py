"""What both clients can ask of language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acclimate.runtime.client import language
from acclimate.runtime.client.calling import AsyncCalls, Calls
from acclimate.runtime.client.generating import AsyncGeneration, AsyncLesson, Generation, Lesson
from acclimate.runtime.client.language import First, Given, PromptLike, Spending
from acclimate.runtime.generation.types import Drawing, LearnRequest, ScoreReply, ScoreRequest, Strategy


class Texts:
    """Of the blocking client."""

    _calls: Calls

    def generate(
        self,
        model: str,
        prompt: PromptLike,
        *,
        session_id: str | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
        strategy: Strategy = Strategy.NONE,
        samples: int = 1,
        budget: Spending = None,
        learn: First = None,
        timeout_seconds: float | None = None,
    ) -> Generation:
        """The tokens of a text as they are written, by a session or by the base; `read()` is the whole text.

        It has no deadline unless `timeout_seconds` says one. With a `strategy`, `samples` are drawn and one is told.
        With `learn`, made by `learn_first`, the session learns before it writes, for a share of the `budget`.
        """
        drawing = Drawing(max_tokens, temperature, top_p, tuple(stop), seed, strategy, samples)
        request = language.generate_request(model, session_id, prompt, drawing, budget, learn)
        return Generation(self._calls, request, timeout_seconds)

    def learn(
        self,
        model: str,
        session_id: str,
        *,
        texts: Sequence[str] = (),
        pairs: Given = (),
        demonstrations: Given = (),
        recipe: str | None = None,
        recipe_parameters: Mapping[str, float] | None = None,
        max_tokens: int | None = None,
        max_ms: float | None = None,
        etag: str = "",
        timeout_seconds: float | None = None,
    ) -> Lesson:
        """Let a session learn texts, or what follows prompts: progress as it goes, `wait()` for how it ended.

        It begins when it is first read, and has no deadline unless `timeout_seconds` says one.
        """
        given = language.material(texts, pairs, demonstrations)
        chosen = dict(recipe_parameters or {})
        request = LearnRequest(model, session_id, given, recipe, chosen, max_tokens, max_ms, etag)
        return Lesson(self._calls, request, timeout_seconds)

    def score(
        self,
        model: str,
        texts: Sequence[str],
        *,
        session_id: str | None = None,
        context: PromptLike | None = None,
        each_token: bool = False,
        timeout_seconds: float | None = None,
    ) -> ScoreReply:
        """Log-probability and perplexity of texts, each after the same context if there is one."""
        before = None if context is None else language.prompt_of(context)
        request = ScoreRequest(model, session_id, tuple(texts), before, each_token)
        return self._calls.call(language.score(request), timeout_seconds)


class AsyncTexts:
    """Of the asyncio client."""

    _calls: AsyncCalls

    def generate(
        self,
        model: str,
        prompt: PromptLike,
        *,
        session_id: str | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
        strategy: Strategy = Strategy.NONE,
        samples: int = 1,
        budget: Spending = None,
        learn: First = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGeneration:
        """The tokens of a text as they are written, by a session or by the base; see `Texts.generate`."""
        drawing = Drawing(max_tokens, temperature, top_p, tuple(stop), seed, strategy, samples)
        request = language.generate_request(model, session_id, prompt, drawing, budget, learn)
        return AsyncGeneration(self._calls, request, timeout_seconds)

    def learn(
        self,
        model: str,
        session_id: str,
        *,
        texts: Sequence[str] = (),
        pairs: Given = (),
        demonstrations: Given = (),
        recipe: str | None = None,
        recipe_parameters: Mapping[str, float] | None = None,
        max_tokens: int | None = None,
        max_ms: float | None = None,
        etag: str = "",
        timeout_seconds: float | None = None,
    ) -> AsyncLesson:
        """Let a session learn texts, or what follows prompts: progress as it goes, `wait()` for how it ended.

        It begins when it is first read, and has no deadline unless `timeout_seconds` says one.
        """
        given = language.material(texts, pairs, demonstrations)
        chosen = dict(recipe_parameters or {})
        request = LearnRequest(model, session_id, given, recipe, chosen, max_tokens, max_ms, etag)
        return AsyncLesson(self._calls, request, timeout_seconds)

    async def score(
        self,
        model: str,
        texts: Sequence[str],
        *,
        session_id: str | None = None,
        context: PromptLike | None = None,
        each_token: bool = False,
        timeout_seconds: float | None = None,
    ) -> ScoreReply:
        """Log-probability and perplexity of texts, each after the same context if there is one."""
        before = None if context is None else language.prompt_of(context)
        request = ScoreRequest(model, session_id, tuple(texts), before, each_token)
        return await self._calls.call(language.score(request), timeout_seconds)
