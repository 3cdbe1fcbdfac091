"""Sessions that begin with what was learnt elsewhere: what they answer, what is refused, and that a refusal is all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.layout import Layout
from acclimate.adapters.manifest import Lora, Manifest
from acclimate.adapters.moves import remembering, teacher
from acclimate.runtime.client import AsyncClient, Client, ClientError, Seed, read_seed
from acclimate.runtime.engines.reference import ReferenceEngine, reference_engine
from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.rpc import convert_seed
from acclimate.runtime.seeding import seeded_rows
from acclimate.runtime.service import Service
from acclimate.runtime.types import CreateSession, Event, EventKind
from tests.runtime.rpc.loopback import MODEL as TOY
from tests.runtime.rpc.loopback import Loopback, engine, samples
from tests.runtime.rpc.loopback import serving as loopback_serving
from tests.runtime.serving import MODEL, config, drifted, predict, serving, session_of, whole
from tests.runtime.test_cli import failure, run

GOOD = drifted(3, 5)


def nudged(by: float = 0.1) -> dict[str, np.ndarray]:
    """The reference model's gammas, each `by` larger."""
    source = reference_engine().source
    return {"norm.weight": source.parameters.unpack(source.theta)["norm.weight"] + np.float32(by)}


async def seeded(service: Service, name: str, tensors: dict[str, np.ndarray], recipe: str = "tent", **rest: Any) -> Any:
    return await service.create_session(CreateSession(MODEL, name, recipe, seed=Seed(tensors), **rest))


def refusal(service: Service, name: str, tensors: dict[str, Any], lora: tuple[Lora, ...] = ()) -> Any:
    async def asked() -> AcclimateError:
        with pytest.raises(AcclimateError) as raised:
            await service.create_session(CreateSession(MODEL, name, "tent", seed=Seed(tensors, lora)))
        return raised.value

    return asked()


