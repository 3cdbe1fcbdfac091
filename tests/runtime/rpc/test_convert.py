"""What the service says and what clients read are the same; what clients send is refused or understood."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime import types
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.lifecycle_types import SnapshotView
from acclimate.runtime.rpc import convert_lifecycle, convert_oip, convert_sessions, names
from acclimate.runtime.sessions.states import SessionState
from acclimate.v1 import session_pb2, session_service_pb2

WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,20}", fullmatch=True)
COUNTS = st.integers(0, 2**63 - 1)
NUMBERS = st.floats(0, 1e6)
# Times and durations travel as whole microseconds.
TIMES = st.integers(0, 4 * 10**15).map(lambda microseconds: microseconds / 1e6)
MILLISECONDS = st.integers(0, 10**12).map(lambda microseconds: microseconds / 1e3)
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=20))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "str": WORDS,
    "int": COUNTS,
    "float": NUMBERS,
    "bool": st.booleans(),
    # Durations travel as whole microseconds.
    "float | None": st.none() | st.integers(1, 10**15).map(lambda microseconds: microseconds / 1e6),
    "Budget": st.builds(types.Budget, NUMBERS, NUMBERS),
    "Mapping[str, float]": st.dictionaries(WORDS, NUMBERS, max_size=4),
    "Mapping[str, int]": st.dictionaries(WORDS, COUNTS, max_size=4),
    "Mapping[str, str]": st.dictionaries(WORDS, WORDS, max_size=4),
}
VIEWS = st.builds(
    types.SessionView,
    **{field.name: FIELDS[str(field.type)] for field in dataclasses.fields(types.SessionView)}
    | {
        "state": st.sampled_from([state.value for state in SessionState if not state.paused]),
        "created_at": TIMES,
        "last_used_at": TIMES,
        "adaptation_ms": MILLISECONDS,
    },
)
EVENTS = st.builds(
    types.Event,
    kind=st.sampled_from(types.EventKind), model=WORDS, session_id=WORDS, at=TIMES,
    version_before=COUNTS, version_after=COUNTS, reason=WORDS, cost_ms=NUMBERS, samples=COUNTS,
    restored_to=COUNTS, snapshot=st.just("") | WORDS, source=st.just("") | WORDS,
)  # fmt: skip
SNAPSHOTS = st.builds(
    SnapshotView,
    model=WORDS, session_id=WORDS, snapshot_id=WORDS, created_at=TIMES, version=COUNTS,
    state=st.sampled_from(["pristine", "adapted"]), theta_distance=NUMBERS, nbytes=COUNTS,
)  # fmt: skip


@given(view=VIEWS)
def test_session_round_trip(view: types.SessionView) -> None:
    wire = session_pb2.Session.FromString(convert_sessions.session_message(view).SerializeToString())
    back = convert_sessions.session_view(wire)
    for field in dataclasses.fields(view):
        expected, given_back = getattr(view, field.name), getattr(back, field.name)
        if field.name in ("created_at", "last_used_at", "adaptation_ms", "ttl_seconds") and expected is not None:
            assert given_back == pytest.approx(expected, abs=2e-6, rel=1e-12), field.name
        else:
            assert given_back == expected, field.name


@given(event=EVENTS)
def test_event_round_trip(event: types.Event) -> None:
    wire = session_pb2.SessionEvent.FromString(convert_sessions.event_message(event).SerializeToString())
    back = convert_sessions.event(wire)
    assert dataclasses.replace(back, at=event.at) == event
    assert back.at == pytest.approx(event.at, abs=2e-6)


@given(view=SNAPSHOTS)
def test_snapshot_round_trip(view: SnapshotView) -> None:
    wire = session_pb2.Snapshot.FromString(convert_lifecycle.snapshot_message(view).SerializeToString())
    back = convert_lifecycle.snapshot_view(wire)
    assert dataclasses.replace(back, created_at=view.created_at) == view
    assert back.created_at == pytest.approx(view.created_at, abs=2e-6)


@given(value=SCALARS)
def test_parameter_round_trip_keeps_value_and_type(value: types.Scalar) -> None:
    back = convert_oip.scalar("key", convert_oip.parameter(value))
    assert type(back) is type(value)
    assert back == value


def test_every_state_and_event_kind_has_a_number() -> None:
    assert set(convert_sessions.STATES.values()) | {"STATE_UNSPECIFIED"} == set(session_pb2.Session.State.keys())
    kinds = set(session_pb2.SessionEvent.Kind.keys())
    assert set(convert_sessions.KINDS.values()) | {"KIND_UNSPECIFIED"} == kinds


@given(model=WORDS.filter(lambda word: word != "-"), session_id=WORDS)
def test_names_round_trip(model: str, session_id: str) -> None:
    assert names.parse_session(names.session_name(model, session_id)) == (model, session_id)
    assert names.parse_model(names.model_name(model)) == model
    assert names.parse_models("models/-") is None
    assert names.parse_snapshot(names.snapshot_name(model, session_id, "s.1")) == (model, session_id, "s.1")


@pytest.mark.parametrize(
    "name",
    ["", "digits", "models", "models/", "models//sessions/a", "models/m/sessions/", "models/-/sessions/a",
     "models/m/session/a", "sessions/a/models/m", "models/m/sessions/a/b", "/models/m/sessions/a", "x" * 5000],
)  # fmt: skip
def test_malformed_session_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="it must be models/") as caught:
        names.parse_session(name)
    assert caught.value.reason == "NAME_INVALID"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "name",
    ["", "models/m/sessions/a", "models/m/sessions/a/snapshots/", "models/-/sessions/a/snapshots/b",
     "models/m/sessions/a/snapshot/b", "models/m/sessions/a/snapshots/b/c", "snapshots/b/models/m/sessions/a"],
)  # fmt: skip
def test_malformed_snapshot_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"it must be models/\{model\}/sessions/\{session\}/snapshots"):
        names.parse_snapshot(name)


@pytest.mark.parametrize("name", ["", "digits", "models/", "models/a/b", "models/-"])
def test_one_model_must_be_named_where_one_is_needed(name: str) -> None:
    with pytest.raises(InvalidArgument, match="parent is"):
        names.parse_model(name)


def request(**changes: Any) -> oip.ModelInferRequest:
    message = oip.ModelInferRequest(
        model_name="m",
        id="r1",
        inputs=[oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])],
        raw_input_contents=[np.array([[1, 2]], "<f4").tobytes()],
    )
    message.MergeFrom(oip.ModelInferRequest(**changes))
    return message


def test_a_request_is_read() -> None:
    message = request(model_version="3", outputs=[{"name": "y"}])
    message.parameters["sequence_id"].int64_param = 7
    message.parameters["sequence_start"].bool_param = True
    read = convert_oip.infer_request(message, now=100.0, remaining=2.5)
    assert (read.model, read.version, read.id, read.outputs) == ("m", "3", "r1", ("y",))
    assert read.parameters == {"sequence_id": 7, "sequence_start": True}
    assert read.deadline == 102.5
    np.testing.assert_array_equal(read.inputs["x"], np.array([[1, 2]], np.float32))


@pytest.mark.parametrize(
    ("remaining", "timeout", "deadline"),
    [
        (None, None, None),
        (None, 0, None),
        (3.0, None, 13.0),
        (None, 500_000, 10.5),
        (3.0, 500_000, 10.5),
        (0.25, 10**6, 10.25),
    ],
)
def test_the_shorter_of_deadline_and_timeout_holds(
    remaining: float | None, timeout: int | None, deadline: float | None
) -> None:
    message = request()
    if timeout is not None:
        message.parameters["timeout"].int64_param = timeout
    assert convert_oip.infer_request(message, 10.0, remaining).deadline == deadline


def test_malformed_requests_are_refused() -> None:
    typed = {"name": "x", "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}}
    cases: list[tuple[oip.ModelInferRequest, str]] = [
        (request(inputs=[{"name": "x"}]), "TENSOR_REPEATED"),
        (request(inputs=[{"name": "z"}]), "RAW_COUNT_MISMATCH"),
        (request(raw_input_contents=[b""]), "RAW_COUNT_MISMATCH"),
        (request(inputs=[typed | {"name": "z"}]), "CONTENTS_MIXED"),
        (request(outputs=[{"name": "y"}, {"name": "y"}]), "TENSOR_REPEATED"),
        (request(id="x" * 200), "REQUEST_ID_INVALID"),
        (request(parameters={"priority": {}}), "PARAMETER_INVALID"),
        (request(parameters={"timeout": {"int64_param": -1}}), "PARAMETER_INVALID"),
        (request(parameters={"timeout": {"string_param": "1"}}), "PARAMETER_INVALID"),
        (request(outputs=[{"name": "y", "parameters": {"classification": {"int64_param": 3}}}]),
         "PARAMETER_UNSUPPORTED"),
        (request(outputs=[{"name": "y", "parameters": {"shared_memory_region": {"string_param": "r"}}}]),
         "PARAMETER_UNSUPPORTED"),
    ]  # fmt: skip
    for message, reason in cases:
        with pytest.raises(InvalidArgument) as caught:
            convert_oip.infer_request(message, 0.0, None)
        assert caught.value.reason == reason


@pytest.mark.parametrize("count", [0, 10_001])
def test_feedback_is_bounded(count: int) -> None:
    message = session_service_pb2.SendFeedbackRequest(labels=[session_service_pb2.Label(label=1)] * count)
    with pytest.raises(InvalidArgument, match="send 1 to 10000"):
        convert_sessions.feedback(message)


def test_replies_use_the_form_of_the_request_and_fp16_goes_raw() -> None:
    logits = np.array([[1.5, -2.0]], np.float32)
    reply = types.InferReply("m", "1", "r", {"y": logits}, {"acclimate_version": 2})
    raw = convert_oip.infer_response(reply, raw=True)
    assert list(raw.raw_output_contents) == [logits.tobytes()]
    assert not raw.outputs[0].HasField("contents")
    typed = convert_oip.infer_response(reply, raw=False)
    assert list(typed.outputs[0].contents.fp32_contents) == [1.5, -2.0]
    assert not typed.raw_output_contents
    half = dataclasses.replace(reply, outputs={"y": logits.astype(np.float16)})
    assert list(convert_oip.infer_response(half, raw=False).raw_output_contents) == [logits.astype("<f2").tobytes()]
