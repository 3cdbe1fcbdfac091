"""What a session has learnt, taken out: service, wire, both clients, command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from acclimate.adapters.layout import KINDS
from acclimate.runtime.client import (
    AsyncClient,
    Client,
    ClientError,
    ExportedSession,
    NamedTensor,
    Session,
)
from acclimate.runtime.client.state_file import write_state
from acclimate.runtime.rpc import convert_export
from acclimate.v1 import session_service_pb2 as pb
from tests.polling import until
from tests.runtime.rpc.loopback import FEATURES, MODEL, Loopback, engine, samples, serving
from tests.runtime.test_cli import failure, run

WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~]{0,20}", fullmatch=True)
SHAPES = hnp.array_shapes(max_dims=3, max_side=4)
VALUES = hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
TENSORS = st.lists(st.builds(NamedTensor, WORDS, st.sampled_from(sorted(KINDS)), VALUES), max_size=4).map(tuple)
EXPORTS = st.builds(ExportedSession, WORDS, WORDS, WORDS, st.integers(0, 2**63), WORDS, TENSORS, TENSORS)


@pytest.fixture(scope="module")
def loopback():
    with serving() as running:
        yield running


def learn(session: Session) -> None:
    for step in range(8):
        session.predict(samples(8, step))
    until(lambda: session.get().updates > 0 and session.get().buffered < 8, "an update")
    settled(session)


def settled(session: Session) -> None:
    """Return once no step was committed between two looks: the last one may still be under way."""
    seen = [-1]

    def same() -> bool:
        seen.append(session.get().version)
        return len(seen) > 12 and len(set(seen[-10:])) == 1

    until(same, "the last step")


@given(exported=EXPORTS)
def test_an_export_survives_the_wire(exported: ExportedSession) -> None:
    wire = pb.ExportSessionResponse.FromString(convert_export.response(exported).SerializeToString())
    back = convert_export.exported_session(wire)
    assert (back.model, back.session_id, back.version) == (exported.model, exported.session_id, exported.version)
    assert (back.model_version, back.parameters_digest) == (exported.model_version, exported.parameters_digest)
    for some, others in ((back.parameters, exported.parameters), (back.statistics, exported.statistics)):
        for got, expected in zip(some, others, strict=True):
            assert (got.name, got.kind) == (expected.name, expected.kind)
            np.testing.assert_array_equal(got.values, expected.values)
            assert got.values.dtype == np.float32


def test_bytes_that_do_not_fill_a_shape_are_refused() -> None:
    message = pb.ExportSessionResponse(name="models/m/sessions/s")
    message.parameters.add(name="a", kind="bias", shape=[3], values=b"12345678")
    with pytest.raises(ValueError, match="reshape"):
        convert_export.exported_session(message)


def test_a_new_session_exports_the_source(loopback: Loopback) -> None:
    with Client(loopback.target) as client, client.create_session(MODEL, "new", recipe="tent") as session:
        exported = session.export()
    source, manifest = engine().source, engine().manifest
    assert (exported.model, exported.session_id, exported.version) == (MODEL, "new", 0)
    assert exported.parameters_digest == manifest.parameters.digest
    assert [t.name for t in exported.parameters] == [entry.name for entry in manifest.parameters.slices]
    packed = manifest.parameters.pack({t.name: t.values for t in exported.parameters})
    np.testing.assert_array_equal(packed, source.theta)
    packed = manifest.statistics.pack({t.name: t.values for t in exported.statistics})
    np.testing.assert_array_equal(packed, source.stats)


def test_what_is_exported_answers_as_the_session_does(loopback: Loopback) -> None:
    with Client(loopback.target) as client, client.create_session(MODEL, "learnt", recipe="tent") as session:
        learn(session)
        seen = []

        def of_one_version() -> bool:
            """A step may be committed between the two calls."""
            seen[:] = [session.export(), session.predict(samples(5, 40), adapt=False)]
            return seen[0].version == seen[1].version

        until(of_one_version, "an export and an answer of one version", patience=20)
    exported, answer = seen
    assert exported.version > 0
    manifest, alone = engine().manifest, engine()
    theta = manifest.parameters.pack({t.name: t.values for t in exported.parameters})
    stats = manifest.statistics.pack({t.name: t.values for t in exported.statistics})
    assert not np.array_equal(theta, alone.source.theta)
    np.testing.assert_array_equal(alone.predict(samples(5, 40), alone.fold(theta, stats)), answer.logits)


def test_both_clients_read_the_same(loopback: Loopback) -> None:
    async def asked() -> ExportedSession:
        async with AsyncClient(loopback.target) as client:
            return await client.session(MODEL, "both").export()

    with Client(loopback.target) as client, client.create_session(MODEL, "both"):
        ours, theirs = client.export_session(MODEL, "both"), asyncio.run(asked())
    assert convert_export.response(ours) == convert_export.response(theirs)


def test_a_session_that_does_not_exist(loopback: Loopback) -> None:
    with Client(loopback.target) as client, pytest.raises(ClientError) as caught:
        client.export_session(MODEL, "none")
    assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")


def test_the_command_writes_tensors_by_name(loopback: Loopback, tmp_path: Path) -> None:
    out = tmp_path / "camera.safetensors"
    out.write_text("older")
    with Client(loopback.target) as client, client.create_session(MODEL, "camera", recipe="tent") as session:
        learn(session)
        for name in (("camera", "--model", MODEL), (f"{MODEL}/camera",)):
            result = run("session", "export", *name, "--out", str(out), "--target", loopback.target)
            assert result.returncode == 0, result.stderr
        exported = session.export()
    with safe_open(out, "numpy") as stored:
        assert set(stored.keys()) == {t.name for t in (*exported.parameters, *exported.statistics)}
        for tensor in (*exported.parameters, *exported.statistics):
            np.testing.assert_array_equal(stored.get_tensor(tensor.name), tensor.values)
        about = stored.metadata()
    assert (about["format"], about["model"], about["session"]) == ("acclimate.session", MODEL, "camera")
    assert about["version"] == str(exported.version)
    assert [entry.name for entry in tmp_path.iterdir()] == ["camera.safetensors"]
    assert sum(t.values.size for t in exported.parameters) == 2 * FEATURES


def test_the_command_opens_a_session_under_an_id_of_the_daemons(loopback: Loopback) -> None:
    result = run("session", "create", MODEL, "--recipe", "tent", "--target", loopback.target, "--json")
    assert result.returncode == 0, result.stderr
    view = json.loads(result.stdout)
    assert (view["model"], view["recipe"], view["state"], len(view["session_id"])) == (MODEL, "tent", "pristine", 32)
    with Client(loopback.target) as client:
        client.delete_session(MODEL, view["session_id"])


def test_what_the_command_refuses(loopback: Loopback, tmp_path: Path) -> None:
    target = ("--target", loopback.target)
    code, line = failure(run("session", "export", f"{MODEL}/none", "--out", str(tmp_path / "a"), *target))
    assert (code, "SESSION_NOT_FOUND" in line) == (1, True)
    for form in ("onnx", "ort-adapter"):
        code, line = failure(run("session", "export", "a/b", "--format", form, "--out", str(tmp_path / "a")))
        assert (code, f"--format {form}" in line, "--bundle DIR" in line) == (2, True, True)
    with Client(loopback.target) as client, client.create_session(MODEL, "full"):
        missing = str(tmp_path / "no" / "folder")
        code, line = failure(run("session", "export", f"{MODEL}/full", "--out", missing, *target))
        assert (code, "cannot be written" in line) == (1, True)
        out = ("--format", "peft", "--out", str(tmp_path / "a"))
        code, line = failure(run("session", "export", f"{MODEL}/full", *out, *target))
        assert (code, "no low-rank updates" in line, "--format safetensors" in line) == (1, True, True)
        with pytest.raises(OSError, match="directory"):
            write_state(client.export_session(MODEL, "full"), tmp_path)
    assert not list(tmp_path.iterdir())
