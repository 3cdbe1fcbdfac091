"""Running a recipe over a stream of images on an engine, step after step, and counting wrong answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.bank import SessionBank
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.layout import Float
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.randomness import keys, uniform
from acclimate.adapters.recipes import Recipe, template
from acclimate.adapters.step import Batch, StepResult, adaptation_step
from acclimate.runtime.engines.base import Engine, Folded
from acclimate.runtime.scheduler.drive import Slicing, run_step
from benchmarks._image_streams import Images, batches

WHOLE = Slicing(rows=64, pause=lambda: None)
EVALUATION_ROWS = 100
# Images that share one step, at most; memory grows with it.
STEP_ROWS = 128


@dataclass(frozen=True, slots=True)
class Protocol:
    """How the stream is played.

    Attributes:
        batch: images per request of a session.
        answer_with_batch: answer with the step's own first pass instead of what the session serves.
        reset: back to the source at the start of each shift.
        feedback: share of the images whose true class arrives in time for the step that learns from them.
        sessions: how many share the stream, each a run of it and all of them at once; 0 for one per shift.
    """

    batch: int
    answer_with_batch: bool
    reset: bool
    sessions: int
    feedback: float = 0.0


class Adapting:
    """Sessions of one recipe on one engine, and the account of what they did."""

    def __init__(self, engine: Engine, recipe: Recipe, protocol: Protocol) -> None:
        self.engine = engine
        self.recipe = recipe
        self.protocol = protocol
        self.bank = SessionBank(template(recipe, engine.source))
        self.rows = [self.bank.allocate()]
        self.forward_rows = self.backward_rows = self.quantized_rows = self.selected = 0
        self.steps = self.rollbacks = self.restorations = 0

    def run(self, stream: Images) -> NDArray[np.bool_]:
        """Play the stream; whether each answer `[N]` was wrong."""
        wrong = np.zeros(len(stream.y), np.bool_)
        if self.protocol.sessions == 0:
            return self.play(stream, [np.flatnonzero(stream.shift == number) for number in range(len(stream.names))])
        if self.protocol.sessions > 1:
            return self.play(stream, np.array_split(np.arange(len(stream.y)), self.protocol.sessions))
        blocks = [np.arange(len(stream.y))]
        if self.protocol.reset:
            blocks = [np.flatnonzero(stream.shift == number) for number in range(len(stream.names))]
        for block in blocks:
            if self.protocol.reset:
                self.bank.reset(self.rows[0])
            self._play(stream, [block], wrong)
        return wrong

    def play(self, stream: Images, lanes: list[NDArray[np.intp]]) -> NDArray[np.bool_]:
        """One session for each of these runs of positions, all at once; whether each answer `[N]` was wrong."""
        wrong = np.zeros(len(stream.y), np.bool_)
        self.rows += [self.bank.allocate() for _ in lanes[len(self.rows) :]]
        self._play(stream, lanes, wrong)
        return wrong

    def clean_error(self, x: NDArray[np.uint8], y: NDArray[np.int64]) -> float:
        """Error in percent on clean images, answered with what the first session serves; it learns nothing."""
        folded = self.engine.fold(self.bank.view(THETA, self.rows[0]), self.bank.view(STATS, self.rows[0]))
        return 100 * float(np.mean(_labels(lambda part: self.engine.predict(x[part], folded), len(y)) != y))

    def _play(self, stream: Images, lanes: list[NDArray[np.intp]], wrong: NDArray[np.bool_]) -> None:
        """Requests of `batch` images, one per lane and turn; a step whenever `batch_rows` have gathered."""
        waiting: list[NDArray[np.intp]] = [np.empty(0, np.intp) for _ in lanes]
        rows = self.recipe.batch_rows
        answers = np.zeros((len(stream.y), len(self.engine.manifest.classes)), np.float32)
        folded = [self._folded(row) for row in self.rows[: len(lanes)]]
        for turn in batches(max(len(lane) for lane in lanes), self.protocol.batch):
            for lane, index in enumerate(lanes):
                request = index[turn]
                if not self.protocol.answer_with_batch or rows == 0:
                    answers[request] = self.engine.predict(stream.x[request], folded[lane])
                    wrong[request] = answers[request].argmax(axis=1) != stream.y[request]
                waiting[lane] = np.concatenate([waiting[lane], request])
            last = turn.stop >= max(len(lane) for lane in lanes)
            while rows and (due := self._due(waiting, last)):
                batch = [waiting[lane][:rows] for lane in due]
                for lane in due:
                    waiting[lane] = waiting[lane][rows:]
                known = None if self.protocol.answer_with_batch else answers[np.concatenate(batch)]
                result = self._step([self.rows[lane] for lane in due], stream, batch, known)
                if self.protocol.answer_with_batch:
                    taken = np.concatenate(batch)
                    wrong[taken] = result.logits.argmax(axis=1) != stream.y[taken]
                for lane, outcome in zip(due, result.outcome, strict=True):
                    if outcome != Outcome.SKIPPED_RESTING:
                        folded[lane] = self._folded(self.rows[lane])

    def _due(self, waiting: list[NDArray[np.intp]], last: bool) -> list[int]:
        """Lanes with enough images, or, where a batch is answered by its step, with any at the stream's end."""
        least = 1 if last and self.protocol.answer_with_batch else self.recipe.batch_rows
        due = [lane for lane, gathered in enumerate(waiting) if len(gathered) >= least]
        return due[: max(1, STEP_ROWS // self.recipe.batch_rows)]

    def _step(
        self, rows: list[int], stream: Images, batch: list[NDArray[np.intp]], answers: Float | None
    ) -> StepResult:
        group = np.repeat(np.arange(len(rows)), [len(part) for part in batch])
        inputs = stream.x[np.concatenate(batch)]
        labels = self._feedback(stream, np.concatenate(batch))
        asked = Batch(inputs, group, labels, answers, answering=answers is None)
        step = adaptation_step(self.recipe, self.engine.source, self.bank.gather(rows), asked)
        result = run_step(step, self.engine, WHOLE)
        self.bank.scatter(rows, result.state)
        for row, restore in zip(rows, result.restore, strict=True):
            if restore:
                self.bank.reset(row)
        self.steps += int((result.outcome != Outcome.SKIPPED_RESTING).sum())
        self.restorations += int(result.restore.sum())
        self.rollbacks += sum(Outcome(int(one)).kind == "rolled_back" for one in result.outcome)
        self.forward_rows += result.asked.forward
        self.backward_rows += result.asked.backward
        self.quantized_rows += result.asked.quantized
        self.selected += int(result.selected.sum())
        return result

    def _feedback(self, stream: Images, taken: NDArray[np.intp]) -> NDArray[np.int64] | None:
        """True classes of the images that feedback names, -1 of the others; the same images on every run."""
        if not self.protocol.feedback:
            return None
        drawn = uniform(keys(0, taken), 1)[:, 0]
        return np.where(drawn < self.protocol.feedback, stream.y[taken], -1).astype(np.int64)

    def _folded(self, row: int) -> Folded:
        return self.engine.fold(self.bank.view(THETA, row), self.bank.view(STATS, row))


def frozen_errors(engine: Engine, stream: Images) -> NDArray[np.bool_]:
    """Whether the frozen model's answer `[N]` was wrong."""
    return np.asarray(_labels(lambda part: engine.frozen(stream.x[part]), len(stream.y)) != stream.y)


def _labels(answer: Callable[[slice], Float], count: int) -> NDArray[np.intp]:
    return np.concatenate([answer(part).argmax(axis=1) for part in batches(count, EVALUATION_ROWS)])
