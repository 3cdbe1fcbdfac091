"""Metrics of language models: one table, each row reads its own figure, each has the label `model`.

The table in `docs/language-models.md` is generated: `python -m acclimate.runtime.metrics.language`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from acclimate.runtime.errors import Code
from acclimate.runtime.generation.types import LanguageSnapshot, LearnVerdict
from acclimate.runtime.metrics.catalogue.rows import RowOfModels, line
from acclimate.runtime.metrics.collector import model_family

ENDS = ("eos", "stop", "length", "context", "budget", "cancelled", Code.UNAVAILABLE.value)
LESSONS = (*(verdict.value for verdict in LearnVerdict), "cancelled")


LanguageMetric = RowOfModels[LanguageSnapshot]

ROWS = (
    LanguageMetric("texts_total", "counter", "Generated texts by how they ended.", lambda m: m.texts, "end", ENDS),
    LanguageMetric("prompt_tokens_total", "counter", "Tokens of prompts.", lambda m: m.prompt_tokens),
    LanguageMetric("generated_tokens_total", "counter", "Tokens generated.", lambda m: m.generated_tokens),
    LanguageMetric("scored_tokens_total", "counter", "Tokens scored for clients.", lambda m: m.scored_tokens),
    LanguageMetric("learned_tokens_total", "counter", "Tokens computed in lessons, their checks and repetitions among "
                   "them.", lambda m: m.learned_tokens),
    LanguageMetric("first_token_seconds", "histogram", "From arrival of a request to its first token, without the "
                   "lesson before it.",
                   lambda m: m.first_token_seconds),
    LanguageMetric("between_tokens_seconds", "histogram", "From one token of a text to its next.",
                   lambda m: m.between_tokens_seconds),
    LanguageMetric("lessons_total", "counter", "Lessons by what became of them.", lambda m: m.lessons, "verdict",
                   LESSONS),
    LanguageMetric("lesson_duration_seconds", "histogram", "Computation that a lesson was charged.",
                   lambda m: m.lesson_seconds),
    LanguageMetric("generation_slots", "gauge", "Texts that can be generated together.", lambda m: m.slots),
    LanguageMetric("generation_slots_in_use", "gauge", "Texts being generated.", lambda m: m.slots_in_use),
    LanguageMetric("texts_waiting", "gauge", "Texts that wait for a slot.", lambda m: m.texts_waiting),
    LanguageMetric("lessons_waiting", "gauge", "Lessons that wait.", lambda m: m.lessons_waiting),
    LanguageMetric("lessons_under_way", "gauge", "Sessions that learn now.", lambda m: m.learning),
)  # fmt: skip
"""All, in the order of the table and of a scrape."""


class LanguageCollector(Collector):
    """Turns snapshots into metric families; any thread may scrape."""

    def __init__(self, snapshot: Callable[[], tuple[LanguageSnapshot, ...]]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every family of the table, in its order; none where no language model is served."""
        models = self._snapshot()
        if models:
            yield from (model_family(row, models) for row in ROWS)


def markdown() -> str:
    """The table."""
    return "\n".join(("| metric | type | labels | meaning |", "|---|---|---|---|", *map(line, ROWS)))


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
