"""What a session has learnt outlives both its model's replacement and the daemon."""

from __future__ import annotations

from pathlib import Path

from acclimate.runtime.config import Config
from acclimate.runtime.service import Service
from acclimate.runtime.store.sqlite import SqliteStore
from acclimate.runtime.wiring import build_service, load_engines
from tests.looped import looped
from tests.runtime.digits import picture
from tests.runtime.serving import PLENTY_FOR_ALL, opened, request
from tests.runtime.shelves import MODEL, placed, retrained

ROWS = 16


def started(settings: Config, database: Path) -> Service:
    service = build_service(settings, load_engines(settings), store=SqliteStore(database))
    service.start()
    return service


@looped
async def test_a_carried_session_is_stored_as_its_new_model_has_it(bundle_path: Path, tmp_path: Path) -> None:
    placed(bundle_path, tmp_path / "models" / "one", "1")
    settings = Config(
        repository={"directory": str(tmp_path / "models")},
        scheduler={"mode": "synchronous"},
        budget=PLENTY_FOR_ALL,
        adaptation={"canary_every": 0},
    )
    service = started(settings, tmp_path / "sessions.db")
    await opened(service, "a", "tent", MODEL, batch_rows=ROWS)
    for turn in range(3):
        await service.infer(request(picture(turn, ROWS, "contrast"), "a", model=MODEL))
    retrained(bundle_path, tmp_path / "models" / "two", "2")
    await service.repository.load(MODEL)
    before, learnt = await service.get_session(MODEL, "a"), await service.export_session(MODEL, "a")
    assert (before.state, before.updates, learnt.model_version) == ("adapted", 3, "2")
    await service.drain(10.0)
    service = started(settings, tmp_path / "sessions.db")
    after, kept = await service.get_session(MODEL, "a"), await service.export_session(MODEL, "a")
    assert (after.state, after.version, after.updates) == (before.state, before.version, before.updates)
    assert [entry.values.tobytes() for entry in kept.parameters] == [e.values.tobytes() for e in learnt.parameters]
    await service.drain(10.0)
