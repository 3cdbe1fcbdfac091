"""Keeping the books: what answers and steps mean for sessions, tallies and watchers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from acclimate.adapters.accuracy import Scores, Telemetry, difference_of_confidences, joined, observe
from acclimate.adapters.manifest import Manifest
from acclimate.adapters.outcome import Outcome
from acclimate.runtime.clock import Clock
from acclimate.runtime.comparison import Comparison
from acclimate.runtime.events import EventHub
from acclimate.runtime.exemplars import request_labels
from acclimate.runtime.generation.model import Model
from acclimate.runtime.histograms import Exemplar
from acclimate.runtime.scheduler.report import StepReport
from acclimate.runtime.scheduler.tally import Tally
from acclimate.runtime.scheduler.tickets import Answer, Ticket
from acclimate.runtime.scheduler.usage import Usage
from acclimate.runtime.sessions.census import Census
from acclimate.runtime.sessions.session import Session, SessionKey
from acclimate.runtime.sessions.table import SessionTable
from acclimate.runtime.types import Event, EventKind, ModelSnapshot

Noted = Callable[[Session, EventKind | None, bool], None]
"""Told of every session that something happened to, what it was (None: it answered), and whether its version moved."""

SNAPSHOT = "snapshot"
"""Why a session was restored, where a client asked for it."""
EVENT_OF = {"applied": EventKind.APPLIED, "skipped": EventKind.SKIPPED, "rolled_back": EventKind.ROLLED_BACK}


class Account:
    """The tallies of every model, and the telemetry of all its predictions together."""

    def __init__(
        self,
        models: Mapping[str, Model],
        hub: EventHub,
        clock: Clock,
        census: Census,
        noted: Noted = lambda *_: None,
    ) -> None:
        self.census = census
        self._noted = noted
        self._hub = hub
        self._clock = clock
        self._thresholds: dict[str, float] = {}
        self._telemetry: dict[str, Telemetry] = {}
        self.tallies: dict[str, Tally] = {}
        self.usages: dict[str, Usage] = {}
        self.adaptation_ms: defaultdict[str, float] = defaultdict(float)
        self.compared: dict[str, Comparison] = {}
        for engine in models.values():
            self.serve(engine.manifest)

    def serve(self, manifest: Manifest) -> None:
        """Keep books for a model from now on; those of its name go on, `usages` begin again."""
        self.tallies.setdefault(manifest.name, Tally())
        self._thresholds[manifest.name] = manifest.calibration.confidence_threshold
        self._telemetry[manifest.name] = Telemetry()
        self.usages[manifest.name] = Usage()
        self.compared[manifest.name] = Comparison(manifest.calibration.confidence_threshold)

    def finished(self, model: str, code: str, seconds: float, request_id: str = "") -> None:
        """Count a request, answered or refused with `code`; of models that were never served, nothing is kept."""
        tally = self.tallies.get(model)
        if tally is not None:
            tally.requests[code] += 1
            tally.request_seconds.add(seconds)
            if labels := request_labels(request_id):
                tally.request_seconds.show(Exemplar(labels, seconds, self._clock.wall()))
            (self.usages[model].success if code == "OK" else self.usages[model].fail).add(seconds)

    def answered(self, model: str, batch: Sequence[tuple[Session | None, Answer]]) -> None:
        """Count the answers of one batch of the engine, or some of them, each with whose it is."""
        now, threshold = self._clock.wall(), self._thresholds[model]
        answers = [answer for _, answer in batch]
        scores = joined([answer.scores for answer in answers])
        self.usages[model].answered(answers, now)
        self.tallies[model].answered(answers, scores)
        self._telemetry[model] = observe(self._telemetry[model], scores, threshold)
        for session, answer in batch:
            if session is not None:
                session.telemetry = observe(session.telemetry, answer.scores, threshold)
                session.account.requests += 1
                session.account.samples += len(answer.logits)
                session.last_used_at = now
                self.census.changed(session.key)
                self._noted(session, None, False)

    def used(self, session: Session, samples: int, scores: Scores | None = None) -> None:
        """Count a request of a language model's session, about so many texts; `scores` are of tokens it has written."""
        if scores is not None:
            session.telemetry = observe(session.telemetry, scores, self._thresholds[session.model])
        session.account.requests += 1
        session.account.samples += samples
        session.last_used_at = self._clock.wall()
        self._noted(session, None, False)

    def spent(self, session: Session, ms: float) -> None:
        """Count computation that has not changed the session, and was not meant to."""
        session.account.adaptation_ms += ms
        self.adaptation_ms[session.tenant] += ms
        self.tallies[session.model].adaptation_seconds += ms / 1e3
        self.census.changed(session.key)

    def stepped(self, report: StepReport) -> None:
        """Count one session's part in a step, and tell watchers."""
        session, outcome = report.session, report.outcome
        tally, own = self.tallies[session.model], session.account
        tally.steps[outcome.kind] += 1
        if session.terms is not None:
            session.terms.stepped(outcome, report.restored, report.ms)
        if outcome is Outcome.APPLIED:
            own.updates += 1
        elif outcome.kind == "skipped":
            own.skipped[outcome.reason] += 1
            tally.skipped[outcome.reason] += 1
        else:
            own.rollbacks[outcome.reason] += 1
            tally.rollbacks[outcome.reason] += 1
        if outcome is Outcome.SKIPPED_BUDGET:
            tally.budget_denied_ms += report.ms
        else:
            own.adaptation_ms += report.ms
            self.adaptation_ms[session.tenant] += report.ms
            own.backward_samples += report.selected
            tally.adaptation_seconds += report.ms / 1e3
            tally.budget_granted_ms += report.ms
            tally.backward_samples += report.selected
            tally.forward_samples += round(report.forward_rows)
        self._tell(
            session, EVENT_OF[outcome.kind], report.version_before, outcome.reason, report.ms, report.samples,
            after=report.version_before if report.restored else None,
        )  # fmt: skip
        if report.restored:
            own.restorations += 1
            tally.restorations[report.restored] += 1
            self._tell(
                session, EventKind.RESTORED, report.version_before, report.restored, restored_to=report.restored_to
            )
        if report.drift:
            tally.drifts[report.drift] += 1
            self._tell(session, EventKind.DRIFTED, session.version, report.drift, samples=report.samples)

    def gathered(self, session: Session, dropped: int) -> None:
        """Count samples that fell out of a session's buffer; let the source's model answer a session that is late."""
        tally = self.tallies[session.model]
        tally.dropped += dropped
        self.census.changed(session.key)
        if session.late and session.folded is not None:
            session.fall_behind()
            tally.fell_behind += 1
            self._tell(session, EventKind.SKIPPED, session.version - 1, "behind", samples=len(session.buffer))

    def happened(
        self,
        session: Session,
        kind: EventKind,
        version_before: int,
        samples: int = 0,
        *,
        snapshot: str = "",
        source: str = "",
    ) -> None:
        """Count and tell watchers of something a client did, `snapshot` and `source` being what with."""
        tally = self.tallies[session.model]
        tally.forked += kind is EventKind.FORKED
        tally.expired += kind is EventKind.EXPIRED
        self._tell(session, kind, version_before, samples=samples, snapshot=snapshot, source=source)

    def taken_back(self, session: Session, version_before: int, snapshot: str, restored_to: int) -> None:
        """Count and tell watchers of a session that is at one of its snapshots again."""
        session.account.restorations += 1
        self.tallies[session.model].restorations[SNAPSHOT] += 1
        self._tell(session, EventKind.RESTORED, version_before, SNAPSHOT, restored_to=restored_to, snapshot=snapshot)

    def absent(self, key: SessionKey, kind: EventKind) -> None:
        """Tell watchers of something that happened to a session that is not live."""
        tenant, model, session_id = key
        # A store may hold sessions of models that are not served here.
        if (tally := self.tallies.get(model)) is not None:
            tally.expired += kind is EventKind.EXPIRED
        self._hub.publish(Event(kind, model, session_id, self._clock.wall(), 0, 0, tenant=tenant))

    def moved(self, session: Session, move: str, kind: EventKind, version_before: int) -> None:
        """Count what the replacement of its model has made of a session, and tell watchers."""
        self.tallies[session.model].moves[move] += 1
        self._tell(session, kind, version_before)

    def shadowed(self, ticket: Ticket, answer: Answer, frozen: Scores) -> None:
        """Count an answer beside the one that the source's model gives, unless another model has come since."""
        if ticket.session is not None and ticket.session.cohort.engine is ticket.engine:
            book = self.compared[ticket.session.model]
            book.compared(ticket.session.key, ticket.request_id, answer.scores, frozen)

    def snapshot(self, engine: Model, table: SessionTable) -> ModelSnapshot:
        """One served model's figures; safe from any thread."""
        name = engine.manifest.name
        tally = self.tallies[name]
        graphs = engine.specialised
        census, telemetry = self.census.of(name), self._telemetry[name]
        cost = engine.manifest.cost
        return ModelSnapshot(
            model=name,
            version=engine.manifest.version,
            sessions=census.sessions,
            sessions_created=table.created[name],
            sessions_deleted=table.deleted[name],
            requests=dict(tally.requests),
            samples=tally.samples,
            request_seconds=tally.request_seconds.frozen(),
            queue_seconds=tally.queue_seconds.frozen(),
            predict_seconds=tally.predict_seconds.frozen(),
            batch_size=tally.batch_size.frozen(),
            steps=dict(tally.steps),
            skipped=dict(tally.skipped),
            rollbacks=dict(tally.rollbacks),
            restorations=dict(tally.restorations),
            drifts=dict(tally.drifts),
            adaptation_seconds=tally.adaptation_seconds,
            forward_samples=tally.forward_samples,
            backward_samples=tally.backward_samples,
            forward_flops=cost.forward_flops * (tally.samples + tally.forward_samples),
            backward_flops=cost.vjp_flops * tally.backward_samples,
            budget_granted_ms=tally.budget_granted_ms,
            budget_denied_ms=tally.budget_denied_ms,
            entropy=tally.entropy.frozen(),
            confidence=tally.confidence.frozen(),
            estimated_accuracy=telemetry.above,
            estimated_accuracy_doc=difference_of_confidences(telemetry, engine.manifest.calibration),
            observed=telemetry.weight,
            labelled=tally.labelled,
            labelled_correct=tally.labelled_correct,
            prequential_accuracy=tally.prequential.accuracy if tally.prequential.weight else None,
            comparison=self.compared[name].figures(),
            buffered=census.buffered,
            dropped=tally.dropped,
            fell_behind=tally.fell_behind,
            theta_distance_max=census.theta_distance_max,
            drift_max=census.drift_max,
            drift_mean=census.drift_mean,
            listed=census.listed,
            state_bytes=census.state_bytes,
            specialised=graphs.count,
            specialisations=graphs.made,
            specialisations_evicted=graphs.evicted,
            forked=tally.forked,
            expired=tally.expired,
            snapshots=census.snapshots,
            snapshot_bytes=census.snapshot_bytes,
            moves=dict(tally.moves),
        )

    def _tell(
        self,
        session: Session,
        kind: EventKind,
        before: int,
        reason: str = "",
        ms: float = 0.0,
        samples: int = 0,
        after: int | None = None,
        restored_to: int = 0,
        snapshot: str = "",
        source: str = "",
    ) -> None:
        self.census.changed(session.key)
        self._noted(session, kind, (session.version if after is None else after) != before)
        self._hub.publish(
            Event(
                kind=kind,
                model=session.model,
                session_id=session.id,
                at=self._clock.wall(),
                version_before=before,
                version_after=session.version if after is None else after,
                reason=reason,
                cost_ms=ms,
                samples=samples,
                restored_to=restored_to,
                snapshot=snapshot,
                source=source,
                tenant=session.tenant,
            )
        )
