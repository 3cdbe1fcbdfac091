"""Sessions of a language model are sessions of the same table as all others."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.runtime.client import Budget, Client, ClientError, EventKind, Seed
from tests.runtime.generation.writers import MODEL, PROMPT, engine, moved, writing
from tests.runtime.rpc.loopback import MODEL as NUMERIC
from tests.runtime.rpc.loopback import Loopback

DRAWN = {"max_tokens": 60, "temperature": 1.0, "seed": 5}


def seed(scale: float = 0.05) -> Seed:
    """Something learnt elsewhere."""
    source = engine().source
    row = source.theta + scale * np.random.default_rng(3).normal(size=source.theta.shape).astype(np.float32)
    return Seed({entry.name: row[entry.span].reshape(entry.shape) for entry in source.parameters.slices})


def test_a_session_lives_as_others_do(client: Client) -> None:
    with client.watch(MODEL) as events:
        session = client.create_session(MODEL, "life", seed=seed())
        view = session.get()
        assert (view.recipe, view.state, view.version) == ("tlm", "adapted", 1)
        assert view.recipe_parameters["lr"] == 1e-3
        assert view.budget == Budget(1000.0, 60_000.0)
        written = session.generate(PROMPT, **DRAWN).read()
        assert written != client.generate(MODEL, PROMPT, **DRAWN).read()
        twin = session.fork("twin")
        kept = session.snapshot("kept")
        assert kept.version == 1
        session.reset()
        assert session.generate(PROMPT, **DRAWN).read() == client.generate(MODEL, PROMPT, **DRAWN).read()
        session.restore("kept")
        text = session.generate(PROMPT, **DRAWN)
        assert (text.read(), text.version) == (written, 3)
        assert twin.generate(PROMPT, **DRAWN).read() == written
        exported = session.export()
        assert [tensor.name for tensor in exported.parameters] == [e.name for e in engine().manifest.parameters.slices]
        assert exported.lora == engine().manifest.lora
        session.pause()
        assert session.update(ttl_seconds=60.0).ttl_seconds == 60
        assert {v.session_id for v in client.list_sessions(MODEL)} >= {"life", "twin"}
        session.delete()
        twin.delete()
        heard = [next(events).kind for _ in range(6)]
    assert heard == [
        EventKind.CREATED, EventKind.SEEDED, EventKind.CREATED, EventKind.FORKED, EventKind.SNAPSHOT_TAKEN,
        EventKind.RESET,
    ]  # fmt: skip


def test_what_a_session_writes_is_counted_and_told_of(client: Client) -> None:
    with client.create_session(MODEL, "counted") as session:
        session.generate(PROMPT, max_tokens=10).read()
        session.score(["a text", "another"])
        view = session.get()
        assert (view.requests, view.samples) == (2, 3)
        assert view.mean_entropy > 0
        assert 0 < view.mean_confidence < 1


@pytest.mark.parametrize(("model", "recipe"), [(MODEL, "tent"), (MODEL, "auto"), (NUMERIC, "tlm"), (NUMERIC, "ttt")])
def test_each_kind_of_model_has_recipes_of_its_own(client: Client, model: str, recipe: str) -> None:
    with pytest.raises(ClientError) as caught:
        client.create_session(model, recipe=recipe)
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "RECIPE_INVALID")
    with pytest.raises(ClientError, match="RECIPE_INVALID"):
        client.create_session(MODEL, recipe="tlm", recipe_parameters={"lr": 7.0})


@pytest.mark.parametrize(
    ("guard", "limits"), [("trust_region", {}), ("canary", {"trust_radius": 100.0, "canary_tolerance": 0.01})]
)
def test_a_seed_that_a_guard_refuses_opens_no_session(guard: str, limits: dict[str, float]) -> None:
    with writing(generation=limits) as running, Client(running.target) as client:
        with pytest.raises(ClientError) as caught:
            client.create_session(MODEL, "refused", seed=seed(0.5))
        assert (caught.value.reason, caught.value.metadata["guard"]) == ("SEED_REFUSED", guard)
        with pytest.raises(ClientError, match="SESSION_NOT_FOUND"):
            client.get_session(MODEL, "refused")


def test_sessions_write_with_their_own_parameters_in_one_batch(running: Loopback, client: Client) -> None:
    from acclimate.runtime.engines.language import Sampling
    from tests.runtime.generation.writers import alone

    rows = {f"mixed-{n}": moved(engine(), n, 0.05) for n in range(4)}
    for name, row in rows.items():
        parts = {entry.name: row[entry.span].reshape(entry.shape) for entry in engine().source.parameters.slices}
        client.create_session(MODEL, name, seed=Seed(parts))
    texts = {name: client.generate(MODEL, PROMPT, session_id=name, **DRAWN) for name in rows}
    for text in texts.values():
        next(text)
    for name, row in rows.items():
        expected = "".join(token.text for token in alone(engine(), Sampling(60, 1.0, seed=5), row))
        texts[name].read()
        assert texts[name].text == expected
    assert len({text.text for text in texts.values()}) > 1


def test_models_that_write_are_neither_loaded_nor_unloaded(running: Loopback) -> None:
    from acclimate.runtime.errors import FailedPrecondition

    with pytest.raises(FailedPrecondition, match="served until the daemon ends"):
        running.run(running.service.repository.unload(MODEL))
    running.run(running.service.repository.reload())
    assert MODEL in [manifest.name for manifest in running.service.models()]
