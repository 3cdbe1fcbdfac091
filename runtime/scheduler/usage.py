"""What one version of a model has done, in the terms of Triton's statistics extension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from acclimate.runtime.scheduler.tickets import Answer


@dataclass(slots=True)
class Spent:
    """How often something was done, and how many seconds it took altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """It was done once more, or so many times, and took so long each time."""
        self.count += times
        self.seconds += seconds * times


@dataclass(slots=True)
class Phases:
    """Where batches spend their time: being put together, in the engine, having their answers corrected and scored."""

    gather: Spent = field(default_factory=Spent)
    compute: Spent = field(default_factory=Spent)
    score: Spent = field(default_factory=Spent)

    def add(self, answer: Answer, times: int = 1) -> None:
        """Count an answer's batch, once or for so many of its answers."""
        self.gather.add(answer.gathered, times)
        self.compute.add(answer.computed, times)
        self.score.add(answer.scored, times)


@dataclass(slots=True)
class Usage:
    """Counts since this version was loaded.

    Attributes:
        last_answer: when a request was last answered, Unix seconds; 0 if none was.
        samples, executions: samples answered, and batches computed for them.
        success, fail, queue: requests that were answered, that were not, and their wait for the engine.
        requests: the phases of each request's batch; batches: those of each batch, by its size in samples.
    """

    last_answer: float = 0.0
    samples: int = 0
    executions: int = 0
    success: Spent = field(default_factory=Spent)
    fail: Spent = field(default_factory=Spent)
    queue: Spent = field(default_factory=Spent)
    requests: Phases = field(default_factory=Phases)
    batches: dict[int, Phases] = field(default_factory=dict)

    def answered(self, answers: Sequence[Answer], now: float) -> None:
        """Count answers of one batch; `now` in Unix seconds."""
        first = answers[0]
        self.last_answer = now
        self.samples += sum([len(answer.logits) for answer in answers])
        for answer in answers:
            self.queue.add(answer.queued)
        self.requests.add(first, len(answers))
        if any(answer.leads for answer in answers):
            self.executions += 1
            self.batches.setdefault(first.batch_rows, Phases()).add(first)
