"""What became of an adaptation step, for each session in it."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """How one session's step ended; `sentence` says it to a person, `kind` and `reason` to a dashboard."""

    APPLIED = 0
    SKIPPED_NOT_SELECTED = 1
    SKIPPED_BUDGET = 2
    SKIPPED_STALE = 3
    ROLLED_BACK_NONFINITE = 4
    ROLLED_BACK_TRUST_REGION = 5
    ROLLED_BACK_COLLAPSE = 6
    ROLLED_BACK_CANARY = 7
    SKIPPED_ENGINE_ERROR = 8
    SKIPPED_DEADLINE = 9
    SKIPPED_RESTING = 10
    SKIPPED_STORE = 11
    ROLLED_BACK_NOT_BETTER = 12

    @property
    def kind(self) -> str:
        """`applied`, `skipped` or `rolled_back`."""
        return self.name.split("_")[0].lower() if not self.name.startswith("ROLLED") else "rolled_back"

    @property
    def reason(self) -> str:
        """A stable word for labels and events, empty for an applied step."""
        return (
            "" if self is Outcome.APPLIED else self.name.removeprefix("ROLLED_BACK_").removeprefix("SKIPPED_").lower()
        )

    @property
    def sentence(self) -> str:
        """One plain sentence, with advice where there is some."""
        return SENTENCES[self]


SENTENCES: dict[Outcome, str] = {
    Outcome.APPLIED: "The update passed every guard and was committed.",
    Outcome.SKIPPED_NOT_SELECTED: "No sample was worth a gradient; only the normalisation statistics moved.",
    Outcome.SKIPPED_BUDGET: "The adaptation budget is spent; raise refill_ms_per_s or wait for it to refill.",
    Outcome.SKIPPED_STALE: "The session was reset or closed while its step was computed; the result was dropped.",
    Outcome.ROLLED_BACK_NONFINITE: "The update held a NaN or infinity; lower the learning rate if this recurs.",
    Outcome.ROLLED_BACK_TRUST_REGION: "The parameters would have left the trust region around the source.",
    Outcome.ROLLED_BACK_COLLAPSE: "The adapted predictions fell onto far fewer classes than the frozen model's.",
    Outcome.ROLLED_BACK_CANARY: "The adapted parameters answered the source's canary samples worse than tolerated.",
    Outcome.SKIPPED_DEADLINE: "The request's deadline left no time for its step; the first answer was kept.",
    Outcome.SKIPPED_RESTING: "The stream is as it was; the next step is taken when it has shown more, or changes.",
    Outcome.SKIPPED_STORE: "The store cannot be written, so nothing was committed that a crash would lose.",
    Outcome.ROLLED_BACK_NOT_BETTER: "What was held out became no more likely; show the session more, or other texts.",
    Outcome.SKIPPED_ENGINE_ERROR: "The engine could not compute the step; nothing changed, and the log says why.",
}
