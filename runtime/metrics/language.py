"""Metrics of language models: one table, each row reads its own figure, each has the label `model`.

The table in `docs/language-models.md` is generated: `python -m acclimate.runtime.metrics.language`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from acclimate.runtime.errors import Code
from acclimate.runtime.generation.types import LanguageSnapshot, LearnVerdict
from acclimate.runtime.types import Histogram

PREFIX = "acclimate_"
ENDS = ("eos", "stop", "length", "context", "cancelled", Code.UNAVAILABLE.value)
LESSONS = (*(verdict.value for verdict in LearnVerdict), "cancelled")


@dataclass(frozen=True, slots=True)
class LanguageMetric:
    """A metric with the label `model`, and `label` besides if it has one, whose `values` are exported from the start.

    `read` takes it from a model's snapshot: a number, a histogram, or with a label numbers by its value.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    read: Callable[[LanguageSnapshot], float | Histogram | Mapping[str, float]]
    label: str = ""
    values: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels."""
        return ("model", self.label) if self.label else ("model",)


ROWS = (
    LanguageMetric("texts_total", "counter", "Generated texts by how they ended.", lambda m: m.texts, "end", ENDS),
    LanguageMetric("prompt_tokens_total", "counter", "Tokens of prompts.", lambda m: m.prompt_tokens),
    LanguageMetric("generated_tokens_total", "counter", "Tokens generated.", lambda m: m.generated_tokens),
    LanguageMetric("scored_tokens_total", "counter", "Tokens scored for clients.", lambda m: m.scored_tokens),
    LanguageMetric("learned_tokens_total", "counter", "Tokens computed in lessons, their checks and repetitions among "
                   "them.", lambda m: m.learned_tokens),
    LanguageMetric("first_token_seconds", "histogram", "From arrival of a request to its first token.",
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
            yield from (_family(row, models) for row in ROWS)


def markdown() -> str:
    """The table."""
    rows = [
        f"| `{PREFIX}{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.help} |"
        for row in ROWS
    ]
    return "\n".join(("| metric | type | labels | meaning |", "|---|---|---|---|", *rows))


def _family(row: LanguageMetric, models: tuple[LanguageSnapshot, ...]) -> Metric:
    name = PREFIX + row.name
    if row.kind == "histogram":
        histograms = HistogramMetricFamily(name, row.help, labels=row.labels)
        for model in models:
            value = row.read(model)
            if isinstance(value, Histogram):
                histograms.add_metric((model.model,), *_buckets(value))
        return histograms
    kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = kind(name, row.help, labels=row.labels)
    for model in models:
        value = row.read(model)
        if isinstance(value, Mapping):
            for key, number in (dict.fromkeys(row.values, 0.0) | dict(value)).items():
                family.add_metric((model.model, key), float(number))
        elif not isinstance(value, Histogram):
            family.add_metric((model.model,), float(value))
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound, `+Inf` last, and the sum of all values."""
    bounds = [repr(float(bound)) for bound in histogram.bounds] + ["+Inf"]
    counts = [float(sum(histogram.counts[: place + 1])) for place in range(len(bounds))]
    return list(zip(bounds, counts, strict=True)), histogram.total


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
