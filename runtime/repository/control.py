"""Loading, replacing and unloading models while the daemon serves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from acclimate.runtime.bundle import BundleError
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.errors import AcclimateError, FailedPrecondition, NotFound, Unavailable
from acclimate.runtime.generation.model import bundled, replaceable
from acclimate.runtime.repository import moving
from acclimate.runtime.repository.around import Around
from acclimate.runtime.repository.berths import look, prepare, vacate
from acclimate.runtime.repository.moving import Move, Unfit
from acclimate.runtime.repository.shelves import Entry, highest, told
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.types import EventKind

log = structlog.stdlib.get_logger("acclimate.repository")
T = TypeVar("T")

READY, UNAVAILABLE, LOADING, UNLOADING = "READY", "UNAVAILABLE", "LOADING", "UNLOADING"
LOADED, UNCHANGED, FAILED, REFUSED, UNLOADED = "loaded", "unchanged", "failed", "refused", "unloaded"
LOAD_OUTCOMES, UNLOAD_OUTCOMES = (LOADED, UNCHANGED, FAILED, REFUSED), (UNLOADED, REFUSED)


@dataclass(frozen=True, slots=True)
class Indexed:
    """One version of one model: `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`, and why it is not served."""

    name: str
    version: str
    state: str
    reason: str = ""


class ModelRepository:
    """Changes which models are served, one change at a time.

    Whatever takes long (reading, hashing, building graphs, folding sessions) happens on a thread of its own; the change
    itself is one uninterrupted piece of the event loop: before it nothing is different, and after it everything is.
    """

    def __init__(self, around: Around) -> None:
        self._around = around
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._lock = asyncio.Lock()
        self._closed = False
        self._under_way: dict[str, str] = {}
        self._faults: dict[tuple[str, str], str] = {}
        self._listeners: list[Callable[[], None]] = []
        self.loads: Counter[str] = Counter()
        self.unloads: Counter[str] = Counter()

    def listen(self, changed: Callable[[], None]) -> None:
        """Be told after each change of the served models."""
        self._listeners.append(changed)

    def close(self) -> None:
        """Change nothing any more."""
        self._closed = True
        self._pool.shutdown(wait=False)

    async def index(self) -> list[Indexed]:
        """What there is, by name and version."""
        engines = self._around.engines
        served = {(name, engine.manifest.version) for name, engine in engines.items()}
        found = [self._indexed(entry) for entry in await self._do(self._around.shelves.entries)]
        lying = {(entry.name, entry.version) for entry in found}
        found += [Indexed(name, version, self._state(name)) for name, version in served - lying]
        return sorted(found, key=lambda entry: (entry.name, entry.version, entry.reason))

    async def load(self, name: str, version: str = "", unfit: Unfit = Unfit.REFUSE) -> None:
        """Serve a model, in place of what serves its name so far if anything does.

        Args:
            name: of the model.
            version: of the model; empty means the highest there is.
            unfit: what becomes of sessions that cannot be carried over.

        Raises:
            NotFound: there is no such model or version. FailedPrecondition: its bundle does not verify or cannot be
            run, or its sessions cannot be carried over. Unavailable: the daemon drains. What was served is served on.
        """
        async with self._lock:
            entry = await self._found(name, version)
            self._under_way[name] = LOADING
            try:
                self.loads[await self._load(entry, unfit)] += 1
            except AcclimateError as error:
                self.loads[FAILED if error.reason == "BUNDLE_INVALID" else REFUSED] += 1
                log.warning("model not loaded", model=name, version=entry.version, reason=error.message)
                raise
            finally:
                del self._under_way[name]

    async def unload(self, name: str, unfit: Unfit = Unfit.REFUSE) -> None:
        """Serve a model no more; what waits in the queue is answered. Nothing happens if it is not served.

        Raises:
            NotFound: there is no such model. FailedPrecondition: it has sessions, and they may not be dropped.
            Unavailable: the daemon drains.
        """
        async with self._lock:
            if (engine := replaceable(name, self._around.engines.get(name))) is None:
                await self._found(name, "")
                return
            self._refuse_closed()
            sessions = self._sessions(name)
            if sessions and unfit is not Unfit.DROP:
                self.unloads[REFUSED] += 1
                raise FailedPrecondition(
                    "SESSIONS_OPEN",
                    f"model {name!r} has {len(sessions)} sessions; delete them, or drop them with the parameter "
                    "acclimate_sessions=drop",
                    model=name,
                    sessions=len(sessions),
                )
            self._drop(sessions)
            del self._around.engines[name]
            self._around.learner.forget(name)
            self.unloads[UNLOADED] += 1
            log.info("model unloaded", model=name, version=engine.manifest.version, dropped=len(sessions))
            self._tell()
            await self._do(engine.close)

    async def reload(self) -> None:
        """Serve what a start would serve: read everything again, replace what has changed, add, take away.

        What cannot be changed stays as it is and is logged; nothing is taken away while a bundle cannot be read.
        """
        try:
            entries = await self._do(self._around.shelves.entries)
        except BundleError as error:
            log.error("nothing reloaded", reason=str(error))
            return
        wanted, broken = highest(entries), [entry for entry in entries if entry.fault]
        for entry in broken:
            log.error("bundle cannot be served", path=str(entry.path), reason=entry.fault)
        for name in wanted:
            await self._try(self.load(name))
        for name in sorted(bundled(self._around.engines) - set(wanted)):
            if broken:
                log.warning("model kept, for bundles cannot be read", model=name)
            else:
                await self._try(self.unload(name))

    async def _load(self, entry: Entry, unfit: Unfit) -> str:
        name, old = entry.name, replaceable(entry.name, self._around.engines.get(entry.name))
        new = await self._opened(entry, old)
        if new is None:
            return UNCHANGED
        try:
            moves = await self._swap(old, new, unfit)
        except AcclimateError:
            new.close()
            raise
        log.info("model loaded", model=name, version=new.manifest.version, path=str(entry.path), **moves)
        self._tell()
        if old is not None:
            await self._do(old.close)
        return LOADED

    async def _opened(self, entry: Entry, old: Engine | None) -> Engine | None:
        """The engine of a bundle, or None if the very same is served; its files have been verified either way."""

        def open_bundle() -> Engine | None:
            bundle = self._around.read(entry.path)
            if bundle.manifest.name != entry.name:
                raise BundleError(f"{entry.path}: holds model {bundle.manifest.name!r} now; load that")
            if old is not None and bundle.manifest == old.manifest:
                return None
            return self._around.build(bundle)

        try:
            engine = await self._do(open_bundle)
        except BundleError as error:
            self._faults[entry.name, entry.version] = text = told(error, entry.path)
            log.error("bundle cannot be served", path=str(entry.path), reason=str(error))
            raise FailedPrecondition(
                "BUNDLE_INVALID", f"model {entry.name!r}: {text}", model=entry.name, version=entry.version
            ) from error
        self._faults.pop((entry.name, entry.version), None)
        return engine

    async def _swap(self, old: Engine | None, new: Engine, unfit: Unfit) -> dict[str, int]:
        around, name = self._around, new.manifest.name
        if old is None:
            self._refuse_closed()
            around.account.serve(new.manifest)
            around.engines[name] = new
            return {}
        change = moving.Change(old.manifest, new.manifest)
        seen = look(self._sessions(name))
        cohorts = await self._do(lambda: around.table.rebuilt(name, new))
        ready = await self._do(lambda: prepare(seen, cohorts, not change.misfit, change.whole))
        # From here on nothing awaits: no request, step or client comes in between.
        self._refuse_closed()
        cohorts = around.table.rebuilt(name, new, cohorts)
        plan = moving.plan(self._sessions(name), change, cohorts, ready, around.trust_radius, unfit)
        around.account.serve(new.manifest)
        before = {session: session.version for session in (*plan.carried, *plan.reset)}
        moving.carry(plan, change)
        moving.reset(plan)
        for session in before:
            around.table.resized(session)
        for session in plan.carried:
            around.account.moved(session, Move.CARRIED, EventKind.MOVED, before[session])
        for session in plan.reset:
            around.account.moved(session, Move.RESET, EventKind.RESET, before[session])
        self._drop(plan.dropped)
        vacate(plan.spare)
        around.table.rehoused(cohorts)
        around.engines[name] = new
        around.adoption.decided(old.manifest, new.manifest, unfit)
        around.predictor.replaced(old, new)
        around.learner.forget(name)
        return {"carried": len(plan.carried), "reset": len(plan.reset), "dropped": len(plan.dropped)}

    async def _found(self, name: str, version: str) -> Entry:
        """The sound entry of a model and version, the highest if none is named."""
        entries = [entry for entry in await self._do(self._around.shelves.entries) if entry.name == name]
        if version:
            entries = [entry for entry in entries if entry.version == version]
        sound = highest(entries).get(name)
        if sound is not None:
            return sound
        if entries:
            self.loads[FAILED] += 1
            raise FailedPrecondition("BUNDLE_INVALID", f"model {name!r}: {entries[0].fault}", model=name)
        raise NotFound(
            "MODEL_NOT_FOUND",
            f"model {name[:140]!r}{f' of version {version[:64]!r}' if version else ''} is in none of the configured "
            "directories; RepositoryIndex lists what there is",
            model=name[:140],
        )

    def _indexed(self, entry: Entry) -> Indexed:
        engine = self._around.engines.get(entry.name)
        if engine is None or engine.manifest.version != entry.version or entry.fault:
            reason = entry.fault or self._faults.get((entry.name, entry.version), "not loaded")
            return Indexed(entry.name, entry.version, UNAVAILABLE, reason)
        reason = "" if engine.manifest == entry.manifest else "its bundle has changed; load it to serve that"
        return Indexed(entry.name, entry.version, self._state(entry.name), reason)

    def _state(self, name: str) -> str:
        return self._under_way.get(name, READY)

    def _sessions(self, name: str) -> list[Session]:
        return [session for session in self._around.table if session.model == name]

    def _drop(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            self._around.table.close(session)
            self._around.account.moved(session, Move.DROPPED, EventKind.DELETED, session.version)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable("DRAINING", "the daemon is draining; models are changed no more")

    def _tell(self) -> None:
        for changed in self._listeners:
            changed()

    async def _try(self, change: Coroutine[Any, Any, None]) -> None:
        """A refusal has been logged or is told here; it must not keep the other models from being reloaded."""
        try:
            await change
        except AcclimateError as error:
            log.warning("reload", reason=error.message)

    async def _do(self, work: Callable[[], T]) -> T:
        self._refuse_closed()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