def test_a_seeded_session_answers_with_its_seed() -> None:
    async def scenario() -> None:
        async with serving() as service:
            tensors, engine = nudged(), reference_engine()
            view = await seeded(service, "s", tensors)
            assert (view.state, view.version, view.updates) == ("adapted", 1, 0)
            reply = await predict(service, GOOD, "s", acclimate_adapt=False)
            theta = engine.source.theta.copy()
            theta[: len(tensors["norm.weight"])] = tensors["norm.weight"]
            expected = engine.predict(GOOD, engine.fold(theta, engine.source.stats))
            np.testing.assert_array_equal(reply.outputs["logits"], expected)
            assert reply.parameters["acclimate_version"] == 1
            relative = np.linalg.norm(theta - engine.source.theta) / np.linalg.norm(engine.source.theta)
            assert view.theta_distance == pytest.approx(relative)
            exported = await service.export_session(MODEL, "s")
            np.testing.assert_array_equal(exported.parameters[0].values, tensors["norm.weight"])
            np.testing.assert_array_equal(exported.statistics[0].values, engine.source.stats[: len(theta) // 2])

    asyncio.run(scenario())


def test_watchers_hear_of_the_seed() -> None:
    async def scenario() -> None:
        async with serving() as service:
            events = service.watch(MODEL, None)
            await seeded(service, "s", nudged())
            heard: list[Event] = [await anext(events), await anext(events)]
            kinds = [(event.kind, event.version_before, event.version_after) for event in heard]
            assert kinds == [(EventKind.CREATED, 0, 0), (EventKind.SEEDED, 0, 1)]
            assert heard[1].samples == len(reference_engine().source.canary_labels)

    asyncio.run(scenario())


@pytest.mark.parametrize("recipe", ["tent", "cotta", "rotta", "eata", "roid"])
def test_it_goes_on_learning_from_its_seed_and_resets_to_the_source(recipe: str) -> None:
    async def scenario() -> None:
        async with serving(config(adaptation={"batch_rows": 4})) as service:
            await seeded(service, "s", nudged(0.05), recipe)
            for step in range(4):
                await predict(service, drifted(step, 8), "s")
            session = session_of(service, "s")
            account = session.account
            assert account.updates + account.skipped["not_selected"] > 0, account
            assert session.distance < 0.2, "a teacher that began at the source would have pulled, or the step run away"
            await service.reset_session(MODEL, "s")
            await service.create_session(CreateSession(MODEL, "fresh", recipe))
            row, fresh = (session.cohort.bank.gather([session_of(service, name).row]) for name in ("s", "fresh"))
            assert {n for n in row if not np.array_equal(row[n], fresh[n]) and not n.startswith("budget.")} == set()

    asyncio.run(scenario())


@pytest.mark.parametrize(("recipe", "student"), [("cotta", teacher.STUDENT), ("rotta", remembering.STUDENT)])
def test_what_recipes_remember_begins_at_the_seed(recipe: str, student: str) -> None:
    async def scenario() -> None:
        async with serving() as service:
            await seeded(service, "s", nudged(0.05), recipe)
            session = session_of(service, "s")
            row = session.cohort.bank.gather([session.row])
            np.testing.assert_array_equal(row[student], row["theta"])
            assert not np.array_equal(row["theta"][0], session.cohort.engine.source.theta)

    asyncio.run(scenario())


BAD = {
    "TENSOR_UNKNOWN": {"other.weight": np.zeros(3, np.float32)},
    "SHAPE_MISMATCH": {"norm.weight": np.zeros(3, np.float32)},
    "VALUE_NOT_FINITE": {"norm.weight": np.full(8, np.nan, np.float32)},
    "VALUE_OUT_OF_RANGE": {"norm.running_var": np.full(8, -1, np.float32)},
}


@pytest.mark.parametrize("reason", BAD)
def test_what_does_not_fit_the_model_is_refused_and_changes_nothing(reason: str) -> None:
    async def scenario() -> None:
        async with serving() as service:
            await seeded(service, "kept", nudged())
            before = whole(service, "kept")
            error = await refusal(service, "s", nudged() | BAD[reason])
            assert (error.code.value, error.reason) == ("INVALID_ARGUMENT", reason)
            assert "\n" not in error.message
            assert whole(service, "kept") == before
            assert len((await service.list_sessions(MODEL, 0, "")).sessions) == 1
            assert service.snapshot().models[0].sessions_created == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("guard", "tensors"),
    [
        ("trust_region", nudged(100.0)),
        ("canary", {"norm.weight": nudged(0)["norm.weight"] * np.float32(-0.2)}),
        ("nonfinite", {"norm.running_mean": np.full(8, 3e38, np.float32), "norm.running_var": np.zeros(8, np.float32)}),
    ],
)
def test_guards_refuse_seeds_as_they_refuse_steps(guard: str, tensors: dict[str, np.ndarray]) -> None:
    async def scenario() -> None:
        radius = {"trust_radius": 0.5 if guard == "trust_region" else 10.0}
        async with serving(config(adaptation=radius)) as service:
            error = await refusal(service, "s", tensors)
            assert (error.code.value, error.reason) == ("FAILED_PRECONDITION", "SEED_REFUSED")
            assert error.metadata["guard"] == guard
            assert not (await service.list_sessions(MODEL, 0, "")).sessions
            await seeded(service, "s", nudged())

    asyncio.run(scenario())


def test_the_rest_of_a_refused_request_opens_nothing_either() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await seeded(service, "s", nudged())
            for reason, wrong in (("SESSION_EXISTS", {"session_id": "s"}), ("RECIPE_INVALID", {"recipe": "none"})):
                with pytest.raises(AcclimateError) as raised:
                    request = CreateSession(MODEL, "other", "tent", seed=Seed(nudged()))
                    await service.create_session(replace(request, **wrong))
                assert raised.value.reason == reason
            with pytest.raises(AcclimateError) as raised:
                await service.create_session(CreateSession("none", "x", seed=Seed(nudged())))
            assert raised.value.reason == "MODEL_NOT_FOUND"
            assert len((await service.list_sessions(MODEL, 0, "")).sessions) == 1

    asyncio.run(scenario())


@dataclass(frozen=True)
class LowRankEngine(ReferenceEngine):
    """The reference engine, said to have a low-rank update; only its manifest and source are asked."""

    @cached_property
    def manifest(self) -> Manifest:
        entries = [("fc.lora_A.weight", "lora.A", (2, 3)), ("fc.lora_B.weight", "lora.B", (4, 2))]
        update = Lora("fc", "fc.lora_A.weight", "fc.lora_B.weight", 2, 4.0)
        return replace(super().manifest, parameters=Layout.of(entries), lora=(update,))


PAIR = {"fc.lora_A.weight": np.ones((2, 3), np.float32), "fc.lora_B.weight": np.ones((4, 2), np.float32)}


@pytest.mark.parametrize(
    ("tensors", "rank", "alpha", "says"),
    [
        (PAIR, 2, 8.0, "alpha 8; the model has rank 2 and alpha 4"),
        (PAIR, 4, 4.0, "rank 4 and alpha 4; the model has rank 2"),
        ({"fc.lora_B.weight": PAIR["fc.lora_B.weight"]}, 2, 4.0, "send A and B of 'fc' together"),
        (PAIR, 2, 4.0, None),
    ],
)
def test_low_rank_updates_must_be_of_the_models_kind(tensors: Any, rank: int, alpha: float, says: str | None) -> None:
    toy = engine()
    low = LowRankEngine("low", toy.weights, toy.bias, toy.mean, toy.var, toy.canary_inputs)
    source = replace(toy.source, parameters=low.manifest.parameters, theta=np.zeros(14, np.float32))
    seed = Seed(tensors, (Lora("fc", "a", "b", rank, alpha),))
    if says is None:
        np.testing.assert_array_equal(seeded_rows(low.manifest, source, seed)[0], np.ones(14))
        return
    with pytest.raises(AcclimateError) as raised:
        seeded_rows(low.manifest, source, seed)
    assert (raised.value.reason, says in raised.value.message) == ("LORA_MISMATCH", True), raised.value.message


@pytest.fixture(scope="module")
def loopback() -> Any:
    with loopback_serving() as running:
        yield running


VALUES = st.floats(width=32, allow_nan=False)


@given(values=st.lists(VALUES, min_size=1, max_size=6), alpha=st.floats(0, 100), rank=st.integers(1, 64))
def test_a_seed_survives_the_wire(values: list[float], alpha: float, rank: int) -> None:
    seed = Seed(
        {"a": np.array(values, np.float32), "b": np.ones((2, 1, 3), np.float32)}, (Lora("m", "a", "b", rank, alpha),)
    )
    message = convert_seed.message(seed)
    back = convert_seed.seed(type(message).FromString(message.SerializeToString()))
    assert (back.lora, list(back.tensors)) == (seed.lora, list(seed.tensors))
    for name, tensor in seed.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], tensor)


