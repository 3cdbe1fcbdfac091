"""The only place that builds the object graph, and the only one that names concrete engines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from acclimate.adapters.watch import Watch
from acclimate.runtime.account import Account
from acclimate.runtime.bundle import Bundle, BundleError, read_bundle
from acclimate.runtime.clock import Clock, SystemClock
from acclimate.runtime.config import Config
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.events import EventHub
from acclimate.runtime.generation.model import Model
from acclimate.runtime.inference import max_rows
from acclimate.runtime.parts import Parts
from acclimate.runtime.repository.adoption import Adoption
from acclimate.runtime.repository.around import Around
from acclimate.runtime.repository.control import ModelRepository
from acclimate.runtime.repository.moving import Unfit
from acclimate.runtime.repository.shelves import Shelves, highest
from acclimate.runtime.scheduler.admission import Admission
from acclimate.runtime.scheduler.around import each_of, told, unobserved
from acclimate.runtime.scheduler.learner import Learner
from acclimate.runtime.scheduler.limits import LearnerLimits
from acclimate.runtime.scheduler.predictor import Predictor
from acclimate.runtime.scheduler.shadow import Shadow
from acclimate.runtime.scheduler.shared import SharedBudgets
from acclimate.runtime.security import setup, signatures
from acclimate.runtime.security.quotas import Quotas
from acclimate.runtime.security.stats import SecurityStats
from acclimate.runtime.seeding import Seeder
from acclimate.runtime.service import Service
from acclimate.runtime.sessions.bounds import Bounds
from acclimate.runtime.sessions.census import Census
from acclimate.runtime.sessions.keeping import Keeping
from acclimate.runtime.sessions.residency import Residency, ResidencyLimits
from acclimate.runtime.sessions.store_thread import StoreThread
from acclimate.runtime.sessions.table import SessionTable
from acclimate.runtime.store import tools as store_tools
from acclimate.runtime.store.base import Store
from acclimate.runtime.store.sqlite import SqliteStore
from acclimate.runtime.tracing.base import Tracer
from acclimate.runtime.wiring_language import generating, language_models, load_language_engines
from acclimate.runtime.wiring_limits import batches_of, guards_of, limits_of, patience_of

__all__ = ["build_service", "load_engine", "load_engines", "load_language_engines", "open_store", "store_tools"]

log = structlog.stdlib.get_logger("acclimate.wiring")

# Synchronous mode has no clock for budgets: a sample counts as this much time, ten samples a second.
SAMPLE_PERIOD_SECONDS = 0.1
# How long a slice of an adaptation step waits for queued predictions before it runs all the same.
PATIENCE_SECONDS = 0.005
SLICE_ROWS = 8


def load_engine(bundle: Bundle, config: Config) -> Engine:
    """The engine that runs a bundle; imported here, so that the rest works where none is installed.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed. BundleError: it cannot load the bundle, or the bundle is
            not signed as the configuration demands. SignatureError: the trusted keys cannot be read.
    """
    _refuse_unsigned(bundle, config)
    from acclimate.runtime.engines.onnx import OnnxEngine, OnnxOptions

    settings = config.engine
    options = OnnxOptions(
        settings.provider,
        settings.intra_op_threads,
        settings.adaptation_threads,
        settings.specialised_sessions,
        settings.specialised_bytes,
        settings.precision,
    )
    return OnnxEngine(bundle, options)


def _refuse_unsigned(bundle: Bundle, config: Config) -> None:
    """Where keys are trusted, only what one of them signed is run: whatever loads a model comes through here."""
    if not config.security.trusted_keys:
        return
    keys = signatures.trusted(Path(config.security.trusted_keys))
    try:
        keys.verify(bundle.path, bundle.manifest_sha256)
    except signatures.SignatureError as error:
        raise BundleError(str(error)) from error


def load_engines(config: Config) -> dict[str, Engine]:
    """Every configured bundle and the highest version of every model in the repository, by model name.

    Raises:
        BundleError: a configured bundle cannot be served, or two have the same name; the repository cannot be read.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """
    engines: dict[str, Engine] = {}
    shelves = shelves_of(config)
    for path in config.bundles:
        bundle = read_bundle(path)
        if bundle.manifest.name in engines:
            raise BundleError(
                f"{path}: model name {bundle.manifest.name!r} is served already; give bundles unique names"
            )
        engines[bundle.manifest.name] = load_engine(bundle, config)
    for name, entry in highest(shelves.entries()).items():
        if entry.path in config.bundles:
            continue
        try:
            engines[name] = load_engine(read_bundle(entry.path), config)
        except BundleError as error:
            # One bad child of the repository does not keep the others from being served; the index says why it is not.
            log.error("bundle cannot be served", path=str(entry.path), reason=str(error))
    return engines


def open_store(config: Config) -> Store | None:
    """The configured store, or None.

    Raises:
        StoreError: it cannot be opened.
    """
    chosen = config.store
    return SqliteStore(Path(chosen.path), chosen.synchronous) if chosen.path else None


def shelves_of(config: Config) -> Shelves:
    """Where bundles may lie."""
    directory = config.repository.directory
    return Shelves(config.bundles, Path(directory) if directory else None)


def build_service(
    config: Config,
    engines: Mapping[str, Engine],
    clock: Clock | None = None,
    store: Store | None = None,
    quotas: Quotas | None = None,
    tracer: Tracer | None = None,
    languages: Mapping[str, LanguageEngine] | None = None,
) -> Service:
    """Everything behind the edges, not yet started; must be called on the running event loop."""
    synchronous, hub, clock = config.scheduler.mode == "synchronous", EventHub(), clock or SystemClock()
    models: dict[str, Model] = {**engines, **(writers := language_models(config, languages or {}))}
    quotas = quotas or setup.quotas(config, clock, SecurityStats())
    census = Census(lambda key: table.at(key), config.metrics.top_sessions)
    account = Account(models, hub, clock, census, lambda session, kind, moved: residency.noted(session, kind, moved))
    table = _table(config, models, clock, quotas)
    residency = _residency(config, table, account, clock, store)
    # The predictor and the learner call back into the service that is made of them.
    service: Service
    predictor = Predictor(
        batches_of(config),
        clock,
        Admission(patience_of(config), clock, quotas.weight),
        told(lambda batch: service.answered(batch), None if tracer is None else each_of(tracer.answered)),
        (lambda tickets: service.learn_before_reply(tickets)) if synchronous else None,
        quotas.weight,
    )
    steps, shared = _steps(config, store), None if synchronous else _shared(config, quotas, clock)
    learner = Learner(
        steps,
        clock,
        shared,
        predictor.idle,
        told(account.stepped, None if tracer is None else tracer.stepped),
        residency.may_commit,
        unobserved if tracer is None else tracer.step,
    )
    service = Service(
        Parts(
            engines=models,
            repository=ModelRepository(
                around_of(config, models, table, predictor, learner, account, residency.adoption)
            ),
            table=table,
            predictor=predictor,
            learner=learner,
            seeder=Seeder(guards_of(config), SLICE_ROWS, predictor.idle, steps.patience),
            shadow=Shadow(config.metrics.shadow_every, lambda: not len(predictor), account.shadowed),
            account=account,
            residency=residency,
            hub=hub,
            generating=generating(config, writers, residency, account, clock, shared),
            clock=clock,
            max_rows=max_rows(config.scheduler.max_batch),
            max_queue=config.scheduler.max_queue,
            max_snapshots=config.sessions.max_snapshots,
            synchronous=synchronous,
        )
    )
    return service


def _residency(config: Config, table: SessionTable, account: Account, clock: Clock, store: Store | None) -> Residency:
    synchronous = config.scheduler.mode == "synchronous"
    residency = Residency(
        table,
        account,
        ResidencyLimits(config.sessions.max_sessions, config.store.idle_seconds, config.store.parked_bytes),
        clock,
        lambda samples: samples * SAMPLE_PERIOD_SECONDS if synchronous else clock.monotonic(),
        Adoption(table.home, config.adaptation.trust_radius, Unfit(config.store.unfit_sessions)),
        None if store is None else keeping_of(config, store),
    )
    if store is not None:
        residency.begin(store)
    return residency


def _table(config: Config, engines: dict[str, Model], clock: Clock, quotas: Quotas) -> SessionTable:
    drift = Watch.of(config.drift.model_dump())
    return SessionTable(engines, guards_of(config), limits_of(config), clock, drift, quotas)


def _steps(config: Config, store: Store | None) -> LearnerLimits:
    synchronous = config.scheduler.mode == "synchronous"
    return LearnerLimits(
        max_step_rows=config.adaptation.max_step_rows,
        slice_rows=SLICE_ROWS,
        patience=0.0 if synchronous else PATIENCE_SECONDS,
        sample_period=SAMPLE_PERIOD_SECONDS if synchronous else None,
        max_commits=sys.maxsize if store is None else config.store.loss_commits,
    )


def keeping_of(config: Config, store: Store) -> Keeping:
    """The store, and the configured bounds of what may be lost."""
    chosen, synchronous = config.store, config.scheduler.mode == "synchronous"
    return Keeping(
        StoreThread(store),
        Bounds(chosen.loss_seconds, chosen.loss_commits, chosen.counter_seconds),
        "samples" if synchronous else store.owner,
        synchronous,
        chosen.take_over,
        chosen.max_sessions,
    )


def _shared(config: Config, quotas: Quotas, clock: Clock) -> SharedBudgets:
    process = (config.budget.process_refill_ms_per_s, config.budget.process_capacity_ms)
    return SharedBudgets(process, quotas, clock)


def around_of(
    config: Config,
    engines: dict[str, Model],
    table: SessionTable,
    predictor: Predictor,
    learner: Learner,
    account: Account,
    adoption: Adoption,
) -> Around:
    """What a change of models touches, and how bundles become engines."""
    return Around(
        shelves=shelves_of(config),
        read=read_bundle,
        build=lambda bundle: load_engine(bundle, config),
        engines=engines,
        table=table,
        predictor=predictor,
        learner=learner,
        account=account,
        adoption=adoption,
        trust_radius=config.adaptation.trust_radius,
    )
