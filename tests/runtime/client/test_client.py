"""The blocking client against the real service over a real socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from acclimate.runtime.client import Budget, Client, ClientError, EventKind, Feedback
from tests.polling import until
from tests.runtime.rpc.loopback import CLASSES, FEATURES, MODEL, Loopback, config, engine, samples, serving


@pytest.fixture
def client(loopback: Loopback) -> Iterator[Client]:
    with Client.connect(loopback.target) as connected:
        connected.wait_until_ready()
        yield connected


def test_server_and_models(client: Client) -> None:
    info = client.server_info()
    assert info.models == (MODEL,)
    assert info.default_recipe in info.recipes
    (model,) = client.models()
    assert model.inputs[0].shape == (-1, FEATURES)
    assert model.outputs[0].shape == (-1, CLASSES)
    assert model.properties["parameters"] == str(2 * FEATURES)


def test_a_prediction_is_the_model_s_own(client: Client) -> None:
    array = samples(5)
    answer = client.predict(MODEL, array)
    np.testing.assert_array_equal(answer.logits, engine().frozen(array))
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(answer.labels, answer.logits.argmax(axis=1))
    assert (answer.model, answer.version) == (MODEL, 0)
    assert answer.request_id


def test_one_sample_and_other_float_widths_are_accepted(client: Client) -> None:
    array = samples(1)
    one = client.predict(MODEL, array[0])
    wide = client.predict(MODEL, array.astype(np.float64))
    np.testing.assert_array_equal(one.logits, wide.logits)
    with pytest.raises(ClientError, match="convert it first"):
        client.predict(MODEL, array.astype(np.complex64))


def test_the_life_of_a_session(client: Client) -> None:
    budget = Budget(refill_ms_per_s=50.0, capacity_ms=100.0)
    session = client.create_session(MODEL, "life", recipe="tent", recipe_parameters={"lr": 0.01}, budget=budget)
    view = session.get()
    assert (view.session_id, view.recipe, view.state, view.version) == ("life", "tent", "pristine", 0)
    assert view.recipe_parameters["lr"] == 0.01
    assert view.budget == budget
    for step in range(8):
        session.predict(samples(8, step))
    until(lambda: session.get().updates > 0, "an update")
    answer = session.predict(samples(2), adapt=False)
    assert answer.version > 0
    result = session.feedback(answer.request_id, int(answer.labels[1]), row=1)
    assert (result.accepted, result.correct, result.unknown_ids) == (1, 1, ())
    assert session.feedback("never", 0).unknown_ids == ("never",)
    view = session.reset()
    assert (view.state, view.samples) == ("pristine", 66)
    session.delete()
    with pytest.raises(ClientError) as caught:
        session.get()
    assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")
    assert caught.value.metadata["session"] == "life"


def test_a_handle_used_as_a_context_deletes_its_session(client: Client) -> None:
    with client.create_session(MODEL) as session:
        assert session.get().model == MODEL
    with pytest.raises(ClientError, match="does not exist"):
        session.get()


def test_every_page_is_listed(client: Client) -> None:
    names = {f"page-{number:02d}" for number in range(7)}
    for name in names:
        client.create_session(MODEL, name)
    listed = [view.session_id for view in client.list_sessions(MODEL, page_size=3)]
    assert names <= set(listed)
    assert len(listed) == len(set(listed))
    assert listed == [view.session_id for view in client.list_sessions()]
    for name in names:
        client.delete_session(MODEL, name)


def test_a_taken_id_is_refused(client: Client) -> None:
    with client.create_session(MODEL, "taken"), pytest.raises(ClientError) as caught:
        client.create_session(MODEL, "taken")
    assert (caught.value.code, caught.value.reason) == ("ALREADY_EXISTS", "SESSION_EXISTS")


def test_labels_outside_the_classes_are_refused(client: Client) -> None:
    with client.create_session(MODEL) as session:
        answer = session.predict(samples(1))
        with pytest.raises(ClientError, match=f"classes 0 to {CLASSES - 1}"):
            client.feedback(MODEL, session.id, [Feedback(answer.request_id, CLASSES)])
        assert session.get().labelled == 0


def test_a_watch_tells_what_happens_and_ends_when_closed(client: Client) -> None:
    with client.watch(MODEL, None) as everything, client.create_session(MODEL, "seen") as session:
        with session.watch() as mine:
            session.reset()
            reset = next(mine)
            assert (reset.kind, reset.session_id) == (EventKind.RESET, "seen")
            mine.close()
            assert list(mine) == []
        kinds = [next(everything).kind for _ in range(2)]
    assert kinds == [EventKind.CREATED, EventKind.RESET]
    with pytest.raises(ClientError, match="does not exist"):
        next(client.watch(MODEL, "none"))


def test_a_full_daemon_and_a_drained_one_say_so() -> None:
    settings = config()
    settings = settings.model_copy(update={"sessions": settings.sessions.model_copy(update={"max_sessions": 1})})
    with serving(settings) as small:
        client = Client(small.target)
        client.create_session(MODEL, "only")
        with pytest.raises(ClientError) as caught:
            client.create_session(MODEL, "second")
        assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "SESSIONS_FULL")
        watch = client.watch(resume_seconds=0)
        small.run(small.service.drain(5.0))
        assert list(watch) == []
        with pytest.raises(ClientError) as caught:
            client.predict(MODEL, samples(), timeout_seconds=0.5)
        assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "DRAINING")
    with pytest.raises(ClientError, match=f"no connection to {small.target} within 0.5 s") as caught:
        client.get_session(MODEL, "only", timeout_seconds=0.5)
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "")
    client.close()


def test_waiting_for_nobody_ends_in_time() -> None:
    with Client("127.0.0.1:1") as nobody, pytest.raises(ClientError) as caught:
        nobody.wait_until_ready(timeout_seconds=0.2)
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_results_are_frozen(client: Client) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        client.server_info().version = "2"  # type: ignore[misc]