def test_malformed_messages_are_refused() -> None:
    message = convert_seed.message(Seed({"a": np.ones(3, np.float32)}))
    wrong = {"SEED_EMPTY": [], "TENSOR_REPEATED": [*message.tensors] * 2}
    cut, zero = type(message.tensors[0])(), type(message.tensors[0])()
    cut.CopyFrom(message.tensors[0])
    cut.values = cut.values[:-1]
    zero.CopyFrom(message.tensors[0])
    zero.shape[:] = [0]
    for reason, tensors in (wrong | {"BYTE_LENGTH_MISMATCH": [cut], "SHAPE_INVALID": [zero]}).items():
        with pytest.raises(AcclimateError) as raised:
            convert_seed.seed(type(message)(tensors=tensors))
        assert (raised.value.reason, raised.value.code.value) == (reason, "INVALID_ARGUMENT")


def test_a_session_is_moved_by_file_with_both_clients_and_the_command(loopback: Loopback, tmp_path: Path) -> None:
    path, target = tmp_path / "s.safetensors", ("--target", loopback.target)

    async def moved(seed: Seed) -> np.ndarray:
        async with (
            AsyncClient(loopback.target) as client,
            await client.create_session(TOY, "theirs", recipe="source", seed=seed) as session,
        ):
            assert (await session.get()).state == "adapted"
            return (await session.predict(samples(5, 9))).logits

    theta = engine().source.parameters.unpack(engine().source.theta)
    begin = Seed({"norm.weight": theta["norm.weight"] * np.float32(1.2)})
    with Client(loopback.target) as client, client.create_session(TOY, "first", recipe="source", seed=begin) as first:
        expected = first.predict(samples(5, 9))
        assert run("session", "export", f"{TOY}/first", "--out", str(path), *target).returncode == 0
        np.testing.assert_array_equal(asyncio.run(moved(read_seed(path))), expected.logits)
        made = run("session", "create", f"{TOY}/second", "--recipe", "source", "--from", str(path), *target, "--json")
        assert made.returncode == 0, made.stderr
        assert '"version": 1' in made.stdout
        with client.session(TOY, "second") as second:
            answer = second.predict(samples(5, 9))
        np.testing.assert_array_equal(answer.logits, expected.logits)
        assert (expected.version, answer.version) == (1, 1)
        assert not np.array_equal(client.predict(TOY, samples(5, 9)).logits, expected.logits)
        with client.create_session(TOY, "plain") as plain:
            assert (plain.get().state, plain.get().version) == ("pristine", 0)


def test_what_the_command_refuses(loopback: Loopback, tmp_path: Path) -> None:
    target = ("--target", loopback.target)
    (tmp_path / "weights.pt").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "text").write_text("no tensors")
    for name, says in (
        ("weights.pt", "a pickle is not opened"),
        ("text", "not a safetensors file"),
        ("no", "cannot be read"),
    ):
        code, line = failure(run("session", "create", f"{TOY}/x", "--from", str(tmp_path / name), *target))
        assert (code, says in line) == (1, True), line
    code, line = failure(run("session", "create", TOY, "--recipe", "none", *target))
    assert (code, "RECIPE_INVALID" in line) == (1, True)
    with Client(loopback.target) as client:
        with pytest.raises(ClientError) as caught:
            client.create_session(TOY, "x", seed=Seed({"other": np.ones(2, np.float32)}))
        assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "TENSOR_UNKNOWN")
        assert not [view for view in client.list_sessions(TOY) if view.session_id == "x"]
