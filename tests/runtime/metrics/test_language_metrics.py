"""Metrics of language models: what is exported is what happened."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from acclimate.runtime.client import Client
from acclimate.runtime.metrics.language import LanguageCollector, markdown
from tests.runtime.generation.test_learn import FAST, TEXTS
from tests.runtime.generation.writers import MODEL, PROMPT, writing
from tests.runtime.rpc.loopback import Loopback

ROOT = Path(__file__).resolve().parents[3]


def scraped(running: Loopback) -> dict[tuple[str, tuple[str, ...]], float]:
    registry = CollectorRegistry()
    registry.register(LanguageCollector(running.service.generating.snapshot))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {
        (s.name, (s.labels["model"], *(value for label, value in s.labels.items() if label != "model"))): s.value
        for s in samples
    }


def test_what_happened_is_exported() -> None:
    with writing() as running, Client(running.target) as client:
        before = scraped(running)
        assert before["acclimate_texts_total", (MODEL, "length")] == 0
        assert before["acclimate_lessons_total", (MODEL, "committed")] == 0
        assert before["acclimate_generation_slots", (MODEL,)] == 8
        for seed in range(3):
            client.generate(MODEL, PROMPT, max_tokens=5, seed=seed).read()
        with client.create_session(MODEL, "s", recipe_parameters=FAST) as session:
            outcome = session.learn(texts=TEXTS).wait()
            session.score(["a text"])
        after = scraped(running)
        expected = {
            ("acclimate_texts_total", (MODEL, "length")): 3,
            ("acclimate_prompt_tokens_total", (MODEL,)): 3 * len(PROMPT),
            ("acclimate_generated_tokens_total", (MODEL,)): 15,
            ("acclimate_scored_tokens_total", (MODEL,)): 5,
            ("acclimate_learned_tokens_total", (MODEL,)): outcome.tokens,
            ("acclimate_first_token_seconds_count", (MODEL,)): 3,
            ("acclimate_between_tokens_seconds_count", (MODEL,)): 12,
            ("acclimate_lessons_total", (MODEL, "committed")): 1,
            ("acclimate_lesson_duration_seconds_count", (MODEL,)): 1,
            ("acclimate_lessons_under_way", (MODEL,)): 0,
            ("acclimate_texts_waiting", (MODEL,)): 0,
        }
        assert {key: after[key] for key in expected} == expected
        assert after["acclimate_first_token_seconds_sum", (MODEL,)] > 0
        assert after["acclimate_lesson_duration_seconds_sum", (MODEL,)] > 0


def test_the_page_has_the_table() -> None:
    assert markdown() in (ROOT / "docs" / "language-models.md").read_text(encoding="utf-8")
